"""PatchCore: the distance of every patch from the nearest patch of normal pictures.

    e(i, j) = 3x3 means of the feature maps of two depths, side by side, at place (i, j)
    M = a coreset of all e of the normal pictures          greedy k-center
    d(i, j) = min over m in M of |e(i, j) - m|
    s = w d*,  d* the largest d,  w = 1 - softmax of |e* - m| over m* and its neighbours
    score = s / (s + r),  map = the same of d upsampled and smoothed,  r the spread of all e

Embedding, coreset and w are anomalib's. Maps are upsampled bilinearly and smoothed
as scipy does, like the official code's and all of ours; anomalib takes the nearest. The last
line is ours: it keeps the order and brings distances into 0..1.

Paper: Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022. Facts from
amazon-science/patchcore-inspection.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faprompt.clip.backbone import Backbone
from faprompt.clip.vision import ImageFeatures, ImageOptions
from faprompt.clip.wide_resnet import STAGES, WIDE_RESNET, WideResNet, unpack_stages
from faprompt.config import Count, Natural, Range
from faprompt.methods.base import MethodOutput, within_depth
from faprompt.methods.full_shot import FullShotConfig, FullShotMethod, anomalib_module
from faprompt.scoring import grid_map, render_map

SAME = 1e-5  # of their length: patches that differ by less are alike
STRIDE = STAGES[2][1]  # pixels between patches on the paper's backbone
DISTANCES_AT_ONCE = 1 << 22  # of each picture, to the memory: 16 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchCoreConfig(FullShotConfig):
    """Options of PatchCore."""

    image_size: Count = 256
    centre_crop: int = 224  # side in pixels of the middle that is seen; 0 for all
    # stages, or blocks from 1; () is stages 2 and 3, or the blocks that end 2/4 and 3/4
    map_layers: tuple[int, ...] = ()
    value_path: bool = True  # use a transformer's V-V tokens, as the other methods do
    unit_tokens: bool = False  # normalise the tokens of each layer, so that none outweighs
    coreset: Annotated[float, Range(above=0, high=1)] = 0.1  # share of the patches that is kept
    memory_limit: Natural = 0  # most patches kept per class; 0 for no limit
    neighbours: Count = 9  # that weigh the score; 1 for the largest distance itself
    memory: tuple[int, ...] = ()  # written by training: patches kept of each class

    def faults(self) -> list[str]:
        found = FullShotConfig.faults(self)
        margin = self.image_size - self.centre_crop
        if self.centre_crop < 0 or (self.centre_crop and (margin < 0 or margin % (2 * STRIDE))):
            found.append(
                f"centre_crop should be 0, or leave a margin of whole {STRIDE}-pixel patches "
                f"of image_size={self.image_size}, got {self.centre_crop}"
            )
        if len(self.memory) != len(self.classes):
            found.append(f"memory should be one number a class, got {len(self.memory)}")
        if any(kept < 1 or kept > (self.memory_limit or kept) for kept in self.memory):
            most = f" and at most memory_limit={self.memory_limit}" if self.memory_limit else ""
            found.append(f"memory should be at least 1{most} a class, got {self.memory}")
        return found


class PatchCore(FullShotMethod):
    """One memory of normal patches per class; no parameter moves."""

    name = "patchcore"
    remembers = True
    written = ("classes", "memory")
    config_class = PatchCoreConfig
    presets = {
        "paper": {},
        "code": {"neighbours": 1},
        "common": {
            "image_size": 518, "centre_crop": 0, "unit_tokens": True, "memory_limit": 50_000,
        },
    }  # fmt: skip
    backbones = {"paper": WIDE_RESNET, "code": WIDE_RESNET}
    config: PatchCoreConfig

    def __init__(self, config: PatchCoreConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self._stages = isinstance(backbone, WideResNet)
        if config.centre_crop and not self._stages:
            raise ValueError(
                f"centre_crop={config.centre_crop} goes with {WIDE_RESNET}; on this backbone take "
                "--preset common, or --backbone with a file of that network"
            )
        vision = backbone.spec.vision
        depth = len(STAGES) if self._stages else vision.layers
        within_depth(config.map_layers, depth)
        middle = {2, 3} if self._stages else {math.ceil(depth / 2), math.ceil(3 * depth / 4)}
        self._layers = tuple(sorted(set(config.map_layers) or middle))
        if self._stages:
            self.interpolation = "bilinear"  # as in the official code
        else:
            self.image_options = ImageOptions(
                layers=self._layers, value_path=config.value_path, raw_tokens=True
            )
        self._patch_size = vision.patch_size
        widths = [STAGES[k][0] if self._stages else vision.width for k in self._layers]
        self.models = nn.ModuleList(_Memory(kept, sum(widths)) for kept in config.memory)

    @property
    def sigma_px(self) -> float:
        """0: maps are smoothed while they are still distances."""
        return 0.0

    def encode_image(self, backbone: Backbone, pixels: Tensor) -> ImageFeatures:
        """Encode pixels, or their middle if `centre_crop` is set."""
        margin = self._margin
        rows, columns = (slice(margin, side - margin) for side in pixels.shape[-2:])
        return super().encode_image(backbone, pixels[..., rows, columns])

    @property
    def _margin(self) -> int:
        """Pixels on each side that are cropped."""
        config = self.config
        return (config.image_size - config.centre_crop) // 2 if config.centre_crop else 0

    def embed(self, features: ImageFeatures) -> Tensor:
        """Return (B, channels, rows, columns), which the memory holds and compares."""
        if self._stages:
            maps = unpack_stages(features)
        else:
            tokens = features.patch_tokens
            maps = {layer: grid_map(tokens[layer].mT, features.grid) for layer in self._layers}
        pooled = {}
        for layer in self._layers:
            planes = F.normalize(maps[layer], dim=1) if self.config.unit_tokens else maps[layer]
            pooled[layer] = F.avg_pool2d(planes, 3, 1, 1)
        return self._scorer(torch.empty(0)).generate_embedding(pooled)

    def score_class(self, model: nn.Module, features: ImageFeatures) -> MethodOutput:
        assert isinstance(model, _Memory)
        embedding = self.embed(features)
        rows, columns = embedding.shape[-2:]
        patches = embedding.flatten(2).mT  # (B, N, channels)
        distances, places = nearest_patches(patches, model.patches)
        scorer = self._scorer(model.patches)
        score = scorer.compute_anomaly_score(distances, places, patches.flatten(0, 1))
        grid = distances.reshape(-1, rows, columns)
        return MethodOutput(
            score=_share(score, model.spread),
            patch_map=_share(self._render(grid, features.grid), model.spread),
        )

    def _render(self, grid: Tensor, cells: tuple[int, int]) -> Tensor:
        """Distances (B, rows, columns) -> smoothed ones (B, height, width) of the whole input.

        Cropped patches take the distance of the nearest patch that is seen.
        """
        margin = self._margin
        pad = (margin // STRIDE,) * 4
        grid = F.pad(grid[:, None], pad, mode="replicate")[:, 0]
        height, width = (side * self._patch_size + 2 * margin for side in cells)
        peak = grid.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(grid.dtype).tiny)
        smooth = render_map(grid / peak, model_size=(height, width), sigma_px=self.config.sigma_px)
        return smooth * peak

    @torch.no_grad()
    def remember(self, class_name: str, batches: Iterable[ImageFeatures], *, seed: int) -> str:
        """See `FullShotMethod.remember`; the seed draws the coreset's start and projection."""
        scorer = self._scorer(torch.empty(0))
        seen = torch.cat([scorer.reshape_embedding(self.embed(batch)) for batch in batches])
        kept = seen[choose_coreset(seen, self.memory_size(len(seen)), seed=seed)]
        model = _Memory(*kept.shape).to(kept.device)
        model.patches.copy_(kept)
        model.spread.copy_(_spread(seen))
        self.models = nn.ModuleList([model])
        self.config = replace(self.config, classes=(class_name,), memory=(len(kept),))
        return f"{class_name}: {len(kept):,} of {len(seen):,} patches kept."

    def memory_size(self, patches: int) -> int:
        """Return how many of a class's patches are kept."""
        share = max(1, int(self.config.coreset * patches))
        return min(share, self.config.memory_limit or share)

    def _scorer(self, memory: Tensor) -> Any:
        """Build anomalib's model without its network; the backbone takes its place."""
        kind = anomalib_module("models.image.patchcore.torch_model").PatchcoreModel
        scorer = kind.__new__(kind)
        nn.Module.__init__(scorer)
        scorer.layers, scorer.memory_bank = self._layers, memory
        scorer.num_neighbors = min(self.config.neighbours, max(1, len(memory)))
        return scorer


