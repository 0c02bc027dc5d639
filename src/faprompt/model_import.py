"""The authors' `.pth` checkpoints into model folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faprompt.errors import ConfigError, ModelError

CONVERTIBLE = ("faprompt", "anomalyclip")


def import_reference(
    checkpoint: str | Path,
    *,
    method: str,
    backbone: str,
    out: str | Path,
    options: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Write the model folder of a reference checkpoint.

    The method runs as the public code does (preset `official`), unless `options` say
    otherwise: which patches feed FAPrompt's prior, the image size, and so on.

    Args:
        checkpoint: `{"prompt_learner": state dict}` as train.py of either project saves it.
        method: "faprompt" or "anomalyclip".
        backbone: where the CLIP lies that it was trained on; see `load_backbone`.
        out: the folder to write.
        options: fields of the method's config.

    Returns:
        Names of tensors that no forward pass reads, which were left behind.

    Raises:
        ModelError: not such a checkpoint, or of another backbone's size.
        ConfigError: another method, or options that contradict the checkpoint's shapes.
    """
    from faprompt.clip.weights import load_backbone
    from faprompt.detector import Detector
    from faprompt.methods.reference import read_anomalyclip, read_faprompt
    from faprompt.methods.registry import build_method
    from faprompt.model_folder import save_model

    if method not in CONVERTIBLE:
        raise ConfigError(f"Checkpoints of {', '.join(CONVERTIBLE)} can be read, not {method!r}.")
    frozen = load_backbone(backbone)
    learner = read_prompt_learner(Path(checkpoint))
    if method == "faprompt":
        reference = read_faprompt(learner, embed_dim=frozen.spec.embed_dim)
    else:
        reference = read_anomalyclip(learner)
    chosen = {**reference.options, **(options or {})}
    clash = [k for k, value in reference.options.items() if str(chosen[k]) != str(value)]
    if clash:
        told = ", ".join(f"{name}={reference.options[name]}" for name in clash)
        raise ConfigError(f"The checkpoint itself says {told}; leave these options out.")
    built = build_method(method, frozen, chosen, preset="official")
    _check_width(reference.state, built, frozen.name)
    built.load_state_dict(reference.state)
    description = {
        "backbone": {"source": str(backbone)},
        "training": {"imported_from": Path(checkpoint).name},
    }
    save_model(Detector(frozen, built, name=Path(out).name, description=description), Path(out))
    return reference.left_behind


def read_prompt_learner(path: Path) -> dict[str, Any]:
    """The state dict inside a reference checkpoint; nothing in the file is executed.

    Raises:
        ModelError: missing, unreadable, or without `prompt_learner`.
    """
    import torch

    if not path.is_file():
        raise ModelError(f"{path} does not exist.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's own words advise to load it unsafely
        raise ModelError(
            f"{path} could not be read as plain tensors: it is broken, or holds more than "
            "tensors. Nothing in it was run."
        ) from error
    learner = content.get("prompt_learner") if isinstance(content, dict) else None
    if not isinstance(learner, dict):
        raise ModelError(f'{path} has no "prompt_learner"; wanted a checkpoint of train.py.')
    return learner


def _check_width(state: Mapping[str, Any], method: Any, backbone: str) -> None:
    wanted = method.state_dict()
    clash = [
        f"{key} is {tuple(state[key].shape)}, {backbone} wants {tuple(wanted[key].shape)}"
        for key in wanted
        if state[key].shape != wanted[key].shape
    ]
    if clash:
        raise ModelError(f"The checkpoint belongs to another backbone: {'; '.join(clash)}.")
