"""Results as CSV and Parquet."""

from __future__ import annotations

import csv
import json
import os
import sys

import pytest

from faprompt.errors import MissingExtraError
from faprompt.prediction import ResultRow, write_table
from faprompt.records import Region

ROWS = [
    ResultRow(
        path='a, "b"\n.png',
        model="red",
        score=0.25,
        verdict="NG",
        threshold=0.2,
        width=4,
        height=3,
        regions=(Region((0, 1, 2, 3), 4, 0.5, 0.4),),
        notes=("one", "two"),
    ),
    ResultRow(path="検査.png", model="red", status="error", error="empty"),
]


def test_csv(tmp_path):
    path = tmp_path / "r.csv"
    write_table(path, ROWS, "csv")
    with path.open(encoding="utf-8", newline="") as stream:
        first, second = csv.DictReader(stream)
    assert first["path"] == 'a, "b"\n.png'
    assert (first["score"], first["width"], first["notes"]) == ("0.25", "4", "one; two")
    assert json.loads(first["regions"])[0]["bbox"] == [0, 1, 2, 3]
    assert (second["path"], second["status"], second["score"]) == ("検査.png", "error", "")
    assert list(first) == list(second) and len(first) == 17
    assert os.listdir(tmp_path) == ["r.csv"]


@pytest.mark.parametrize(
    "name", ["=1+1.png", "+1.png", "-1.png", "@SUM(A1).png", "\t=1.png", "\r=1.png", "＝1.png"]
)
def test_csv_text_is_no_formula(name, tmp_path):
    row = ResultRow(path=name, model="=red", status="error", error=f"{name}: broken", notes=("=n",))
    write_table(tmp_path / "r.csv", [row], "csv")
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as stream:
        (cells,) = csv.DictReader(stream)
    assert (cells["path"], cells["model"], cells["notes"]) == (f"'{name}", "'=red", "'=n")
    assert cells["error"] == f"'{name}: broken"
    assert not any(cell.startswith(tuple("=+-@\t\r＝")) for cell in cells.values())


def test_csv_numbers_are_left_as_they_are(tmp_path):
    write_table(tmp_path / "r.csv", [ResultRow(path="a=b.png", model="red", score=-1e-9)], "csv")
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as stream:
        (cells,) = csv.DictReader(stream)
    assert (cells["path"], cells["score"]) == ("a=b.png", "-1e-09")


def test_csv_takes_any_file_name(tmp_path):
    odd = ResultRow(path=os.fsdecode(b"caf\xe9.png"), model="red", score=0.5)
    write_table(tmp_path / "r.csv", [odd], "csv")
    assert b"caf\\udce9.png" in (tmp_path / "r.csv").read_bytes()


def test_a_failed_table_leaves_the_old_one(tmp_path):
    path = tmp_path / "r.csv"
    write_table(path, ROWS, "csv")
    before = path.read_bytes()

    def torn():
        yield ROWS[0]
        raise OSError("disk is gone")

    with pytest.raises(OSError, match="disk is gone"):
        write_table(path, torn(), "csv")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["r.csv"]


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is optional")
    write_table(tmp_path / "r.parquet", ROWS, "parquet")
    first, second = parquet.read_table(tmp_path / "r.parquet").to_pylist()
    assert first["score"] == 0.25 and first["regions"][0]["bbox"] == [0, 1, 2, 3]
    assert first["notes"] == ["one", "two"]
    assert second["score"] is None and second["regions"] == []


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"faprompt\[parquet\]"):
        write_table(tmp_path / "r.parquet", ROWS, "parquet")
    with pytest.raises(ValueError, match="'csv' or 'parquet', got 'xlsx'"):
        write_table(tmp_path / "r.xlsx", ROWS, "xlsx")
