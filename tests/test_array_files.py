"""Our reader and writer of safetensors against the library's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save

from faprompt.array_files import read_arrays, to_bytes

ARRAYS = {
    "a": np.arange(5, dtype=np.int32),
    "b/2": np.linspace(0, 1, 6).reshape(2, 3),
    "half": np.linspace(0, 1, 3, dtype=np.float16),
    "none": np.zeros((0, 4), np.float32),
    "one": np.array(3.5, np.float32),
    "flags": np.array([True, False]),
    "turned": np.arange(6.0).reshape(2, 3).T,
}
METADATA = {"calibration": '{"ä": 1}'}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_we_read_what_the_library_writes(tmp_path):
    contiguous = {name: np.ascontiguousarray(array) for name, array in ARRAYS.items()}
    contiguous["one"] = ARRAYS["one"]
    (tmp_path / "f").write_bytes(save(contiguous, metadata=METADATA))
    found, metadata = read_arrays(tmp_path / "f")
    assert_same(found, ARRAYS)
    assert metadata == METADATA


def test_the_library_reads_what_we_write_and_so_do_we(tmp_path):
    (tmp_path / "f").write_bytes(to_bytes(ARRAYS, METADATA))
    assert_same(load_file(tmp_path / "f"), ARRAYS)
    with safe_open(tmp_path / "f", framework="numpy") as file:
        assert file.metadata() == METADATA
    assert_same(read_arrays(tmp_path / "f")[0], ARRAYS)


def with_header(header, data=b"\0" * 8) -> bytes:
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    return len(text).to_bytes(8, "little") + text + data


def entry(**changes) -> dict:
    return {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"\xff" * 30,
        with_header(b"{"),
        with_header(b"[1]"),
        with_header(b"[" * 100_000),
        with_header({"x": 1}),
        with_header(entry(dtype="BF16")),
        with_header(entry(shape=[3])),
        with_header(entry(shape=[-2, -1])),
        with_header(entry(shape=["2"])),
        with_header(entry(shape=[True, 2])),
        with_header(entry(data_offsets=[8, 16])),
        with_header(entry(data_offsets=[0])),
        with_header(entry(), b"\0" * 9),
        with_header(entry(), b"\0" * 7),
        with_header({**entry(), "y": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}),
    ],
)
def test_damage_is_an_error(content, tmp_path):
    (tmp_path / "f").write_bytes(content)
    errors = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
    with pytest.raises(errors):
        read_arrays(tmp_path / "f")