class _Memory(nn.Module):
    """patches: (R, channels), those kept. spread: of all patches seen, see `_spread`."""

    patches: Tensor
    spread: Tensor

    def __init__(self, kept: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("patches", torch.zeros(kept, channels))
        self.register_buffer("spread", torch.zeros(()))


def nearest_patches(patches: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance to, and the row of, the nearest of a memory, each (B, N).

    A few patches of every picture are compared at once: their number depends on the memory alone,
    so that an export with any number of pictures is possible.

    Args:
        patches: (B, N, channels).
        memory: (R, channels).
    """
    squares = memory.pow(2).sum(dim=1)
    found = []
    for part in patches.split(max(1, DISTANCES_AT_ONCE // len(memory)), dim=1):
        distances = part.pow(2).sum(dim=-1, keepdim=True) + squares - 2 * part @ memory.T
        found.append(distances.min(dim=-1))
    nearest = torch.cat([each.values for each in found], dim=1).clamp_min(0).sqrt()
    return nearest, torch.cat([each.indices for each in found], dim=1)


def choose_coreset(patches: Tensor, count: int, *, seed: int) -> Tensor:
    """Choose `count` of the patches (N, channels), far from each other, by anomalib.

    The first is drawn; each next one is the farthest from all before it, in a random projection.
    """
    if count == len(patches):
        return torch.arange(count)
    module = anomalib_module("models.components.sampling.k_center_greedy")
    sampler = module.KCenterGreedy(patches, sampling_ratio=1.0)
    sampler.coreset_size = count  # exactly, where a share would be rounded
    with _seeded(seed), redirect_stderr(io.StringIO()):  # hides its progress bar
        return torch.tensor(sampler.select_coreset_idxs())


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global states of torch and numpy, and restore them afterwards."""
    before = np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(before)


def _spread(patches: Tensor) -> Tensor:
    """Mean distance of patches (N, channels) from their mean; 1 where all are alike."""
    mean = patches.mean(dim=0)
    spread = (patches - mean).norm(dim=1).mean()
    return torch.where(spread > SAME * mean.norm(), spread, torch.ones_like(spread))


def _share(distance: Tensor, spread: Tensor) -> Tensor:
    """Return d / (d + r): 0 at distance 0, a half at the spread of normal patches, never 1."""
    return distance / (distance + spread)
