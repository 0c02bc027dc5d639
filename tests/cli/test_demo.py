"""`faprompt demo`: what `make demo` runs, also from an installed wheel."""

from __future__ import annotations

import shutil
from pathlib import Path

from faprompt.cli import demo_command

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_demo_calibrates_and_judges(faprompt, monkeypatch, tmp_path):
    assert demo_command.demo_pictures() == EXAMPLES
    for folder, pattern in (("good", "wood-good-?*.jpg"), ("lot", "wood-*-1.jpg")):
        place = tmp_path / "pictures" / folder / "wood"
        place.mkdir(parents=True)
        for path in sorted((EXAMPLES / folder / "wood").glob(pattern))[:24]:
            shutil.copy(path, place)
    monkeypatch.setattr(demo_command, "demo_pictures", lambda: tmp_path / "pictures")
    told = faprompt("demo", "--out", tmp_path / "out")
    assert told.code == 0, told.err
    shown = [line for line in told.lines if line.startswith("$ faprompt ")]
    assert [line.split()[2] for line in shown] == ["calibrate", "predict"]
    verdicts = {line.split("\t")[2].rpartition("/")[2]: line.split("\t")[0]
                for line in told.lines if "\t" in line}  # fmt: skip
    assert verdicts == {"wood-good-1.jpg": "OK", "wood-tear-1.jpg": "NG"}
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_refusal_of_the_first_command_ends_the_demo(faprompt, monkeypatch, tmp_path):
    monkeypatch.setattr(demo_command, "demo_pictures", lambda: tmp_path)
    told = faprompt("demo", "--out", tmp_path / "out")
    assert told.code != 0 and "good" in told.err and "predict" not in told.out
