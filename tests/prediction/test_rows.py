"""`results.jsonl`: what a line holds, and what is left after a run was cut off."""

from __future__ import annotations

import json
import os

import pytest

from faprompt.files import write_atomically
from faprompt.prediction import ResultRow, read_rows
from faprompt.prediction.result_rows import ResultsFile
from faprompt.records import Region

FIELDS = ["path", "status", "error", "score", "p_value", "verdict", "threshold", "review_threshold"]
FIELDS += ["product", "width", "height"]
FIELDS += ["regions", "map", "overlay", "notes", "latency_ms", "model"]


def row(path: str, score: float = 0.5, **values) -> ResultRow:
    return ResultRow(path=path, model="red", score=score, **values)


def test_fields_and_their_order():
    region = Region((1, 2, 3, 4), 4, 0.9, 0.7)
    line = row("a.png", regions=(region,)).to_line()
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    values = json.loads(line)
    assert list(values) == FIELDS
    assert values["regions"] == [{"bbox": [1, 2, 3, 4], "area_px": 4, "peak": 0.9, "mean": 0.7}]
    assert values["notes"] == []
    assert json.loads(row("a", notes=("frame 0 of 2",)).to_line())["notes"] == ["frame 0 of 2"]


def test_line_and_back():
    first = row("a.png", verdict="NG", regions=(Region((1, 2, 3, 4), 4, 0.9, 0.7),), notes=("n",))
    second = ResultRow(path="b", model="red", status="error", error='said "no"\nand left')
    for each in (first, second):
        assert ResultRow.from_dict(json.loads(each.to_line())) == each


def test_names_are_readable_and_any_name_can_be_written(tmp_path):
    assert "Prüfteil 検査".encode() in row("Prüfteil 検査").to_line()
    odd = os.fsdecode(b"caf\xe9.png")  # Latin-1 bytes on a file system of UTF-8
    with ResultsFile(tmp_path / "r.jsonl") as results:
        results.append(row(odd))
    (back,) = read_rows(tmp_path / "r.jsonl")
    assert back.path == odd


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_no_line_holds_nan(bad):
    with pytest.raises(ValueError, match="JSON compliant"):
        row("a", bad).to_line()


def test_torn_and_foreign_lines_are_passed_over(tmp_path):
    path = tmp_path / "r.jsonl"
    whole = [row("a").to_line(), row("b").to_line()]
    foreign = [b"\n", b"null\n", b'{"path": "c"}\n', b"\xff\xfe\n", b'{"x": 1, "regions": []}\n']
    path.write_bytes(whole[0] + b"".join(foreign) + whole[1] + row("d").to_line()[:-1])
    assert [each.path for each in read_rows(path)] == ["a", "b"]


def test_rows_are_in_the_file_as_soon_as_appended(tmp_path):
    with ResultsFile(tmp_path / "r.jsonl", [row("kept")]) as results:
        results.append(row("new", 0.7))
        assert [each.path for each in read_rows(results.path)] == ["kept", "new"]
        assert results.read("new").score == 0.7
        assert "kept" in results and "other" not in results
        with pytest.raises(KeyError):
            results.read("other")


def test_sorting_keeps_every_row_and_goes_on(tmp_path):
    with ResultsFile(tmp_path / "r.jsonl", [row("other"), row("c", 0.3)]) as results:
        results.append(row("a", 0.1))
        results.append(row("b", 0.2))
        results.sort(["a", "b", "c", "not there"])
        assert [each.path for each in read_rows(results.path)] == ["other", "a", "b", "c"]
        assert [results.read(name).score for name in "abc"] == [0.1, 0.2, 0.3]
        results.append(row("d", 0.4))
        assert results.read("d").score == 0.4
    assert os.listdir(tmp_path) == ["r.jsonl"]


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    write_atomically(path, b"first")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk is gone")))
    with pytest.raises(OSError, match="disk is gone"):
        write_atomically(path, b"second")
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["a.bin"]
