"""What is printed cannot act on a terminal, whatever files and folders are called."""

from __future__ import annotations

import json
import os

import pytest

from faprompt.files import printable
from tests.helpers import folders, small

CLIP = ["--method", "clip", "--backbone", "test-tiny", "--set", "image_size=56"]
CLIP += ["--device", "cpu"]
HOSTILE = "a\nb\tc\x1b[2J\r\x7f\x9b1m\u202egnp.\u2028\u200bd.png"
ESCAPED = r"a\nb\tc\x1b[2J\r\x7f\x9b1m\u202egnp.\u2028\u200bd.png"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (HOSTILE, ESCAPED),
        ("\x00\x07\x08\x85\u2066\u2069\u200e\ufeff", r"\x00\x07\x08\x85\u2066\u2069\u200e\ufeff"),
        ("caf\udce9 \U000e0041", r"caf\udce9 \U000e0041"),
        ("Prüfteil 検査 نص \U0001f468\u200d\U0001f469 می\u200cخواهم e\u0301", None),
        (r"C:\new\table.png", None),
        ("", None),
    ],
)
def test_what_acts_on_a_terminal_is_escaped(text, shown):
    assert printable(text) == (text if shown is None else shown)


@pytest.fixture
def hostile(tmp_path):
    """A good and a broken picture whose names hold control characters."""
    small.picture_file(tmp_path / "in" / f"0{HOSTILE}")
    (tmp_path / "in" / f"1{HOSTILE}").write_bytes(b"no picture")
    return tmp_path / "in"


def controls(text: str) -> list[str]:
    return [c for c in text if not c.isprintable() and c not in "\n\t"]


@pytest.mark.parametrize("verb", ["predict", "explain"])
def test_a_picture_is_one_line_of_plain_text(faprompt, hostile, tmp_path, verb):
    told = faprompt(verb, hostile, *CLIP, "--out", tmp_path / "out")
    assert told.code == 3 and len(told.out.split("\n")) == 3
    good, bad = told.out.split("\n")[:2]
    assert str(hostile / "0") + ESCAPED in good.split("\t")
    assert f"1{ESCAPED}: " in bad and "looks like a text file" in bad and good.count("\t") == 2
    assert not controls(told.out) and not controls(told.err)
    rows = faprompt(verb, hostile, *CLIP, "--out", tmp_path / "json", "--json").lines
    assert json.loads(rows[0])["path"] == str(hostile / f"0{HOSTILE}")


def test_an_error_is_one_line_of_plain_text(faprompt, tmp_path):
    for named in (tmp_path / f"gone{HOSTILE}", os.fsdecode(b"/caf\xe9\n.png")):
        told = faprompt("predict", named, *CLIP, "--out", tmp_path / "out")
        assert told.code == 1 and told.err.startswith("faprompt: ") and told.err.count("\n") == 1
        assert not controls(told.err)
    told = faprompt("datasets", "check", tmp_path / "no\x1b[2J\nset")
    assert told.code == 1 and told.err.count("\n") == 1 and r"no\x1b[2J\nset" in told.err


def test_problems_of_a_dataset_are_one_line_each(faprompt, tmp_path):
    folders.mvtec_class(
        tmp_path / "cup", normal={"good": ["8.png"]}, defects={"chip": ["0.png", "1.png"]}
    )
    mask = next((tmp_path / "cup" / "ground_truth" / "chip").glob("0*"))
    mask.rename(mask.with_name("x\x1b[31m\ny_mask.png"))
    told = faprompt("datasets", "check", tmp_path)
    assert r"x\x1b[31m\ny_mask.png" in told.out and not controls(told.out)


def test_paths_of_results_are_escaped_too(faprompt, hostile, tmp_path):
    out = tmp_path / "o\x1b[2J\nut"
    told = faprompt("predict", hostile, *CLIP, "--out", out, "--no-report")
    assert rf"wrote {tmp_path}/o\x1b[2J\nut/results.jsonl" in told.err and not controls(told.err)
