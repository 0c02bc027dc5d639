"""TN3K (Gong et al., TRFE-Net): thyroid nodules in ultrasound; the 614 pairs of the test part.

Pictures and masks are JPEG of equal names. `trainval-*` is not read, and neither is
`label4test.csv`, which says benign or malignant and not normal or anomalous. The authors' own
loader keeps a mask's brightest pixels only; ours has the policies of `read_mask`.
"""

from __future__ import annotations

from pathlib import Path

from faprompt.data.segmented import Parts, SegmentedReader, images_and_masks, own_levels

_IMAGES, _MASKS = "test-image", "test-mask"


def _find(root: Path) -> Parts | None:
    for base in own_levels(root):
        parts = images_and_masks(base, images=(_IMAGES,), masks=(_MASKS,))
        if parts:
            return parts
    return images_and_masks(root)


def _tell(root: Path, parts: Parts) -> str | None:
    """The folders' own names; `images/` and `masks/` could be anybody's."""
    own = all(folder.name.casefold() == _MASKS for folder in parts.masks)
    return "as TN3K calls them" if own else None


TN3K = SegmentedReader(
    "tn3k",
    "TN3K, test: thyroid nodules in ultrasound, all 614 pictures anomalous",
    f"{_IMAGES}/* with masks of the same names in {_MASKS}/*",
    class_name="thyroid",
    defect_type="nodule",
    find=_find,
    tell=_tell,
    remarks={2879: "this is the trainval part, the paper uses the 614 test pictures"},
)
