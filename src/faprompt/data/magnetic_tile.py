"""Magnetic-tile defects (Huang et al., The Visual Computer 2020): `MT_<Kind>/Imgs/`.

Pictures are JPEG and masks PNG of the same stem, side by side. `MT_Free` is normal; every
other folder is one kind of defect. The whole set is one class, since the normal tiles belong
to no kind; `by_defect_type` pairs each kind with all of them. The FAPrompt paper does not
use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from faprompt.data.base import Dataset, Notes, build_dataset, only_split, take_pairings
from faprompt.data.files import examples, is_folder, list_folders, list_images
from faprompt.data.pairing import pair_masks
from faprompt.errors import DatasetError
from faprompt.records import Sample

_PREFIX, _NORMAL, _PICTURES = "mt_", "Free", "Imgs"


@dataclass(frozen=True, slots=True)
class MagneticTileReader:
    """The folders of the public download, all six kinds or some of them."""

    name: str = "magnetic_tile"
    title: str = "magnetic tiles with blowholes, cracks and other defects"
    layout: str = "MT_<Kind>/Imgs/*.jpg with masks *.png beside them; MT_Free is normal"

    def recognise(self, root: Path) -> str | None:
        """At least one `MT_*/Imgs`."""
        kinds = _kind_folders(root)
        return f"folders {examples(kind.name for kind in kinds)}" if kinds else None

    def read(self, root: Path, *, split: str = "test") -> Dataset:
        """Every tile; there is no train split."""
        only_split(self.name, split)
        kinds = _kind_folders(root)
        if not kinds:
            found = examples(path.name for path in list_folders(root)) or "no folders"
            raise DatasetError(f"{root} is not {self.name}: expected {self.layout}; found {found}.")
        notes = Notes()
        masks = _pair(kinds, root, notes)
        samples = [
            _sample(image, kind_name(kind), masks) for kind in kinds for image in _pictures(kind)
        ]
        reason = f"folders {examples(kind.name for kind in kinds)}"
        return build_dataset(self.name, root, samples, notes, split=split, reason=reason)


def kind_name(folder: Path) -> str:
    """The kind of defect a folder holds.

    Example:
        >>> kind_name(Path("magnetic_tile/MT_Blowhole"))
        'Blowhole'
    """
    return folder.name[len(_PREFIX) :]


def _is_normal(kind: str) -> bool:
    return kind.casefold() == _NORMAL.casefold()


def _kind_folders(root: Path) -> list[Path]:
    return [
        folder
        for folder in list_folders(root)
        if folder.name.casefold().startswith(_PREFIX) and is_folder(folder / _PICTURES)
    ]


def _pictures(kind: Path) -> list[Path]:
    return [path for path in list_images(kind / _PICTURES) if path.suffix.casefold() != ".png"]


def _masks(kind: Path) -> list[Path]:
    return [path for path in list_images(kind / _PICTURES) if path.suffix.casefold() == ".png"]


def _pair(kinds: list[Path], root: Path, notes: Notes) -> dict[Path, tuple[Path, ...]]:
    """Masks of the defects. Normal tiles come with blank ones, which are matched but not kept."""
    defects = [kind for kind in kinds if not _is_normal(kind_name(kind))]
    pairings = [pair_masks(_pictures(kind), _masks(kind), root=root) for kind in defects]
    for kind in set(kinds) - set(defects):
        normal = pair_masks(_pictures(kind), _masks(kind), root=root)
        notes.orphan_masks += normal.unclaimed
    return take_pairings(pairings, notes, what="the MT_* folders") if defects else {}


def _sample(image: Path, kind: str, masks: dict[Path, tuple[Path, ...]]) -> Sample:
    normal = _is_normal(kind)
    own = masks.get(image, ())
    return Sample(
        image_path=image,
        label=0 if normal else 1,
        class_name="magnetic_tile",
        defect_type="good" if normal else kind,
        mask_paths=own,
        has_pixel_label=bool(masks) and (normal or bool(own)),
        dataset="magnetic_tile",
    )
