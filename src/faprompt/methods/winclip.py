"""WinCLIP: windows of patches beside the whole picture, each compared with words.

    s0 = p(class token of the picture)                    the score
    s_w = p(class token of the window w alone)            2x2 and 3x3 patches, one step apart
    M_k(i, j) = n / sum of 1/s_w over the n windows of side k that hold patch (i, j)
    M = 3 / (1/M_2 + 1/M_3 + 1/s0)                        the map

p is the chance of "abnormal" under 154 normal and 88 abnormal sentences. WinCLIP+ has normal
pictures for reference and adds half the cosine distance to their nearest token, for patches and
for windows. Files of pictures serve every class. Folders that `read_dataset` reads give each
class its own: all normal pictures of its train split, or K drawn ones.

Paper: Jeong et al., WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation,
CVPR 2023. There is no official code; facts from mala-lab/WinCLIP (sentences, temperature,
tiles) and zqhang/Accurate-WinCLIP-pytorch (maps; preset "code").
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageFeatures
from faprompt.config import Count, Natural
from faprompt.data import cut_region, read_dataset
from faprompt.errors import ConfigError, DatasetError
from faprompt.files import natural_key
from faprompt.imaging.image_reading import read_image
from faprompt.imaging.picture_views import cut_tiles, tile_boxes
from faprompt.imaging.transform import Transform
from faprompt.methods.base import MethodOutput, Names, group_rows, number_classes, take_rows
from faprompt.methods.sentences import SentenceConfig, SentenceMethod
from faprompt.prompts import templates
from faprompt.records import Sample
from faprompt.scoring import grid_map, harmonic_mean, nearest_distance, window_map

EVERY_CLASS = ""  # the class of pictures that serve every class
PATCHES = 0  # the scale of single patches; the others are named by their windows' sides
_ADVICE = (
    "References are normal pictures that are not measured: put them into <class>/train/good of "
    "an MVTec tree, or name files of pictures."
)
TEMPLATES = {"paper": templates.WINCLIP_TEMPLATES, "code": templates.WINCLIP_TEMPLATES_OF_CODE}


@dataclass(frozen=True, slots=True, kw_only=True)
class WinCLIPConfig(SentenceConfig):
    """Options of WinCLIP and, with `references`, of WinCLIP+."""

    image_size: Count = 240
    windows: tuple[int, ...] = (2, 3)  # sides in patches
    prompt_set: Literal["paper", "code"] = "paper"  # 22 templates, or the code's 21
    tiles: bool = True  # pictures that are not square as overlapping squares
    references: tuple[str, ...] = ()  # files of normal pictures, or folders; it is WinCLIP+
    shots: Natural = 0  # normal pictures drawn of each class of the folders; 0 for all
    seed: int = 111  # of that draw
    reference_ln_post: bool = False  # compare patch tokens after `ln_post`, as anomalib does

    def faults(self) -> list[str]:
        found = []
        if not self.windows or min(self.windows) < 1 or len(set(self.windows)) < len(self.windows):
            found.append(f"windows should be different sides of at least 1, got {self.windows}")
        if self.shots and not self.references:
            found.append(f"shots={self.shots} wants references, a folder with normal pictures")
        return found


PRESETS: dict[str, dict[str, object]] = {
    "paper": {},
    "common": {"image_size": 518},
    "code": {
        "prompt_set": "code", "average": "mean-norm", "temperature": 0.07, "tiles": False,
        "raw_class_names": True, "reference_ln_post": True,
    },
}  # fmt: skip


class WinCLIP(SentenceMethod):
    """Harmonic means of window scores; nothing is learned."""

    name = "winclip"
    config_class = WinCLIPConfig
    presets = PRESETS
    backbones = {
        "paper": "ViT-B-16-plus-240:laion400m_e31",
        "code": "ViT-B-16-plus-240:laion400m_e31",
    }
    config: WinCLIPConfig

    def __init__(self, config: WinCLIPConfig, backbone: Backbone) -> None:
        side = config.image_size // backbone.spec.vision.patch_size
        if max(config.windows) > side:
            raise ValueError(
                f"windows={config.windows} do not fit the {side}x{side} patches of "
                f"image_size={config.image_size}; use smaller ones or a larger image size"
            )
        super().__init__(
            config, backbone, states=templates.WINCLIP_STATES,
            lines=lambda _: TEMPLATES[config.prompt_set],
        )  # fmt: skip
        self.tiled = config.tiles
        self.image_options = replace(
            self.image_options, windows=config.windows, raw_tokens=True,
            raw_ln_post=config.reference_ln_post,
        )  # fmt: skip
        found = _references_of(config)
        self._sources = fingerprints(found)
        spec, size = backbone.spec, (config.image_size, config.image_size)
        transform = Transform(image_size=size, mean=spec.mean, std=spec.std)
        with torch.no_grad():
            seen = {
                name: [
                    self.encode_image(backbone, torch.from_numpy(transform.to_pixels(part))[None])
                    for sample in held
                    for part in picture_parts(sample, tiled=self.tiled)
                ]
                for name, held in found.items()
            }
        self.memory = ReferenceMemory(seen)
        self.uses_class_names |= self.memory.by_class

    @property
    def sources(self) -> tuple[str, ...]:
        """SHA-256 of the normal pictures, as they were when they were read."""
        return self._sources

    @classmethod
    def option_sources(cls, config: WinCLIPConfig) -> tuple[str, ...]:
        """Return SHA-256 of the normal pictures, as they are now."""
        return fingerprints(_references_of(config))

    def score(
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> MethodOutput:
        pair = self.text_pairs(text, class_names)
        score = self.chance(features.class_token[:, None], pair)[:, 0]
        scales = [
            window_map(self.chance(tokens, pair), features.grid, side)
            for side, tokens in features.windows.items()
        ]
        whole = score[:, None, None].expand_as(scales[0])
        patch_map = harmonic_mean(torch.stack([*scales, whole]))
        if self.config.references:
            distance = self.memory.distance_map(features, class_names, method=self.name)
            score = (score + distance.amax(dim=(1, 2))) / 2
            patch_map = (patch_map + distance) / 2
        return MethodOutput(score=score, patch_map=patch_map)


def _references_of(config: WinCLIPConfig) -> dict[str, tuple[Sample, ...]]:
    return find_references(config.references, shots=config.shots, seed=config.seed)


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
        return _take_files(references, shots)
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


def _take_files(references: Sequence[str], shots: int) -> dict[str, tuple[Sample, ...]]:
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
    return cut_tiles(image, tile_boxes(image.shape[:2], tiled=tiled))


class ReferenceMemory(nn.Module):
    """Tokens of normal pictures, one bank per class; none of it is saved.

    `seen`: class -> features of its pictures or parts of them, one at a time.
    """

    def __init__(self, seen: Mapping[str, Iterable[ImageFeatures]]) -> None:
        super().__init__()
        self.classes = tuple(seen)
        for number, features in enumerate(seen.values()):
            parts = [_by_scale(one) for one in features]
            for scale in parts[0]:
                tokens = torch.cat([part[scale][0] for part in parts])
                self.register_buffer(f"tokens_{number}_{scale}", tokens, persistent=False)

    @property
    def by_class(self) -> bool:
        """Whether a picture is compared with those of its class alone."""
        return bool(self.classes) and self.classes != (EVERY_CLASS,)

    def tokens(self, number: int, scale: int) -> Tensor:
        """Return all tokens (R, channels) of a class, by its place in `classes`."""
        return self.get_buffer(f"tokens_{number}_{scale}")

    def distance_map(self, features: ImageFeatures, class_names: Names, *, method: str) -> Tensor:
        """Return distances to the normal pictures, mean over all scales: (B, rows, columns).

        Raises:
            ConfigError: a class has no references, or is not named although there are several.
        """
        numbers = [0]
        if self.by_class:
            numbers = number_classes(
                self.classes, class_names,
                each=f"{method} has references for each", nothing=f"{method} has no references",
                advice="Add normal pictures of them to the references",
            )  # fmt: skip
        if len(set(numbers)) == 1:
            return self._distances(numbers[0], features)
        rows, order = group_rows(numbers)
        maps = [self._distances(n, take_rows(features, some)) for n, some in rows.items()]
        return torch.cat(maps)[order]

    def _distances(self, number: int, features: ImageFeatures) -> Tensor:
        maps = []
        for side, tokens in _by_scale(features).items():
            distance = nearest_distance(tokens, self.tokens(number, side))
            patches, grid = side == PATCHES, features.grid
            maps.append(grid_map(distance, grid) if patches else window_map(distance, grid, side))
        return torch.stack(maps).mean(dim=0)


def _by_scale(features: ImageFeatures) -> dict[int, Tensor]:
    """Tokens by window side, (B, W, D); under `PATCHES` the patches, (B, N, width)."""
    return {PATCHES: features.patch_tokens[max(features.patch_tokens)], **features.windows}
