"""Sets without a normal picture, read by their reader: pixel figures, and no image figures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from faprompt.data import read_dataset, read_mask
from faprompt.evaluation import EvaluationConfig, evaluate
from faprompt.metrics import AnomalyMetrics
from tests.evaluation import toys

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1_max")
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro")


@pytest.fixture
def polyps(tmp_path):
    root = tmp_path / "CVC-ColonDB"
    for number, (height, width) in enumerate(((60, 80), (56, 56), (47, 90)), start=9):
        rng = np.random.default_rng(number)
        image = rng.integers(40, 90, (height, width, 3), dtype=np.uint8)
        truth = np.zeros((height, width), np.uint8)
        truth[12 : 20 + number, 15 : 30 + number] = 255
        image[truth > 0] = (230, 60, 40)
        for folder, values in (("images", image), ("masks", truth)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(root / folder / f"{number}.png")
    return read_dataset(root)


def test_evaluate_gives_pixel_figures_and_a_reason_for_the_others(polyps):
    found = evaluate(toys.detector(), polyps, EvaluationConfig(batch_size=2))
    assert (found.dataset, set(found.classes)) == ("cvc_colondb", {"colon"})
    assert set(found.undefined) == set(IMAGE_METRICS)
    assert set(found.undefined.values()) == {"one class only: all images are anomalous"}
    assert set(found.mean) == set(PIXEL_METRICS)
    assert all(0 <= value <= 1 for value in found.mean.values())
    result = found.classes["colon"]
    assert (result.normal, result.anomalous) == (0, 3)


def test_a_map_that_equals_the_mask_is_perfect_without_normal_pictures(polyps):
    metrics = AnomalyMetrics()
    for sample in polyps:
        truth = read_mask(sample)
        metrics.update([0.5], [sample.label], [truth.astype(np.float32)], [truth])
    result = metrics.compute()
    assert [result[name] for name in PIXEL_METRICS] == pytest.approx([1, 1, 1, 1])
    for name in IMAGE_METRICS:
        with pytest.raises(KeyError, match=f"{name} is undefined: one class only"):
            result[name]
