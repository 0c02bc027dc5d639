"""Relations: how each patch relates to the other patches of its picture. Ours.

    x      S_k(l)   mean cosine distance to the k = 1, 5, 26 nearest other patches, layer l
           M_h(l), M_v(l) smallest distance within one step of the place mirrored left-right,
                    up-down
           T        text logit of FAPrompt or AnomalyCLIP, if asked for
    head   h = g * (W [x, x - median x] + c) + b     g, b from the 10th, 50th, 90th percentiles of x
           logit = w (h' + conv 3x3 h'), h' = gelu h;  map = sigmoid(logit)
    score  mean of the highest 2 % of the map
    loss   cross-entropy (anomalous ones count 3 times) and Dice of the patches
           + 0.2 cross-entropy of the highest 2 % of the logits

Patches within one step are no neighbours in S. The head sees relations alone and no content, so
what it learns from drawn pictures holds on real ones. The levels of x matter: it is not divided
by the picture's own spread. On EfficientNet-Lite0 the patches are those of layers 8, 11 and 15;
on a CLIP they are V-V tokens of the layers that end 2/4, 3/4 and 4/4 of the depth. Layer 15 has
half the resolution: it is compared there, and the distances are upsampled.

The preset `untrained` has no head: map = d / (d + 0.5), d = (S + M) / 2, S the mean of the three
S_k and M the mean of M_h and M_v, all of the middle layer.

Related: patches compared within one picture, MuSc (Li et al., ICLR 2024) between pictures.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faprompt import losses
from faprompt.clip.backbone import Backbone
from faprompt.clip.efficient_net import EFFICIENT_NET, EfficientNet, cell_step
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageFeatures, ImageOptions
from faprompt.clip.weights import load_backbone
from faprompt.config import Count, Positive, Range, Weight, from_mapping, parse_assignments
from faprompt.errors import ConfigError
from faprompt.methods.anomalyclip import AnomalyCLIP
from faprompt.methods.base import (
    Method,
    MethodConfig,
    MethodOutput,
    MethodParts,
    Names,
    ParameterCount,
    ScoreTerm,
    within_depth,
)
from faprompt.methods.faprompt import FAPrompt
from faprompt.scoring import grid_map, top_mean, unit, upsample

NEIGHBOURS = (1, 5, 26)  # nearest other patches, of 256
TRUNK_LAYERS = (8, 11, 15)
_TEXT_METHODS: dict[str, type[Method]] = {cls.name: cls for cls in (AnomalyCLIP, FAPrompt)}
_WIDTH = 32  # channels of the head
_PERCENTILES = (0.1, 0.5, 0.9)
_LEAST_SHARE = 1 / 16  # of a patch that a defect covers, as a line of one pixel in 16 does
_LEAST_CHANCE = 1e-4  # of another detector, before its logit is taken
_UNCACHED = (
    "relations with a text_backbone of its own needs the text logit of every picture, which a "
    "cache of tokens does not hold. Leave text_backbone out, so that the text method shares the "
    "backbone, or train on relations of `encode_image` as scripts/build_small.py does."
)
_TYPICAL = 0.5  # d of the highest 2 % of drawn normal pictures on the trunk: their median is 0.52
_SHOWN_NEIGHBOURS = 5
_TEXT_WINDOW = 1  # key of `ImageFeatures.windows` for the text logit: windows of one patch


def self_similarity(
    tokens: Tensor, grid: tuple[int, int], counts: Sequence[int] = NEIGHBOURS
) -> Tensor:
    """Return the mean cosine distance of each patch to its nearest others in the picture.

    Patches within one step, diagonals included, do not count. A count above the number of
    other patches is lowered to it.

    Args:
        tokens: (B, N, D) of any length, row-major over `grid`.
        grid: (rows, columns).
        counts: numbers of nearest patches.

    Returns:
        (B, len(counts), rows, columns) float32 in 0..2.

    Raises:
        ValueError: N is not rows x columns, or some patch has no others.

    Example:
        >>> tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, -1.0]]])
        >>> self_similarity(tokens, (1, 4), counts=(1,))
        tensor([[[[0., 2., 0., 1.]]]])
    """
    nearest = _other_similarities(tokens, grid).topk(_reach(grid, max(counts)), dim=-1).values
    means = [1 - nearest[..., : min(k, nearest.shape[-1])].mean(dim=-1) for k in counts]
    return grid_map(torch.stack(means, dim=1).clamp_min(0), grid)


def at_step(
    relation: Callable[[Tensor, tuple[int, int]], Tensor],
    tokens: Tensor,
    grid: tuple[int, int],
    step: int,
) -> Tensor:
    """Return a relation of tokens that differ at each `step`-th row and column only.

    Copies of a patch are no neighbours of it: every `step`-th patch is compared with the others
    of that kind, and the result is upsampled (bilinear) to the whole grid.
    """
    if step == 1:
        return relation(tokens, grid)
    planes = grid_map(tokens.mT, grid)[..., ::step, ::step]
    found = relation(planes.flatten(2).mT, (planes.shape[-2], planes.shape[-1]))
    return F.interpolate(found, size=grid, mode="bilinear", align_corners=False)


def _other_similarities(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return cosines (B, N, N); those of patches within one step are -infinity."""
    rows, columns = grid
    if tokens.shape[1] != rows * columns:
        raise ValueError(f"{tokens.shape[1]} patches do not form a {rows}x{columns} grid.")
    place = torch.arange(rows * columns, device=tokens.device)
    row, column = place // columns, place % columns
    near = ((row[:, None] - row).abs() <= 1) & ((column[:, None] - column).abs() <= 1)
    units = unit(tokens)
    return (units @ units.mT).masked_fill(near, -torch.inf)


