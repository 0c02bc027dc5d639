"""Folders named one by one: normal, abnormal, normal for testing, masks.

The four roles are those of anomalib's `Folder` input. They are given to `read_folders`, or
written into a `folders.toml` (or `folders.json`) that `read_dataset` takes like a dataset:

    class_name = "cups"                 # optional; else the folder's name
    normal = "good"
    abnormal = ["chips", "dents"]
    normal_test = "good_later"          # optional
    masks = "masks"                     # optional; flat, or one folder per abnormal one
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from faprompt.config import parse_toml
from faprompt.data.base import Dataset, Notes, build_dataset, only_split
from faprompt.data.files import (
    examples,
    folder_name,
    is_folder,
    list_folders,
    list_images,
    read_json,
)
from faprompt.data.folder import Shelf, drop_beside_masks, fill_shelf, pair_shelves, shelf_sample
from faprompt.errors import DatasetError

Folders: TypeAlias = "str | Path | Sequence[str | Path]"

FILE_NAMES = ("folders.toml", "folders.json")

_NAME = "folders"
_ROLES = ("normal", "abnormal", "normal_test", "masks")
_OPTIONS = (*_ROLES, "class_name")


def read_folders(
    *,
    normal: Folders,
    abnormal: Folders = (),
    normal_test: Folders = (),
    masks: str | Path | None = None,
    split: str = "test",
    class_name: str | None = None,
) -> Dataset:
    """A dataset from folders that lie anywhere.

    Args:
        normal: normal pictures, one folder or several.
        abnormal: anomalous pictures; each folder's name is the kind of defect.
        normal_test: normal pictures to test with. When given, those of `normal` are the
            "train" split; otherwise they are tested with.
        masks: masks of the anomalous pictures, paired by stem; directly in this folder, or in
            one subfolder for each abnormal folder, named alike. Without it masks may lie
            beside their pictures as `<stem>_mask.png`.
        split: "test", or "train" where `normal_test` is given.
        class_name: the metric group; the name of the folder that holds all of them if None.

    Raises:
        DatasetError: a folder is missing, holds no pictures or is named twice; or there is
            no such split.

    Source:
        The roles of `Folder` in anomalib; pairing is by exact stem where theirs is by order.
    """
    good, bad, good_test = map(_listed, (normal, abnormal, normal_test))
    (truth,) = _listed(masks) if masks is not None else (None,)
    _refuse_oddities(good, bad, good_test, truth)
    root = _common_folder([*good, *bad, *good_test, *([truth] if truth else [])])
    if not good_test:
        only_split(f"{root}, without normal_test,", split)
        good_test = good
    elif split not in ("test", "train"):
        raise DatasetError(f"{root} has no {split!r} split; it has 'test' and 'train'.")
    defects = bad if split == "test" else []
    shelves = [_shelf(path, normal=True) for path in (good_test if split == "test" else good)]
    shelves += [_shelf(path, normal=False) for path in defects]
    drop_beside_masks(shelves)
    notes = Notes()
    pairs = pair_shelves(shelves, truth, root, notes)
    samples = [
        shelf_sample(
            image, shelf, pairs,
            class_name=class_name or folder_name(root) or _NAME, dataset=_NAME, split=split,
        )
        for shelf in shelves
        for image in shelf.images
    ]  # fmt: skip
    return build_dataset(_NAME, root, samples, notes, split=split, reason=_reason(good, bad))


@dataclass(frozen=True, slots=True)
class FoldersReader:
    """The description file, or the folder it lies in."""

    name: str = _NAME
    title: str = "normal, abnormal and mask folders, named one by one in a folders.toml"
    layout: str = 'folders.toml: normal = "good", abnormal = ["chips"], normal_test, masks'

    def recognise(self, root: Path) -> str | None:
        """A `folders.toml` or `folders.json`, or any `.toml` file given by itself."""
        file = _description(root)
        return file.name if file else None

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """The folders that the file names, relative to where it lies."""
        file = _description(root)
        if file is None:
            names = " or ".join(FILE_NAMES)
            raise DatasetError(f"{root} holds no {names}; expected {self.layout}.")
        options = _options(file)
        found = read_folders(
            **{role: _below(file, options[role]) for role in _ROLES if role in options},
            class_name=options.get("class_name") or folder_name(file.parent),
            split=split,
        )
        return replace(found, reason=file.name)


def _description(root: Path) -> Path | None:
    if root.is_file():
        return root if root.suffix.casefold() == ".toml" or root.name in FILE_NAMES else None
    return next((root / name for name in FILE_NAMES if (root / name).is_file()), None)


def _options(file: Path) -> dict[str, Any]:
    """The file's entries, all faults told at once."""
    content = read_json(file) if file.suffix.casefold() == ".json" else _read_toml(file)
    if not isinstance(content, dict):
        raise DatasetError(f"{file} should hold {', '.join(_OPTIONS)}, got {content!r}.")
    faults = [f"{key!r} is unknown" for key in content if key not in _OPTIONS]
    faults += [] if "normal" in content else ["'normal' is missing"]
    for key in content.keys() & set(_OPTIONS):
        single = key in ("masks", "class_name")
        if not (_is_text(content[key]) or (not single and _is_texts(content[key]))):
            wanted = "text" if single else "a folder or a list of them"
            faults.append(f"{key!r} should be {wanted}, got {content[key]!r}")
    if faults:
        raise DatasetError(
            f"{file}: {'; '.join(sorted(faults))}. It may hold {', '.join(_OPTIONS)}."
        )
    return content


