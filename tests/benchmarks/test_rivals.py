"""The rivals that learned nothing still have to do what they say."""

import numpy as np
import pytest

from benchmarks.rivals import FELLOWS, PATCH, RIVALS, SIDE, _describe, _grey, patch_self_similarity


def striped(size=SIDE):
    wave = (np.sin(np.arange(size) * 0.8) * 60 + 128).astype(np.uint8)
    return np.repeat(np.broadcast_to(wave, (size, size))[..., None], 3, axis=2).copy()


@pytest.mark.parametrize("name", RIVALS)
def test_finds_a_blot_on_stripes(name):
    image = striped()
    image[96:112, 160:176] = 255
    found = RIVALS[name](image)
    assert found.shape == (SIDE, SIDE)
    row, column = np.unravel_index(found.argmax(), found.shape)
    assert 88 <= row < 120 and 152 <= column < 184
    assert found.max() > 1.1 * RIVALS[name](striped()).max()


@pytest.mark.parametrize("name", RIVALS)
def test_any_size_and_a_blank_picture(name):
    assert np.ptp(RIVALS[name](np.full((1, 1, 3), 9, np.uint8))) < 1e-6
    assert np.isfinite(RIVALS[name](np.zeros((40, 300, 3), np.uint8))).all()


def test_distances_equal_a_plain_loop(monkeypatch):
    monkeypatch.setattr("benchmarks.rivals.gaussian_filter", lambda plane, sigma: plane)
    image = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    described = _describe(_grey(image))
    place = 5 * (SIDE // PATCH) + 7
    apart = sorted(
        float(np.linalg.norm(described[place] - other))
        for number, other in enumerate(described)
        if number != place
    )
    centre = [5 * PATCH + PATCH // 2, 7 * PATCH + PATCH // 2]
    around = patch_self_similarity(image)[
        centre[0] - 1 : centre[0] + 1, centre[1] - 1 : centre[1] + 1
    ]
    assert around.mean() == pytest.approx(np.mean(apart[:FELLOWS]), rel=0.05)
