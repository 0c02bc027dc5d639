"""Describe what a CLIP is made of: sizes, activation and where the V-V path starts.

A `BackboneSpec` is enough to build both towers, with or without weights. It comes from
open_clip's own configs by name, from a JSON file, or from the shapes in a state dict.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from operator import attrgetter
from types import ModuleType
from typing import Any

from faprompt.errors import ConfigError, ModelError
from faprompt.records import CLIP_MEAN, CLIP_STD

HEAD_WIDTH = 64  # every OpenAI CLIP; open_clip's default
WIDE_HEADS = {1280: 80, 1408: 88, 1664: 104, 1792: 112}  # image towers of ViT-H, g, bigG, e
MOST_LAYERS = 512  # of a tower; far above every CLIP, and still built in a moment
LARGEST_SIZE = 1 << 20  # any other whole number of a spec
_OPEN_CLIP_VISION = ("image_size", "patch_size", "width", "layers", "mlp_ratio")
_SIZES = (
    "embed_dim", "vision.image_size", "vision.patch_size", "vision.width", "vision.heads",
    "text.width", "text.heads", "text.context_length", "text.vocab_size",
)  # fmt: skip
VALUE_PATH_SHARE = 19 / 24  # AnomalyCLIP's DPAM_layer 20: the last 19 of 24 blocks


@dataclass(frozen=True, slots=True)
class VisionSpec:
    """Sizes of a vision transformer, in pixels, tokens and channels."""

    image_size: int  # side the position table was trained at
    patch_size: int
    width: int
    layers: int
    heads: int
    mlp_ratio: float = 4.0
    stem_channels: tuple[int, ...] = ()  # ours: convolutions in place of one patch convolution
    stem_strides: tuple[int, ...] = ()  # their strides and the last one's; product = patch_size
    value_blocks: int | None = None  # last blocks with a V-V path; None is the paper's share

    @property
    def value_path_start(self) -> int:
        """Number of leading blocks without a V-V path: 5 of 24, same share for others."""
        if self.value_blocks is not None:
            return self.layers - self.value_blocks
        return self.layers - math.ceil(VALUE_PATH_SHARE * self.layers - 1e-9)

    @property
    def quarter_layers(self) -> tuple[int, ...]:
        """Blocks (from 1) that end each quarter of the depth: 6, 12, 18 and 24 of 24."""
        return tuple(sorted({math.ceil(part * self.layers / 4) for part in range(1, 5)}))


@dataclass(frozen=True, slots=True)
class TextSpec:
    """Sizes of a causal text transformer."""

    width: int
    layers: int
    heads: int
    context_length: int = 77
    vocab_size: int = 49408
    mlp_ratio: float = 4.0


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """Sizes, activation and pixel statistics of a whole CLIP.

    `quick_gelu` has no default on purpose: a wrong one bends every result without an error.
    """

    embed_dim: int
    quick_gelu: bool
    vision: VisionSpec
    text: TextSpec
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    vocabulary: tuple[int, ...] | None = field(default=None, repr=False)  # kept BPE ids, see tokens

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> BackboneSpec:
        """Invert `to_dict`. Unknown or missing keys raise `ConfigError`."""
        values = dict(data)
        values["vision"] = _build(VisionSpec, values.get("vision", {}), "vision")
        values["text"] = _build(TextSpec, values.get("text", {}), "text")
        return _build(cls, values, "backbone")

    def with_pixel_statistics(self, mean: Any, std: Any) -> BackboneSpec:
        """Return the spec with another mean and std of the pixels, where they are given."""
        return replace(self, mean=tuple(mean or self.mean), std=tuple(std or self.std))

    def faults(self) -> list[str]:
        """List what makes the spec impossible to build: types, ranges, contradicting sizes."""
        faults = []
        layers = dict.fromkeys(("vision.layers", "text.layers"), MOST_LAYERS)
        for name, most in {**dict.fromkeys(_SIZES, LARGEST_SIZE), **layers}.items():
            value = attrgetter(name)(self)
            if not _is_whole(value, most):
                faults.append(f"{name} should be a whole number in 1..{most}, got {value!r}")
        if not isinstance(self.quick_gelu, bool):
            faults.append(f"quick_gelu should be true or false, got {self.quick_gelu!r}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            three = isinstance(values, tuple) and len(values) == 3 and all(map(_is_number, values))
            if not three or (name == "std" and min(values) <= 0):
                faults.append(f"{name} should be three numbers, std above 0, got {values!r}")
        for tower, part in (("vision", self.vision), ("text", self.text)):
            if not _is_number(part.mlp_ratio) or not 0 < part.mlp_ratio <= 64:
                faults.append(f"{tower}.mlp_ratio should be above 0, got {part.mlp_ratio!r}")
            if not faults and part.width % part.heads:
                faults.append(f"{tower}.width={part.width} does not split into {part.heads} heads")
        return faults or _stem_faults(self.vision)


def spec_from_open_clip(name: str, *, quick_gelu: bool | None = None) -> BackboneSpec:
    """Return the spec of an open_clip model name such as `ViT-L-14-336` or `ViT-L/14-336`.

    `quick_gelu` overrides the config; OpenAI weights need True whatever it says.

    Raises:
        ConfigError: an unknown name, or towers that are not plain transformers.
    """
    open_clip = open_clip_module()
    config = open_clip.get_model_config(name.replace("/", "-"))
    if config is None:
        near = [known for known in open_clip.list_models() if known.startswith("ViT")]
        raise ConfigError(f"open_clip knows no model {name!r}; it knows {', '.join(near)}.")
    return spec_from_open_clip_config(config, name=name, quick_gelu=quick_gelu)


def spec_from_open_clip_config(
    config: Mapping[str, Any], *, name: str, quick_gelu: bool | None = None
) -> BackboneSpec:
    """Return the spec of an open_clip config; refuse towers that allow no V-V path."""
    vision, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
    plain_text = {f.name for f in fields(TextSpec)}
    odd = sorted((set(vision) - {*_OPEN_CLIP_VISION, "head_width"}) | (set(text) - plain_text))
    if odd or not isinstance(vision.get("layers"), int):
        raise ConfigError(
            f"{name!r} is not a plain CLIP of two transformers ({', '.join(odd) or 'a ResNet'}); "
            "choose an OpenAI- or LAION-style ViT such as ViT-L-14-336."
        )
    return BackboneSpec(
        embed_dim=config["embed_dim"],
        quick_gelu=config.get("quick_gelu", False) if quick_gelu is None else quick_gelu,
        vision=VisionSpec(
            image_size=vision.get("image_size", 224),
            patch_size=vision["patch_size"],
            width=vision["width"],
            layers=vision["layers"],
            heads=vision["width"] // vision.get("head_width", HEAD_WIDTH),
            mlp_ratio=vision.get("mlp_ratio", 4.0),
        ),
        text=TextSpec(**{"width": 512, "layers": 12, "heads": 8, **text}),
    )


def infer_spec(
    state: Mapping[str, Any], *, quick_gelu: bool, heads: tuple[int, int] | None = None
) -> BackboneSpec:
    """Return the spec that a state dict under OpenAI's key names implies.

    Args:
        state: name -> tensor (anything with `.shape`).
        quick_gelu: the activation, which shapes do not show.
        heads: of the image and the text tower, which shapes do not show. None means 64
            channels each, except in open_clip's widest image towers (`WIDE_HEADS`).

    Raises:
        ModelError: the keys are not those of a ViT CLIP (missing ones are named), or a
            width does not split into heads.
    """
    hidden_keys = [f"{tower}transformer.resblocks.0.mlp.c_fc.weight" for tower in ("visual.", "")]
    needed = {
        "visual.conv1.weight": 4, "visual.positional_embedding": 2, "visual.proj": 2,
        "ln_final.weight": 1, "positional_embedding": 2, "token_embedding.weight": 2,
        "text_projection": 2, **dict.fromkeys(hidden_keys, 2),
    }  # fmt: skip
    missing = [key for key in needed if key not in state]
    if missing:
        raise ModelError(
            f"This state dict is not a ViT CLIP: it lacks {', '.join(missing)}. "
            "Wanted: OpenAI's or open_clip's names, or a transformers CLIP folder."
        )
    shapes = {key: tuple(state[key].shape) for key in needed}
    odd = [
        f"{key} is {shape}, wanted {needed[key]} axes, none of them empty"
        for key, shape in shapes.items()
        if len(shape) != needed[key] or 0 in shape
    ]
    if odd:
        raise ModelError(f"This state dict is not a ViT CLIP: {'; '.join(odd)}.")
    width, _, _, patch_size = shapes["visual.conv1.weight"]
    grid = math.isqrt(shapes["visual.positional_embedding"][0] - 1)
    (text_width,) = shapes["ln_final.weight"]
    hidden, text_hidden = (shapes[key][0] for key in hidden_keys)
    vision_heads, text_heads = heads or (None, None)
    return BackboneSpec(
        embed_dim=shapes["text_projection"][1],
        quick_gelu=quick_gelu,
        vision=VisionSpec(
            image_size=grid * patch_size,
            patch_size=patch_size,
            width=width,
            layers=_count_blocks(state, "visual.transformer.resblocks."),
            heads=_count_heads(width, WIDE_HEADS.get(width, HEAD_WIDTH), vision_heads),
            mlp_ratio=hidden_ratio(width, hidden),
        ),
        text=TextSpec(
            width=text_width,
            layers=_count_blocks(state, "transformer.resblocks."),
            heads=_count_heads(text_width, HEAD_WIDTH, text_heads),
            context_length=shapes["positional_embedding"][0],
            vocab_size=shapes["token_embedding.weight"][0],
            mlp_ratio=hidden_ratio(text_width, text_hidden),
        ),
    )


def hidden_ratio(width: int, hidden: int) -> float:
    """Return the ratio that `int(width * ratio)` turns into `hidden`, as open_clip computes it."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _count_heads(width: int, head_width: int, heads: int | None) -> int:
    if heads is None and width % head_width == 0:
        return width // head_width
    if heads is None or width % heads:
        wanted = f"heads of {head_width}" if heads is None else f"{heads} heads"
        raise ModelError(
            f"A tower of width {width} does not split into {wanted}; a state dict does not show "
            "how many it has, so give a folder with the right config beside it."
        )
    return heads


