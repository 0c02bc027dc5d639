"""Weights files of every kind: whole, broken, hostile, and files that are no weights at all."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from faprompt.clip.tensor_files import (
    describe_file,
    read_safetensors,
    read_tensors,
    value_faults,
)
from faprompt.clip.weights import load_backbone
from faprompt.errors import ModelError
from faprompt.model_folder import WEIGHTS, load_weights
from faprompt.model_import import read_checkpoint
from tests.helpers import small

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*TorchScript archive")

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
WHOLE = save(STATE)


def rewrite(source, target, part, change, *, compression=zipfile.ZIP_STORED):
    """Copy a zip; records with `part` in their name become `change(data)`, None drops them."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            data = change(old.read(name)) if part in name else old.read(name)
            if data is not None:
                new.writestr(name, data)
    return target


def equal(actual, wanted):
    assert sorted(actual) == sorted(wanted)
    for key, tensor in wanted.items():
        assert actual[key].dtype == tensor.dtype, key
        assert torch.equal(actual[key], tensor), key


class TestTorchScript:
    def test_equals_what_torch_jit_load_gives(self, archive, tmp_path):
        wanted = torch.jit.load(str(archive)).state_dict()
        equal(read_tensors(archive), wanted)
        other = tmp_path / "weights.bin"  # the name of the file does not matter
        other.write_bytes(archive.read_bytes())
        equal(read_tensors(other), wanted)

    def test_holds_openais_weights_in_half_and_its_three_sizes(self, archive, file_state):
        tensors = read_tensors(archive)
        assert (int(tensors["input_resolution"]), int(tensors["vocab_size"])) == (28, 300)
        for key, tensor in file_state.items():
            assert torch.equal(tensors[key], tensor.half()), key

    def test_torch_load_refuses_such_a_file(self, archive):
        """Why there is a reader of our own."""
        with pytest.raises(RuntimeError, match="TorchScript archives"):
            torch.load(archive, weights_only=True)

    def test_the_program_is_never_opened(self, archive, tmp_path):
        spoiled = rewrite(
            archive, tmp_path / "spoiled.pt", "/code/", lambda _: b"\xff not a program"
        )
        with pytest.raises(RuntimeError):
            torch.jit.load(str(spoiled))
        equal(read_tensors(spoiled), read_tensors(archive))

    def test_views_dtypes_lists_and_empty_tensors(self, tmp_path):
        class Odd(nn.Module):
            def __init__(self):
                super().__init__()
                base = torch.arange(12, dtype=torch.float64)
                self.register_buffer("view", base.view(3, 4).T[1:])
                self.register_buffer("base", base)
                self.register_buffer("none", torch.empty(0, 3))
                self.register_buffer("whole", torch.tensor(7))
                self.register_buffer("brain", torch.tensor([1.5, -2.0]).bfloat16())
                self.register_buffer("mask", torch.tensor([True, False]))
                self.sizes = [1, 2, 3]
                self.inner = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

            def forward(self, x):
                return self.inner(x) + self.sizes[0]

        path = tmp_path / "odd.pt"
        torch.jit.script(Odd()).save(str(path))
        equal(read_tensors(path), torch.jit.load(str(path)).state_dict())


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class TestHostileFiles:
    @pytest.mark.parametrize("protocol", [0, 2, 4])
    def test_an_archive_that_calls_a_function_is_refused_unrun(self, archive, tmp_path, protocol):
        sentinel = tmp_path / "ran"
        payload = pickle.dumps(Evil(sentinel), protocol=protocol)
        hostile = rewrite(archive, tmp_path / "evil.pt", "data.pkl", lambda _: payload)
        with pytest.raises(ModelError, match=r"asks for (posix|nt|os)\.mkdir, which is no tensor"):
            read_tensors(hostile)
        assert not sentinel.exists()
        pickle.loads(payload)  # the payload is live, were it run
        assert sentinel.exists()

    def test_a_state_dict_that_calls_a_function_is_refused_unrun(self, tmp_path):
        sentinel, path = tmp_path / "ran", tmp_path / "evil.pt"
        torch.save({"weight": Evil(sentinel)}, path)
        with pytest.raises(ModelError, match="cannot be read as weights"):
            read_tensors(path)
        assert not sentinel.exists()

    @pytest.mark.parametrize(
        "name", ["builtins eval", "torch load", "torch.jit._pickle build_tensor_from_id"]
    )
    def test_other_names_in_the_layout_are_refused(self, archive, tmp_path, name):
        payload = f"c{name.replace(' ', chr(10))}\n.".encode()
        with pytest.raises(ModelError, match="asks for .*, which is no tensor"):
            read_tensors(rewrite(archive, tmp_path / "odd.pt", "data.pkl", lambda _: payload))

    def test_writing_on_a_class_does_not_outlive_the_file(self, archive, tmp_path):
        """BUILD with slots sets attributes on whatever lies on the stack, here a class."""
        payload = b"c__torch__\nA\nN}\x8c\x0c__setstate__Ns\x86b."  # A.__setstate__ = None
        with pytest.raises(ModelError, match="it holds no tensors"):
            read_tensors(rewrite(archive, tmp_path / "build.pt", "data.pkl", lambda _: payload))
        assert len(read_tensors(archive)) > 20

    @pytest.mark.parametrize(
        "tensor", [torch.zeros(1).expand(10**9, 10**6), torch.zeros(3, 3).to_sparse()]
    )
    def test_tensors_that_promise_more_than_is_stored_are_refused(self, tensor, tmp_path):
        torch.save({"w": tensor}, tmp_path / "x.pt")
        with pytest.raises(ModelError, match="w are no plain arrays"):
            read_tensors(tmp_path / "x.pt")

    def test_a_header_that_promises_huge_tensors_takes_no_memory(self, tmp_path):
        """The header is whole, and names 4 TB that the file does not have."""
        entry = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
        text = json.dumps({"weight": entry}).encode()
        (tmp_path / WEIGHTS).write_bytes(header(len(text), text))
        with pytest.raises(ModelError, match=r"should have 4000000\d+ bytes"):
            load_weights(small.method(), tmp_path)


