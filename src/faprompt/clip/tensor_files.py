"""Read the tensors of a weights file without running anything in the file.

Three formats, told apart by content: safetensors; a pickle of tensors by `torch.save`, read with
`weights_only=True`; OpenAI's TorchScript archive, where NAME/data.pkl lists modules and tensors,
NAME/data/0, 1, ... are raw storages and NAME/code/ is a program. `torch.jit.load` would run the
program. Here an unpickler that knows a few names reads data.pkl alone and turns every class of
the archive into an empty holder.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faprompt.config import MAX_JSON_BYTES, parse_json
from faprompt.errors import ModelError

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)  # types of weights

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
_NAMED, _LISTED = 6, 12  # names in an error; faults of each kind in an error
_POINTERS = (b"version https://git-lfs", b"version https://hawser", b"# xet version")
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")
_ARCHIVES = (  # first bytes of gzip, bzip2, xz, zstd, 7z and RAR
    *(b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"),
    *(b"7z\xbc\xaf\x27\x1c", b"Rar!"),
)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read name -> tensor of any of the three formats, on the CPU, in the stored types.

    A checkpoint {"state_dict": ...} is unwrapped. A "module." before every name is dropped.

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
        root = _torchscript_root(path)
        state = _unwrap(load_plain(path), path) if root is None else _read_archive(path, root)
    except ModelError:
        raise
    except Exception as error:  # a hostile or broken file may raise anything
        what = describe_file(path) or (
            "it is neither safetensors, nor a state dict of torch.save, nor a TorchScript "
            f"archive, or it is broken. {type(error).__name__}: {_first_line(error)}"
        )
        size = path.stat().st_size
        raise ModelError(f"{path} ({size} bytes) cannot be read as weights: {what}") from error
    refuse_expanded(state, path)
    return state


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read name -> tensor of a safetensors file. The tensors are views of the file.

    Raises:
        ModelError: the file is no safetensors file, or is broken; the message says what it is.
    """
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # as in `read_tensors`
        what = describe_file(path) or _first_line(error)
        raise ModelError(f"{path} is no safetensors file: {what}") from error


def load_plain(path: Path) -> Any:
    """Read a file of plain data and tensors with `torch.load`; nothing in it is run.

    Raises:
        ValueError: records of the archive are compressed, so that a small file could fill the
            memory. `torch.save` never compresses.
        Exception: whatever torch raises on other files.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            _refuse_compressed(archive)
    return torch.load(path, map_location="cpu", weights_only=True)


def state_faults(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """List missing and unknown keys, other shapes, and `value_faults`; at most 12 of each."""
    keys = {"missing": wanted.keys() - given.keys(), "unknown": given.keys() - wanted.keys()}
    shapes = [
        f"{key} is {tuple(given[key].shape)}, wanted {tuple(wanted[key].shape)}"
        for key in sorted(wanted.keys() & given.keys())
        if given[key].shape != wanted[key].shape
    ]
    return [
        *(f"{word}: {', '.join(sorted(odd)[:12])}" for word, odd in keys.items() if odd),
        *shapes[:12],
        *value_faults(wanted, given)[:12],
    ]


def value_faults(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """List what is wrong with the types and values of the tensors that both sides name.

    A floating-point tensor may be stored in any of `FLOATS`, and every value has to be finite
    once it is converted. Any other tensor has to be stored in the wanted type.
    """
    faults = []
    for key in sorted(wanted.keys() & given.keys()):
        tensor, dtype = given[key], wanted[key].dtype
        if tensor.dtype != dtype and not (dtype in FLOATS and tensor.dtype in FLOATS):
            faults.append(f"{key} is stored as {_name(tensor.dtype)}, wanted {_name(dtype)}")
        elif tensor.shape == wanted[key].shape:
            # only float64 can hold what overflows in the wanted type
            loaded = tensor.to(dtype) if tensor.dtype == torch.float64 else tensor
            if not is_finite(loaded):
                faults.append(f"{key} holds values that are not finite")
    return faults


def is_finite(tensor: Tensor) -> bool:
    """Return whether no value is NaN or infinite; tensors on the meta device have no values."""
    if not tensor.is_floating_point() or tensor.is_meta:
        return True
    total = tensor.detach().sum(dtype=torch.float64 if tensor.is_cpu else torch.float32)
    return bool(total.isfinite()) or bool(tensor.isfinite().all())  # a sum is cheaper


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
            f"{path}: {', '.join(odd[:_NAMED])} are no plain arrays (sparse, without data, or "
            "larger than what is stored); save contiguous tensors."
        )


def describe_file(path: Path) -> str:
    """Say what a file is that was taken for weights, and what to do; "" if it may be weights.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "weights.pt")
        ...     file.touch()
        ...     describe_file(file)
        'it is empty; copy or download it again'
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        return f"it cannot be opened: {error.strerror}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "it is empty; copy or download it again"
    if text.startswith(_POINTERS):
        pointed = re.search(rb"^size (\d{1,15})\s*$", head, re.MULTILINE)
        told = f" for a file of {int(pointed[1]) / 1e6:,.1f} MB" if pointed else ""
        return (
            f"it is a Git LFS pointer of {size} bytes{told}, not the weights; run `git lfs pull` "
            "in the repository it came from, or download the file itself"
        )
    if text.startswith(_PAGES):
        return (
            "it is a web page or an error message of a server, saved under this name; download "
            "the file itself"
        )
    if head.startswith(_ARCHIVES):
        return "it is a compressed archive; unpack it and give the file inside"
    if head.startswith(b"PK"):
        return _describe_zip(path)
    if head[8:9] == b"{":
        return _describe_safetensors(path, int.from_bytes(head[:8], "little"), size)
    if not head.strip(b"\0"):
        return "it begins with zeros, as an unfinished download does; download it again"
    if head.startswith(b"\x80"):
        return "it is a pickle (of torch.save, or of a program), or a part of one"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return f"it is a text that begins {head[:40].decode('ascii')!r}"
    return f"it begins with {head[:8]!r}; wanted safetensors, or a checkpoint of PyTorch"


