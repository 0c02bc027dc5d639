"""Import of the authors' `.pth` checkpoints as model folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faprompt.clip.tensor_files import describe_file, load_plain, refuse_expanded, value_faults
from faprompt.clip.weights import load_backbone
from faprompt.detector import Detector
from faprompt.errors import ConfigError, ModelError
from faprompt.methods.base import Method
from faprompt.methods.registry import build_method, preset_backbone
from faprompt.methods.released_checkpoints import RELEASED


def import_reference(
    checkpoint: str | Path,
    *,
    method: str,
    out: str | Path,
    backbone: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Write the model folder of a reference checkpoint.

    The method runs as the public code does (preset `official`; `paper` for APRIL-GAN), and
    `options` override the preset: which patches feed FAPrompt's prior, the image size, and so on.

    Args:
        checkpoint: as train.py of the project saves it, `{"prompt_learner": state dict}`, or for
            APRIL-GAN `{"trainable_linearlayer": state dict}`.
        method: "faprompt", "anomalyclip" or "april-gan".
        out: the folder to write.
        backbone: the CLIP it was trained on; see `load_backbone`. None is the preset's own, which
            only APRIL-GAN has: `ViT-L-14-336:gelu`.
        options: fields of the method's config.

    Returns:
        Names of tensors that no forward pass reads, which were left behind.

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
    released = form.read(state, embed_dim=frozen.spec.embed_dim)
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
