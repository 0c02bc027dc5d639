"""What a file is that was taken for weights and is not: said in words, with what to do."""

from __future__ import annotations

import zipfile
from pathlib import Path

from faprompt.config import MAX_JSON_BYTES, parse_json

_HEAD, _NAMED = 512, 6
_ARCHIVES = {
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\0": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a RAR archive",
}
_OTHERS = {
    b"\x89HDF": "an HDF5 file",
    b"GGUF": "a GGUF file",
    b"\x93NUMPY": "a numpy array",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
}


def describe_file(path: Path) -> str:
    """Say what a file is that was taken for weights, and what to do; "" where it may be weights.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        ...     describe_file(Path(file.name))
        'it is empty; copy or download it again'
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        return f"it cannot be opened: {error.strerror}"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "it is empty; copy or download it again"
    if text.startswith((b"version https://git-lfs", b"version https://hawser", b"# xet version")):
        return (
            f"it is a Git LFS pointer of {size} bytes{_pointed_size(head)}, not the weights; run "
            "`git lfs pull` in the repository it came from, or download the file itself"
        )
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")):
        return (
            "it is a web page or an error message of a server, saved under this name; download "
            "the file itself"
        )
    for start, name in _ARCHIVES.items():
        if head.startswith(start):
            return f"it is {name}; unpack it and give the file inside"
    for start, name in _OTHERS.items():
        if head.startswith(start):
            return f"it is {name}; wanted safetensors, or a checkpoint of PyTorch"
    if head.startswith(b"PK"):
        return _describe_zip(path)
    if head[8:9] == b"{":
        return _describe_safetensors(path, int.from_bytes(head[:8], "little"), size)
    if not head.strip(b"\0"):
        return "it begins with zeros, as an unfinished download does; download it again"
    if head.startswith(b"\x80"):
        return "it is a pickle (of torch.save, or of a program), or a part of one"
    if text.startswith(b"{"):
        return "it is a JSON text; give the file of weights that it describes"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return f"it is a text that begins {head[:40].decode('ascii')!r}"
    return ""


def _pointed_size(head: bytes) -> str:
    """How large the file is that a Git LFS pointer stands for."""
    sizes = [line.split()[1] for line in head.splitlines() if line.startswith(b"size ")]
    if not sizes or not sizes[0].isdigit():
        return ""
    return f" for a file of {int(sizes[0]) / 1e6:,.1f} MB"


def _describe_zip(path: Path) -> str:
    if not zipfile.is_zipfile(path):
        return (
            "it is the beginning of a zip archive or PyTorch checkpoint; copy or download it again"
        )
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        names = [record.filename for record in records]
        if any(name.endswith("data.pkl") for name in names):
            try:
                refuse_compressed(archive)
            except ValueError as error:
                return f"it is a PyTorch checkpoint, but {error}; save it by torch.save"
            return ""
    return (
        f"it is a zip archive of {', '.join(names[:_NAMED]) or 'nothing'}; unpack it and give the "
        "file inside"
    )


def _describe_safetensors(path: Path, length: int, size: int) -> str:
    """What is wrong with a file that has safetensors' first nine bytes."""
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
        return (
            f"it should have {wanted} bytes, and has {size}: it is cut off; copy or download it "
            "again"
        )
    return ""


def refuse_compressed(archive: zipfile.ZipFile) -> None:
    """Refuse an archive of torch whose data are compressed: a small file could fill the memory.

    Raises:
        ValueError: a record of data is compressed; torch itself compresses only programs.
    """
    for record in archive.infolist():
        data = record.filename.endswith("data.pkl") or "/data/" in record.filename
        if data and record.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"the record {record.filename} is compressed")
