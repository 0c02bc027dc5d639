"""Weights files of every kind, whole, broken and hostile."""

import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from faprompt.clip.tensor_files import read_tensors
from faprompt.errors import ModelError
from tests.helpers.clip_files import write_openai_archive

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*TorchScript archive")


@pytest.fixture(scope="module")
def archive(tmp_path_factory, file_state):
    return write_openai_archive(tmp_path_factory.mktemp("openai") / "ViT-tiny.pt", file_state)


def rewrite(source, target, change, *, compression=zipfile.ZIP_STORED):
    """Copy a zip record by record; `change(name, data)` gives the new data, None drops it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    return target


def equal(actual, wanted):
    assert sorted(actual) == sorted(wanted)
    for key, tensor in wanted.items():
        assert actual[key].dtype == tensor.dtype, key
        assert torch.equal(actual[key], tensor), key


class TestTorchScript:
    def test_equals_what_torch_jit_load_gives(self, archive):
        equal(read_tensors(archive), torch.jit.load(str(archive)).state_dict())

    def test_holds_openais_weights_in_half_and_its_three_sizes(self, archive, file_state):
        tensors = read_tensors(archive)
        assert {key: int(tensors[key]) for key in ("input_resolution", "vocab_size")} == {
            "input_resolution": 28, "vocab_size": 300,
        }  # fmt: skip
        for key, tensor in file_state.items():
            assert torch.equal(tensors[key], tensor.half()), key

    def test_torch_load_refuses_such_a_file(self, archive):
        """Why there is a reader of our own."""
        with pytest.raises(RuntimeError, match="TorchScript archives"):
            torch.load(archive, weights_only=True)

    def test_the_name_of_the_file_does_not_matter(self, archive, tmp_path):
        other = tmp_path / "weights.bin"
        other.write_bytes(archive.read_bytes())
        equal(read_tensors(other), read_tensors(archive))

    def test_the_program_is_never_opened(self, archive, tmp_path):
        spoil = lambda name, data: b"\xff not a program" if "/code/" in name else data  # noqa: E731
        spoiled = rewrite(archive, tmp_path / "spoiled.pt", spoil)
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
        swap = lambda name, data: payload if name.endswith("data.pkl") else data  # noqa: E731
        hostile = rewrite(archive, tmp_path / "evil.pt", swap)
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
        swap = lambda n, data: payload if n.endswith("data.pkl") else data  # noqa: E731
        with pytest.raises(ModelError, match="asks for .*, which is no tensor"):
            read_tensors(rewrite(archive, tmp_path / "odd.pt", swap))

    def test_writing_on_a_class_does_not_outlive_the_file(self, archive, tmp_path):
        """BUILD with slots sets attributes on whatever lies on the stack, here a class."""
        payload = b"c__torch__\nA\nN}\x8c\x0c__setstate__Ns\x86b."  # A.__setstate__ = None
        swap = lambda n, data: payload if n.endswith("data.pkl") else data  # noqa: E731
        with pytest.raises(ModelError, match="it holds no tensors"):
            read_tensors(rewrite(archive, tmp_path / "build.pt", swap))
        assert len(read_tensors(archive)) > 20


class TestBrokenFiles:
    def test_missing_and_empty(self, tmp_path):
        with pytest.raises(ModelError, match="There is no weights file .*nowhere.pt"):
            read_tensors(tmp_path / "nowhere.pt")
        (tmp_path / "empty.pt").touch()
        with pytest.raises(ModelError, match=r"empty.pt \(0 bytes\) cannot be read as weights"):
            read_tensors(tmp_path / "empty.pt")

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

    def test_a_storage_of_another_length(self, archive, tmp_path):
        cut = lambda name, data: data[:-2] if name.endswith("/data/0") else data  # noqa: E731
        with pytest.raises(ModelError, match="record data/0 has .* bytes, wanted"):
            read_tensors(rewrite(archive, tmp_path / "short.pt", cut))

    def test_a_missing_storage(self, archive, tmp_path):
        drop = lambda name, data: None if name.endswith("/data/0") else data  # noqa: E731
        with pytest.raises(ModelError, match="broken TorchScript archive: .*data/0"):
            read_tensors(rewrite(archive, tmp_path / "short.pt", drop))

    def test_flipped_bits_are_noticed(self, archive, tmp_path):
        data = bytearray(archive.read_bytes())
        with zipfile.ZipFile(archive) as old:
            record = next(r for r in old.infolist() if r.filename.endswith("/data/0"))
        data[record.header_offset + 200] ^= 0xFF
        path = tmp_path / "flipped.pt"
        path.write_bytes(data)
        with pytest.raises(ModelError, match="broken TorchScript archive: .*CRC"):
            read_tensors(path)

    def test_compressed_records_are_refused(self, archive, tmp_path):
        """Torch never writes them, and a small one may unpack to anything."""
        path = tmp_path / "packed.pt"
        rewrite(archive, path, lambda _, data: data, compression=zipfile.ZIP_DEFLATED)
        with pytest.raises(ModelError, match="broken TorchScript archive"):
            read_tensors(path)

    def test_another_kind_of_zip(self, tmp_path):
        path = tmp_path / "some.zip"
        with zipfile.ZipFile(path, "w") as new:
            new.writestr("readme.txt", "hello")
        with pytest.raises(ModelError, match="cannot be read as weights"):
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
