"""Where FiLo looks: the boxes of a Grounding DINO, or the peak of its own map.

    text       "anomaly . damage . broken . defect . contamination . {phrase} . {phrase} ."
    likely     queries with a chance above 0.25 and an area below 0.7; without any, the best one
    kept       those of them whose phrase, the tokens above 0.25, holds one of the text's entries
    position   the cell of the best kept box's centre, 3x3 cells of a picture of 518 pixels:
               0-172, 173-344, 345-517; between them none; the picture's centre without a box
    map        times 0.7 outside all kept boxes

The authors tuned theirs on the other of MVTec AD and VisA; any GroundingDino checkpoint of
`transformers` serves here. It sees the picture as the method does, resized to a square, where
theirs keeps its proportions; boxes are relative to the picture in both. The full stop at the
end is ours: the model asks for it.

Papers: Gu et al., FiLo, ACM MM 2024; Liu et al., Grounding DINO, ECCV 2024. Facts from test.py
of CASIA-IVA-Lab/FiLo, through a written specification (section 7.7). `peak_cell` is ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from faprompt.errors import ConfigError

GENERAL_WORDS = ("anomaly", "damage", "broken", "defect", "contamination")
LEAST_CHANCE, MOST_AREA = 0.25, 0.7
OUTSIDE_FACTOR = 0.7
SIDE_PX = 518  # of the picture whose pixels the cells count, and the shorter side the model sees
CELLS_PX = ((0, 172), (173, 344), (345, 517))  # first and last pixel, both inside
PIECES = {"[CLS]": 101, "[SEP]": 102, ".": 1012}  # the model splits the text at these numbers
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as the model wants them


def box_text(words: Sequence[str]) -> str:
    """What the model is asked to find.

    Example:
        >>> box_text(["damage", "Burn mark"])
        'damage . burn mark .'
    """
    return " . ".join(word.lower() for word in words) + " ."


def likely_boxes(chances: Tensor, boxes: Tensor) -> Tensor:
    """Which queries may be boxes, best first; the single best one where none is good enough.

    Args:
        chances: (Q,) in 0..1, the largest of each query's tokens.
        boxes: (Q, 4): centre x, centre y, width, height, relative to the picture.

    Returns:
        (K,) int64, K at least 1.
    """
    order = chances.argsort(descending=True, stable=True)
    good = (chances > LEAST_CHANCE) & (boxes[:, 2] * boxes[:, 3] < MOST_AREA)
    likely = order[good[order]]
    return likely if len(likely) else order[:1]


def says_one_of(phrase: str, words: Sequence[str]) -> bool:
    """Whether a box's phrase contains one of the words or word groups that were asked for."""
    return any(word.lower() in phrase for word in words)


def box_position(boxes: Tensor) -> int | None:
    """The cell of the first box, 0 to 8 row by row; None between two cells.

    Args:
        boxes: (K, 4) as in `likely_boxes`, best first; K = 0 means the picture's centre.

    Example:
        >>> box_position(torch.tensor([[0.9, 0.1, 0.05, 0.05]])), box_position(torch.empty(0, 4))
        (2, 4)
    """
    x, y = (boxes[0, :2].double() * SIDE_PX).tolist() if len(boxes) else (SIDE_PX / 2, SIDE_PX / 2)
    column, row = _cell(x), _cell(y)
    return None if column is None or row is None else 3 * row + column


def _cell(place_px: float) -> int | None:
    inside = (n for n, (first, last) in enumerate(CELLS_PX) if first <= place_px <= last)
    return next(inside, None)


def peak_cell(score_map: Tensor) -> int:
    """The cell of the highest pixel of a map (height, width), 0 to 8 row by row.

    At 518 pixels the cells are those of `box_position`; pixels fall into no gap.
    """
    height, width = score_map.shape
    row, column = divmod(int(score_map.argmax()), width)
    return (6 * row + 3) // (2 * height) * 3 + (6 * column + 3) // (2 * width)


def dim_outside(maps: Tensor, boxes: Sequence[Tensor]) -> Tensor:
    """Maps with all that no box holds at 0.7 of its value.

    Args:
        maps: (B, height, width).
        boxes: of each picture (K, 4) as in `likely_boxes`; K = 0 dims the whole map. A pixel
            lies inside where its centre does.
    """
    inside = torch.stack([_inside(each.to(maps), maps.shape[-2:]) for each in boxes])
    return torch.where(inside, maps, OUTSIDE_FACTOR * maps)


def _inside(boxes: Tensor, image_size: Sequence[int]) -> Tensor:
    """(height, width) bool: pixels within any of the boxes."""
    height, width = image_size
    rows = (torch.arange(height, device=boxes.device) + 0.5) / height
    columns = (torch.arange(width, device=boxes.device) + 0.5) / width
    down = (rows - boxes[:, 1, None]).abs() <= boxes[:, 3, None] / 2  # (K, height)
    across = (columns - boxes[:, 0, None]).abs() <= boxes[:, 2, None] / 2  # (K, width)
    return (down[:, :, None] & across[:, None]).any(dim=0)


