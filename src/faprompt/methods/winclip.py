"""WinCLIP: windows of patches beside the whole picture, each compared with words.

    s0 = p(class token of the picture)                    the score
    s_w = p(class token of the window w alone)            2x2 and 3x3 patches, one step apart
    M_k(i, j) = n / sum of 1/s_w over the n windows of side k that hold patch (i, j)
    M = 3 / (1/M_2 + 1/M_3 + 1/s0)                        the map

p is the chance of "abnormal" under 154 normal and 88 abnormal sentences. WinCLIP+ has normal
pictures for reference and adds half the cosine distance to their nearest token, for patches and
for windows; references by class are compared with pictures of their class only.

Paper: Jeong et al., WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation,
CVPR 2023. There is no official code; facts from mala-lab/WinCLIP (sentences, temperature,
tiles) and zqhang/Accurate-WinCLIP-pytorch (maps; preset "code").
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from faprompt.clip.backbone import Backbone
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageFeatures
from faprompt.config import Count, Natural
from faprompt.imaging.transform import Transform
from faprompt.methods.base import MethodOutput, Names
from faprompt.methods.few_shot import ReferenceMemory, find_references, fingerprints, picture_parts
from faprompt.methods.sentences import SentenceConfig, SentenceMethod
from faprompt.prompts import templates
from faprompt.records import Sample
from faprompt.scoring import harmonic_mean, window_map

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
            self.memory = ReferenceMemory(
                {
                    name: [
                        self.encode_image(backbone, transform.to_pixels(part)[None])
                        for sample in held
                        for part in picture_parts(sample, tiled=self.tiled)
                    ]
                    for name, held in found.items()
                }
            )
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
