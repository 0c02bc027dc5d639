"""Tables 1 and 2 with our counts beside the printed ones."""

from __future__ import annotations

import re

import pytest

from faprompt.reproduce.dataset_tables import CountRow, count_rows, describe_rows
from tests.helpers import folders


@pytest.fixture
def root(tmp_path):
    """MVTec AD with one class that has both splits, and BTAD with one of its three classes."""
    folders.mvtec_class(
        tmp_path / "mvtec" / "carpet",
        normal={"good": ["8.png", "9.png"]},
        defects={"cut": ["0.png", "1.png", "2.png"]},
        train=("0.png", "1.png", "2.png", "3.png"),
    )
    folders.mvtec_class(
        tmp_path / "btad" / "01", normal={"good": ["8.png"]}, defects={"ko": ["0.png"]}
    )
    return tmp_path


def by_place(rows):
    return {(row.dataset, row.class_name): row for row in rows}


def test_the_printed_numbers_are_the_papers_totals():
    rows = count_rows(None)
    assert [sum(row.table == number for row in rows) for number in (1, 2)] == [27, 17]
    totals = {
        name: [
            sum(row.published[part] for row in rows if row.dataset == name)
            for part in ("train_normal", "test_normal", "test_anomalous")
        ]
        for name in ("mvtec", "visa")
    }
    assert totals == {"mvtec": [3629, 467, 1258], "visa": [8659, 962, 1200]}
    assert by_place(rows)["sdd", ""].published == {
        "classes": 1, "test_normal": 286, "test_anomalous": 54,
    }  # fmt: skip
    assert {reason for row in rows for reason in row.reasons} == {"no data root: give --data-root"}
    assert not any(row.ours or row.matches is not None for row in rows)


def test_ours_stand_beside_with_training_pictures_and_reasons(root):
    calls = []
    rows = by_place(count_rows(root, progress=lambda *call: calls.append(call)))
    carpet = rows["mvtec", "carpet"]
    assert carpet.ours == {"train_normal": 4, "test_normal": 2, "test_anomalous": 3}
    assert carpet.matches is False and carpet.reasons == ()
    assert rows["mvtec", "tile"].ours == {}
    assert rows["mvtec", "tile"].reasons == (
        "train split: no class 'tile'", "test split: no class 'tile'",
    )  # fmt: skip
    assert rows["btad", ""].ours == {"classes": 1, "test_normal": 1, "test_anomalous": 1}
    assert rows["lag", ""].reasons == ("no folder lag below the data root",)
    assert calls[0] == ("count", 1, 19) and calls[-1] == ("count", 19, 19)


def test_a_set_that_cannot_be_read_says_why(root):
    (root / "visa").mkdir()
    row = by_place(count_rows(root))["visa", "pcb4"]
    assert row.ours == {} and len(row.reasons) == 2
    assert row.reasons[0].startswith("train split: ") and str(root / "visa") in row.reasons[0]


def test_markdown_has_both_tables_and_what_is_missing(root):
    lines = [re.sub(" +", " ", line) for line in describe_rows(count_rows(root)).splitlines()]
    assert lines[0] == "## Table 1: Data statistics of MVTec AD and VisA"
    assert "| MVTec AD | carpet | 4 / 280 | 2 / 28 | 3 / 89 | no |" in lines
    assert "| VisA | pcb4 | - / 904 | - / 101 | - / 100 | - |" in lines
    assert "| BTAD | 1 / 3 | 1 / 451 | 1 / 290 | no |" in lines
    assert "- VisA: no folder visa below the data root" in lines
    assert any(line.startswith("- MVTec AD tile: the paper prints 83 anomalous") for line in lines)


@pytest.mark.parametrize(
    ("changes", "remark", "matches"),
    [
        ({}, "", True),
        ({"test_normal": 5}, "", False),
        ({"classes": 1}, "", False),
        ({"classes": 1}, "kinds of defect; the metrics pool them into one group", True),
        ({"classes": 1, "test_normal": 5}, "the metrics pool them", False),
    ],
)
def test_what_counts_as_the_paper(changes, remark, matches):
    published = {"classes": 12, "test_normal": 564, "test_anomalous": 183}
    row = CountRow(2, "aitex", "", published, {**published, **changes}, remark=remark)
    assert row.matches is matches
