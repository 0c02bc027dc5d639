"""Files that were taken for weights: named, wherever weights are read, with what to do."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile

import pytest
import torch
from safetensors.torch import save

from faprompt.clip.archive import read_safetensors, read_tensors, value_faults
from faprompt.clip.file_kind import describe_file
from faprompt.clip.weights import load_backbone
from faprompt.errors import ModelError
from faprompt.model_folder import WEIGHTS, load_weights
from faprompt.model_import import read_checkpoint
from tests.helpers import small

POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 1710537716\n"
)
STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
WHOLE = save(STATE)


def zipped(name: str, content: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", compression) as archive:
        archive.writestr(name, content)
    return held.getvalue()


def checkpoint(*, compressed: bool = False) -> bytes:
    """torch.save's file, or the same records compressed."""
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save({"prompt_learner": STATE}, plain)
    if not compressed:
        return plain.getvalue()
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for record in old.namelist():
            new.writestr(record, old.read(record))
    return packed.getvalue()


def header(length: int, text: bytes = b"{") -> bytes:
    return length.to_bytes(8, "little") + text


FOREIGN = {
    "pointer": (POINTER, r"Git LFS pointer of 135 bytes for a file of 1,710.5 MB.*`git lfs pull`"),
    "pointer of Windows": (POINTER.replace(b"\n", b"\r\n"), "Git LFS pointer.*`git lfs pull`"),
    "page": (b"\n<!DOCTYPE html><html><body>Sign in</body>", "web page.*download the file itself"),
    "page in capitals": (b"\xef\xbb\xbf<HTML>", "web page"),
    "error of a server": (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "error message"),
    "empty": (b"", "it is empty"),
    "gzip": (gzip.compress(WHOLE), "gzip archive; unpack it"),
    "bzip2": (bz2.compress(WHOLE), "bzip2 archive; unpack it"),
    "xz": (lzma.compress(WHOLE), "xz archive; unpack it"),
    "zip": (zipped("model.safetensors", WHOLE), "zip archive of model.safetensors; unpack it"),
    "zip of a page": (zipped("index.html", b"<html>"), "zip archive of index.html"),
    "cut zip": (checkpoint()[:200], "beginning of a zip archive or PyTorch"),
    "compressed checkpoint": (checkpoint(compressed=True), "data.pkl is compressed"),
    "cut header": (WHOLE[:40], r"header alone should have \d+ bytes, and the file has 40"),
    "cut tensors": (WHOLE[:-4], rf"should have {len(WHOLE)} bytes, and has {len(WHOLE) - 4}"),
    "endless header": (header(2**60) + b" " * 64, rf"should have {2**60} bytes"),
    "broken header": (header(9, b'{"a": 1]}'), "header is broken"),
    "zeros": (bytes(4096), "begins with zeros"),
    "json": (b'{"architecture": "vit"}', "JSON text"),
    "text": (b"404: Not Found", "text that begins '404: Not Found'"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5 file; wanted safetensors"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(64), "PNG picture"),
}


@pytest.fixture(params=FOREIGN, ids=list(FOREIGN))
def foreign(request, tmp_path):
    content, told = FOREIGN[request.param]
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    return path, told


def test_named_as_a_backbone(foreign):
    path, told = foreign
    with pytest.raises(ModelError, match=rf"weights.pt \(\d+ bytes\) cannot be read.*{told}"):
        read_tensors(path)
    with pytest.raises(ModelError, match=told):
        load_backbone(f"{path}:quickgelu")


def test_named_as_a_model_and_as_a_reference_checkpoint(foreign):
    path, told = foreign
    if "checkpoint" not in told and "compressed" not in told:
        with pytest.raises(ModelError, match=f"weights.pt is no safetensors file: .*{told}"):
            read_safetensors(path)
    with pytest.raises(ModelError, match=f"weights.pt could not be read as plain.*{told}"):
        read_checkpoint(path, "prompt_learner")


def test_weights_are_not_described(tmp_path):
    for name, content in (("a.safetensors", WHOLE), ("b.pt", checkpoint())):
        (tmp_path / name).write_bytes(content)
        assert describe_file(tmp_path / name) == ""
    assert set(read_safetensors(tmp_path / "a.safetensors")) == set(STATE)
    assert set(read_checkpoint(tmp_path / "b.pt", "prompt_learner")) == set(STATE)


def test_a_pickle_is_called_one(tmp_path):
    torch.save(STATE, tmp_path / "x.safetensors", _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match="no safetensors file: it is a pickle"):
        read_safetensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize(
    "state",
    [
        {"w": torch.zeros(1).expand(10**9, 10**6)},
        {"w": torch.zeros(3, 3).to_sparse()},
    ],
)
def test_tensors_that_promise_more_than_is_stored_are_refused(state, tmp_path):
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(ModelError, match="w are no plain arrays"):
        read_tensors(tmp_path / "x.pt")


class TestValues:
    """Types and values of tensors, by the one rule of models, backbones and checkpoints."""

    @pytest.mark.parametrize(
        ("given", "told"),
        [
            (torch.zeros(2, dtype=torch.int32), "w is stored as int32, wanted float32"),
            (torch.zeros(2, dtype=torch.bool), "w is stored as bool, wanted float32"),
            (torch.zeros(2, dtype=torch.complex64), "w is stored as complex64, wanted float32"),
            (torch.zeros(2, dtype=torch.float8_e4m3fn), "w is stored as float8_e4m3fn"),
            (torch.tensor([1.0, float("nan")]), "w holds values that are not finite"),
            (torch.tensor([float("inf"), -float("inf")]), "w holds values that are not finite"),
            (torch.tensor([1e300, 0.0], dtype=torch.float64), "w holds values that are not"),
            (torch.tensor([3e38, 3e38]), None),
            (torch.tensor([6e4, 6e4], dtype=torch.float16), None),
            (torch.tensor([1.0, 2.0], dtype=torch.bfloat16), None),
            (torch.tensor([1.0, 2.0], dtype=torch.float64), None),
        ],
    )
    def test_of_a_floating_point_tensor(self, given, told):
        found = value_faults({"w": torch.zeros(2)}, {"w": given})
        assert (len(found) == 1 and found[0].startswith(told)) if told else found == []

    def test_counters_keep_their_own_type(self):
        wanted = {"n": torch.tensor(0)}
        assert value_faults(wanted, {"n": torch.tensor(3)}) == []
        assert value_faults(wanted, {"n": torch.tensor(3.0)}) == [
            "n is stored as float32, wanted int64"
        ]


def test_a_header_that_promises_huge_tensors_takes_no_memory(tmp_path):
    """The header is whole, and names 4 TB that the file does not have."""
    entry = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
    text = json.dumps({"weight": entry}).encode()
    (tmp_path / WEIGHTS).write_bytes(header(len(text), text))
    with pytest.raises(ModelError, match=r"should have 4000000\d+ bytes"):
        load_weights(small.method(), tmp_path)