def _count_blocks(state: Mapping[str, Any], prefix: str) -> int:
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def _stem_faults(vision: VisionSpec) -> list[str]:
    channels, strides, blocks = vision.stem_channels, vision.stem_strides, vision.value_blocks
    faults = []
    if blocks is not None and not (blocks == 0 or _is_whole(blocks, MOST_LAYERS)):
        faults.append(f"vision.value_blocks should be a whole number or null, got {blocks!r}")
    lists = isinstance(channels, tuple) and isinstance(strides, tuple)
    if not lists or not all(_is_whole(n, LARGEST_SIZE) for n in (*channels, *strides)):
        faults.append("vision.stem_channels and stem_strides should be lists of whole numbers")
    elif strides or channels:
        if len(strides) != len(channels) + 1 or math.prod(strides) != vision.patch_size:
            faults.append(
                f"vision.stem_strides {strides} should be one more than stem_channels {channels}, "
                f"and their product the patch_size, {vision.patch_size!r}"
            )
        if any(number % 8 for number in (*channels, vision.width)):
            faults.append(f"vision.stem_channels and width should be multiples of 8: {channels}")
    return faults


def _is_whole(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _build(record: type, values: Mapping[str, Any], place: str) -> Any:
    known = {f.name for f in fields(record)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"{place} spec: unknown {', '.join(unknown)}; known: {sorted(known)}.")
    frozen = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    try:
        return record(**frozen)
    except TypeError as error:
        raise ConfigError(f"{place} spec is incomplete: {error}") from error


@cache
def open_clip_module() -> ModuleType:
    """Import the `open_clip` package at first use, and return it."""
    torchvision_module()
    import open_clip

    return open_clip


@cache
def torchvision_module() -> ModuleType:
    """Import the `torchvision` package at first use, before a library that uses it, and return it.

    The import fails where torch is built for the CPU and torchvision for CUDA ("operator
    torchvision::nms does not exist"). Nothing here uses those operators, so it is enough to
    declare their signatures.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _declare_torchvision_operators()
        import torchvision
    return torchvision


def _declare_torchvision_operators() -> None:
    import torch

    for name in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    for operator in ("nms", "qnms"):
        torch.library.define(
            f"torchvision::{operator}",
            "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        )