def _describe_zip(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        return "it is the beginning of a zip archive or PyTorch checkpoint; download it again"
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if any(name.endswith("data.pkl") for name in names):
            try:
                _refuse_compressed(archive)
            except ValueError as error:
                return f"it is a PyTorch checkpoint, but {error}; save it by torch.save"
            return ""
    held = ", ".join(names[:_NAMED]) or "nothing"
    return f"it is a zip archive of {held}; unpack it and give the file inside"


def _describe_safetensors(path: Path, length: int, size: int) -> str:
    """Describe a file that has the first nine bytes of safetensors."""
    if 8 + length > size:
        return (
            f"its header alone should have {length} bytes, and the file has {size}: it is cut off "
            "or broken; copy or download it again"
        )
    if length > MAX_JSON_BYTES:
        return ""
    with path.open("rb") as file:
        file.seek(8)
        try:
            header = parse_json(file.read(length).decode())
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name[:2] != "__"]
            wanted = 8 + length + max(ends, default=0)
        except (ValueError, LookupError, TypeError, AttributeError):
            return "its header is broken; copy or download it again"
    if wanted > size:
        return f"it should have {wanted} bytes, and has {size}: it is cut off; download it again"
    return ""


def _refuse_compressed(archive: zipfile.ZipFile) -> None:
    """Raise ValueError if data are compressed; torch itself compresses only programs."""
    for record in archive.infolist():
        data = record.filename.endswith("data.pkl") or "/data/" in record.filename
        if data and record.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"the record {record.filename} is compressed")


def _torchscript_root(path: Path) -> str | None:
    """Return the folder inside a TorchScript archive that holds everything, or None."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        found = [name for name in archive.namelist() if name.endswith("/constants.pkl")]
    return min(found, key=len).removesuffix("/constants.pkl") if found else None


def _read_archive(path: Path, root: str) -> dict[str, Tensor]:
    """Read parameters, buffers and other tensors of a TorchScript archive, by dotted name."""
    state: dict[str, Tensor] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_compressed(archive)
            _collect(_Layout(archive, root).load(), "", state)
        if not state:
            raise ValueError("it holds no tensors")
    except Exception as error:  # a hostile or broken file may raise anything
        raise ModelError(f"{path} is a broken TorchScript archive: {error}") from error
    return state


def _collect(module: Any, prefix: str, state: dict[str, Tensor]) -> None:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            state[prefix + name] = value
        elif isinstance(value, _Module):
            _collect(value, f"{prefix}{name}.", state)


class _Module:
    """Hold the attributes of a module of the archive; it has no methods."""


class _Layout(pickle.Unpickler):
    """Unpickle `data.pkl`.

    Classes and functions are made anew for each file, so that a pickle that writes on them
    changes nothing outside.
    """

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
        kind, dtype, key, _, count = pid  # the fourth is the device it was saved from
        if kind != "storage":
            raise pickle.UnpicklingError(f"it refers to a {kind!r}, not to a storage.")
        if key not in self._storages:
            self._storages[key] = self._read_storage(str(key), dtype, int(count))
        return self._storages[key]

    def _read_storage(self, key: str, dtype: torch.dtype, count: int) -> Tensor:
        record = self._archive.getinfo(f"{self._root}/data/{key}")
        if record.file_size != count * dtype.itemsize:
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


def _unwrap(loaded: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded:
        raise ModelError(f"{path} holds a {type(loaded).__name__}, wanted a state dict.")
    odd = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if odd:
        raise ModelError(
            f"{path} is no state dict: {', '.join(odd[:_NAMED])} are not tensors. "
            "Wanted: name -> tensor, or that under 'state_dict'."
        )
    if all(key.startswith("module.") for key in loaded):
        loaded = {key.removeprefix("module."): value for key, value in loaded.items()}
    return dict(loaded)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