def _reach(grid: tuple[int, int], count: int) -> int:
    """Return how many others of `count` every patch has."""
    rows, columns = grid
    others = rows * columns - min(3, rows) * min(3, columns)
    if others < 1:
        raise ValueError(
            f"a grid of {rows}x{columns} patches is too small to compare patches with others "
            "that are more than one step away; use a larger image_size"
        )
    return min(count, others)


def mirror_distance(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the smallest cosine distance of each patch to the patches at its mirrored place.

    The mirrored place and the patches within one step of it, diagonals included, count.

    Args:
        tokens: (B, N, D) of any length, row-major over `grid`.
        grid: (rows, columns).

    Returns:
        (B, 2, rows, columns) float32 in 0..2: mirrored left-right, and up-down.

    Raises:
        ValueError: N is not rows x columns.
    """
    rows, columns = grid
    planes = grid_map(unit(tokens).mT, grid)
    found = []
    for axis in (-1, -2):
        # repeated borders are patches within one step, so they add none that does not count
        flipped = F.pad(planes.flip(axis), (1, 1, 1, 1), mode="replicate")
        cosines = [
            (planes * flipped[..., down : down + rows, right : right + columns]).sum(dim=1)
            for down in range(3)
            for right in range(3)
        ]
        found.append(1 - torch.stack(cosines).amax(dim=0))
    return torch.stack(found, dim=1).clamp_min(0)


def picture_percentiles(relations: Tensor) -> Tensor:
    """Return the 10th, 50th and 90th percentile (B, R, 3) over the patches of (B, R, N).

    Between two patches the percentile is interpolated, as `torch.quantile` does.
    """
    ordered = relations.sort(dim=-1).values
    last = relations.shape[-1] - 1
    found = []
    for share in _PERCENTILES:
        low = int(share * last)
        high = min(low + 1, last)
        weight = share * last - low
        found.append(ordered[..., low] * (1 - weight) + ordered[..., high] * weight)
    return torch.stack(found, dim=-1)


def patch_targets(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return which patches (B, rows, columns) count as anomalous, 0 or 1.

    A sixteenth of the patch has to be masked; where no patch has that much, the patches with the
    largest masked share count.

    Args:
        mask: (B, height, width) of 0 and 1.
        grid: (rows, columns).
    """
    share = F.adaptive_avg_pool2d(mask[:, None].float(), grid)[:, 0]
    most = share.amax(dim=(1, 2), keepdim=True)
    limit = most.clamp(max=_LEAST_SHARE)
    return ((share >= limit) & (most > 0)).float()


class RelationHead(nn.Module):
    """Turn the relations of a picture into one logit for each patch."""

    def __init__(self, relations: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * relations, _WIDTH, 1)
        self.summary = nn.Linear(len(_PERCENTILES) * relations, _WIDTH)
        self.gate = nn.Linear(_WIDTH, 2 * _WIDTH)
        self.smooth = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.logit = nn.Conv2d(_WIDTH, 1, 1)

    def forward(self, relations: Tensor) -> Tensor:
        """Map (B, R, rows, columns) to logits (B, rows, columns)."""
        levels = picture_percentiles(relations.flatten(2))
        centred = relations - levels[..., 1, None, None]
        mixed = self.mix(torch.cat([relations, centred], dim=1))
        gate, bias = self.gate(F.gelu(self.summary(levels.flatten(1)))).chunk(2, dim=-1)
        inner = F.gelu(mixed * 2 * gate.sigmoid()[..., None, None] + bias[..., None, None])
        inner = inner + self.smooth(inner)
        logits: Tensor = self.logit(inner)
        return logits[:, 0]


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationsConfig(MethodConfig):
    """Options of relations."""

    image_size: Count = 256
    layers: tuple[int, ...] = ()  # of the self-similarity, from 1; () see the module
    mirror: bool = True  # False leaves the mirror out
    mirror_layers: tuple[int, ...] = ()  # of the mirror, some of `layers`; () for all of them
    head: bool = True  # False: nothing is learned, see the module
    dropout: Annotated[float, Range(low=0, below=1)] = 0.15  # share of relations left out in steps
    text_dropout: Annotated[float, Range(low=0, below=1)] = 0.5  # the same of the text logit
    patch_weight: Positive = 3.0  # of anomalous patches in the cross-entropy; of others it is 1
    picture_weight: Weight = 0.2  # of the loss on the picture's score
    text_method: Literal["", "anomalyclip", "faprompt"] = ""  # gives the text logit; "" for none
    text_backbone: str = ""  # of the text method, which is frozen there; "" shares the backbone
    text_options: tuple[str, ...] = ()  # of the text method, each as name=value

    def faults(self) -> list[str]:
        if self.text_method and not self.head:
            return ["text_method needs the head that joins it; leave it out, or set head=true"]
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationsOutput(MethodOutput):
    """logits: (B, rows, columns) before the sigmoid. relations: (B, R, rows, columns). text: the
    output of the text method, if that shares the backbone.
    """

    logits: Tensor
    relations: Tensor
    text: MethodOutput | None = None


class Relations(Method):
    """Relations between patches, and a small head on them."""

    name = "relations"
    config_class = RelationsConfig
    presets = {
        "paper": {}, "untrained": {"head": False},
        "common": {"image_size": 518, "sigma_px": 8.0},
    }  # fmt: skip
    backbones = {"paper": EFFICIENT_NET, "untrained": EFFICIENT_NET}
    needs_text = False
    parameters_at_full_size = ParameterCount(13_857, 13_857)
    config: RelationsConfig

    def __init__(self, config: RelationsConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        vision = backbone.spec.vision
        chosen = TRUNK_LAYERS if isinstance(backbone, EfficientNet) else vision.quarter_layers[-3:]
        self._layers = tuple(sorted(set(config.layers or chosen)))
        is_trunk = isinstance(backbone, EfficientNet)
        self._steps = {layer: cell_step(layer) if is_trunk else 1 for layer in self._layers}
        within_depth(self._layers, vision.layers)
        self._middle = self._layers[len(self._layers) // 2]
        mirrored = tuple(sorted(set(config.mirror_layers))) or self._layers
        if not set(mirrored) <= set(self._layers):
            raise ValueError(
                f"mirror_layers should be some of layers={self._layers}, got {config.mirror_layers}"
            )
        self._mirrored = mirrored if config.mirror else ()
        self.image_options = ImageOptions(layers=self._layers)
        self.names = self._relation_names()
        self.text_model: Method | None = None
        self._text_backbone: tuple[
            Backbone, ...
        ] = ()  # a tuple, so that it is no part of the state
        self._text_static: Any = None
        self._text_layers: tuple[int, ...] = ()  # of a text method that shares the backbone
        self._epoch = 0
        if config.text_method:
            self._build_text_model(backbone)
        self.head = RelationHead(len(self.names)) if config.head else None

    def _relation_names(self) -> tuple[str, ...]:
        names = [
            f"self-similarity {k}, layer {layer}" for layer in self._layers for k in NEIGHBOURS
        ]
        for layer in self._mirrored:
            names += [f"mirror {axis}, layer {layer}" for axis in ("left-right", "up-down")]
        return (*names, *(["text"] if self.config.text_method else []))

    def _build_text_model(self, own: Backbone) -> None:
        """Build the text method, on the same backbone or on a second one.

        On the same one it learns with the head. On a second one its parameters are frozen.
        """
        config, cls = self.config, _TEXT_METHODS[self.config.text_method]
        shared = not config.text_backbone
        if shared and not own.has_text:
            raise ConfigError(
                f"text_method={cls.name} needs words, and {own.name} has no text tower; name a "
                "CLIP as text_backbone, such as tiny."
            )
        given: dict[str, Any] = {"image_size": config.image_size} if shared else {}
        given |= parse_assignments(list(config.text_options))
        options = from_mapping(cls.config_class, given, what=f"text_options of {cls.name}")
        backbone = own if shared else load_backbone(config.text_backbone)
        if not shared and options.image_size % backbone.spec.vision.patch_size:
            raise ConfigError(
                f"text_options: image_size={options.image_size} does not split into the "
                f"{backbone.spec.vision.patch_size}-pixel patches of {backbone.name}."
            )
        self.text_model = cls(options, backbone)
        if shared:
            self._text_layers = self.text_model.image_options.token_keys(own.spec.vision.layers)
            layers = tuple(sorted({*self._layers, *self._text_layers}))
            self.image_options = replace(self.text_model.image_options, layers=layers)
        else:
            self.text_model.requires_grad_(False)
            self._text_backbone = (backbone,)

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(backbone.state_fingerprint() for backbone in self._text_backbone)

    def _apply(self, *args: Any, **options: Any) -> Self:
        """Move the text method's backbone along in `.to(device)` and its kin."""
        super()._apply(*args, **options)
        for backbone in self._text_backbone:
            backbone._apply(*args, **options)
        self._text_static = None
        return self

    def static_text(self, text: TextTower) -> Any:
        """Compute the texts of the text method; those of a second backbone are kept here."""
        if self.text_model is None:
            return None
        if not self._text_backbone:
            return self.text_model.static_text(text)
        self._text_static = self.text_model.static_text(self._text_backbone[0].text)
        return None

    def encode_image(self, backbone: Backbone, pixels: Tensor) -> ImageFeatures:
        """Encode pixels; logits on a second backbone come as `windows[1]`, (B, N, 1)."""
        features = super().encode_image(backbone, pixels)
        if not self._text_backbone:
            return features
        logits = self._text_logits(backbone, pixels.to(features.class_token.device), features.grid)
        return replace(features, windows={_TEXT_WINDOW: logits.flatten(1)[..., None]})

    def _text_logits(self, backbone: Backbone, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the text method's logits (B, rows, columns) on a grid."""
        (other,), model = self._text_backbone, self.text_model
        assert model is not None
        seen = _as_pixels_of(
            other, backbone, pixels, model.config.image_size / self.config.image_size
        )
        features = model.encode_image(other, seen)
        chance = model(features, other.text, static=self._text_static).patch_map
        return _logit(chance, grid)

    def relations(self, features: ImageFeatures, text: MethodOutput | None = None) -> Tensor:
        """Return (B, R, rows, columns) in the order of `names`; no gradient passes.

        `text` is the output of the text method, if that shares the backbone.

        Raises:
            ConfigError: the features lack the logit of a second backbone, as those of a token
                cache do.
        """
        grid, tokens = features.grid, features.patch_tokens
        found = [
            at_step(relation, tokens[layer], grid, self._steps[layer])
            for relation, layers in (
                (self_similarity, self._layers),
                (mirror_distance, self._mirrored),
            )
            for layer in layers
        ]
        if text is not None:
            found.append(_logit(text.patch_map.detach(), grid)[:, None])
        elif self.text_model is not None:
            if _TEXT_WINDOW not in features.windows:
                raise ConfigError(_UNCACHED)
            found.append(grid_map(features.windows[_TEXT_WINDOW].mT, grid))
        return torch.cat(found, dim=1)

    def score(
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> RelationsOutput:
        told: MethodOutput | None = None
        if self.text_model is not None and not self._text_backbone:
            tokens = {layer: features.patch_tokens[layer] for layer in self._text_layers}
            told = self.text_model(replace(features, patch_tokens=tokens), text, static=static)
        return replace(self.score_relations(self.relations(features, told)), text=told)

    def score_relations(self, relations: Tensor) -> RelationsOutput:
        """Score pictures by their relations (B, R, rows, columns) alone."""
        if self.head is None:
            patch_map = self._untrained_map(relations)
            logits = patch_map.logit(eps=_LEAST_CHANCE)
        else:
            logits = self.head(self._without_some(relations))
            patch_map = logits.sigmoid()
        return RelationsOutput(
            score=top_mean(patch_map.flatten(1)), patch_map=patch_map, logits=logits,
            relations=relations,
        )  # fmt: skip

    def _untrained_map(self, relations: Tensor) -> Tensor:
        """Return d / (d + 0.5), d the mean of both kinds of relations in the middle layer."""
        in_layer = [name.endswith(f"layer {self._middle}") for name in self.names]
        kinds = [[n for n in rows if in_layer[n]] for rows in self._kinds().values()]
        maps = [relations[:, rows].mean(dim=1) for rows in kinds if rows]
        distance = torch.stack(maps).mean(dim=0)
        return distance / (distance + _TYPICAL)

    def _without_some(self, relations: Tensor) -> Tensor:
        """Set some whole relations of each picture to 0 in training steps.

        The picture's values seed the choice, so that a resumed training makes the same ones.
        """
        config = self.config
        left_out = torch.tensor(
            [config.text_dropout if name == "text" else config.dropout for name in self.names]
        )
        if not (self.training and left_out.any() and torch.is_grad_enabled()):
            return relations
        seeds = [
            zlib.crc32(each.detach().cpu().numpy().tobytes()) + self._epoch for each in relations
        ]
        drawn = torch.stack(
            [torch.rand(relations.shape[1], generator=_generator(seed)) for seed in seeds]
        )
        kept = (drawn >= left_out).to(relations)
        return relations * kept[..., None, None]

    def begin_training(self, class_names: Sequence[str]) -> None:
        """Refuse a text method on a second backbone before anything is cached."""
        if self._text_backbone:
            raise ConfigError(_UNCACHED)

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self._epoch = epoch

    def loss(self, output: RelationsOutput, label: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return the losses of patches, picture, and a text method that learns."""
        if self.head is None:
            return super().loss(output, label, mask)
        logits = output.logits
        wanted = patch_targets(mask, (logits.shape[-2], logits.shape[-1]))
        weight = torch.as_tensor(self.config.patch_weight, device=logits.device)
        entropy = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight)
        top = top_mean(logits.flatten(1))
        text_terms: dict[str, Tensor] = {}
        if self.text_model is not None and output.text is not None:
            text_terms = self.text_model.loss(output.text, label, mask)
        return {
            **{f"text_{name}": term for name, term in text_terms.items()},
            "patches": entropy + losses.dice(output.patch_map, wanted),
            "picture": self.config.picture_weight
            * F.binary_cross_entropy_with_logits(top, label.to(top.dtype)),
        }

    def explain(self, features: ImageFeatures, output: RelationsOutput) -> MethodParts:
        """Return the score without each kind of relations, their maps, and the nearest patches.

        `selected` is the patch of the highest map value, then its nearest others in the middle
        layer. Weights of what is left out are 0: these scores do not add up.
        """
        relations = output.relations
        terms = [ScoreTerm(name="highest 2 % of the map", weight=1.0, value=output.score)]
        stages = {}
        for name, rows in self._kinds().items():
            stages[name] = _shown(relations[:, rows].mean(dim=1), is_logit=name == "text")
            if self.head is not None:
                rest = relations.clone()
                rest[:, rows] = 0
                value = self.score_relations(rest).score
                terms.append(ScoreTerm(name=f"score without {name}", weight=0.0, value=value))
        return MethodParts(
            terms=tuple(terms),
            stages=stages,
            selected=_nearest_patches(features.patch_tokens[self._middle], features.grid, output),
            selected_title="Strangest patch and nearest ones",
        )

    def _kinds(self) -> dict[str, list[int]]:
        """Return the numbers of the relations of each kind: self-similarity, mirror, text."""
        kinds: dict[str, list[int]] = {}
        for number, name in enumerate(self.names):
            kinds.setdefault(name.partition(" ")[0], []).append(number)
        return kinds


def _logit(chance: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the logit of chances (B, rows, columns) on another grid."""
    return upsample(chance.logit(eps=_LEAST_CHANCE), grid)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _as_pixels_of(other: Backbone, own: Backbone, pixels: Tensor, scale: float) -> Tensor:
    """Return pixels normalised and resized for another backbone (bicubic).

    `scale` is the ratio of the sides; the size is rounded to whole patches.
    """
    raw = pixels * _channels(own.spec.std, pixels) + _channels(own.spec.mean, pixels)
    patch = other.spec.vision.patch_size
    size = [max(1, round(side * scale / patch)) * patch for side in pixels.shape[-2:]]
    if size != list(pixels.shape[-2:]):
        raw = F.interpolate(raw, size=size, mode="bicubic", align_corners=False, antialias=True)
    return (raw - _channels(other.spec.mean, raw)) / _channels(other.spec.std, raw)


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]


def _shown(values: Tensor, *, is_logit: bool) -> Tensor:
    """Return a map in 0..1: the chance of a logit, or d / (d + 0.5) of a distance d."""
    return values.sigmoid() if is_logit else values / (values + _TYPICAL)


def _nearest_patches(tokens: Tensor, grid: tuple[int, int], output: MethodOutput) -> Tensor:
    """Return the strangest patch of each picture and its nearest others, (B, M) int64."""
    strangest = output.patch_map.flatten(1).argmax(dim=1)
    cosines = _other_similarities(tokens, grid)[torch.arange(len(strangest)), strangest]
    nearest = cosines.topk(_reach(grid, _SHOWN_NEIGHBOURS), dim=-1).indices
    return torch.cat([strangest[:, None], nearest], dim=1)
