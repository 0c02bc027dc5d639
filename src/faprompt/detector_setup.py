"""What a detector does besides its method: tiles, mask, references, calibration; and their files.

A calibrated model folder holds `calibration.safetensors`, and `references.safetensors` and
`mask.png` where it has these. Tiles, bit depth, window, precision and class are in the
calibration, as everything else that decides a score.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.calibration import (
    CALIBRATION,
    ONE_PRODUCT,
    Calibration,
    read_calibration,
    save_calibration,
)
from faprompt.errors import ConfigError, ImageReadError, ModelError
from faprompt.files import write_atomically
from faprompt.imaging.decoding import IMAGE_EXTENSIONS
from faprompt.imaging.marked_pixels import read_marked_pixels
from faprompt.imaging.overlay import encode_png
from faprompt.imaging.reading_options import ReadingOptions, Window, parse_window, window_text
from faprompt.imaging.tiles import TileSetting, check_tiles, parse_tiles
from faprompt.references import REFERENCES, References, read_references, save_references

MASK = "mask.png"
EARLIER = "earlier-calibrations"  # folder of the states that `calibrate --add` replaced
SETUP_FILES = (CALIBRATION, REFERENCES, MASK)
_DEFAULTS = ReadingOptions()
_FOLDER_OF_MASKS = "a folder of masks"
_ALL_LEFT_OUT = (
    "leaves out every pixel: all of them are brighter than black. Black pixels are inspected."
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DetectorSetup:
    """Settings of a detector beside its method, backbone and precision.

    Raises:
        ConfigError: another value of `tiles`, a mask that leaves out every pixel, or both a bit
            depth and a window.
        ValueError: the mask is not (H, W) bool, or given beside a folder of masks; or bit depth
            or window is out of range.
    """

    tiles: TileSetting = "off"  # how pictures are cut; "off" leaves it to the method
    bit_depth: int | None = None  # bits that 16-bit files really use; None: see `read_image`
    window: Window | None = None  # (center, width) or "auto"; None: see `read_image`
    mask: np.ndarray | None = None  # (H, W) bool, True pixels of every picture are left out
    mask_folder: Path | None = None  # holds a mask for each picture, under the picture's name
    references: References | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        check_tiles(self.tiles)
        object.__setattr__(self, "window", self.reading().window)
        if self.mask is None:
            return
        if self.mask.ndim != 2 or self.mask.dtype != np.bool_:
            raise ValueError(
                f"mask should be (H, W) bool, got {self.mask.shape} {self.mask.dtype}."
            )
        if self.mask.all():
            raise ConfigError(f"The mask {_ALL_LEFT_OUT}")
        if self.mask_folder is not None:
            raise ValueError("mask and mask_folder exclude each other; give one of them.")

    def decided_by(self) -> dict[str, str]:
        """Return name -> value of each of these settings that decides a score."""
        mask = "none" if self.mask_folder is None else _FOLDER_OF_MASKS
        if self.mask is not None:
            packed = np.packbits(self.mask).tobytes()
            mask = hashlib.sha256(repr(self.mask.shape).encode() + packed).hexdigest()
        decided = {
            "tiles": str(self.tiles),
            "bit depth": "of the file" if self.bit_depth is None else str(self.bit_depth),
            "mask": mask,
            "references": "none" if self.references is None else self.references.digest(),
        }
        if self.window is not None:  # left out otherwise: older calibrations have no window
            decided["window"] = window_text(self.window)
        return decided

    @property
    def needs_mask_folder(self) -> bool:
        """Whether the calibration had a mask for each picture."""
        calibration = self.calibration
        return calibration is not None and calibration.decided_by.get("mask") == _FOLDER_OF_MASKS

    def reading(self, asked: ReadingOptions = _DEFAULTS) -> ReadingOptions:
        """Return the options to read with: the bit depth or window given, or the setup's.

        Raises:
            ConfigError: another bit depth or window than the model was calibrated with.
        """
        given, own = (asked.bit_depth, asked.window), (self.bit_depth, self.window)
        chosen = own if given == (None, None) else given
        if self.calibration is not None and chosen != own:
            raise ConfigError(
                f"The model was calibrated with {_levels_text(own)}, got {_levels_text(given)}; "
                "leave it out, or calibrate again."
            )
        return ReadingOptions(bit_depth=chosen[0], window=chosen[1], max_pixels=asked.max_pixels)

    def check_product(self, product: str | None) -> str:
        """Return the key of a product in calibration and references, "" where there is one.

        Raises:
            ConfigError: an unknown product, or none although the model has several.
        """
        if self.calibration is not None:
            return self.calibration.check_product(product)
        if self.references is not None:
            return self.references.check_product(product)
        return product or ONE_PRODUCT

    def product_of(self, source: object) -> str | None:
        """Return the product that a picture's path names, or None."""
        if self.calibration is None or not isinstance(source, str | Path):
            return None
        return self.calibration.product_of(source)

    def mask_of(self, source: object) -> np.ndarray | None:
        """Return the mask of a picture, (H, W) bool, or None.

        Raises:
            ConfigError: the calibration had a folder of masks, and none is named.
            ImageReadError: the folder has no mask for this picture, or it cannot be read.
        """
        if self.mask_folder is None:
            if self.needs_mask_folder:
                raise ConfigError(
                    "The model was calibrated with a folder of masks; name it by --mask, or pass "
                    "the masks."
                )
            return self.mask
        if not isinstance(source, str | Path):
            raise ImageReadError(
                "a folder of masks is matched by file name, and this picture has none; pass its "
                "path, or mask=."
            )
        return read_left_out(find_mask(self.mask_folder, Path(source)))


