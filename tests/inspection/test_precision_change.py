"""Comparison of precisions on pictures."""

import numpy as np
import pytest

from faprompt.errors import ModelError
from faprompt.inspection import compare_precisions
from faprompt.models import load_detector
from tests.helpers import small


def pictures(count):
    stream = np.random.default_rng(0)
    return [stream.integers(0, 256, (60, 80, 3), dtype=np.uint8) for _ in range(count)]


def test_each_precision_is_compared_with_fp32():
    detector, images = load_detector("tiny"), pictures(2)
    exact, bf16, int8 = compare_precisions(detector, images)
    assert (exact.precision, exact.ratio, exact.score_change, exact.map_change) == ("fp32", 1, 0, 0)
    low = load_detector("tiny", precision="int8")
    results = [(low.predict(image), detector.predict(image)) for image in images]
    assert int8.score_change == max(abs(a.score - b.score) for a, b in results) > 0
    assert int8.map_change == max(np.abs(a.score_map - b.score_map).max() for a, b in results)
    assert 0 < bf16.score_change < 0.05 and bf16.latency_ms > 0
    assert str(int8).startswith(f"{int8.latency_ms:.0f} ms a picture, {int8.ratio:.2f} times as")
    assert str(exact) == f"{exact.latency_ms:.0f} ms a picture"


def test_a_calibration_is_left_out(tmp_path):
    detector = small.detector()
    assert [each.refused for each in compare_precisions(detector, pictures(1))] == [""] * 3


def test_no_picture_is_refused():
    with pytest.raises(ModelError, match="No picture to compare precisions on; give some"):
        compare_precisions(small.detector(), [])
