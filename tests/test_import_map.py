"""Imports point one way, and the package imports nothing heavy by itself."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import faprompt

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("import_map", ROOT / "scripts" / "import_map.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_import_points_down(script, capsys):
    code = script.main()
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert printed.splitlines()[-1] == "every import points down"
    named = {line.split(" -> ")[0].split()[1] for line in printed.splitlines() if " -> " in line}
    there = {path.stem for path in (ROOT / "src" / "faprompt").iterdir() if path.suffix == ".py"}
    there |= {path.parent.name for path in (ROOT / "src" / "faprompt").glob("*/__init__.py")}
    assert there - {"__init__"} == named


def test_every_folder_of_code_is_a_package():
    """Without it pytest takes methods/faprompt.py for the package itself."""
    folders = {path.parent for path in (ROOT / "src" / "faprompt").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize(
    ("name", "line", "reported"),
    [
        ("metrics", "from faprompt.detector import Detector", "metrics imports detector"),
        ("scoring", "import faprompt.methods", "scoring imports methods"),
        ("clip", "from faprompt import cli", "clip imports cli"),
        ("imaging", "def f():\n    from faprompt.data import base", "imaging imports data"),
        (
            "metrics",
            "import faprompt.imaging",
            "metrics imports imaging, which is in the same layer",
        ),
        ("attic", "x = 1", "attic has no place in the map"),
    ],
)
def test_an_import_that_points_up_or_sideways_is_reported(
    script, tmp_path, monkeypatch, capsys, name, line, reported
):
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / f"{name}.py").write_text(line + "\n")
    monkeypatch.setattr(script, "SOURCE", tmp_path)
    assert script.main() == 1
    assert reported in capsys.readouterr().out


def test_a_circle_of_files_is_reported(script, tmp_path, monkeypatch, capsys):
    (tmp_path / "imaging").mkdir()
    for name in ("__init__", "imaging/__init__"):
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "imaging" / "first.py").write_text("from faprompt.imaging import second\n")
    (tmp_path / "imaging" / "second.py").write_text(
        "def late():\n    from faprompt.imaging.first import thing\n"
    )
    monkeypatch.setattr(script, "SOURCE", tmp_path)
    assert script.main() == 1
    assert "circle: imaging." in capsys.readouterr().out


def test_no_two_files_share_a_name():
    names = [p.name for p in (ROOT / "src" / "faprompt").rglob("*.py") if p.name != "__init__.py"]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


def test_imports_for_type_checkers_do_not_count(script, tmp_path, monkeypatch, capsys):
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "metrics.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from faprompt.cli import main\n"
    )
    monkeypatch.setattr(script, "SOURCE", tmp_path)
    assert script.main() == 0


def test_importing_the_package_wakes_nothing_heavy():
    code = (
        "import sys, faprompt; faprompt.__version__; dir(faprompt)\n"
        "print([n for n in ('torch', 'open_clip', 'numpy', 'PIL') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_front_door_has_what_it_promises():
    for name in faprompt.__all__:
        assert getattr(faprompt, name).__name__.split(".")[-1] == name
    assert set(faprompt.__all__) <= set(dir(faprompt))
    with pytest.raises(AttributeError, match="has no attribute 'load_detektor'"):
        faprompt.load_detektor  # noqa: B018
