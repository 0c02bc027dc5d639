"""A detector as one graph of tensors: pixels in, scores, maps and tokens out.

    pixels (B, 3, H, W) float32         normalised, as `Transform.to_pixels` makes them
    kept (B, N) int64                   row of the patch that replaces each one; 0..N-1 where no
                                        mask leaves patches out
    kept_<side> (B, W) int64            the same of windows of side x side patches (WinCLIP)

    score (B,), patch_map (B, rows, columns), class_token (B, D), tokens_<layer> (B, N, D),
    prompt_scores (B, K) where there are several abnormality prompts

The text side that depends on no picture becomes constants of the graph; the text side that does
(the second pass of FAPrompt, the contexts of CoCoOp and FiLo) is part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from faprompt.clip.vision import ImageFeatures
from faprompt.detector import Detector
from faprompt.methods.base import MethodOutput

KEPT = "kept"
_MOST_PICTURES = 1024  # of one batch
_EXAMPLES = 3  # pictures of the batch that is traced; 1 and 2 may be taken for constants


class DetectorGraph(nn.Module):
    """Everything between a detector's pixels and its scores; numbers as `Detector.encode`.

    Its arguments after the first are the detector's and those of `forward`.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        features, output = self._run(self.example_pixels(1), {})
        self.layers = tuple(sorted(features.patch_tokens))
        self.grid = features.grid
        self.map_grid = (output.patch_map.shape[-2], output.patch_map.shape[-1])
        counts = {side: windows.shape[1] for side, windows in features.windows.items()}
        patches = features.grid[0] * features.grid[1]
        self.kept_counts = {KEPT: patches} if self._replaces_patches(features) else {}
        if self.kept_counts:
            self.kept_counts |= {f"{KEPT}_{side}": n for side, n in counts.items() if side > 1}
        prompts = output.prompt_scores
        self.prompts = 0 if prompts is None or prompts.shape[1] < 2 else prompts.shape[1]

    def _replaces_patches(self, features: ImageFeatures) -> bool:
        return bool(features.patch_tokens) and not self.detector.method.stacks_squares

    @property
    def input_names(self) -> tuple[str, ...]:
        return ("pixels", *self.kept_counts)

    @property
    def output_names(self) -> tuple[str, ...]:
        prompts = ("prompt_scores",) if self.prompts else ()
        tokens = tuple(f"tokens_{layer}" for layer in self.layers)
        return ("score", "patch_map", "class_token", *tokens, *prompts)

    def example_pixels(self, count: int) -> Tensor:
        """Return (count, 3, H, W) drawn pixels of the model's size."""
        draw = torch.Generator().manual_seed(0)
        height, width = self.detector.transform.image_size
        return torch.randn(count, 3, height, width, generator=draw)

    def example_inputs(self, count: int = _EXAMPLES) -> tuple[Tensor, ...]:
        kept = (torch.arange(n).repeat(count, 1) for n in self.kept_counts.values())
        return (self.example_pixels(count), *kept)

    def forward(self, pixels: Tensor, *kept: Tensor) -> tuple[Tensor, ...]:
        rows = dict(zip(self.kept_counts, kept, strict=True))
        features, output = self._run(pixels, rows)
        tokens = (features.patch_tokens[layer] for layer in self.layers)
        prompts = (cast(Tensor, output.prompt_scores),) if self.prompts else ()
        return (output.score, output.patch_map, features.class_token, *tokens, *prompts)

    def _run(self, pixels: Tensor, kept: dict[str, Tensor]) -> tuple[ImageFeatures, MethodOutput]:
        features = self.detector.encode_image(pixels)
        if kept:
            patches = {k: _take(x, kept[KEPT]) for k, x in features.patch_tokens.items()}
            windows = {
                side: _take(x, kept[KEPT if side == 1 else f"{KEPT}_{side}"])
                for side, x in features.windows.items()
            }
            features = replace(features, patch_tokens=patches, windows=windows)
        output = self.detector.score_features(
            features, static=self.detector._static, with_prompt_scores=True
        )
        return features, output


def trace(graph: DetectorGraph) -> ExportedProgram:
    examples = graph.example_inputs()
    batch = Dim("batch", min=1, max=_MOST_PICTURES)
    kept = tuple({0: batch} for _ in examples[1:])
    with torch.no_grad():
        return torch.export.export(graph, examples, dynamic_shapes=({0: batch}, kept))


def _take(tokens: Tensor, rows: Tensor) -> Tensor:
    """Return (B, N, D) tokens at (B, N) rows of each picture."""
    return tokens.gather(1, rows[..., None].expand_as(tokens))