class TestBrokenFiles:
    def test_nothing_there(self, tmp_path):
        with pytest.raises(ModelError, match="There is no weights file .*nowhere.pt"):
            read_tensors(tmp_path / "nowhere.pt")

    @pytest.mark.parametrize("kind", ["jit", "torch", "safetensors"])
    def test_cut_in_half(self, kind, archive, tmp_path, file_state):
        path = tmp_path / "cut.bin"
        if kind == "jit":
            path.write_bytes(archive.read_bytes())
        elif kind == "torch":
            torch.save(file_state, path)
        else:
            save_file(file_state, path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ModelError, match=r"cut.bin \(\d+ bytes\) cannot be read as weights"):
            read_tensors(path)

    @pytest.mark.parametrize(
        ("change", "compression", "message"),
        [
            (lambda data: data[:-2], zipfile.ZIP_STORED, "record data/0 has .* bytes, wanted"),
            (lambda data: None, zipfile.ZIP_STORED, "broken TorchScript archive: .*data/0"),
            (lambda data: data, zipfile.ZIP_DEFLATED, "broken TorchScript archive"),
        ],
        ids=["a storage of another length", "a missing storage", "compressed records"],
    )
    def test_archives_put_together_anew(self, archive, tmp_path, change, compression, message):
        """Torch never compresses data, and a small record may unpack to anything."""
        path = tmp_path / "x.pt"
        rewrite(archive, path, "/data/0", change, compression=compression)
        with pytest.raises(ModelError, match=message):
            read_tensors(path)

    def test_flipped_bits_are_noticed(self, archive, tmp_path):
        data = bytearray(archive.read_bytes())
        with zipfile.ZipFile(archive) as old:
            record = next(r for r in old.infolist() if r.filename.endswith("/data/0"))
        data[record.header_offset + 200] ^= 0xFF
        path = tmp_path / "flipped.pt"
        path.write_bytes(data)
        with pytest.raises(ModelError, match="broken TorchScript archive: .*CRC"):
            read_tensors(path)


class TestStateDicts:
    @pytest.mark.parametrize("prefix", ["", "module."])
    @pytest.mark.parametrize("wrapped", [False, True])
    @pytest.mark.parametrize("zipped", [True, False])
    def test_of_torch_save(self, tmp_path, prefix, wrapped, zipped):
        state = {"a.weight": torch.ones(2, dtype=torch.float16), "b": torch.tensor(3.0)}
        saved = {f"{prefix}{key}": value for key, value in state.items()}
        if wrapped:
            saved = {"epoch": 3, "name": "run", "state_dict": saved, "optimizer": {"lr": 0.1}}
        torch.save(saved, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
        equal(read_tensors(tmp_path / "x.pt"), state)

    def test_a_prefix_on_some_names_only_is_theirs(self, tmp_path):
        torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "x.pt")
        assert sorted(read_tensors(tmp_path / "x.pt")) == ["b", "module.a"]

    def test_of_safetensors_under_any_name(self, tmp_path):
        state = {"a": torch.ones(2, dtype=torch.bfloat16)}
        save_file(state, tmp_path / "x.pth")
        equal(read_tensors(tmp_path / "x.pth"), state)

    @pytest.mark.parametrize(
        ("saved", "message"),
        [
            ([torch.ones(1)], "holds a list, wanted a state dict"),
            ({}, "holds a dict, wanted a state dict"),
            ({"epoch": 3, "model": {"a": torch.ones(1)}}, "epoch, model are not tensors"),
        ],
    )
    def test_of_another_make(self, tmp_path, saved, message):
        torch.save(saved, tmp_path / "x.pt")
        with pytest.raises(ModelError, match=message):
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


POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 1710537716\n"
)


def zipped(name: str, content: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return held.getvalue()


def checkpoint(*, compressed: bool = False) -> bytes:
    """torch.save's file, or the same records compressed."""
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save({"prompt_learner": STATE}, plain)
    if compressed:
        rewrite(plain, packed, "", lambda data: data, compression=zipfile.ZIP_DEFLATED)
    return (packed if compressed else plain).getvalue()


def header(length: int, text: bytes = b"{") -> bytes:
    return length.to_bytes(8, "little") + text


FOREIGN = {
    "pointer": (POINTER, r"Git LFS pointer of 135 bytes for a file of 1,710.5 MB.*`git lfs pull`"),
    "pointer of Windows": (POINTER.replace(b"\n", b"\r\n"), "Git LFS pointer.*`git lfs pull`"),
    "pointer without a size": (b"version https://git-lfs\nsize \n", "pointer of 30 bytes, not the"),
    "page": (b"\n<!DOCTYPE html><html><body>Sign in</body>", "web page.*download the file itself"),
    "page in capitals": (b"\xef\xbb\xbf<HTML>", "web page"),
    "error of a server": (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "error message"),
    "empty": (b"", "it is empty"),
    "gzip": (gzip.compress(WHOLE), "compressed archive; unpack it"),
    "bzip2": (bz2.compress(WHOLE), "compressed archive; unpack it"),
    "xz": (lzma.compress(WHOLE), "compressed archive; unpack it"),
    "zip": (zipped("model.safetensors", WHOLE), "zip archive of model.safetensors; unpack it"),
    "zip of a page": (zipped("index.html", b"<html>"), "zip archive of index.html"),
    "cut zip": (checkpoint()[:200], "beginning of a zip archive or PyTorch"),
    "compressed checkpoint": (checkpoint(compressed=True), "data.pkl is compressed"),
    "cut header": (WHOLE[:40], r"header alone should have \d+ bytes, and the file has 40"),
    "cut tensors": (WHOLE[:-4], rf"should have {len(WHOLE)} bytes, and has {len(WHOLE) - 4}"),
    "endless header": (header(2**60) + b" " * 64, rf"should have {2**60} bytes"),
    "broken header": (header(9, b'{"a": 1]}'), "header is broken"),
    "zeros": (bytes(4096), "begins with zeros"),
    "json": (b'{"architecture": "vit"}', "text that begins"),
    "text": (b"404: Not Found", "text that begins '404: Not Found'"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "begins with .*HDF.*; wanted safetensors"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(64), "begins with .*PNG"),
}


class TestForeignFiles:
    """Each is named, with what to do, wherever weights are read."""

    @pytest.mark.parametrize(("content", "told"), FOREIGN.values(), ids=list(FOREIGN))
    def test_named_as_a_backbone_a_model_and_a_reference_checkpoint(self, content, told, tmp_path):
        path = tmp_path / "weights.pt"
        path.write_bytes(content)
        with pytest.raises(ModelError, match=rf"weights.pt \(\d+ bytes\) cannot be read.*{told}"):
            read_tensors(path)
        with pytest.raises(ModelError, match=told):
            load_backbone(f"{path}:quickgelu")
        if "checkpoint" not in told and "compressed" not in told:
            with pytest.raises(ModelError, match=f"weights.pt is no safetensors file: .*{told}"):
                read_safetensors(path)
        with pytest.raises(ModelError, match=f"weights.pt could not be read as plain.*{told}"):
            read_checkpoint(path, "prompt_learner")

    def test_weights_are_not_described(self, tmp_path):
        for name, content in (("a.safetensors", WHOLE), ("b.pt", checkpoint())):
            (tmp_path / name).write_bytes(content)
            assert describe_file(tmp_path / name) == ""
        assert set(read_safetensors(tmp_path / "a.safetensors")) == set(STATE)
        assert set(read_checkpoint(tmp_path / "b.pt", "prompt_learner")) == set(STATE)

    def test_a_pickle_is_called_one(self, tmp_path):
        torch.save(STATE, tmp_path / "x.safetensors", _use_new_zipfile_serialization=False)
        with pytest.raises(ModelError, match="no safetensors file: it is a pickle"):
            read_safetensors(tmp_path / "x.safetensors")
