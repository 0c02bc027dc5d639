"""Noise, coordinates and stamps against what they promise."""

import math
import random

import pytest
import torch

from faprompt.synthetic.canvas import Canvas, stamp, to_pixels, walk
from faprompt.synthetic.fields import relief, smooth_step, soften, warp


def new_canvas(count=4, size=96, seed=0, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return Canvas(count, size, generator=generator, host=random.Random(seed), channels=channels)


def crossings(line):
    return ((line[..., 1:] > 0) != (line[..., :-1] > 0)).float().mean().item()


def test_noise_has_about_unit_variance_and_no_offset():
    field = new_canvas(count=24).noise((8, 20))
    assert field.mean().abs() < 0.1
    assert 0.75 < field.std() < 1.25


def test_noise_is_as_fine_as_asked_in_each_direction():
    canvas = new_canvas(count=16)
    field = canvas.noise((40, 40), (4, 4))
    across, along = crossings(field), crossings(field.mT)
    assert across > 4 * along > 0


def test_fractal_adds_finer_detail():
    smooth = new_canvas(count=8).fractal((3, 3), octaves=1)
    rough = new_canvas(count=8).fractal((3, 3), octaves=4, gain=0.8)
    assert crossings(rough) > 1.5 * crossings(smooth)
    assert 0.7 < rough.std() < 1.3


def test_streaks_are_independent_across_and_smooth_along():
    field = new_canvas(count=8).streaks((3, 6))
    step = (field[..., 1:] - field[..., :-1]).std()
    assert (field[:, 1:] - field[:, :-1]).std() < 0.3 * step


def test_squashing_keeps_the_area_and_stays_in_bounds():
    canvas = new_canvas(count=200)
    torch.testing.assert_close(canvas.wide * canvas.tall, torch.ones(200, 1, 1))
    ratio = (canvas.tall / canvas.wide).flatten()
    assert ratio.min() >= 1 / 3 - 1e-4 and ratio.max() <= 3 + 1e-4
    assert (ratio == 1).float().mean() > 0.4 and (ratio > 1.5).any() and (ratio < 0.7).any()


def test_turning_keeps_distances():
    canvas = new_canvas()
    u, v = canvas.turned(canvas.uniform(0, 6), 2.0)
    torch.testing.assert_close(torch.hypot(u, v), 2 * torch.hypot(canvas.x, canvas.y))


def test_taking_rows_repeats_their_sheets():
    canvas = new_canvas(count=3)
    part = canvas.take(torch.tensor([2, 0, 2]))
    assert part.count == 3 and torch.equal(part.x, canvas.x[[2, 0, 2]])
    assert part.noise((4, 8)).shape == (3, 96, 96)


def test_cells_of_a_lattice_share_their_number():
    canvas = new_canvas(count=1)
    u, v = canvas.turned(torch.zeros(1, 1, 1), 3.0)
    values = canvas.per_cell(u, v)
    key = (u.floor() * 100 + v.floor()).flatten()
    for cell in key.unique():
        assert values.flatten()[key == cell].unique().numel() == 1
    assert values.unique().numel() == key.unique().numel()


def test_voronoi_cells_against_a_plain_search():
    canvas = new_canvas(count=1, size=128)
    u, v = canvas.turned(torch.zeros(1, 1, 1), 2.0)
    near, border, tone = canvas.cells(u + 8, v + 8, jitter=0.0)
    centre_u, centre_v = (u - u.floor() - 0.5).abs(), (v - v.floor() - 0.5).abs()
    expected = torch.hypot(centre_u, centre_v)  # no jitter: seeds sit in the middle of cells
    torch.testing.assert_close(near, expected, atol=0.05, rtol=0)
    assert border.min() >= 0 and tone.min() >= 0 and tone.max() <= 1


def test_smooth_step_ends_and_middle():
    value = torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0])
    torch.testing.assert_close(
        smooth_step(value, 0.0, 1.0), torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0])
    )


@pytest.mark.parametrize("radius", [0, 1, 4])
def test_soften_is_a_box_mean_with_replicated_border(radius):
    field = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    soft = soften(field, radius)
    rows = torch.arange(20)
    reach = torch.arange(-radius, radius + 1)
    for row, column in ((0, 0), (7, 12), (19, 3)):
        ys, xs = (rows[row] + reach).clamp(0, 19), (rows[column] + reach).clamp(0, 19)
        expected = field[:, :, ys][..., xs].mean((2, 3))
        torch.testing.assert_close(soft[:, :, row, column], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(soften(field[:, 0], radius), soft[:, 0])


def test_relief_is_bright_towards_the_light():
    slope = torch.linspace(0, 1, 20).expand(1, 20, 20)
    facing, away = (relief(slope, torch.full((1, 1, 1), a))[0, 10, 10] for a in (0.0, math.pi))
    assert facing > 0 and torch.isclose(away, -facing)


def test_warp_reads_where_the_shift_points():
    image = torch.rand(1, 1, 16, 16)
    moved = warp(image, torch.full((1, 1, 1), 3.0), torch.full((1, 1, 1), -2.0))
    torch.testing.assert_close(moved[..., 4:14, 2:12], image[..., 2:12, 5:15])


def test_a_stamp_covers_a_disc():
    canvas = new_canvas(count=1, size=40)
    points = torch.tensor([[[20.0, 12.0], [100.0, 5.0]]])  # the second lies outside
    sheet = stamp(canvas, points, torch.tensor([[4.0, 4.0]]), torch.ones(1, 2), reach=6)
    assert abs(sheet.sum().item() - math.pi * 16) < 3
    rows, columns = torch.nonzero(sheet[0], as_tuple=True)
    assert abs(columns.float().mean() - 19.5) < 0.1 and abs(rows.float().mean() - 11.5) < 0.1
    assert sheet.max() == 1


def test_overlapping_stamps_keep_the_stronger():
    canvas = new_canvas(count=1, size=20)
    points = torch.full((1, 2, 2), 10.0)
    sheet = stamp(canvas, points, torch.full((1, 2), 2.0), torch.tensor([[0.4, 0.7]]), reach=4)
    assert math.isclose(sheet.max().item(), 0.7, abs_tol=1e-6)


def test_a_walk_without_wiggle_is_straight_and_as_long_as_asked():
    canvas = new_canvas(count=2)
    zero, length = torch.zeros(2, 1), torch.tensor([[30.0], [60.0]])
    heading = torch.tensor([[0.0], [math.pi / 2]])
    points, angles = walk(canvas, torch.zeros(2, 2), heading, length, wiggle=zero, bend=zero)
    torch.testing.assert_close(points[0, -1], torch.tensor([30.0, 0.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(points[1, -1], torch.tensor([0.0, 60.0]), atol=1e-3, rtol=0)
    assert angles.shape == (2, 256)


def test_pixels_of_the_corners():
    canvas = new_canvas(count=3, size=50)
    corner = to_pixels(canvas, canvas.wide[:, 0], -canvas.tall[:, 0])
    torch.testing.assert_close(corner[:, 0], torch.tensor([50.0, 0.0]).expand(3, 2))


def test_grey_sheets_mix_colours_to_grey():
    assert new_canvas(channels=1).tone(0.9, 0.6, 0.3).flatten().tolist() == pytest.approx([0.6])
    assert new_canvas().tone(0.9, 0.6, 0.3).flatten().tolist() == pytest.approx([0.9, 0.6, 0.3])
