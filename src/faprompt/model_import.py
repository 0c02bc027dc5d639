"""Import of the authors' `.pth` checkpoints, `{key: state dict}`, as model folders.

Those of FAPrompt and AnomalyCLIP carry tensors that no forward pass reads: eight
`compound_prompt_projections` layers left over from MaPLe, and token buffers (prefix, suffix,
tokenised prompts) that follow from the backbone. These are left behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faprompt.clip.tensor_files import (
    FLOATS,
    describe_file,
    load_plain,
    refuse_expanded,
    value_faults,
)
from faprompt.clip.weights import load_backbone
from faprompt.detector import Detector
from faprompt.errors import ConfigError, ModelError
from faprompt.methods.base import Method
from faprompt.methods.registry import build_method, preset_backbone

_DEAD = re.compile(r"^(compound_prompt_projections\.|token_(prefix|suffix)|tokenized_prompts)")
_DEEP = "compound_prompts_text."
_Read = tuple[dict[str, Tensor], dict[str, int]]  # our parameters, and options


def import_reference(
    checkpoint: str | Path,
    *,
    method: str,
    out: str | Path,
    backbone: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Write the model folder of a reference checkpoint, and return the names of unused tensors.

    The method runs as the public code does: preset `official`, or `paper` for APRIL-GAN.

    Args:
        checkpoint: as train.py of the project saves it, `{"prompt_learner": state dict}`, or for
            APRIL-GAN `{"trainable_linearlayer": state dict}`.
        method: "faprompt", "anomalyclip" or "april-gan".
        out: the folder to write.
        backbone: the CLIP it was trained on; see `load_backbone`. Default: the preset's own,
            which only APRIL-GAN has: `ViT-L-14-336:gelu`.
        options: fields of the method's config; they override the preset.

    Raises:
        ModelError: not such a checkpoint, or of another backbone's size.
        ConfigError: another method, no backbone, or options that contradict the checkpoint's
            shapes.
    """
    if method not in RELEASED:
        raise ConfigError(f"Checkpoints of {', '.join(RELEASED)} can be read, not {method!r}.")
    form = RELEASED[method]
    source = str(backbone or preset_backbone(method, form.preset))
    if not source:
        raise ConfigError(
            f"Checkpoints of {method} want --backbone, the CLIP they were trained on."
        )
    frozen = load_backbone(source)
    state = read_checkpoint(Path(checkpoint), form.key)
    released = read_released(method, state, embed_dim=frozen.spec.embed_dim)
    chosen = {**released.options, **(options or {})}
    clash = [k for k, value in released.options.items() if str(chosen[k]) != str(value)]
    if clash:
        held = ", ".join(f"{name}={released.options[name]}" for name in clash)
        raise ConfigError(f"The checkpoint itself says {held}; leave these options out.")
    built = build_method(method, frozen, chosen, preset=form.preset)
    _check_shapes(released.state, built, frozen.name)
    faults = value_faults(built.state_dict(), released.state)
    if faults:
        raise ModelError(f"{checkpoint}: {'; '.join(faults)}.")
    built.load_state_dict(released.state)
    description = {
        "backbone": {"source": source},
        "training": {"imported_from": Path(checkpoint).name, "preset": form.preset},
    }
    Detector(frozen, built, name=Path(out).name, description=description).save_pretrained(out)
    return released.left_behind


