"""Without the extra `figures`, everything but the pictures is written."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "matplotlib" else find(name, *rest)
sys.modules["matplotlib"] = None  # importing it fails
from faprompt.cli.main import run
sys.argv = ["faprompt", *sys.argv[1:]]
run()
"""
PICTURES = Path(__file__).parents[1] / "examples" / "pictures"


def faprompt(*arguments):
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_train_evaluate_predict_and_explain(tmp_path):
    shelf, part = tmp_path / "set", sorted(PICTURES.glob("*.jpg"))[0]
    for place in ("train/good", "test/good", "test/bad"):
        folder = shelf / "cup" / place
        folder.mkdir(parents=True)
        for number in range(2):
            shutil.copy(part, folder / f"{number}.jpg")
    sides = ["--method", "clip", "--set", "image_size=64", "--device", "cpu"]
    done = faprompt("evaluate", shelf, *sides, "--out", tmp_path / "measured")
    assert done.returncode == 0, done.stderr
    assert "Curves not drawn: pip install 'faprompt[figures]'" in done.stderr
    measured = json.loads((tmp_path / "measured" / "metrics.json").read_text())
    assert measured["classes"]["cup"]["anomalous"] == 2
    assert (tmp_path / "measured" / "gallery" / "gallery.csv").is_file()
    assert not list(tmp_path.rglob("*.png"))
    done = faprompt("predict", part, *sides, "--out", tmp_path / "scored")
    assert done.returncode == 0 and (tmp_path / "scored" / "report.html").is_file()
    done = faprompt("explain", part, *sides, "--out", tmp_path / "explained")
    assert done.returncode == 0, done.stderr
    names = [path.name for path in (tmp_path / "explained").iterdir()]
    kinds = {Path(name).suffix for name in names if not name.startswith(".")}
    assert kinds == {".html", ".json"}
