"""Steps of scoring a picture around a method: read, leave pixels out, join with references."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from faprompt.clip.vision import ImageFeatures
from faprompt.detector_setup import DetectorSetup, check_mask
from faprompt.errors import ConfigError, ImageReadError
from faprompt.imaging.image_reading import MAX_PIXELS, ImageSource, read_image
from faprompt.imaging.picture_views import Box, join_maps
from faprompt.imaging.picture_windows import ArrayWindows, PictureWindows, open_windows
from faprompt.imaging.tiles import fill_masked, nearest_kept, patch_mask
from faprompt.methods.base import MethodOutput, ScoreTerm
from faprompt.references import References
from faprompt.results import AnomalyResult

OnError = Literal["raise", "skip"]
_WHOLE_SIDE = 2048  # longer side, in pixels, of a picture that is too large for memory
_Read = TypeVar("_Read")
_log = logging.getLogger("faprompt")


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture, or a part of one, and what is known of it."""

    windows: PictureWindows  # its pixels; masked ones are filled
    left_out: np.ndarray | None = None  # (H, W) bool, True pixels are masked
    class_name: str | None = None
    product: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.windows.image_size

    @property
    def image(self) -> np.ndarray:
        """The whole picture, (H, W, 3) uint8; a smaller one if it is too large for memory."""
        if isinstance(self.windows, ArrayWindows):
            return self.windows.array
        return self.windows.thumbnail(_WHOLE_SIDE)

    @property
    def ignored(self) -> bool:
        """Whether the mask leaves out every pixel."""
        return self.left_out is not None and bool(self.left_out.all())

    def cut(self, box: Box) -> Picture:
        """Return a part of the picture in memory."""
        x0, y0, x1, y1 = box
        mask = None if self.left_out is None else self.left_out[y0:y1, x0:x1]
        return replace(self, windows=ArrayWindows(self.windows.read(box)), left_out=mask)


@dataclass(frozen=True, slots=True, eq=False)
class OpenPicture:
    """A picture that can be read, with its mask and product; closed after it is scored."""

    windows: PictureWindows
    mask: np.ndarray | None  # (H, W) bool, True pixels are left out
    product: str | None
    files: ExitStack

    def close(self) -> None:
        """Close the file, if it is read in parts."""
        self.files.close()


def open_picture(
    setup: DetectorSetup,
    source: ImageSource,
    *,
    bit_depth: int | None = None,
    max_pixels: int = MAX_PIXELS,
    product: str | None = None,
) -> OpenPicture:
    """Read a picture and what the setup says of it; a large TIFF is opened, if it has tiles.

    Raises:
        ConfigError: another bit depth than the calibrated one.
        ImageReadError: the picture or its mask cannot be read, the mask has another size, or
            the path names no product of the calibration.
    """
    depth = setup.check_bit_depth(bit_depth)
    files = ExitStack()
    try:
        if setup.tiles == "off" or not isinstance(source, str | os.PathLike):
            image = read_image(source, bit_depth=depth, max_pixels=max_pixels)
            windows: PictureWindows = ArrayWindows(image.array, image.notes)
        else:
            windows = files.enter_context(
                open_windows(source, bit_depth=depth, max_pixels=max_pixels)
            )
        mask = setup.mask_of(source)
        if mask is not None:
            check_mask(mask, windows.image_size, source)
        owner = setup.product_of(source) if product is None else product
        if product is None:
            try:
                setup.check_product(owner)
            except ConfigError as error:
                raise ImageReadError(f"{_name(source)}: {error}") from error
    except BaseException:
        files.close()
        raise
    return OpenPicture(windows, mask, owner, files)


def _name(source: ImageSource) -> str:
    return os.fspath(source) if isinstance(source, str | os.PathLike) else "the picture"


def as_windows(image: np.ndarray | PictureWindows) -> PictureWindows:
    """Return an array as windows, and windows as they are."""
    return ArrayWindows(image) if isinstance(image, np.ndarray) else image


def fill_left_out(windows: PictureWindows, mask: np.ndarray) -> PictureWindows:
    """Return the picture in memory, masked pixels filled; see `fill_masked`."""
    height, width = windows.image_size
    return ArrayWindows(fill_masked(windows.read((0, 0, width, height)), mask), windows.notes)


def join_results(
    tiles: Sequence[AnomalyResult], boxes: Sequence[Box], image_size: tuple[int, int]
) -> AnomalyResult:
    """Return the mean of the scores, the maps and the prompt scores of a picture's tiles."""
    if len(tiles) == 1:
        return tiles[0]
    prompts = [tile.prompt_scores for tile in tiles if tile.prompt_scores is not None]
    means = np.array(prompts, np.float32).mean(axis=0).tolist() if prompts else None
    return replace(
        tiles[0],
        score=sum(tile.score for tile in tiles) / len(tiles),
        score_map=join_maps([tile.score_map for tile in tiles], boxes, image_size),
        image_size=image_size,
        prompt_scores=None if means is None else tuple(means),
    )