def read_checkpoint(path: Path, key: str) -> dict[str, Any]:
    """Return the state dict under a key of a checkpoint; nothing in the file is executed.

    Raises:
        ModelError: missing, unreadable, or without the key; the message says what the file is.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist.")
    try:
        content = load_plain(path)
    except Exception as error:  # torch's own message suggests to load it unsafely
        what = describe_file(path) or "it is broken, or holds more than tensors"
        raise ModelError(
            f"{path} could not be read as plain tensors: {what}. Nothing in it was run."
        ) from error
    state = content.get(key) if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise ModelError(
            f'{path} has no "{key}"; wanted a checkpoint of train.py.{_other_project(content)}'
        )
    named = {name: value for name, value in state.items() if hasattr(value, "untyped_storage")}
    if not all(isinstance(name, str) for name in state):
        raise ModelError(f'{path}: its "{key}" should name every tensor.')
    refuse_expanded(named, path)
    return state


def _other_project(content: Any) -> str:
    """Name the methods whose checkpoint it is instead, if its keys show that."""
    held = content if isinstance(content, dict) else {}
    for key in dict.fromkeys(form.key for form in RELEASED.values()):
        if isinstance(held.get(key), dict):
            methods = [name for name, form in RELEASED.items() if form.key == key]
            return f' It has "{key}", as {" and ".join(methods)}: choose it with --method.'
    return ""


def _check_shapes(state: Mapping[str, Any], method: Method, backbone: str) -> None:
    wanted = method.state_dict()
    clash = [
        f"{key} is {tuple(state[key].shape)}, {backbone} wants {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    if state.keys() == wanted.keys():
        if clash:
            raise ModelError(f"The checkpoint belongs to another backbone: {'; '.join(clash)}.")
        return
    # APRIL-GAN: one linear layer for each block that the method reads
    held = sum(key.endswith(".weight") for key in state)
    layers = method.image_options.layers or ()
    blocks = ", ".join(map(str, layers))
    raise ModelError(
        f"The checkpoint has {held} linear layers, {method.name} wants {len(layers)} "
        f"here, of the blocks {blocks}; say which it was trained on: --set map_layers=..."
    )


@dataclass(frozen=True, slots=True)
class ReleasedState:
    """Our parameters and the options their shapes imply; `left_behind` names unused tensors."""

    state: dict[str, Tensor]
    options: dict[str, int]
    left_behind: tuple[str, ...]


def read_released(method: str, released: Mapping[str, Tensor], *, embed_dim: int) -> ReleasedState:
    """Read a state dict of the authors under our parameter names.

    Args:
        method: one of `RELEASED`.
        released: the state dict.
        embed_dim: of the backbone it was trained on; FAPrompt's M follows from it and psi's
            input width.

    Raises:
        ModelError: tensors are missing, unknown, misshapen or no floating-point numbers.
    """
    dead = tuple(sorted(key for key in released if _DEAD.match(key)))
    live = {key: value for key, value in released.items() if key not in dead}
    odd = sorted(key for key, value in live.items() if not isinstance(value, Tensor))
    if odd:
        raise ModelError(f"The checkpoint's {', '.join(odd)} should be tensors.")
    whole = sorted(key for key, value in live.items() if value.dtype not in FLOATS)
    if whole:
        types = ", ".join(f"{key} ({str(live[key].dtype).removeprefix('torch.')})" for key in whole)
        raise ModelError(f"The checkpoint's tensors should be floating-point numbers: {types}.")
    live = {key: value.float() for key, value in live.items()}
    state, options = RELEASED[method].read(live, embed_dim)
    if live:
        raise ModelError(
            f"The checkpoint holds tensors this method does not know: {', '.join(sorted(live))}. "
            "Is it another method's? Choose it with --method."
        )
    return ReleasedState(state, options, dead)


def _read_faprompt(live: dict[str, Tensor], embed_dim: int) -> _Read:
    """Take FAPrompt's prompt learner (FAPrompt.py)."""
    deep = _take_deep(live)
    normal = _take(live, "ctx_pos", (1, 1, None, None))
    abnormal = _take(live, "ctx_neg", (1, None, None, None))
    state = {
        "prompts.normal_context": normal[0, 0],
        "prompts.abnormal_tokens": abnormal[0],
        "prompts.deep_prompts": deep,
    }
    for layer in ("linear1", "linear2"):
        for kind, axes in (("weight", (None, None)), ("bias", (None,))):
            state[f"prior.{layer}.{kind}"] = _take(live, f"patch_meta_net.{layer}.{kind}", axes)
    psi_input = state["prior.linear1.weight"].shape[1]
    if psi_input % embed_dim:
        raise ModelError(
            f"psi takes {psi_input} numbers, which is no multiple of the backbone's {embed_dim}; "
            "was it trained on another backbone?"
        )
    options = {
        "prompts": abnormal.shape[1],
        "normal_tokens": normal.shape[2],
        "abnormal_tokens": abnormal.shape[2],
        "deep_depth": len(deep) + 1,
        "deep_length": deep.shape[1],
        "patches": psi_input // embed_dim,
    }
    return state, options