def _read_toml(file: Path) -> Mapping[str, Any]:
    try:
        return parse_toml(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file} is no readable TOML: {error}.") from error


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value))


def _below(file: Path, value: Any) -> Any:
    if isinstance(value, list):
        return [file.parent / item for item in value]
    return file.parent / value


def _listed(folders: Folders) -> list[Path]:
    several = [folders] if isinstance(folders, (str, Path)) else folders
    return [Path(os.path.abspath(folder)) for folder in several]


def _refuse_oddities(
    good: list[Path], bad: list[Path], good_test: list[Path], truth: Path | None
) -> None:
    roles = {"normal": good, "abnormal": bad, "normal_test": good_test}
    if not good:
        raise DatasetError("normal names no folder; give at least one with normal pictures.")
    for role, folders in roles.items():
        for folder in folders:
            if not list_images(folder):
                raise DatasetError(f"{role} folder {folder} {_emptiness(folder)}.")
    if truth is not None and not is_folder(truth):
        raise DatasetError(f"masks folder {truth} does not exist.")
    every = [str(path) for path in (*good, *bad, *good_test, *([truth] if truth else []))]
    twice = sorted({path for path in every if every.count(path) > 1})
    if twice:
        raise DatasetError(f"{examples(twice)} is named twice; one folder has one role.")
    names = [folder_name(path) for path in bad]
    alike = sorted({name for name in names if names.count(name) > 1})
    if alike:
        raise DatasetError(
            f"several abnormal folders are called {examples(alike)}; their names are the kinds "
            "of defect, so rename all but one."
        )


def _emptiness(folder: Path) -> str:
    if not is_folder(folder):
        return "does not exist"
    below = examples(path.name for path in list_folders(folder))
    return "holds no pictures" + (f" itself; name its folders one by one: {below}" if below else "")


def _common_folder(folders: list[Path]) -> Path:
    """The folder above all of them."""
    try:
        return Path(os.path.commonpath([folder.parent for folder in folders]))
    except ValueError:  # on several drives
        return folders[0].parent


def _shelf(folder: Path, *, normal: bool) -> Shelf:
    return replace(fill_shelf(folder), kind=folder_name(folder), normal=normal)


def _reason(good: list[Path], bad: list[Path]) -> str:
    beside = f"abnormal ones in {examples(map(folder_name, bad))}" if bad else "no abnormal ones"
    return f"normal pictures in {examples(map(folder_name, good))}, {beside}"
