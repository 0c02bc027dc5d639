"""Tensors of a weights file, read without running anything that lies in it.

Three kinds, told apart by content:

    safetensors          header and raw tensors
    torch.save           a pickle of tensors; `torch.load(weights_only=True)` reads it
    TorchScript archive  what OpenAI publishes: NAME/data.pkl lays out modules and tensors,
                         NAME/data/0, 1, ... are raw storages, NAME/code/ is a program

`torch.jit.load` would compile and run the program, and `torch.load` refuses such files
unless all safety is off. Here the layout alone is read, by an unpickler that knows five
names and makes every class of the archive an empty holder; the program is never opened.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faprompt.clip.file_kind import describe_file, refuse_compressed
from faprompt.errors import ModelError

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # what weights may be

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name -> tensor, on the CPU, as they are stored. No code of the file is run.

    A checkpoint {"state_dict": ...} is opened, and a "module." before every name dropped.

    Raises:
        ModelError: the file is missing, empty, broken, or holds more than tensors; the message
            says what it is instead, such as a Git LFS pointer or a web page.
    """
    if not os.path.isfile(path):  # unlike Path.is_file, never an error
        raise ModelError(f"There is no weights file {path}.")
    try:
        with path.open("rb") as file:
            head = file.read(9)
        if head[8:] == b"{":
            from safetensors.torch import load_file

            return load_file(path)
        if _archive_root(path) is not None:
            return read_torchscript(path)
        state = _unwrap(load_plain(path), path)
    except ModelError:
        raise
    except Exception as error:  # a hostile or broken file may raise anything
        what = describe_file(path) or (
            "it is neither safetensors, nor a state dict of torch.save, nor a TorchScript "
            f"archive, or it is broken. {type(error).__name__}: {_first_line(error)}"
        )
        raise ModelError(
            f"{path} ({path.stat().st_size} bytes) cannot be read as weights: {what}"
        ) from error
    refuse_expanded(state, path)
    return state


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of a safetensors file. The tensors are views of the file.

    Raises:
        ModelError: the file is no safetensors file, or is broken; the message says what it is.
    """
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # a hostile or broken file may raise anything
        what = describe_file(path) or _first_line(error)
        raise ModelError(f"{path} is no safetensors file: {what}") from error


def load_plain(path: Path) -> Any:
    """What `torch.load` reads from a file of plain data and tensors; nothing is run.

    Raises:
        ValueError: records of the archive are compressed, so that a small file could fill the
            memory. `torch.save` never compresses.
        Exception: whatever torch raises on other files.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            refuse_compressed(archive)
    return torch.load(path, map_location="cpu", weights_only=True)