def _read_anomalyclip(live: dict[str, Tensor], embed_dim: int) -> _Read:
    """Take AnomalyCLIP's prompt learner (prompt_ensemble.py)."""
    deep = _take_deep(live)
    normal, abnormal = (_take(live, key, (1, 1, None, None)) for key in ("ctx_pos", "ctx_neg"))
    state = {
        "normal_context": normal[0, 0],
        "abnormal_context": abnormal[0, 0],
        "deep_prompts": deep,
    }
    options = {
        "context_tokens": normal.shape[2],
        "deep_depth": len(deep) + 1,
        "deep_length": deep.shape[1],
    }
    return state, options


def _read_april_gan(live: dict[str, Tensor], embed_dim: int) -> _Read:
    """Take APRIL-GAN's linear layers (model.py: `fc`); which blocks they read is not saved."""
    count = sum(key.startswith("fc.") and key.endswith(".weight") for key in live)
    if not count:
        raise ModelError("The checkpoint lacks the linear layers, fc.0.weight and on.")
    state: dict[str, Tensor] = {}
    axes: tuple[int | None, ...] = (None, None)
    for layer in range(count):
        weight = _take(live, f"fc.{layer}.weight", axes)
        axes = tuple(weight.shape)
        state[f"linears.{layer}.weight"] = weight
        state[f"linears.{layer}.bias"] = _take(live, f"fc.{layer}.bias", (len(weight),))
    return state, {}


@dataclass(frozen=True, slots=True)
class ReleasedForm:
    """How a project's `.pth` is read, and the preset that runs as its public code does."""

    key: str  # of the state dict within the file
    preset: str
    read: Callable[[dict[str, Tensor], int], _Read]  # takes what it knows out of the state dict


RELEASED: Mapping[str, ReleasedForm] = {
    "faprompt": ReleasedForm("prompt_learner", "official", _read_faprompt),
    "anomalyclip": ReleasedForm("prompt_learner", "official", _read_anomalyclip),
    "april-gan": ReleasedForm("trainable_linearlayer", "paper", _read_april_gan),
}


def _take(live: dict[str, Tensor], key: str, axes: tuple[int | None, ...]) -> Tensor:
    """Remove and return the tensor of a key; `axes` are the lengths wanted, None for any."""
    if key not in live:
        rest = ", ".join(sorted(live)) or "nothing else"
        raise ModelError(f"The checkpoint lacks {key!r}. Besides what was read it holds {rest}.")
    tensor = live.pop(key)
    lengths = zip(axes, tensor.shape, strict=False)
    if tensor.ndim != len(axes) or any(a not in (None, length) for a, length in lengths):
        wanted = ", ".join("any" if a is None else str(a) for a in axes)
        raise ModelError(f"{key!r} should be ({wanted}), got shape {tuple(tensor.shape)}.")
    return tensor


def _take_deep(live: dict[str, Tensor]) -> Tensor:
    count = sum(key.startswith(_DEEP) for key in live)
    if not count:
        raise ModelError(f"The checkpoint lacks the deep prompts, {_DEEP}0 and on.")
    first = _take(live, f"{_DEEP}0", (None, None))
    rest = [_take(live, f"{_DEEP}{i}", tuple(first.shape)) for i in range(1, count)]
    return torch.stack([first, *rest])