def _levels_text(levels: tuple[int | None, Window | None]) -> str:
    """Return bit depth and window in words."""
    depth, window = levels
    if window is not None:
        return f"the window {window_text(window)}"
    return f"a bit depth {'of the file' if depth is None else f'of {depth}'}"


def setup_changes(
    tiles: str | None, mask: str | os.PathLike[str] | None, window: Window | None = None
) -> dict[str, Any]:
    """Return the settings that `--tiles`, `--mask` and `--window` change; None changes nothing.

    Raises:
        ConfigError: another value of tiles, or a mask that is a URL.
        ImageReadError: the mask cannot be read.
    """
    changes: dict[str, Any] = {} if tiles is None else {"tiles": parse_tiles(tiles)}
    if mask is not None:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(mask)):  # a Path has one slash left
            raise ConfigError(f"mask {mask}: masks are local files; download them first.")
        place = Path(mask)
        folder = place if place.is_dir() else None
        changes |= {"mask": None if folder else read_left_out(place), "mask_folder": folder}
    return changes if window is None else changes | {"window": window}


def read_left_out(path: Path) -> np.ndarray:
    """Read a mask file, (H, W) bool; True where a colour and alpha are above 0: left out.

    Raises:
        ImageReadError: the file cannot be read.
    """
    try:
        return read_marked_pixels(path)
    except ImageReadError as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise ImageReadError(f"mask {path} cannot be read: {reason}") from error


def check_mask(mask: np.ndarray, image_size: tuple[int, int], source: object = None) -> None:
    """Refuse a mask of another size than its picture; both are (height, width).

    Raises:
        ImageReadError: the sizes differ, or the mask leaves out every pixel.
    """
    name = source if isinstance(source, str | Path) else "the picture"
    if mask.shape != image_size:
        raise ImageReadError(
            f"{name} is {image_size[0]}x{image_size[1]} (height x width), its mask "
            f"{mask.shape[0]}x{mask.shape[1]}; masks are not resized, so give one of the same size."
        )
    if mask.all():
        raise ImageReadError(f"{name}: its mask {_ALL_LEFT_OUT}")


