"""Sets where every picture is anomalous and has a mask: polyps, skin lesions, thyroid nodules.

Without normal pictures they give pixel figures only; image figures are undefined. The readers
themselves are in `polyps`, `isic` and `tn3k`; each knows where its parts lie and what marks them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from faprompt.data.base import Dataset, Notes, build_dataset, only_split, take_pairings
from faprompt.data.files import (
    examples,
    find_folder,
    folder_name,
    folders_beside,
    holds_images,
    list_folders,
    list_images,
    relative_name,
    stem_key,
)
from faprompt.data.pairing import pair_masks
from faprompt.errors import DatasetError
from faprompt.records import Sample

_JPEG = (".jpg", ".jpeg")


@dataclass(frozen=True, slots=True)
class Parts:
    """The folders of one set: pictures in some, their masks in others."""

    images: tuple[Path, ...]
    masks: tuple[Path, ...]

    def pictures(self) -> list[Path]:
        """Every picture."""
        return [path for folder in self.images for path in list_images(folder)]

    def mask_files(self) -> list[Path]:
        """Every picture file among the masks."""
        return [path for folder in self.masks for path in list_images(folder)]

    def stems(self) -> list[str]:
        """The pictures' names without extension."""
        return [stem_key(path) for path in self.pictures()]

    def place(self, root: Path) -> str:
        """Both parts in words, with the format of the masks by their extensions."""
        kinds = sorted({path.suffix[1:].upper() for path in self.mask_files()})
        images, masks = (_names(folders, root) for folders in (self.images, self.masks))
        return f"{images} with {' and '.join(kinds) or 'no'} masks in {masks}"


@dataclass(frozen=True, slots=True)
class SegmentedReader:
    """Reads pictures and masks from where `find` says they are; every picture is anomalous."""

    name: str
    title: str
    layout: str
    class_name: str
    defect_type: str
    find: Callable[[Path], Parts | None]  # where the parts lie, whose set ever it is
    tell: Callable[[Path, Parts], str | None]  # what marks them as this set's
    foreign: Callable[[Path], str | None] = field(default=lambda root: None)  # a known look-alike
    remarks: Mapping[int, str] = field(default_factory=dict)  # number of pictures -> what it is

    def recognise(self, root: Path) -> str | None:
        """The parts, and what tells this set from its like."""
        try:
            parts = None if self.foreign(root) else self.find(root)
        except DatasetError:  # two folders of nearly one name: for others nothing special
            return None
        told = self.tell(root, parts) if parts else None
        return f"{parts.place(root)}, {told}" if parts and told else None

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """Every picture, whatever its folder is called; there is no train split."""
        only_split(self.name, split)
        if foreign := self.foreign(root):
            raise DatasetError(f"{root} is not {self.name}: {foreign}.")
        parts = self.find(root)
        if parts is None:
            found = examples(path.name for path in list_folders(root)) or "no folders"
            raise DatasetError(f"{root} is not {self.name}: expected {self.layout}; found {found}.")
        notes = Notes()
        self._note(root, parts, notes)
        pairing = pair_masks(parts.pictures(), parts.mask_files(), root=root)
        masks = take_pairings([pairing], notes, what=_names(parts.masks, root))
        samples = [self._sample(image, masks.get(image, ())) for image in parts.pictures()]
        reason = self.recognise(root) or parts.place(root)
        return build_dataset(self.name, root, samples, notes, split=split, reason=reason)

    def _note(self, root: Path, parts: Parts, notes: Notes) -> None:
        count = len(parts.pictures())
        if remark := self.remarks.get(count):
            notes.warnings.append(f"{count} pictures: {remark}")
        if any(path.suffix.casefold() in _JPEG for path in parts.mask_files()):
            notes.warnings.append(
                "the masks are JPEG, noisy around their contours: pixel figures differ between "
                "the mask policies 'reference' and 'strict', and from those of a PNG copy"
            )
        beside = [relative_name(p, root) for p in folders_beside(root, parts.images + parts.masks)]
        if beside:
            notes.warnings.append(
                f"folders that are no part of it are left out: {examples(beside)}"
            )

    def _sample(self, image: Path, masks: tuple[Path, ...]) -> Sample:
        return Sample(
            image_path=image,
            label=1,
            class_name=self.class_name,
            defect_type=self.defect_type,
            mask_paths=masks,
            has_pixel_label=bool(masks),
            dataset=self.name,
        )


def images_and_masks(
    base: Path, *, images: tuple[str, ...] = ("images",), masks: tuple[str, ...] = ("masks",)
) -> Parts | None:
    """Two folders of these names side by side, the first with pictures in it.

    Raises:
        DatasetError: several folders have one of the names but for their case.
    """
    pictures, truth = find_folder(base, *images), find_folder(base, *masks)
    if pictures is None or truth is None or not holds_images(pictures):
        return None
    return Parts((pictures,), (truth,))


def own_levels(root: Path) -> tuple[Path, ...]:
    """`root`, and the folder of its own name inside that archives tend to bring."""
    return root, root / folder_name(root)


def plain_name(root: Path) -> str:
    """A folder's name as letters and digits only.

    Example:
        >>> plain_name(Path("data/CVC-ClinicDB"))
        'cvcclinicdb'
    """
    return "".join(letter for letter in folder_name(root).casefold() if letter.isalnum())


def _names(folders: tuple[Path, ...], root: Path) -> str:
    return examples(f"{relative_name(folder, root)}/" for folder in folders)
