"""Relations: how each patch relates to the other patches of its picture. Ours.

    x      S_k(l)   mean cosine distance to the k = 1, 5, 26 nearest other patches, layer l
           M_h(l), M_v(l) smallest distance within one step of the place mirrored left-right,
                    up-down
    head   h = g * (W [x, x - median x] + c) + b     g, b from the 10th, 50th, 90th percentiles of x
           logit = w (h' + conv 3x3 h'), h' = gelu h;  map = sigmoid(logit)
    score  mean of the highest 2 % of the map
    loss   cross-entropy (anomalous ones count 3 times) and Dice of the patches
           + 0.2 cross-entropy of the highest 2 % of the logits
    text   with FAPrompt or AnomalyCLIP beside it, score and map are those of the mean logits,
           (1 - v) logit of the relations + v logit of the text, v = 0.6

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
from collections.abc import Sequence
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
from faprompt.relation_maps import (
    NEIGHBOURS,
    PERCENTILES,
    at_step,
    mirror_distance,
    nearest_patches,
    patch_targets,
    picture_percentiles,
    self_similarity,
)
from faprompt.scoring import grid_map, top_mean, upsample

TRUNK_LAYERS = (8, 11, 15)
_TEXT_METHODS: dict[str, type[Method]] = {cls.name: cls for cls in (AnomalyCLIP, FAPrompt)}
_WIDTH = 32  # channels of the head
_LEAST_CHANCE = 1e-4  # of a score, before its logit is taken
_UNCACHED = (
    "relations with a text_backbone of its own needs the text logits of every picture, which a "
    "cache of tokens does not hold. Use features of `encode_image`, or leave text_backbone out, "
    "so that the text method shares the backbone."
)
_TYPICAL = 0.5  # d of the highest 2 % of drawn normal pictures on the trunk: their median is 0.52
_SHOWN_NEIGHBOURS = 5
_NOTES = (  # on `explain`; the first one is of the head
    "A score without a relation is the score with that relation set to 0. The lower it is, the "
    "more the relation counts.",
    "Patch 1 has the highest value of the map. The others are the most similar to it of those "
    "more than one step away; a large distance even to them makes it strange.",
)
_TEXT_WINDOW = 1  # key of `ImageFeatures.windows` for text logits: windows of one patch


class RelationHead(nn.Module):
    """Turn the relations of a picture into one logit for each patch."""

    def __init__(self, relations: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2 * relations, _WIDTH, 1)
        self.summary = nn.Linear(len(PERCENTILES) * relations, _WIDTH)
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
    patch_weight: Positive = 3.0  # of anomalous patches in the cross-entropy; of others it is 1
    picture_weight: Weight = 0.2  # of the loss on the picture's score
    text_method: Literal["", "anomalyclip", "faprompt"] = ""  # beside the relations; "" for none
    text_weight: Annotated[float, Range(low=0, high=1)] = 0.6  # of its logits beside the others
    text_backbone: str = ""  # of the text method, which is frozen there; "" shares the backbone
    text_options: tuple[str, ...] = ()  # of the text method, each as name=value


@dataclass(frozen=True, slots=True, kw_only=True)
class RelationsOutput(MethodOutput):
    """logits: (B, rows, columns) of the relations alone, before the sigmoid. relations: (B, R,
    rows, columns). text and own: where a text method is joined, its output, and that of the
    relations alone.
    """

    logits: Tensor
    relations: Tensor
    text: MethodOutput | None = None
    own: MethodOutput | None = None


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
        self._epoch, self._learning = 0, False
        if config.text_method:
            self._build_text_model(backbone)
        self.head = RelationHead(len(self.names)) if config.head else None

    def _relation_names(self) -> tuple[str, ...]:
        names = [
            f"self-similarity {k}, layer {layer}" for layer in self._layers for k in NEIGHBOURS
        ]
        for layer in self._mirrored:
            names += [f"mirror {axis}, layer {layer}" for axis in ("left-right", "up-down")]
        return tuple(names)

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
        """Encode pixels; what a second backbone tells comes as `windows[1]`, (B, N, 2).

        These are the logits of the text method's map and, in every patch, of its score.
        """
        features = super().encode_image(backbone, pixels)
        if not self._text_backbone:
            return features
        told = self._on_second_backbone(backbone, pixels.to(features.class_token.device))
        of_map = _logit(told.patch_map, features.grid).flatten(1)
        of_score = told.score.logit(eps=_LEAST_CHANCE)[:, None].expand_as(of_map)
        return replace(features, windows={_TEXT_WINDOW: torch.stack([of_map, of_score], dim=-1)})

    def _on_second_backbone(self, backbone: Backbone, pixels: Tensor) -> MethodOutput:
        (other,), model = self._text_backbone, self.text_model
        assert model is not None
        scale = model.config.image_size / self.config.image_size
        features = model.encode_image(other, _as_pixels_of(other, backbone, pixels, scale))
        told: MethodOutput = model(features, other.text, static=self._text_static)
        return told

    def relations(self, features: ImageFeatures) -> Tensor:
        """Return (B, R, rows, columns) in the order of `names`; no gradient passes."""
        grid, tokens = features.grid, features.patch_tokens
        found = [
            at_step(relation, tokens[layer], grid, self._steps[layer])
            for relation, layers in (
                (self_similarity, self._layers),
                (mirror_distance, self._mirrored),
            )
            for layer in layers
        ]
        return torch.cat(found, dim=1)

    def score(
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> RelationsOutput:
        output = self.score_relations(self.relations(features))
        return self.join_text(output, self._text_output(features, text, static))

    def join_text(self, own: RelationsOutput, told: MethodOutput | None) -> RelationsOutput:
        """Return score and map of the mean logits of relations and text."""
        if told is None:
            return own
        grid = (own.logits.shape[-2], own.logits.shape[-1])
        scores = [each.score.logit(eps=_LEAST_CHANCE) for each in (own, told)]
        score = torch.lerp(scores[0], scores[1], self.config.text_weight)
        logits = torch.lerp(own.logits, _logit(told.patch_map, grid), self.config.text_weight)
        return replace(own, score=score.sigmoid(), patch_map=logits.sigmoid(), text=told, own=own)

    def _text_output(
        self, features: ImageFeatures, text: TextTower, static: Any
    ) -> MethodOutput | None:
        """Return what the text method says; None if there is none, or a frozen one in training."""
        if self.text_model is None:
            return None
        if not self._text_backbone:
            tokens = {layer: features.patch_tokens[layer] for layer in self._text_layers}
            told: MethodOutput = self.text_model(
                replace(features, patch_tokens=tokens), text, static=static
            )
            return told
        if _TEXT_WINDOW in features.windows:
            of_map, of_score = features.windows[_TEXT_WINDOW].sigmoid().unbind(-1)
            return MethodOutput(score=of_score[:, 0], patch_map=grid_map(of_map, features.grid))
        if self._learning:
            return None
        raise ConfigError(_UNCACHED)

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
        share = self.config.dropout
        if not (self.training and share and torch.is_grad_enabled()):
            return relations
        seeds = [
            zlib.crc32(each.detach().cpu().numpy().tobytes()) + self._epoch for each in relations
        ]
        drawn = torch.stack(
            [torch.rand(relations.shape[1], generator=_generator(seed)) for seed in seeds]
        )
        kept = (drawn >= share).to(relations)
        return relations * kept[..., None, None]

    def begin_training(self, class_names: Sequence[str]) -> None:
        """Allow features without text of a second backbone, which is frozen: a cache has none."""
        self._learning = True

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        self._epoch = epoch

    def loss(self, output: RelationsOutput, label: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return the losses of patches, picture, and a text method that shares the backbone."""
        terms: dict[str, Tensor] = {}
        if self.text_model is not None and not self._text_backbone:
            own_terms = self.text_model.loss(output.text, label, mask)
            terms = {f"text_{name}": term for name, term in own_terms.items()}
        if self.head is None:
            return terms or super().loss(output, label, mask)
        logits = output.logits
        wanted = patch_targets(mask, (logits.shape[-2], logits.shape[-1]))
        weight = torch.as_tensor(self.config.patch_weight, device=logits.device)
        entropy = F.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight)
        top = top_mean(logits.flatten(1))
        picture = F.binary_cross_entropy_with_logits(top, label.to(top.dtype))
        return {
            **terms,
            "patches": entropy + losses.dice(logits.sigmoid(), wanted),
            "picture": self.config.picture_weight * picture,
        }

    def explain(self, features: ImageFeatures, output: RelationsOutput) -> MethodParts:
        """Return relations and text alone, the score without each kind, and the nearest patches.

        `selected` is the patch of the highest map value, then its nearest others in the middle
        layer. Weights of all but the whole score are 0: the others do not add up to it.
        """
        selected, distances = nearest_patches(
            features.patch_tokens[self._middle], features.grid,
            output.patch_map.flatten(1).argmax(dim=1), _SHOWN_NEIGHBOURS,
        )  # fmt: skip
        alone = {"relations": output.own, "text": output.text} if output.own else {}
        parts = {f"{name} alone": part for name, part in alone.items() if part is not None}
        stages = {}
        for name, rows in self._kinds().items():
            distance = output.relations[:, rows].mean(dim=1)
            stages[f"of {name}"] = distance / (distance + _TYPICAL)
            if self.head is not None:
                rest = output.relations.clone()
                rest[:, rows] = 0
                without = self.join_text(self.score_relations(rest), output.text)
                parts[f"score without {name}"] = without
        stages |= {f"of {name}": part.patch_map for name, part in alone.items() if part is not None}
        whole = "relations and text" if alone else "highest 2 % of the map"
        terms = [ScoreTerm(name=whole, weight=1.0, value=output.score)]
        terms += [
            ScoreTerm(name=name, weight=0.0, value=part.score) for name, part in parts.items()
        ]
        return MethodParts(
            terms=tuple(terms),
            stages=stages,
            selected=selected,
            distances=distances,
            notes=_NOTES[self.head is None :],
            selected_title="Strangest patch and nearest ones",
        )

    def _kinds(self) -> dict[str, list[int]]:
        """Return the numbers of the relations of each kind: self-similarity, mirror."""
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
