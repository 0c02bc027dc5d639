"""Relations between the patches of one picture, against slow loops."""

import numpy as np
import pytest
import torch

from faprompt.clip.vision import ImageOptions
from faprompt.clip.weights import load_backbone
from faprompt.relation_maps import (
    at_step,
    mirror_distance,
    nearest_patches,
    patch_targets,
    picture_percentiles,
    self_similarity,
)
from tests.helpers import small
from tests.helpers.compare import cosine_distances


def draw_tokens(rows, columns, *, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, rows * columns, 5, generator=generator)


@pytest.mark.parametrize("grid", [(4, 4), (5, 7), (1, 9)])
def test_self_similarity_against_a_slow_loop(grid):
    rows, columns = grid
    tokens = draw_tokens(rows, columns)
    found = self_similarity(tokens, grid, counts=(1, 3)).numpy()
    distances = cosine_distances(tokens)
    for picture in range(2):
        for row in range(rows):
            for column in range(columns):
                others = sorted(
                    distances[picture, row * columns + column, r * columns + c]
                    for r in range(rows)
                    for c in range(columns)
                    if max(abs(r - row), abs(c - column)) > 1
                )
                wanted = [others[0], np.mean(others[:3])]
                np.testing.assert_allclose(found[picture, :, row, column], wanted, atol=1e-5)


def test_more_neighbours_than_there_are_count_as_all_that_every_patch_has():
    tokens = draw_tokens(4, 4)
    assert torch.equal(*(self_similarity(tokens, (4, 4), counts=(k,)) for k in (7, 26)))
    with pytest.raises(ValueError, match="grid of 3x3 patches is too small"):
        self_similarity(draw_tokens(3, 3), (3, 3))
    with pytest.raises(ValueError, match="12 patches do not form a 3x5 grid"):
        self_similarity(draw_tokens(3, 4), (3, 5))


@pytest.mark.parametrize("grid", [(3, 4), (5, 2), (1, 6)])
def test_mirror_distance_against_a_slow_loop(grid):
    rows, columns = grid
    tokens = draw_tokens(rows, columns)
    found = mirror_distance(tokens, grid).numpy()
    distances = cosine_distances(tokens)
    for picture in range(2):
        for row in range(rows):
            for column in range(columns):
                places = ((row, columns - 1 - column), (rows - 1 - row, column))
                for axis, (r0, c0) in enumerate(places):
                    near = [
                        distances[picture, row * columns + column, r * columns + c]
                        for r in range(max(0, r0 - 1), min(rows, r0 + 2))
                        for c in range(max(0, c0 - 1), min(columns, c0 + 2))
                    ]
                    assert found[picture, axis, row, column] == pytest.approx(min(near), abs=1e-5)


def test_what_relations_do_not_see():
    """The length of tokens and a rotation of all of them change nothing; a mirror picture has
    mirrored relations.
    """
    tokens = draw_tokens(5, 6)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)))[0]
    lengths = torch.rand(2, 30, 1, generator=torch.Generator().manual_seed(2)) + 0.5
    for relation in (self_similarity, mirror_distance):
        found = relation(tokens, (5, 6))
        torch.testing.assert_close(relation(tokens @ turn * lengths, (5, 6)), found)
        flipped = tokens.unflatten(1, (5, 6)).flip(2).flatten(1, 2)
        torch.testing.assert_close(relation(flipped, (5, 6)), found.flip(-1))
    whole = draw_tokens(3, 3).unflatten(1, (3, 3))
    symmetric = torch.cat([whole, whole.flip(2)], dim=2).flatten(1, 2)
    assert mirror_distance(symmetric, (3, 6))[:, 0].max() < 1e-6


def test_percentiles_are_torchs():
    values = draw_tokens(4, 5).mT
    wanted = torch.quantile(values, torch.tensor([0.1, 0.5, 0.9]), dim=-1).permute(1, 2, 0)
    torch.testing.assert_close(picture_percentiles(values), wanted)


def test_patches_that_count_as_anomalous():
    mask = torch.zeros(4, 64, 64)
    mask[1, 16:48, 20] = 1  # a line of one pixel
    mask[2, 30:33, 30:33] = 1  # too little anywhere: 4 of 256 pixels in one patch, 2, 2, 1
    mask[3, :, :20] = 1  # 4 of 16 columns in the second column of patches
    found = patch_targets(mask, (4, 4))
    assert found[0].sum() == 0
    assert found[1].nonzero().tolist() == [[1, 1], [2, 1]]
    assert found[2].nonzero().tolist() == [[1, 1]]
    assert found[3].sum(dim=0).tolist() == [4, 4, 0, 0]


@pytest.mark.parametrize("relation", [self_similarity, mirror_distance])
@pytest.mark.parametrize("grid", [(8, 8), (7, 9)])
def test_the_coarse_layer_is_compared_at_its_own_resolution(relation, grid):
    trunk = load_backbone("test-efficientnet")
    with torch.no_grad():
        pixels = small.pixels(2, 16 * grid[0], 16 * grid[1])
        maps = trunk.vision(pixels, 15)[15]
        tokens = trunk.encode_image(pixels, ImageOptions(layers=(15,))).patch_tokens[15]
    own = relation(maps.flatten(2).mT, (maps.shape[-2], maps.shape[-1]))
    wanted = torch.nn.functional.interpolate(own, size=grid, mode="bilinear")
    torch.testing.assert_close(at_step(relation, tokens, grid, 2), wanted, rtol=0, atol=1e-5)


def test_nearest_patches_are_those_of_a_slow_sort():
    tokens, patches = draw_tokens(4, 5), torch.tensor([7, 0])
    found, near = (each.tolist() for each in nearest_patches(tokens, (4, 5), patches, 4))
    for picture, patch in enumerate(patches.tolist()):
        distances = cosine_distances(tokens)[picture, patch]
        far = [n for n in range(20) if max(abs(n // 5 - patch // 5), abs(n % 5 - patch % 5)) > 1]
        assert found[picture] == [patch, *sorted(far, key=lambda n: distances[n])[:4]]
        wanted = [0, *distances[found[picture][1:]]]
        assert near[picture] == pytest.approx(wanted, abs=1e-5)
    assert nearest_patches(tokens, (4, 5), patches, 99)[0].shape == (2, 1 + 20 - 9)
    with pytest.raises(ValueError, match="19 patches do not form a 4x5 grid"):
        nearest_patches(tokens[:, 1:], (4, 5), patches, 4)