def value_faults(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """List what is wrong with the values of the tensors that both sides name, shapes aside.

    A floating-point tensor may be stored in any of `FLOATS`, and every value has to be finite
    once it is converted; any other tensor has to be stored in the type that is wanted.
    """
    faults = []
    for key in sorted(wanted.keys() & given.keys()):
        tensor, dtype = given[key], wanted[key].dtype
        if tensor.dtype != dtype and not (dtype in FLOATS and tensor.dtype in FLOATS):
            faults.append(f"{key} is stored as {_name(tensor.dtype)}, wanted {_name(dtype)}")
        elif tensor.shape == wanted[key].shape and not is_finite(_as_loaded(tensor, dtype)):
            faults.append(f"{key} holds values that are not finite")
    return faults


def is_finite(tensor: Tensor) -> bool:
    """Whether no value is NaN or infinite; a tensor on the meta device has no values."""
    if not tensor.is_floating_point() or tensor.is_meta:
        return True
    total = tensor.detach().sum(dtype=torch.float64 if tensor.is_cpu else torch.float32)
    return bool(total.isfinite()) or bool(tensor.isfinite().all())  # a sum is cheaper


def _as_loaded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Only float64 can hold what overflows in the type that is wanted."""
    return tensor.to(dtype) if tensor.dtype == torch.float64 else tensor


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters, buffers and other tensors of a TorchScript archive, by dotted name.

    Raises:
        ModelError: not such an archive, a foreign name in its layout, or a torn record.
    """
    state: dict[str, Tensor] = {}
    try:
        root = _archive_root(path)
        if root is None:
            raise ValueError("it has no constants.pkl")
        with zipfile.ZipFile(path) as archive:
            refuse_compressed(archive)
            _collect(_Layout(archive, root).load(), "", state)
        if not state:
            raise ValueError("it holds no tensors")
        refuse_expanded(state, path)
    except ModelError:
        raise
    except Exception as error:  # a hostile or broken file may raise anything
        raise ModelError(f"{path} is a broken TorchScript archive: {error}") from error
    return state


class _Module:
    """Holds what a module of the archive held, and can do nothing."""


class _Layout(pickle.Unpickler):
    """Unpickles `data.pkl`. What it hands out is made anew for each file, so that a
    pickle that writes on classes or functions reaches nothing that outlives it."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}/data.pkl"))
        self._archive = archive
        self._root = root
        self._storages: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return type("Module", (_Module,), {})
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        known: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): self._rebuild,
            ("collections", "OrderedDict"): OrderedDict,
            **{
                ("torch.jit._pickle", f"build_{kind}list"): self._first
                for kind in ("int", "double", "bool", "tensor")
            },
            ("torch.jit._pickle", "restore_type_tag"): self._first,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no tensor.")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count = pid  # the fourth, the device it lay on, means nothing here
        if kind != "storage":
            raise pickle.UnpicklingError(f"it refers to a {kind!r}, not to a storage.")
        if key not in self._storages:
            self._storages[key] = self._read_storage(str(key), dtype, int(count))
        return self._storages[key]

    def _read_storage(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        record = self._archive.getinfo(f"{self._root}/data/{key}")
        if record.compress_type != zipfile.ZIP_STORED or record.file_size != count * dtype.itemsize:
            raise pickle.UnpicklingError(
                f"record data/{key} has {record.file_size} bytes, wanted {count} x {dtype}."
            )
        if not count:
            return torch.empty(0, dtype=dtype)
        return torch.frombuffer(bytearray(self._archive.read(record)), dtype=dtype)

    def _rebuild(self, storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
        return storage.as_strided(size, stride, offset)

    def _first(self, value: Any, *_: Any) -> Any:
        return value


def _collect(module: Any, prefix: str, state: dict[str, Tensor]) -> None:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            state[prefix + name] = value
        elif isinstance(value, _Module):
            _collect(value, f"{prefix}{name}.", state)


def _archive_root(path: Path) -> str | None:
    """The folder inside a TorchScript zip that holds everything, or None for other files."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        found = [name for name in archive.namelist() if name.endswith("/constants.pkl")]
    return min(found, key=len).removesuffix("/constants.pkl") if found else None


def _unwrap(loaded: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded:
        raise ModelError(f"{path} holds a {type(loaded).__name__}, wanted a state dict.")
    odd = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if odd:
        raise ModelError(
            f"{path} is no state dict: {', '.join(odd[:6])} are not tensors. "
            "Wanted: name -> tensor, or that under 'state_dict'."
        )
    if all(key.startswith("module.") for key in loaded):
        loaded = {key.removeprefix("module."): value for key, value in loaded.items()}
    return dict(loaded)


def refuse_expanded(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that are no plain arrays, or that repeat a few values into a huge array.

    Raises:
        ModelError: names the tensors.
    """
    odd = [
        str(key)
        for key, tensor in state.items()
        if tensor.layout is not torch.strided
        or tensor.device.type != "cpu"
        or tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes()
    ]
    if odd:
        raise ModelError(
            f"{path}: {', '.join(odd[:6])} are no plain arrays (sparse, without data, or "
            "larger than what is stored); save contiguous tensors."
        )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