class GroundingDino:
    """A frozen GroundingDino of `transformers`. No module: nothing of it is saved or trained.

    Args:
        source: a folder as `save_pretrained` writes it, or a hub name; safetensors only.
        side_px: the shorter side of what the model sees.
        mean, std: of the pixels it is given, by channel; see `find`.

    Raises:
        ConfigError: `transformers` is not there, or the source is no such checkpoint.
    """

    def __init__(
        self, source: str, *, side_px: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.model, self.tokenizer = _load(source)
        self.side_px, self.mean, self.std = side_px, mean, std

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names and values of all weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def find(self, pixels: Tensor, phrases: Sequence[str]) -> Tensor:
        """The boxes of what may be wrong in one picture.

        Args:
            pixels: (3, height, width), normalised by `mean` and `std`.
            phrases: what may be wrong with its class, besides the general words.

        Returns:
            (K, 4) float32 as in `likely_boxes`, best first; K may be 0.
        """
        words = (*GENERAL_WORDS, *phrases)
        model = self.model.to(pixels.device)
        inputs = self.tokenizer(
            box_text(words), truncation=True, max_length=model.config.max_text_len,
            return_tensors="pt",
        ).to(pixels.device)  # fmt: skip
        output = model(pixel_values=self.prepare(pixels)[None], **inputs)
        chances, boxes = output.logits[0].float().sigmoid(), output.pred_boxes[0].float()
        spoken = [
            place
            for place in likely_boxes(chances.amax(dim=-1), boxes).tolist()
            if says_one_of(self._phrase(chances[place], inputs["input_ids"][0]), words)
        ]
        return boxes[spoken]

    def prepare(self, pixels: Tensor) -> Tensor:
        """(3, height, width) -> the shorter side at `side_px`, with ImageNet's statistics."""
        mean, std, own_mean, own_std = (
            pixels.new_tensor(each)[:, None, None] for each in (MEAN, STD, self.mean, self.std)
        )
        picture = (pixels * own_std + own_mean).clamp(0, 1)
        scale = self.side_px / min(picture.shape[1:])
        size = [round(scale * length) for length in picture.shape[1:]]
        resized = F.interpolate(
            picture[None], size=size, mode="bilinear", align_corners=False, antialias=True
        )[0]
        return (resized - mean) / std

    def _phrase(self, chances: Tensor, ids: Tensor) -> str:
        """The words of a query: the tokens above the threshold, without the first one."""
        places = (chances[: len(ids)] > LEAST_CHANCE).nonzero()[:, 0].tolist()
        return self.tokenizer.decode([int(ids[place]) for place in places if place])


def _load(source: str) -> tuple[Any, Any]:
    try:
        from transformers import (
            AutoTokenizer,
            GroundingDinoConfig,
            GroundingDinoForObjectDetection,
        )
    except ImportError as error:
        raise ConfigError(
            f"grounding=dino runs a Grounding DINO through transformers, which is not here "
            f"({error}); pip install 'faprompt[baselines]', or set grounding=self or "
            "grounding=none."
        ) from error
    local = Path(source).is_dir()
    try:
        if not local and (source.count("/") != 1 or source.startswith((".", "/", "~"))):
            raise ValueError("no such folder, and no hub name (owner/name)")
        config, _ = GroundingDinoConfig.get_config_dict(source, local_files_only=local)
        if config.get("model_type") != GroundingDinoConfig.model_type:
            raise ValueError(f"its config.json has model_type {config.get('model_type')!r}")
        loaded: Any = GroundingDinoForObjectDetection.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, local_files_only=local,
            output_loading_info=True,
        )  # fmt: skip
        model, found = loaded
        if found["missing_keys"]:
            raise ValueError(f"its weights lack {', '.join(sorted(found['missing_keys'])[:3])}")
        tokenizer = AutoTokenizer.from_pretrained(
            source, local_files_only=local, trust_remote_code=False
        )
        pieces = tokenizer.convert_tokens_to_ids(list(PIECES))
        if pieces != list(PIECES.values()):  # an empty one, where the files are missing
            raise ValueError(f"its tokenizer numbers {' '.join(PIECES)} as {pieces}")
    except Exception as error:  # transformers, safetensors and the hub each have their own
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ConfigError(
            f"grounding_model={source!r} cannot be read: {reason}. Wanted a folder with a "
            "GroundingDino's config.json, model.safetensors and tokenizer, as transformers "
            "writes it, or a hub name such as IDEA-Research/grounding-dino-tiny; or set "
            "grounding=self or grounding=none."
        ) from error
    return model.requires_grad_(False).eval(), tokenizer
