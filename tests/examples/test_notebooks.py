"""The notebooks run without Jupyter, are valid files, and show what this version computes."""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
RUNNER = ROOT / "scripts" / "run_notebooks.py"
OUTPUTS = {
    "stream": {"name", "output_type", "text"},
    "execute_result": {"data", "execution_count", "metadata", "output_type"},
    "display_data": {"data", "metadata", "output_type"},
}


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@cache
def executed(name: str) -> dict:
    """The notebook with the outputs of a fresh process, beside copies of the pictures."""
    with TemporaryDirectory() as place:
        for folder in ("good", "lot"):
            shutil.copytree(ROOT / "examples" / folder, Path(place) / folder)
        path = Path(place) / "notebooks" / name
        path.parent.mkdir()
        notebook = read(ROOT / "examples" / "notebooks" / name)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell["outputs"], cell["execution_count"] = [], None
        path.write_text(json.dumps(notebook), encoding="utf-8")
        command = [sys.executable, str(RUNNER), str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return read(path)


def outputs(notebook: dict) -> list[list[dict]]:
    return [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text_of(output: dict) -> str:
    return "".join(output.get("text") or output["data"]["text/plain"])


def picture_of(output: dict) -> np.ndarray:
    data = base64.b64decode(output["data"]["image/jpeg"])
    return np.asarray(Image.open(io.BytesIO(data)), np.int16)


def assert_alike(found: dict, kept: dict) -> None:
    """Texts agree up to 0.02 in their numbers, pictures up to 3 of 255 on average."""
    assert found["output_type"] == kept["output_type"]
    if found["output_type"] == "display_data":
        ours, theirs = picture_of(found), picture_of(kept)
        assert ours.shape == theirs.shape and np.abs(ours - theirs).mean() < 3
        return
    number = r"\d+(?:\.\d+)?"
    assert re.sub(number, "#", text_of(found)) == re.sub(number, "#", text_of(kept))
    ours, theirs = (list(map(float, re.findall(number, text_of(each)))) for each in (found, kept))
    assert ours == pytest.approx(theirs, abs=0.02)


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["explain-and-compare", "first-verdict"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
class TestNotebook:
    def test_is_small_and_of_format_4(self, path):
        """The fields that nbformat 4.5 requires, and no others but empty metadata."""
        assert path.stat().st_size < 300_000
        notebook = read(path)
        assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
        assert {*notebook} == {"cells", "metadata", "nbformat", "nbformat_minor"}
        assert {*notebook["metadata"]["kernelspec"]} == {"display_name", "language", "name"}
        names = [cell["id"] for cell in notebook["cells"]]
        assert len({*names}) == len(names)
        assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in names)
        for cell in notebook["cells"]:
            wanted = {"cell_type", "id", "metadata", "source"}
            if cell["cell_type"] == "code":
                wanted |= {"execution_count", "outputs"}
            assert {*cell} == wanted and cell["cell_type"] in ("code", "markdown")
            assert all(isinstance(line, str) for line in cell["source"])
            for output in cell.get("outputs", ()):
                assert {*output} == OUTPUTS[output["output_type"]]

    def test_begins_with_a_title_and_has_few_cells(self, path):
        cells = read(path)["cells"]
        assert cells[0]["source"][0].startswith("# ") and len(cells) <= 16
        code = [cell for cell in cells if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
        assert sum(len(cell["source"]) for cell in code) < 80

    def test_names_no_path_of_a_machine(self, path):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"/(?:tmp|home|Users|root|work)/", text)

    def test_runs_and_its_outputs_are_not_stale(self, path):
        """Run `python scripts/run_notebooks.py examples/notebooks/*.ipynb` if they are."""
        ours, kept = outputs(executed(path.name)), outputs(read(path))
        assert [len(each) for each in ours] == [len(each) for each in kept]
        for found, shown in zip(sum(ours, []), sum(kept, []), strict=True):
            assert_alike(found, shown)


def test_what_the_texts_of_the_first_notebook_say():
    found = outputs(executed("first-verdict.ipynb"))
    verdicts = [line.split()[::2] for line in text_of(found[4][0]).splitlines()]
    missed = [name for verdict, name in verdicts if verdict != "NG" and "good" not in name]
    assert missed == ["basket-burn-2.jpg"]
    assert not [name for verdict, name in verdicts if verdict == "NG" and "good" in name]
    assert len(found[5]) == 4  # rows of pictures


def test_what_the_texts_of_the_second_notebook_say():
    found = outputs(executed("explain-and-compare.ipynb"))
    assert text_of(found[0][0]) == "32 pictures, 16 of them damaged\n"
    aurocs = dict(line.split() for line in text_of(found[2][0]).splitlines())
    assert [*aurocs] == ["small", "tiny", "relations", "clip"]
    assert all(float(value) > 0.8 for value in aurocs.values())
    terms = {line.split("  ")[2]: line.split() for line in text_of(found[4][0]).splitlines()}
    assert float(terms["score without self-similarity"][0]) < 0.2
    damaged, good = (
        [float(value) for value in line.split()[1:]] for line in text_of(found[5][0]).splitlines()
    )
    assert len(damaged) == len(good) == 10 and all(map(float.__gt__, damaged, good))
    assert max(damaged) - min(damaged) < 0.1 > max(good) - min(good)


class TestRunner:
    def test_a_failing_cell_fails_the_run(self, tmp_path):
        path = tmp_path / "bad.ipynb"
        path.write_text(json.dumps({"cells": [{"cell_type": "code", "source": ["1 / 0"]}]}))
        done = subprocess.run([sys.executable, RUNNER, path], capture_output=True, text=True)
        assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
        assert "cell 1" in done.stderr and "outputs" not in path.read_text()

    def test_outputs_of_each_kind(self, tmp_path):
        cells = ["print('a')\n1 + 1", "from IPython.display import Image, display\n"
                 "def show():\n    display(Image(data=b'jpeg'))", "show()", "x = 3"]  # fmt: skip
        notebook = {"cells": [{"cell_type": "code", "source": [text]} for text in cells]}
        path = tmp_path / "kinds.ipynb"
        path.write_text(json.dumps(notebook))
        done = subprocess.run([sys.executable, RUNNER, path], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (printed, value), defined, (shown,), nothing = outputs(read(path))
        assert (text_of(printed), text_of(value), defined, nothing) == ("a\n", "2", [], [])
        assert base64.b64decode(shown["data"]["image/jpeg"]) == b"jpeg"
