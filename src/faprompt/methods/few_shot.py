"""The normal reference pictures of WinCLIP+: which they are, and the memory of their tokens.

Files of pictures serve every class. Folders that `read_dataset` reads give each class its own:
all normal pictures of its train split, or K drawn ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from faprompt.clip.vision import ImageFeatures
from faprompt.data import cut_region, read_dataset
from faprompt.errors import ConfigError, DatasetError
from faprompt.files import natural_key
from faprompt.imaging.image_reading import read_image
from faprompt.imaging.picture_views import square_tiles
from faprompt.methods.base import Names
from faprompt.methods.class_names import number_classes
from faprompt.records import Sample
from faprompt.scoring import grid_map, nearest_distance, window_map

EVERY_CLASS = ""  # the class of pictures that serve every class
PATCHES = 0  # the scale of single patches; the others are named by their windows' sides
_ADVICE = (
    "References are normal pictures that are not measured: put them into <class>/train/good of "
    "an MVTec tree, or name files of pictures."
)
Scales = Mapping[int, Tensor]  # scale -> (R, channels)


def find_references(
    references: Sequence[str], *, shots: int = 0, seed: int = 111
) -> dict[str, tuple[Sample, ...]]:
    """Return the normal pictures of each class, in natural order; `EVERY_CLASS` for files.

    Args:
        references: files of pictures, or folders of datasets.
        shots: pictures drawn per class; fewer shots of a seed are a part of more. 0 takes all.
        seed: of the draw.

    Raises:
        ConfigError: files and folders together, shots of files, or a class with too few pictures.
        DatasetError: a folder is no dataset, or has no normal picture in a train split.
    """
    folders = [Path(name) for name in references if Path(name).is_dir()]
    if not folders:
        return _of_files(references, shots)
    if len(folders) < len(references):
        raise ConfigError(
            f"references should be files of normal pictures, or folders of datasets; "
            f"got {', '.join(references)}, which are both."
        )
    normal = [sample for folder in folders for sample in _read_normal(folder)]
    classes = sorted({sample.class_name for sample in normal}, key=natural_key)
    by_class = {name: [s for s in normal if s.class_name == name] for name in classes}
    few = [f"{name} has {len(held)}" for name, held in by_class.items() if len(held) < shots]
    if few:
        raise ConfigError(
            f"shots={shots} wants as many normal pictures of every class, but {', '.join(few)}; "
            "take fewer shots, or 0 for all there are."
        )
    return {name: _draw(held, shots, seed) for name, held in by_class.items()}


def _of_files(references: Sequence[str], shots: int) -> dict[str, tuple[Sample, ...]]:
    if references and shots:
        absent = [name for name in references if not Path(name).exists()]
        if absent:
            raise ConfigError(f"references: {', '.join(absent)} does not exist; give a folder.")
        raise ConfigError(
            f"shots={shots} are drawn of the classes of a folder; the references are files, which "
            "are all taken: leave shots out, or give the folder."
        )
    samples = [Sample(Path(name), 0, EVERY_CLASS) for name in references]
    return {EVERY_CLASS: tuple(samples)} if samples else {}


def _read_normal(folder: Path) -> list[Sample]:
    try:
        found = [sample for sample in read_dataset(folder, split="train") if not sample.label]
    except DatasetError as error:
        raise DatasetError(f"{error} {_ADVICE}") from error
    if not found:
        raise DatasetError(f"{folder} has no normal picture in its train split. {_ADVICE}")
    return found


def _draw(samples: Sequence[Sample], shots: int, seed: int) -> tuple[Sample, ...]:
    if not shots:
        return tuple(samples)
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    return tuple(samples[place] for place in sorted(order[:shots].tolist()))


def fingerprints(references: Mapping[str, Sequence[Sample]]) -> tuple[str, ...]:
    """Return the `fingerprint` of every picture that exists; reading refuses the others."""
    samples = [sample for held in references.values() for sample in held]
    return tuple(fingerprint(sample) for sample in samples if sample.image_path.is_file())


def fingerprint(sample: Sample) -> str:
    """Return SHA-256 of a reference's file, with its class and region if it serves one class."""
    digest = hashlib.sha256(sample.image_path.read_bytes())
    if sample.class_name != EVERY_CLASS:
        digest.update(repr((sample.class_name, sample.region)).encode())
    return digest.hexdigest()


def picture_parts(sample: Sample, *, tiled: bool) -> list[np.ndarray]:
    """Read a reference as overlapping squares, or whole; each (height, width, 3) uint8."""
    image = cut_region(read_image(sample.image_path).array, sample)
    height, width = image.shape[:2]
    boxes = square_tiles(height, width) if tiled else [(0, 0, width, height)]
    return [image[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes]


def by_scale(features: ImageFeatures) -> dict[int, Tensor]:
    """Return tokens by window side, (B, W, D); under `PATCHES` the patches, (B, N, width)."""
    return {PATCHES: features.patch_tokens[max(features.patch_tokens)], **features.windows}


class ReferenceMemory(nn.Module):
    """Tokens of normal pictures, one bank per class; none of it is saved.

    `seen`: class -> features of its pictures or parts of them, one at a time.
    """

    def __init__(self, seen: Mapping[str, Iterable[ImageFeatures]]) -> None:
        super().__init__()
        self.classes = tuple(seen)
        for number, features in enumerate(seen.values()):
            parts = [by_scale(one) for one in features]
            for scale in parts[0]:
                tokens = torch.cat([part[scale][0] for part in parts])
                self.register_buffer(_key(number, scale), tokens, persistent=False)

    @property
    def by_class(self) -> bool:
        """Whether a picture is compared with those of its class alone."""
        return bool(self.classes) and self.classes != (EVERY_CLASS,)

    def tokens(self, number: int, scale: int) -> Tensor:
        """Return all tokens (R, channels) of a class, by its place in `classes`."""
        return self.get_buffer(_key(number, scale))

    def distance_map(self, features: ImageFeatures, class_names: Names, *, method: str) -> Tensor:
        """Return distances to the normal pictures, mean over all scales: (B, rows, columns).

        Raises:
            ConfigError: a class has no references, or is not named although there are several.
        """
        scales, numbers = by_scale(features), [0]
        if self.by_class:
            numbers = number_classes(
                self.classes, class_names,
                each=f"{method} has references for each", nothing=f"{method} has no references",
                advice="Add normal pictures of them to the references",
            )  # fmt: skip
        if len(set(numbers)) == 1:
            return self._distances(numbers[0], scales, features.grid)
        chosen = torch.tensor(numbers)
        groups = [(chosen == number).nonzero()[:, 0] for number in chosen.unique()]
        maps = [
            self._distances(numbers[int(rows[0])], _only(scales, rows), features.grid)
            for rows in groups
        ]
        return torch.cat(maps)[torch.cat(groups).argsort()]

    def _distances(self, number: int, scales: Scales, grid: tuple[int, int]) -> Tensor:
        maps = []
        for side, tokens in scales.items():
            distance = nearest_distance(tokens, self.tokens(number, side))
            patches = side == PATCHES
            maps.append(grid_map(distance, grid) if patches else window_map(distance, grid, side))
        return torch.stack(maps).mean(dim=0)


def _key(number: int, scale: int) -> str:
    return f"tokens_{number}_{scale}"


def _only(scales: Scales, rows: Tensor) -> dict[int, Tensor]:
    return {scale: tokens[rows.to(tokens.device)] for scale, tokens in scales.items()}
