"""A detector: backbone, method and transform together, run by torch, with two interfaces.

`detector(pixels)` takes a normalised batch and allows gradients; training uses it. `predict` reads
and resizes a picture, calls the same code without gradients, and returns the map in the picture's
own pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from faprompt.clip.vision import ImageFeatures
from faprompt.detector_parts import check_arrays, check_patch_tokens, kept_rows, kept_windows
from faprompt.errors import ConfigError
from faprompt.methods.base import MethodOutput, MethodParts, ScoreTerm
from faprompt.picture_model import EncodedPicture, ScoredBatch
from faprompt.regions import check_threshold
from faprompt.results import AnomalyResult
from faprompt.scoring import nearest_distance
from faprompt.tensor_detector import TensorDetector


class Detector(TensorDetector):
    """Score pictures of any kind with one method on one frozen backbone.

    `predict`, `stream` and `predict_batch` take pictures, and `detector(pixels)` takes a batch of
    tensors. Many threads may share a detector. `load_detector` and `build_detector` make one.

    A detector is no torch module but has two: `backbone` is frozen, and `method` has the learned
    parameters. Text features that depend on no picture are computed when the detector is built;
    call `refresh()` after changing parameters.

    Args:
        backbone, method, name: its parts, and its name in results.
        threshold: default of the verdict and the regions, 0 to 1.
        class_name: default class of the pictures, for methods with class names; a model folder
            does not hold it.
        description: further entries of the model folder's config, such as "training".
        setup: tiles, mask, references and calibration; see `with_setup`.

    Raises:
        ConfigError: the method's image size or its prompts do not fit the backbone.
        ModelError: the calibration was made under other settings.
        ValueError: the threshold is not from 0 to 1.
    """

    @torch.inference_mode()
    def run_model(
        self,
        pixels: np.ndarray,
        *,
        masks: Sequence[np.ndarray | None],
        products: Sequence[str],
        class_names: Sequence[str] | None = None,
        with_prompt_scores: bool = False,
    ) -> ScoredBatch:
        features, output = self._forward(pixels, masks, class_names, with_prompt_scores)
        return self._scored(features, output, products)

    def _forward(
        self,
        pixels: np.ndarray,
        masks: Sequence[np.ndarray | None],
        class_names: Sequence[str] | None,
        with_prompt_scores: bool,
    ) -> tuple[ImageFeatures, MethodOutput]:
        """Return the features, those of masked patches replaced, and the method's output."""
        features = self.encode_image(torch.from_numpy(pixels))
        features = replace_left_out(features, kept_rows(masks, features.grid))
        return features, self.score_features(
            features,
            static=self._static,
            with_prompt_scores=with_prompt_scores,
            class_names=class_names,
        )

    def _scored(
        self, features: ImageFeatures, output: MethodOutput, products: Sequence[str]
    ) -> ScoredBatch:
        prompts = output.prompt_scores
        return ScoredBatch(
            score=_array(output.score),
            patch_map=_array(output.patch_map),
            grid=features.grid,
            prompt_scores=None if prompts is None else _array(prompts),
            surprise=self._surprise(features, products),
        )

    def _surprise(self, features: ImageFeatures, products: Sequence[str]) -> np.ndarray | None:
        """Return the distances (B, N) to the references, computed where the model is."""
        references = self.setup.references
        if references is None:
            return None
        check_patch_tokens(features.patch_tokens)
        found = []
        for row, product in enumerate(products):
            key = references.check_product(product)
            own = {layer: each[row : row + 1] for layer, each in features.patch_tokens.items()}
            measure = partial(_layer_distance, self._memory[key])
            found.append(references.banks[key].surprise(own, measure))
        return np.concatenate(found)

    @torch.inference_mode()
    def encode_picture(self, pixels: np.ndarray) -> EncodedPicture:
        features = self.encode_image(torch.from_numpy(pixels)[None])
        tokens = {layer: _array(each[0]) for layer, each in features.patch_tokens.items()}
        return EncodedPicture(
            class_token=_array(features.class_token[0]), patch_tokens=tokens, grid=features.grid
        )

    @torch.inference_mode()
    def explain(
        self,
        image: np.ndarray,
        *,
        threshold: float | None = None,
        class_name: str | None = None,
        mask: np.ndarray | None = None,
        product: str | None = None,
    ) -> tuple[AnomalyResult, MethodOutput, MethodParts]:
        """Score a decoded picture and return the parts of the score, in one pass.

        The result is bit for bit that of `predict`. The parts are those of the method alone;
        with references, the terms of the score have one more, the distance to them. `image` is
        (H, W, 3) uint8 RGB of any size; the options are as in `predict` and `predict_batch`.

        Raises:
            ConfigError: this picture is scored as several tiles, which have no common parts.
        """
        check_threshold(threshold)
        check_arrays([image])
        if self.method.tiled and image.shape[0] != image.shape[1]:
            raise ConfigError(
                f"{self.name} scores a picture of {image.shape[1]}x{image.shape[0]} as several "
                "squares and takes their mean; use a square picture, or build the method with "
                "--set tiles=false."
            )
        if self._plan(image.shape[:2]):
            raise ConfigError(
                f"{self.name} scores this picture of {image.shape[1]}x{image.shape[0]} as several "
                f"tiles (tiles={self.setup.tiles}), which have no common parts; cut out the part "
                "to explain."
            )
        picture = self._picture(image, class_name, mask, product)
        names = None if class_name is None else [class_name]
        features, output = self._forward(
            self._pixels([picture]), [picture.left_out], names, with_prompt_scores=True
        )
        (result,) = self._results([picture], self._scored(features, output, [picture.product]))
        parts = self.method.explain(features, output)
        if self.setup.references is not None:
            terms = reference_terms(parts.terms, result.score, self.setup.references.weight)
            parts = replace(parts, terms=terms)
        return self._judge(result, threshold, picture.product), output, parts


def _array(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()


def _layer_distance(memory: Mapping[int, Tensor], layer: int, tokens: Tensor) -> np.ndarray:
    return _array(nearest_distance(tokens, memory[layer]))


def replace_left_out(features: ImageFeatures, kept: np.ndarray | None) -> ImageFeatures:
    """Return features in which masked patches and windows repeat the nearest ones that count.

    So no maximum, no mean of the top and no prior of a method is made of masked pixels. `kept` is
    (B, N), see `kept_rows`; None leaves the features as they are.
    """
    if kept is None:
        return features
    windows = {
        side: _take(tokens, kept_windows(kept, features.grid, side))
        for side, tokens in features.windows.items()
    }
    tokens = {layer: _take(each, kept) for layer, each in features.patch_tokens.items()}
    return replace(features, patch_tokens=tokens, windows=windows)


def _take(tokens: Tensor, rows: np.ndarray) -> Tensor:
    """Return (B, N, D) tokens at (B, N) rows of each picture."""
    index = torch.from_numpy(rows).to(tokens.device)
    return tokens.gather(1, index[..., None].expand_as(tokens))


def reference_terms(
    terms: Sequence[ScoreTerm], score: float, weight: float
) -> tuple[ScoreTerm, ...]:
    """Return the summands of a score (1,) that is joined with references of this weight."""
    own = tuple(replace(term, weight=term.weight * (1 - weight)) for term in terms)
    rest = score - sum(term.weight * float(term.value[0]) for term in own)
    value = torch.tensor([rest / weight])
    return (*own, ScoreTerm(name="distance to the references", weight=weight, value=value))
