"""Files of a dataset: list pictures in natural order, find listed paths, pair masks by name."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from faprompt.errors import DatasetError
from faprompt.files import natural_key

MASK_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
IMAGE_EXTENSIONS = MASK_EXTENSIONS | {".webp", ".dcm", ".dicom"}
NORMAL_NAMES = frozenset({"good", "ok", "normal", "no", "non_glaucoma"})  # compared without case

_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
_SEPARATORS = re.compile(r"[/\\]+")
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")
_NUMBERED_MASK = re.compile(r"(?P<image>.*)_mask(?P<number>[0-9]+)", re.DOTALL)
_MASK_SUFFIXES = ("", "_mask", "_label", "_Segmentation", "_segmentation")


def is_image_name(name: str) -> bool:
    """Return whether a file name has the extension of a picture; the content is not read.

    Example:
        >>> is_image_name("A.JPG"), is_image_name("Thumbs.db"), is_image_name("._A.jpg")
        (True, False, False)
    """
    return not _is_litter(name) and os.path.splitext(name)[1].casefold() in IMAGE_EXTENSIONS


def is_normal_name(name: str) -> bool:
    """Return whether a folder of this name holds normal pictures."""
    return name.casefold() in NORMAL_NAMES


def list_images(folder: Path) -> list[Path]:
    """Return the pictures directly in a folder, in natural order; [] if it does not exist."""
    return [path for path in _entries(folder) if is_image_name(path.name) and path.is_file()]


def list_files(folder: Path, *extensions: str) -> list[Path]:
    """Return the files directly in a folder with one of the extensions, in natural order."""
    return [
        path for path in _entries(folder) if path.suffix.casefold() in extensions and path.is_file()
    ]


def list_folders(folder: Path) -> list[Path]:
    """Return the subfolders of a folder in natural order."""
    return [path for path in _entries(folder) if is_folder(path)]


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; False also for a path that may not be read."""
    return os.path.isdir(path)


def holds_images(folder: Path) -> bool:
    """Return whether at least one picture lies directly in a folder."""
    return any(is_image_name(name) and (folder / name).is_file() for name in _scan(folder))


def find_folder(root: Path, *names: str) -> Path | None:
    """Return the subfolder of `root` with one of the names, compared without case.

    Raises:
        DatasetError: several subfolders fit, such as `no` and `No`.
    """
    wanted = {name.casefold() for name in names}
    found = [path for path in list_folders(root) if path.name.casefold() in wanted]
    if len(found) > 1:
        raise DatasetError(
            f"{root} holds {examples(path.name for path in found)}; only one of them is wanted. "
            "Keep one and move the others elsewhere."
        )
    return found[0] if found else None


def folders_beside(root: Path, read: Collection[Path]) -> list[Path]:
    """Return the topmost folders below `root` that are not read and hold no folder that is."""
    left_out: list[Path] = []
    for folder in list_folders(root):
        if folder in read:
            continue
        if any(path.is_relative_to(folder) for path in read):
            left_out += folders_beside(folder, read)
        else:
            left_out.append(folder)
    return left_out


def unnested(folder: Path) -> Path:
    """Return a folder, or the folder of its own name inside it, as in `Class1/Class1/`."""
    inside = None if holds_images(folder) else find_folder(folder, folder.name)
    return folder if inside is None else inside


def folder_name(path: Path) -> str:
    """Return a folder's name, also for `.` and `..`; links are not followed."""
    return os.path.basename(os.path.abspath(path))