def replace_left_out(features: ImageFeatures, pictures: Sequence[Picture]) -> ImageFeatures:
    """Return features in which masked patches and windows repeat the nearest ones that count.

    So no maximum, no mean of the top and no prior of a method is made of masked pixels.
    """
    if all(picture.left_out is None for picture in pictures):
        return features
    left_out = [
        np.zeros(features.grid, np.bool_)
        if picture.left_out is None
        else patch_mask(picture.left_out, features.grid)
        for picture in pictures
    ]
    patches = _rows_of([nearest_kept(mask) for mask in left_out])
    windows = {
        side: _take(tokens, _rows_of([nearest_kept(_window_mask(m, side)) for m in left_out]))
        for side, tokens in features.windows.items()
    }
    tokens = {layer: _take(each, patches) for layer, each in features.patch_tokens.items()}
    return replace(features, patch_tokens=tokens, windows=windows)


def kept_tokens(features: ImageFeatures, picture: Picture) -> dict[int, Tensor]:
    """Return layer -> (N, D) tokens of the patches of one picture that no mask leaves out.

    Raises:
        ConfigError: the method has no patch tokens.
    """
    _check_patch_tokens(features)
    rows = torch.arange(features.grid[0] * features.grid[1])
    if picture.left_out is not None:
        rows = rows[torch.from_numpy(~patch_mask(picture.left_out, features.grid).ravel())]
    return {layer: tokens[0].cpu()[rows] for layer, tokens in features.patch_tokens.items()}


def _check_patch_tokens(features: ImageFeatures) -> None:
    if not features.patch_tokens:
        raise ConfigError(
            "This method has no patch tokens of a CLIP backbone, so it cannot use references; "
            "calibrate without them."
        )


def _window_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """Return which windows of side x side patches are masked by half or more."""
    views = np.lib.stride_tricks.sliding_window_view(mask, (side, side))
    return views.mean(axis=(-2, -1)) >= 0.5


def _rows_of(indices: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(indices))


def _take(tokens: Tensor, rows: Tensor) -> Tensor:
    """Return (B, N, D) tokens at (B, N) rows of each picture."""
    return tokens.gather(1, rows.to(tokens.device)[..., None].expand_as(tokens))


def join_references(
    output: MethodOutput,
    features: ImageFeatures,
    pictures: Sequence[Picture],
    references: References,
) -> tuple[MethodOutput, Tensor]:
    """Return a method's output joined with the distances to the references, and the latter.

    The distances are (B, N) in 0..1, see `ReferenceBank.surprise`.

    Raises:
        ConfigError: the method has no patch tokens, or a product has no references.
    """
    _check_patch_tokens(features)
    surprise = torch.cat(
        [
            references.bank(picture.product).surprise(
                {layer: each[i : i + 1] for layer, each in features.patch_tokens.items()}
            )
            for i, picture in enumerate(pictures)
        ]
    )
    score, patch_map = references.join(output.score, output.patch_map, surprise, features.grid)
    return replace(output, score=score, patch_map=patch_map), surprise


def reference_terms(
    terms: Sequence[ScoreTerm], score: float, weight: float
) -> tuple[ScoreTerm, ...]:
    """Return the summands of a score (1,) that is joined with references of this weight."""
    own = tuple(replace(term, weight=term.weight * (1 - weight)) for term in terms)
    rest = score - sum(term.weight * float(term.value[0]) for term in own)
    value = torch.tensor([rest / weight])
    return (*own, ScoreTerm(name="distance to the references", weight=weight, value=value))


def read_batches(
    images: Iterable[ImageSource],
    batch_size: int,
    on_error: OnError,
    read: Callable[[ImageSource], _Read],
) -> Iterator[list[_Read]]:
    """Read pictures in batches; an incomplete batch comes before the error that ends it."""
    batch: list[_Read] = []
    try:
        for image in images:
            try:
                batch.append(read(image))
            except ImageReadError as error:
                if on_error == "raise":
                    raise
                _log.warning("skipped: %s", error)
            if len(batch) == batch_size:
                yield batch
                batch = []
    except Exception:
        yield batch
        raise
    yield batch


def check_arrays(images: Any) -> None:
    """Refuse what is no sequence of (H, W, 3) uint8 arrays or windows, before any is scored."""
    advice = "`predict` and `stream` read files and all other kinds of pictures."
    if isinstance(images, str | bytes | os.PathLike) or not hasattr(images, "__len__"):
        raise TypeError(f"a batch is a list of arrays, got a {type(images).__name__}; {advice}")
    for image in images:
        wanted = "image should be a (H, W, 3) uint8 array"
        if hasattr(image, "thumbnail") and hasattr(image, "image_size"):
            continue
        if not isinstance(image, np.ndarray):
            raise TypeError(f"{wanted}, got a {type(image).__name__}; {advice}")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(f"{wanted}, got {image.shape} {image.dtype}; {advice}")
