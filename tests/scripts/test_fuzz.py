"""The fuzzing script: damaged inputs are drawn, read or refused, and what fails is kept."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_format_has_seeds_that_read(fuzz):
    from faprompt.imaging import read_image

    counts = {
        kind: len(fuzz.seed_pictures(kind)) for kind in ("png", "jpeg", "tiff", "webp", "bmp")
    }
    assert min(counts.values()) >= 4 and counts["tiff"] > 30, counts
    for data in fuzz.seed_pictures("tiff"):
        assert read_image(data).image_size in ((12, 17), (17, 12))


def test_every_dicom_seed_reads(fuzz):
    pytest.importorskip("pydicom", reason="needs the extra dicom")
    from faprompt.imaging import read_image

    seeds = fuzz.seed_pictures("dicom")
    assert len(seeds) >= 9
    assert {read_image(data).image_size for data in seeds} == {(12, 17)}


def test_the_script_counts_what_is_read_and_refused(tmp_path):
    told = subprocess.run(
        [
            sys.executable,
            SCRIPT,
            "--only",
            "coco",
            "--inputs",
            "30",
            "--failures",
            tmp_path / "bad",
        ],
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "30 inputs" in told.stdout and "no failure" in told.stdout
    assert list((tmp_path / "bad").iterdir()) == []


def test_an_error_of_another_type_is_a_failure_and_its_input_is_kept(fuzz, tmp_path, monkeypatch):
    def read(data):
        if b"scratch" in data:
            raise KeyError("scratch")

    strategy = fuzz.damaged([json.dumps({"name": "scratch"}).encode()])
    monkeypatch.setattr(fuzz, "job", lambda name, folder: (strategy, read))
    monkeypatch.setattr(fuzz.logging, "disable", lambda: None)
    monkeypatch.setattr(fuzz, "MEMORY_BYTES", 2**60)  # other tests of this process may need more
    answers = multiprocessing.get_context("spawn").SimpleQueue()
    fuzz.run_kind("coco", 20, 7, tmp_path, answers)
    outcomes, peak = answers.get()
    assert outcomes["failed"] >= 1 and outcomes["KeyError: 'scratch'"] == outcomes["failed"]
    (kept,) = tmp_path.iterdir()
    assert b"scratch" in kept.read_bytes() and peak > 0