def relative_name(path: Path, root: Path) -> str:
    """Return a path with forward slashes, relative to `root` if it lies below `root`."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def stem_key(path: Path) -> str:
    """Return the stem for comparisons; an accent compares equal however it is encoded."""
    return unicodedata.normalize("NFC", path.stem)


def examples(names: Iterable[str], *, limit: int = 5) -> str:
    """Return names as a list for a message, at most `limit` of them.

    Example:
        >>> examples(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    every = list(names)
    rest = len(every) - limit
    shown = ", ".join(every[:limit])
    return f"{shown} and {rest} more" if rest > 0 else shown


def path_examples(paths: Iterable[Path], root: Path) -> str:
    """Return `examples` of paths, relative to `root`."""
    return examples(relative_name(path, root) for path in paths)


def read_json_list(file: Path) -> Any:
    """Read a JSON file that lists pictures.

    Unlike `faprompt.config.read_json`, it has no limit of size and leaves odd numbers to the
    reader: annotations of large datasets have hundreds of megabytes.

    Raises:
        DatasetError: the file cannot be read or is not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{file} is no readable JSON: {error}.") from error


def json_object(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file; {} if it cannot be read or holds anything else."""
    try:
        content = read_json_list(file)
    except DatasetError:
        return {}
    return content if isinstance(content, dict) else {}


def only_file(files: Sequence[Path], root: Path, *, kind: str, wanted: str) -> Path:
    """Return the one file that was found in `root`; `kind` and `wanted` are nouns for messages.

    Raises:
        DatasetError: there is no file, or more than one.
    """
    if not files:
        raise DatasetError(f"{root} holds no {wanted}; give its folder or the file itself.")
    if len(files) > 1:
        names = examples(file.name for file in files)
        raise DatasetError(f"{root} holds several {kind} ({names}); give the path of one of them.")
    return files[0]


@dataclass(slots=True)
class PathFinder:
    """Finds listed files below `root` and counts the paths that had to be shortened."""

    root: Path
    rescued: int = 0

    def find(self, text: str) -> Path | None:
        """Return the existing file that a listed path means, or None.

        Doubled slashes, `./` and backslashes are accepted. A path that does not exist is
        shortened from the left: `/home/me/brain/no/1.png` is searched below the root as
        `home/me/brain/no/1.png`, …, `no/1.png`, `1.png`.
        """
        absolute = _ABSOLUTE.match(text) is not None
        if absolute and os.path.isfile(text):
            return Path(text)
        parts = path_parts(text)
        for start in range(len(parts)):
            path = self.root.joinpath(*parts[start:])
            if os.path.isfile(path):  # unlike Path.is_file, False also for impossible names
                self.rescued += absolute or start > 0
                return path
        return None


def best_root(places: Sequence[Path], texts: Iterable[str]) -> Path:
    """Return the folder below which most of the paths exist as written; the first in a tie."""
    parts = [path_parts(text) for text in texts]
    found = [sum(os.path.isfile(place.joinpath(*names)) for names in parts) for place in places]
    return places[found.index(max(found))]


def path_parts(text: str) -> list[str]:
    r"""Split a path in any notation.

    Example:
        >>> path_parts(r".\brain//no\1.png")
        ['brain', 'no', '1.png']
    """
    return [part for part in _SEPARATORS.split(text) if part not in ("", ".")]


@dataclass(frozen=True, slots=True)
class Pairing:
    """Pictures with their masks, and the files without a partner."""

    masks: dict[Path, tuple[Path, ...]]  # picture -> mask files, whose union is the ground truth
    unmasked: tuple[Path, ...]  # pictures without a mask
    unclaimed: tuple[Path, ...]  # masks without a picture
    clashes: tuple[str, ...]  # one line for each picture or mask with several possible partners


def pair_masks(images: Sequence[Path], masks: Iterable[Path], *, root: Path) -> Pairing:
    """Pair each picture `S` with `S`, `S_mask`, `S_mask1..n`, `S_label` or `S_Segmentation`.

    Stems have to be equal, so `1` is never paired with `10`. Numbered masks belong together. If
    a picture has several other candidates (`0.png` beside `0.bmp`), or two pictures could have
    the same mask, any choice may be wrong: the picture gets no mask and a clash is reported.
    Files without a mask's extension are unclaimed. Names in messages are relative to `root`.
    """
    every = tuple(masks)
    candidates: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for mask in every:
        if mask.suffix.casefold() in MASK_EXTENSIONS:
            for owner, rank in _owners(stem_key(mask)):
                candidates[owner].append((rank, mask))
    found: dict[Path, tuple[Path, ...]] = {}
    several: dict[Path, str] = {}
    claims: dict[Path, list[Path]] = defaultdict(list)  # mask -> pictures

    names = partial(path_examples, root=root)
    for image in images:
        ranked = sorted(candidates.get(stem_key(image), ()), key=lambda pair: pair[0])
        found[image] = tuple(mask for _, mask in ranked)
        for mask in found[image]:
            claims[mask].append(image)
        if _is_ambiguous([rank for rank, _ in ranked]):
            several[image] = f"{names([image])} has several masks: {names(found[image])}"
    disputed = {
        mask: f"{names([mask])} could be the mask of {names(rivals)}"
        for mask, rivals in claims.items()
        if len(rivals) > 1
    }
    return Pairing(
        masks={
            image: files
            for image, files in found.items()
            if files and image not in several and not disputed.keys() & set(files)
        },
        unmasked=tuple(image for image, files in found.items() if not files),
        unclaimed=tuple(mask for mask in every if mask not in claims),
        clashes=(*several.values(), *disputed.values()),
    )


def mask_owner_stem(stem: str) -> str | None:
    """Return the picture's stem in a mask's stem; None if the stem has no ending of a mask.

    Example:
        >>> mask_owner_stem("007_mask"), mask_owner_stem("007_mask2"), mask_owner_stem("007")
        ('007', '007', None)
    """
    return next((owner for owner, _ in _owners(stem) if owner != stem), None)


def _owners(stem: str) -> Iterator[tuple[str, int]]:
    """Yield the stems of possible pictures of a mask; the rank is the number, or below 0."""
    for rank, suffix in enumerate(_MASK_SUFFIXES, start=-len(_MASK_SUFFIXES)):
        if stem.endswith(suffix):
            yield stem.removesuffix(suffix), rank
    if numbered := _NUMBERED_MASK.fullmatch(stem):
        yield numbered["image"], int(numbered["number"])


def _is_ambiguous(ranks: Sequence[int]) -> bool:
    numbers = Counter(rank for rank in ranks if rank >= 0)
    return sum(rank < 0 for rank in ranks) + max(numbers.values(), default=0) > 1


def _is_litter(name: str) -> bool:
    """Return whether a system or a tool left the file behind."""
    return name.startswith(".") or name.casefold() in _LITTER


def _entries(folder: Path) -> list[Path]:
    names = (name for name in _scan(folder) if not _is_litter(name))
    return [folder / name for name in sorted(names, key=natural_key)]


def _scan(folder: Path) -> list[str]:
    try:
        return os.listdir(folder) if is_folder(folder) else []
    except OSError as error:
        raise DatasetError(f"{folder} cannot be listed: {error.strerror}.") from error
