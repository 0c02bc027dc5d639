"""Explain the score of one picture: its maps, prompts, patches and the terms of its score.

The parts come from the forward pass that scores the picture (`Detector.explain`), so the score
equals that of `Detector.predict` to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faprompt.detector import Detector
from faprompt.explanation.vocabulary import NearWord, Vocabulary
from faprompt.methods.base import MethodParts
from faprompt.results import AnomalyResult
from faprompt.scoring import render_map

_WORDS = 3  # nearest words of each vector


@dataclass(frozen=True, slots=True)
class Term:
    """A term of the score: weight x value; the weight is 0 when it is shown only."""

    name: str
    weight: float
    value: float


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch that a method names, such as one used for the prior."""

    rank: int  # from 1, in the order of the method
    row: int  # of the grid
    column: int
    box: tuple[int, int, int, int]  # x0, y0, x1, y1 in pixels of the picture
    chance: float  # of "abnormal" on the first stage, such as the map before the prior
    distance: float | None = None  # cosine distance, 0..2, to the patch of rank 1


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """One abnormality prompt: its own map, and the words nearest to its vectors."""

    number: int  # from 1
    score: float  # of the picture when this is the only prompt
    grid: np.ndarray  # (rows, columns) in 0..1
    words: tuple[tuple[NearWord, ...], ...]  # for each learned vector; () without any
    shifted_words: tuple[tuple[NearWord, ...], ...]  # with the prior added; () without one


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """A picture's result and its parts; grids are (rows, columns) in 0..1.

    `terms`, `stages`, `prompts`, `patches` and `context_words` (of the normal prompt's vectors)
    are empty for methods without them.
    """

    result: AnomalyResult
    method: str
    vocabulary: Vocabulary
    terms: tuple[Term, ...]
    fused: np.ndarray
    stages: Mapping[str, np.ndarray]
    prompts: tuple[Prompt, ...]
    patches: tuple[Patch, ...]
    patches_title: str
    method_notes: tuple[str, ...]
    context_words: tuple[tuple[NearWord, ...], ...]
    model_size: tuple[int, int]
    sigma_px: float

    def render(self, grid: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
        """Return a grid as a map, (height, width) float32 in 0..1, smoothed as the score map."""
        maps = render_map(
            torch.from_numpy(grid)[None], model_size=self.model_size, sigma_px=self.sigma_px,
            image_size=image_size,
        )  # fmt: skip
        return maps[0].numpy()

    def joined(self) -> str:
        """Return the score as the sum of its terms; "" when there is nothing to add."""
        used = [f"{t.weight:.3g} x {t.value:.4f}" for t in self.terms if t.weight]
        return f"{' + '.join(used)} = {self.result.score:.4f}" if len(used) > 1 else ""

    def notes(self) -> tuple[str, ...]:
        """Return what a reader needs to know about the panels."""
        if self.terms:
            lines = ["Maxima are those of the patches, before the map is smoothed and enlarged."]
        else:
            lines = [f"{self.method} does not report the terms of its score."]
        lines += self.method_notes
        if not self.prompts and not self.method_notes:
            lines.append(f"{self.method} has no abnormality prompts that could be shown apart.")
        if len(self.prompts) > 1:
            lines.append(
                "Each map is the fused map with one prompt alone in place of all. The fused map "
                "is not their mean: texts are averaged before they are compared with patches."
            )
        if not self.patches:
            lines.append("No patches are selected, because there is no prior.")
        return tuple(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; `maps` and the picture suffice to draw the panels."""
        result = self.result
        height, width = result.image_size
        return {
            "model": result.model,
            "method": self.method,
            "width": width,
            "height": height,
            "score": result.score,
            "p_value": result.p_value,
            "verdict": result.verdict,
            "threshold": result.threshold,
            "score_terms": [asdict(t) | {"part": t.weight * t.value} for t in self.terms],
            "maps": {
                "model_size": list(self.model_size),
                "sigma_px": self.sigma_px,
                "fused": _plain(self.fused),
                **{name: _plain(grid) for name, grid in self.stages.items()},
            },
            "prompts": [
                {
                    "number": prompt.number,
                    "score_alone": prompt.score,
                    "peak": float(prompt.grid.max()),
                    "nearest_words": _plain_words(prompt.words),
                    "nearest_words_with_prior": _plain_words(prompt.shifted_words),
                    "map": _plain(prompt.grid),
                }
                for prompt in self.prompts
            ],
            "patches": [asdict(patch) | {"box": list(patch.box)} for patch in self.patches],
            "normal_nearest_words": _plain_words(self.context_words),
            "chance_cosine": self.vocabulary.chance,
            "notes": [*self.notes(), *([self.vocabulary.caution()] if self.has_words else [])],
        }

    @property
    def has_words(self) -> bool:
        """True when some vector has nearest words."""
        return bool(self.context_words) or any(prompt.words for prompt in self.prompts)


def explain_picture(
    detector: Detector,
    image: np.ndarray,
    *,
    vocabulary: Vocabulary | None = None,
    threshold: float | None = None,
    mask: np.ndarray | None = None,
    product: str | None = None,
) -> Explanation:
    """Score one picture and return the parts of the score.

    Args:
        detector: detector of any method.
        image: (H, W, 3) uint8 RGB of any size.
        vocabulary: vocabulary of the detector's backbone; built here when not given.
        threshold: score from which the picture is NG; None uses the model's own, if any.
        mask: (H, W) bool, True pixels are left out.
        product: whose thresholds and references count.

    Raises:
        ConfigError: this picture is scored as several tiles.
    """
    result, output, parts = detector.explain(image, threshold=threshold, mask=mask, product=product)
    known = vocabulary or Vocabulary(detector.backbone)
    return Explanation(
        result=result,
        method=detector.method.name,
        vocabulary=known,
        terms=tuple(Term(t.name, t.weight, float(t.value[0])) for t in parts.terms),
        fused=_grid(output.patch_map),
        stages={name: _grid(grids) for name, grids in parts.stages.items()},
        prompts=_prompts(parts, output.prompt_scores, known),
        patches=_patches(parts, result.image_size),
        patches_title=parts.selected_title,
        method_notes=parts.notes,
        context_words=_words(parts.normal_tokens, known),
        model_size=detector.model_size(result.image_size),
        sigma_px=detector.method.sigma_px,
    )


def _prompts(
    parts: MethodParts, scores: Tensor | None, vocabulary: Vocabulary
) -> tuple[Prompt, ...]:
    if parts.prompt_maps is None or scores is None:
        return ()
    count, own, prior = parts.prompt_maps.shape[1], parts.abnormal_tokens, parts.prior
    shifted = None if own is None or prior is None else own + prior[0]
    return tuple(
        Prompt(
            number=place + 1,
            score=float(scores[0, place]),
            grid=_grid(parts.prompt_maps[:, place]),
            words=() if own is None else _words(own[place], vocabulary),
            shifted_words=() if shifted is None else _words(shifted[place], vocabulary),
        )
        for place in range(count)
    )


def _patches(parts: MethodParts, image_size: tuple[int, int]) -> tuple[Patch, ...]:
    if parts.selected is None:
        return ()
    grid = _grid(next(iter(parts.stages.values())))
    distances = None if parts.distances is None else parts.distances[0].tolist()
    (rows, columns), (height, width) = grid.shape, image_size
    patches = []
    for rank, number in enumerate(parts.selected[0].tolist(), 1):
        row, column = divmod(number, columns)
        box = (
            round(column * width / columns), round(row * height / rows),
            round((column + 1) * width / columns), round((row + 1) * height / rows),
        )  # fmt: skip
        distance = None if distances is None else distances[rank - 1]
        patches.append(Patch(rank, row, column, box, float(grid[row, column]), distance))
    return tuple(patches)


def _words(vectors: Tensor | None, vocabulary: Vocabulary) -> tuple[tuple[NearWord, ...], ...]:
    count = min(_WORDS, len(vocabulary.words))
    return () if vectors is None else tuple(vocabulary.nearest(vectors, count))


def _grid(grids: Tensor) -> np.ndarray:
    """Return (rows, columns) float32 from (1, rows, columns), a batch of one."""
    return grids[0].detach().float().cpu().numpy().copy()


def _plain(grid: np.ndarray) -> list[list[float]]:
    return [[round(float(value), 6) for value in row] for row in grid]


def _plain_words(tokens: tuple[tuple[NearWord, ...], ...]) -> list[list[dict[str, Any]]]:
    return [[asdict(near) for near in found] for found in tokens]
