"""Steps of scoring a picture around a method: read pictures, leave pixels out, join tiles."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np

from faprompt.detector_setup import DetectorSetup, check_mask
from faprompt.errors import ConfigError, ImageReadError
from faprompt.files import is_url
from faprompt.imaging.image_reading import read_image, read_named
from faprompt.imaging.picture_sources import ImageSource, errors_named, fetch
from faprompt.imaging.picture_views import Box, join_maps
from faprompt.imaging.picture_windows import ArrayWindows, PictureWindows, open_windows
from faprompt.imaging.reading_options import ReadingOptions
from faprompt.imaging.tiles import fill_masked, nearest_kept, patch_mask
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
    options: ReadingOptions,
    *,
    product: str | None = None,
    content: bytes | None = None,
) -> OpenPicture:
    """Read a picture and what the setup says of it; a large TIFF is opened, if it has tiles.

    `content` is the file of a URL, if it was read before; None reads it.

    Raises:
        ConfigError: another bit depth or window than the calibrated one.
        ImageReadError: the picture or its mask cannot be read, the mask has another size, or
            the path names no product of the calibration.
    """
    how = setup.reading(options).arguments()
    files = ExitStack()
    windows: PictureWindows
    try:
        if isinstance(source, str) and (content is not None or is_url(source)):
            windows = files.enter_context(_open_url(setup, source, content, how))
        elif setup.tiles == "off" or not isinstance(source, str | os.PathLike):
            image = read_image(source, **how)
            windows = ArrayWindows(image.array, image.notes)
        else:
            windows = files.enter_context(open_windows(source, **how))
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


@contextmanager
def _open_url(
    setup: DetectorSetup, url: str, content: bytes | None, how: Mapping[str, Any]
) -> Iterator[PictureWindows]:
    """Open the picture of a URL as a local one would be; its content is in memory."""
    if content is None:
        with errors_named(url):
            content = fetch(url)
    if setup.tiles == "off":
        image = read_named(content, url, **how)
        yield ArrayWindows(image.array, image.notes)
        return
    with open_windows(content, name=url, **how) as windows:
        yield windows


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


def kept_rows(masks: Sequence[np.ndarray | None], grid: tuple[int, int]) -> np.ndarray | None:
    """Return for each patch the row of the nearest one that no mask leaves out.

    Args:
        masks: (H, W) bool for each picture, True pixels are left out; None leaves out nothing.
        grid: (rows, columns) of patches, stretched over each picture.

    Returns:
        (B, rows * columns) int64, row-major; None if no picture has a mask.
    """
    if all(mask is None for mask in masks):
        return None
    own = np.arange(grid[0] * grid[1])
    return np.stack(
        [own if mask is None else nearest_kept(patch_mask(mask, grid)) for mask in masks]
    )


def kept_windows(kept: np.ndarray, grid: tuple[int, int], side: int) -> np.ndarray:
    """Return for each window of side x side patches the row of the nearest one that is kept.

    A window is left out where half its patches are or more. `kept` is (B, N) from `kept_rows`;
    the result is (B, W) int64, row-major over the windows.
    """
    masks = (kept != np.arange(kept.shape[1])).reshape(-1, *grid)
    views = np.lib.stride_tricks.sliding_window_view(masks, (side, side), axis=(1, 2))
    return np.stack([nearest_kept(mask) for mask in views.mean(axis=(-2, -1)) >= 0.5])


def check_patch_tokens(patch_tokens: Mapping[int, Any]) -> None:
    """Refuse references for a method without patch tokens, by a ConfigError."""
    if not patch_tokens:
        raise ConfigError(
            "This method has no patch tokens of a CLIP backbone, so it cannot use references; "
            "calibrate without them."
        )


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


def check_class_names(
    class_names: Sequence[str] | None, count: int, *, one_for_all: bool = False
) -> None:
    """Check that there is one name for each of `count` pictures, or one for all of them.

    Raises:
        TypeError: a text in place of a list.
        ValueError: another number of names.
    """
    if class_names is None:
        return
    if isinstance(class_names, str):
        raise TypeError(
            f"class_names is a list with one name for each picture, got the text {class_names!r}."
        )
    if len(class_names) not in ((1, count) if one_for_all else (count,)):
        raise ValueError(
            f"class_names should have one name for each of the {count} pictures, "
            f"got {len(class_names)}."
        )
