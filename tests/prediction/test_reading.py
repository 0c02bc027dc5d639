"""Reading ahead: order, batch limits, and how much is held at one time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from faprompt import detector_parts
from faprompt.imaging import ReadImage
from faprompt.imaging.reading_options import ReadingOptions
from faprompt.prediction import picture_scoring as reading
from faprompt.prediction.result_pictures import Artifacts
from faprompt.storage import LocalFolder
from tests.prediction.fakes import RedScorer


@pytest.fixture
def disk(monkeypatch):
    """Files "12-name" of 12 pixels each that exist nowhere; gives the names read so far."""
    read: list[str] = []

    def read_image(path, **_):
        read.append(path)
        return ReadImage(np.zeros((1, int(path.split("-")[0]), 3), np.uint8))

    monkeypatch.setattr(detector_parts, "read_image", read_image)
    monkeypatch.setattr(reading, "count_pixels", lambda path: int(path.split("-")[0]))
    return read


def batches(paths, *, batch_size=3, pixel_budget=1000):
    scoring = reading.PictureScoring(
        detector=RedScorer(), artifacts=Artifacts(LocalFolder(Path())), threshold=None,
        batch_size=batch_size, reading=ReadingOptions(), product=None,
        pixel_budget=pixel_budget,
    )  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        yield from scoring.read_batches(paths, pool)


def test_order_and_batch_size(disk):
    paths = [f"1-{i}" for i in range(8)]
    got = [[attempt.path for attempt in batch] for batch in batches(paths)]
    assert got == [paths[:3], paths[3:6], paths[6:]]
    assert list(batches([])) == []


def test_a_batch_holds_a_quarter_of_the_budget_or_one_picture(disk):
    paths = ["10-a", "10-b", "10-c", "500-d", "20-e", "5-f", "1-g"]
    got = [[attempt.path for attempt in batch] for batch in batches(paths, pixel_budget=100)]
    assert got == [["10-a", "10-b"], ["10-c"], ["500-d"], ["20-e", "5-f"], ["1-g"]]


def test_one_batch_is_read_ahead(disk):
    run = batches([f"1-{i}" for i in range(9)])
    next(run)
    run.close()  # waits for what was begun
    assert len(disk) == 6


def test_nothing_is_read_ahead_beyond_the_budget(disk):
    run = batches(["60-a", "60-b", "60-c"], pixel_budget=100)
    assert [attempt.path for attempt in next(run)] == ["60-a"]
    run.close()
    assert disk == ["60-a"]