def find_mask(folder: Path, picture: Path) -> Path:
    """Return the mask of a picture in a folder: NAME.* or NAME_mask.*, a picture file.

    Where the folder has a subfolder of the name of the picture's own folder, the mask lies
    there, so that pictures of two products may have one name.

    Raises:
        ImageReadError: no such file, or several.
    """
    home = Path(os.path.abspath(picture)).parent
    own = folder / home.name
    folder = own if own.is_dir() and own.resolve() != home.resolve() else folder
    starts = tuple(_comparable(f"{picture.stem}{end}") for end in (".", "_mask."))
    names = os.listdir(folder) if folder.is_dir() else []
    near = (folder / name for name in sorted(names) if _comparable(name).startswith(starts))
    found = [
        path
        for path in near
        if path.suffix.lower() in IMAGE_EXTENSIONS and path.resolve() != picture.resolve()
    ]
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} masks ({', '.join(p.name for p in found[:3])})" if found else "no mask"
    raise ImageReadError(
        f"{picture}: {what} in {folder}; wanted one file {picture.stem}.png or "
        f"{picture.stem}_mask.png. A black picture leaves nothing out."
    )


def _comparable(name: str) -> str:
    """Return a file name that is equal however accents are coded; on Windows also without case."""
    return os.path.normcase(unicodedata.normalize("NFC", name))


def read_setup(folder: Path) -> DetectorSetup:
    """Read the settings of a calibrated model folder; the defaults for any other.

    Raises:
        ModelError: a file is damaged, or belongs to another calibration.
    """
    calibration, references = read_calibration(folder), read_references(folder)
    path = folder / MASK
    try:
        mask = read_left_out(path) if path.is_file() else None
        if calibration is None:
            if references is not None or mask is not None:
                raise ValueError(f"it has {REFERENCES} or {MASK}, and no {CALIBRATION}")
            return DetectorSetup()
        decided = calibration.decided_by
        depth = decided.get("bit depth", "")
        return DetectorSetup(
            tiles=parse_tiles(decided.get("tiles", "off")),
            bit_depth=int(depth) if depth.isdecimal() else None,
            window=parse_window(decided["window"]) if "window" in decided else None,
            mask=mask,
            references=references,
            calibration=calibration,
        )
    except (ValueError, ConfigError, ImageReadError) as error:
        reason = str(error).rstrip(".")
        raise ModelError(f"{folder} cannot be used: {reason}; calibrate again.") from error


def check_kept(setup: DetectorSetup) -> None:
    """Refuse to save settings that a model folder does not keep, by a ConfigError.

    Tiles, mask, bit depth, window and references are kept with a calibration only.
    """
    if setup.calibration is None and setup.decided_by() != DetectorSetup().decided_by():
        raise ConfigError(
            "A model folder keeps tiles, mask, bit depth, window and references only with a "
            "calibration; use `faprompt.calibrate`, or leave them at their defaults while you save."
        )


def save_setup(setup: DetectorSetup, folder: Path) -> None:
    """Write the files of a setup into a model folder, and remove those of an earlier one.

    The states that `calibrate --add` kept are removed too: they belong to another model.
    """
    shutil.rmtree(folder / EARLIER, ignore_errors=True)
    write_setup(setup, folder)


def write_setup(setup: DetectorSetup, folder: Path) -> None:
    """Write the files of a setup in place of those of an earlier one.

    The calibration is removed first and written last, so that it never stands beside files
    of another one.
    """
    for name in SETUP_FILES:
        (folder / name).unlink(missing_ok=True)
    if setup.references is not None:
        save_references(setup.references, folder)
    if setup.mask is not None:
        write_atomically(folder / MASK, encode_png(setup.mask.astype(np.uint8) * 255))
    if setup.calibration is not None:
        save_calibration(setup.calibration, folder)


def check_setup(setup: DetectorSetup, decided_by: Callable[[], dict[str, str]], where: str) -> None:
    """Refuse a calibration that was made under other settings; ModelError names them.

    A folder of masks is not part of a model folder and may be named later. `decided_by` is
    called only where there is a calibration, because it digests all weights.
    """
    if setup.calibration is None:
        return
    found = decided_by()
    if setup.needs_mask_folder and found["mask"] == "none":
        found["mask"] = _FOLDER_OF_MASKS
    setup.calibration.check_decided_by(found, where=where)
