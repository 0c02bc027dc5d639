"""Comparison of precisions on pictures."""

import numpy as np
import pytest

from faprompt.clip.int8_linear import is_exact
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
    low = load_detector("tiny", precision="bf16")
    results = [(low.predict(image), detector.predict(image)) for image in images]
    assert bf16.score_change == max(abs(a.score - b.score) for a, b in results) > 0
    assert bf16.map_change == max(np.abs(a.score_map - b.score_map).max() for a, b in results)
    assert str(bf16).startswith(f"{bf16.latency_ms:.0f} ms a picture, {bf16.ratio:.2f} times as")
    if is_exact():
        assert 0 < int8.score_change < 0.05 and int8.latency_ms > 0
    else:
        assert str(int8) == int8.refused and "8-bit multiplication units" in int8.refused
    assert str(exact) == f"{exact.latency_ms:.0f} ms a picture"


def test_a_calibration_is_left_out(tmp_path):
    detector = small.detector()
    changes = compare_precisions(detector, pictures(1))
    assert [each.latency_ms > 0 for each in changes] == [True, True, is_exact()]


def test_no_picture_is_refused():
    with pytest.raises(ModelError, match="No picture to compare precisions on; give some"):
        compare_precisions(small.detector(), [])
