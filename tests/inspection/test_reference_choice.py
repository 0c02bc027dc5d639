"""Which good pictures become references, and that the others still calibrate."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from faprompt.calibration import ranks_above
from faprompt.errors import ConfigError
from faprompt.files import file_digest
from faprompt.inspection import CalibrateOptions, calibrate
from faprompt.inspection.calibration_run import candidate_count
from faprompt.references import farthest_first
from tests.helpers import small

RATES = {"target_fpr": 0.1, "review_fpr": 0.2}


@pytest.mark.parametrize("references", [1, 4, 8])
@pytest.mark.parametrize(("target", "review"), [(0.01, 0.05), (0.05, 0.05), (0.03, 0.1)])
def test_candidates_cost_no_threshold_its_rank(references, target, review):
    options = CalibrateOptions(references=references, target_fpr=target, review_fpr=review)
    least = math.ceil(1 / target) - 1 + references
    for pictures in range(least, least + 300):
        count = candidate_count(pictures, options)
        assert references <= count <= 4 * references
        for rate in (target, review):
            wanted = ranks_above(pictures - references, rate)
            assert ranks_above(pictures - count, rate) == wanted


def test_as_many_candidates_are_drawn_as_the_rates_can_spare():
    options = CalibrateOptions(references=8, target_fpr=0.05)
    assert candidate_count(50, options) == 11  # 39 calibrate: the second highest, as of 42
    assert candidate_count(50, replace(options, group="p([0-9]+)")) == 8


@pytest.mark.parametrize(("among_all", "low", "high"), [(False, 0.043, 0.057), (True, 0.06, 1)])
def test_the_rate_holds_only_if_candidates_are_random(among_all, low, high):
    """Mean rate of 300 drawn calibrations at 5 %; its standard error is 0.0016."""
    options = CalibrateOptions(references=4, target_fpr=0.05, review_fpr=0.05)
    count = candidate_count(75, options)
    assert count == 16  # 59 calibrate, and the third highest is the threshold: exactly 5 %
    draw, rates = np.random.default_rng(3), []
    for _ in range(300):
        rows = draw.normal(size=(75 + 500, 8)) + 1
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        candidates = rows[:75] if among_all else rows[:count]
        chosen = farthest_first(torch.from_numpy(candidates), 4)
        good = np.delete(rows[:75], chosen, axis=0) if among_all else rows[count:75]
        scores = np.sort(1 - (good @ candidates[chosen].T).max(axis=1))
        threshold = scores[-ranks_above(len(scores), 0.05)]
        rates.append((1 - (rows[75:] @ candidates[chosen].T).max(axis=1) > threshold).mean())
    assert low < np.mean(rates) < high


def pictures(folder, count=24):
    """Good pictures of two kinds, and a path for each."""
    paths = []
    for number in range(count):
        values = np.random.default_rng(number).integers(0, 60 + 8 * number, (56, 56, 3))
        path = folder / f"p{number // 2}_{number % 2}.png"
        Image.fromarray(values.astype(np.uint8)).save(path)
        paths.append(str(path))
    return paths


@pytest.fixture(scope="module")
def detector():
    return small.detector("clip", use_class_names=False)


class TestChoice:
    def test_references_differ_most_among_random_candidates(self, detector, tmp_path):
        paths = pictures(tmp_path)
        options = CalibrateOptions(references=2, **RATES)
        found = calibrate(detector, reversed(paths), tmp_path / "model", options)
        count = candidate_count(len(paths), options)
        assert count == 5
        drawn = sorted(paths, key=file_digest)[:count]
        features = [detector.image_feature(np.asarray(Image.open(path))) for path in drawn]
        rows = farthest_first(np.stack(features), 2)
        assert found.products[""].references == tuple(drawn[row] for row in rows)
        assert set(found.calibration.pictures[""]) == set(paths) - set(drawn)
        assert found.copies == ()

    def test_no_picture_of_a_references_part_calibrates(self, detector, tmp_path):
        paths = pictures(tmp_path)
        options = CalibrateOptions(references=2, group="p([0-9]+)_", target_fpr=0.2, review_fpr=0.3)
        found = calibrate(detector, paths, tmp_path / "model", options)
        aside = {path.rsplit("_", 1)[0] for path in found.products[""].references}
        left = {path.rsplit("_", 1)[0] for path in found.calibration.pictures[""]}
        assert not aside & left and len(aside | left) == 12
        assert found.products[""].parts == 12 - len(aside)

    def test_copies_do_not_count_as_pictures(self, detector, tmp_path):
        paths = pictures(tmp_path, 10)
        for number, path in enumerate(paths[:3]):
            copy = tmp_path / f"copy{number}.png"
            copy.write_bytes((tmp_path / path).read_bytes())
            paths.append(str(copy))
        options = CalibrateOptions(references=2, **RATES)
        with pytest.raises(
            ConfigError, match=r"at least 9 good pictures, got 8.*2 pictures are set"
        ):
            calibrate(detector, paths, tmp_path / "model", options)
