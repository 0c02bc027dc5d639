"""Maps in numpy against scipy's Gaussian and torch's interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter1d

from faprompt.imaging.map_rendering import gaussian_smooth, map_matrices, render_grid
from faprompt.imaging.tiles import nearest_kept
from faprompt.scoring import render_map


@pytest.mark.parametrize(("rows", "sigma"), [(1, 3.0), (3, 10.0), (20, 4.0), (56, 0.3), (518, 4.0)])
def test_the_gaussian_is_scipys(rows, sigma):
    values = np.random.default_rng(rows).random((rows, 5))
    wanted = gaussian_filter1d(values, sigma, axis=0, mode="reflect", truncate=4.0)
    np.testing.assert_allclose(gaussian_smooth(values, sigma), wanted, rtol=1e-12)


@pytest.mark.parametrize("image_size", [None, (61, 200), (31, 17)])
@pytest.mark.parametrize("sigma", [0, 2.5])
def test_a_map_is_that_of_the_tensor_interface(image_size, sigma):
    grid = np.random.default_rng(1).random((7, 4), dtype=np.float32)
    options = {"model_size": (98, 56), "sigma_px": sigma, "image_size": image_size}
    found = render_grid(grid, **options)
    wanted = render_map(torch.from_numpy(grid)[None], **options)[0].numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    assert found.dtype == np.float32 and found.shape == (image_size or (98, 56))


def test_matrices_are_shared_and_cannot_be_changed():
    first, again = (map_matrices((4, 4), (56, 56), 2.0, (80, 90)) for _ in range(2))
    assert first[0] is again[0] and first[0].shape == (80, 4) and first[1].shape == (90, 4)
    with pytest.raises(ValueError, match="read-only"):
        first[0][0, 0] = 1


def test_the_nearest_kept_patch_is_scipys_also_where_several_are_as_near():
    draw = np.random.default_rng(0)
    for _ in range(300):
        rows, columns = draw.integers(1, 12, 2)
        left_out = draw.random((rows, columns)) < draw.random()
        if left_out.all() or not left_out.any():
            continue
        row, column = distance_transform_edt(left_out, return_distances=False, return_indices=True)
        np.testing.assert_array_equal(nearest_kept(left_out), (row * columns + column).ravel())
