"""Read and write training checkpoints: safetensors with a JSON header.

    method/<name>                    every parameter and buffer of the method
    optimizer/<state>/<parameter>    Adam's step, exp_avg, exp_avg_sq; SGD's momentum_buffer
    losses                           (steps, terms + 2) float64, see `LossLog`

Nothing is pickled. The file is replaced at once, so a crash leaves the former one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faprompt.clip.tensor_files import describe_file, is_finite, value_faults
from faprompt.config import parse_json
from faprompt.errors import ConfigError, ModelError
from faprompt.files import write_atomically
from faprompt.methods.base import Method

CHECKPOINT_NAME = "checkpoint.safetensors"
_HEADER = "faprompt_training"
_FORMAT = 2


@dataclass(frozen=True, slots=True)
class CheckpointHeader:
    """Header of a checkpoint. `identity` identifies the run, see `train_method`."""

    step: int  # optimiser steps done
    steps: int  # of the whole run, as planned when it was written
    identity: dict[str, Any]
    seconds: dict[str, float]
    loss_names: tuple[str, ...]
    format: int = _FORMAT


def save_checkpoint(
    path: Path,
    header: CheckpointHeader,
    method: Method,
    optimizer: torch.optim.Optimizer,
    losses: Tensor,
) -> None:
    """Write a checkpoint atomically."""
    from safetensors.torch import save

    names = _parameter_names(optimizer)
    tensors = {f"method/{name}": value for name, value in method.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for kind, value in state.items():
            tensors[f"optimizer/{kind}/{names[index]}"] = torch.as_tensor(value)
    tensors["losses"] = losses
    ready = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    write_atomically(
        path, save(ready, metadata={_HEADER: json.dumps(asdict(header))}), durable=True
    )


def load_checkpoint(path: Path) -> tuple[CheckpointHeader, dict[str, Tensor]]:
    """Return the header and the tensors of a checkpoint, "losses" among them.

    Raises:
        ModelError: the file is damaged, of another version, or another kind of file.
    """
    from safetensors import safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            header = _read_header((file.metadata() or {})[_HEADER])
            # copied: Windows replaces no file that is mapped into memory
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
        wanted = (header.step, len(header.loss_names) + 2)
        if tuple(tensors["losses"].shape) != wanted:
            raise ValueError(f"losses are {tuple(tensors['losses'].shape)}, wanted {wanted}")
    except Exception as error:  # a damaged file may raise anything
        what = describe_file(path).partition(";")[0] or repr(error)
        raise ModelError(
            f"{path} is not a training checkpoint of this version, or is damaged ({what}); "
            "delete it to train from the start."
        ) from error
    return header, tensors


def _read_header(text: str) -> CheckpointHeader:
    values = parse_json(text)
    if values["format"] != _FORMAT:
        raise ValueError(f"format {values['format']}, wanted {_FORMAT}")
    header = CheckpointHeader(**{**values, "loss_names": tuple(values["loss_names"])})
    counts = isinstance(header.step, int) and isinstance(header.steps, int) and header.step >= 0
    texts = all(isinstance(name, str) for name in header.loss_names)
    if not (counts and texts and isinstance(header.identity, dict)):
        raise ValueError("steps, loss_names or identity are of another type")
    seconds = {name: float(header.seconds[name]) for name in ("images", "steps")}
    return replace(header, seconds=seconds)


def restore(
    tensors: Mapping[str, Tensor], method: Method, optimizer: torch.optim.Optimizer
) -> None:
    """Restore the parameters and the state of the optimizer.

    Raises:
        ModelError: names, shapes or types are not this method's, or values are not finite.
    """
    state, wanted = _under(tensors, "method/"), method.state_dict()
    faults = value_faults(wanted, state)
    if faults:
        raise ModelError(f"The checkpoint cannot be resumed: {'; '.join(faults)}. {_ADVICE}")
    try:
        method.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"The checkpoint does not fit {method.name!r}: {error}") from error
    memory = _memory(_under(tensors, "optimizer/"), optimizer)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": memory})


_ADVICE = "Delete it, and train again with other options, such as a lower learning_rate."


def _memory(
    tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[int, dict[str, Tensor]]:
    """Return the optimizer's state by parameter number; errors as in `restore`."""
    memory: dict[int, dict[str, Tensor]] = {}
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    names = _parameter_names(optimizer)
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        number = names.index(name) if name in names else -1
        if number < 0 or value.numel() not in (1, parameters[number].numel()):
            raise ModelError(f"The checkpoint's optimizer/{key} fits no parameter. {_ADVICE}")
        if not is_finite(value):
            raise ModelError(f"The checkpoint's optimizer/{key} is not finite. {_ADVICE}")
        memory.setdefault(number, {})[kind] = value  # a parameter without gradient has none
    return memory


def require_same_run(then: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Refuse to resume with other options or other data.

    Raises:
        ConfigError: the runs differ; the message names every difference.
    """
    before, after = _flat(then), _flat(now)
    differences = [
        f"{name} was {_shown(before, name)}, is now {_shown(after, name)}"
        for name in sorted({*before, *after})
        if before.get(name, _ABSENT) != after.get(name, _ABSENT)
    ]
    if differences:
        raise ConfigError(
            f"{path} belongs to another run: {'; '.join(differences)}. "
            "Resume with the same options and data, or train into another folder."
        )


_ABSENT = object()


def _parameter_names(optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names in the order in which the optimizer numbers its parameters."""
    return [name for group in optimizer.param_groups for name in group["param_names"]]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def _shown(flat: Mapping[str, Any], name: str) -> str:
    if name not in flat:
        return "absent"
    text = str(flat[name])
    return f"{text[:12]}..." if len(text) > 40 else text


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
