"""RD4AD: a student rebuilds a frozen teacher's feature maps, and fails on what it never saw.

    E_k  teacher's map of stage k = 1..3          D_1, D_2, D_3 = decoder(bottleneck(E_1, E_2, E_3))
    L = sum_k mean_b [1 - cos(vec E_k, vec D_k)]          whole flattened maps of a picture
    map = sum_k up(1 - cos(E_k, D_k)) / 3                 per position; corners of the maps aligned
    score = the largest value of the smoothed map

Bottleneck, decoder and loss are anomalib's; the bottleneck has the official base width of 128
and not anomalib's default. The division is ours: it brings the sum into 0..1.

Paper: Deng and Li, Anomaly Detection via Reverse Distillation from One-Class Embedding, CVPR
2022. Facts from hq-deng/RD4AD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from faprompt.clip.backbone import Backbone
from faprompt.clip.vision import ImageFeatures
from faprompt.clip.wide_resnet import CELL, STAGES, WIDE_RESNET, WideResNet, unpack_stages
from faprompt.config import Count
from faprompt.methods.base import MethodOutput, ParameterCount, Table
from faprompt.methods.full_shot import FullShotConfig, FullShotMethod, anomalib_module
from faprompt.scoring import render_map, upsample

PARAMETERS = 83_802_624  # that are trained and used: 58,885,120 and 24,917,504
BASE_WIDTH = 128  # of the bottleneck's blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class RD4ADConfig(FullShotConfig):
    """Options of RD4AD."""

    image_size: Count = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class RD4ADOutput(MethodOutput):
    """teacher, student: maps of the three stages, each (B, channels, rows, columns)."""

    teacher: tuple[Tensor, ...]
    student: tuple[Tensor, ...]


class RD4AD(FullShotMethod):
    """One student per class, of one frozen teacher."""

    name = "rd4ad"
    config_class = RD4ADConfig
    parameters_at_full_size = ParameterCount(PARAMETERS, PARAMETERS)  # of a class
    interpolation = "bilinear"  # as in the official code
    backbones = {"paper": WIDE_RESNET}
    recipes: ClassVar[Table] = {  # main.py
        "paper": {"epochs": 200, "batch_size": 16, "learning_rate": 0.005, "betas": (0.5, 0.999)}
    }
    config: RD4ADConfig

    def __init__(self, config: RD4ADConfig, backbone: Backbone) -> None:
        super().__init__()
        if not isinstance(backbone, WideResNet):
            raise ValueError(
                f"it rebuilds the feature maps of {WIDE_RESNET}; give that, or a file of its "
                "weights, as the backbone"
            )
        self.config = config
        self.models = nn.ModuleList(Student() for _ in config.classes)

    def score_class(self, model: nn.Module, features: ImageFeatures) -> RD4ADOutput:
        teacher = tuple(unpack_stages(features).values())
        student = model(teacher)
        size = (features.grid[0] * CELL, features.grid[1] * CELL)
        maps = [
            upsample(1 - cosine_similarity(seen, made), size, align_corners=True)
            for seen, made in zip(teacher, student, strict=True)
        ]
        patch_map = (torch.stack(maps).sum(dim=0) / len(STAGES)).clamp(0, 1)  # neither is negative
        smooth = render_map(patch_map, model_size=size, sigma_px=self.config.sigma_px)
        return RD4ADOutput(
            score=smooth.amax(dim=(1, 2)), patch_map=patch_map, teacher=teacher, student=student
        )

    def loss(self, output: RD4ADOutput, label: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return one term; labels and masks are ignored, as all pictures are taken for normal."""
        module = anomalib_module("models.image.reverse_distillation.loss")
        loss = module.ReverseDistillationLoss()
        return {"distillation": loss(list(output.teacher), list(output.student))}


class Student(nn.Module):
    """Bottleneck and decoder, without the two layers that are declared and never used."""

    def __init__(self) -> None:
        super().__init__()
        bottleneck = anomalib_module("models.image.reverse_distillation.components.bottleneck")
        self.bottleneck = bottleneck.OCBE(bottleneck.Bottleneck, 3, width_per_group=BASE_WIDTH)
        del self.bottleneck.conv4, self.bottleneck.bn4
        decoder = anomalib_module("models.components.backbone")
        self.decoder = decoder.get_decoder("wide_resnet50_2")
        found = sum(parameter.numel() for parameter in self.parameters())
        assert found == PARAMETERS, f"anomalib's parts have {found} parameters, not {PARAMETERS}"

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Rebuild the maps of stages 1 to 3."""
        return tuple(self.decoder(self.bottleneck(list(maps))))
