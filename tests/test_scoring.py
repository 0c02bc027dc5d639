"""Maps and scores against torch and scipy, step by step."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from faprompt.scoring import (
    abnormal_probability,
    grid_map,
    harmonic_mean,
    in_pixels,
    nearest_distance,
    pair_logits,
    pixel_probability,
    render_map,
    unit,
    upsample,
    window_map,
)


def draw(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random(shape, dtype=np.float32))


def slow_render(grid, model_size, sigma, image_size=None):
    """torch's bilinear, scipy's Gaussian, torch's bilinear, each on the whole map."""
    grid = grid.double()
    maps = F.interpolate(grid[:, None], size=model_size, mode="bilinear", align_corners=False)
    smooth = np.stack([gaussian_filter(m, sigma=sigma) for m in maps[:, 0].numpy()])
    if image_size is None:
        return smooth
    resized = F.interpolate(
        torch.from_numpy(smooth)[:, None], size=image_size, mode="bilinear", align_corners=False
    )
    return resized[:, 0].numpy()


class TestRenderMap:
    @pytest.mark.parametrize(
        ("grid", "model_size", "sigma", "image_size"),
        [
            ((3, 5, 5), (70, 70), 10, None),
            ((1, 37, 37), (518, 518), 10, None),
            ((2, 5, 3), (70, 42), 4, None),
            ((2, 3, 5), (42, 70), 4, (97, 31)),
            ((1, 4, 4), (56, 56), 1.5, (20, 23)),
            ((1, 4, 6), (64, 96), 0, (33, 200)),
            ((1, 2, 2), (28, 28), 30, (28, 29)),  # a Gaussian wider than the map
            ((1, 1, 1), (14, 14), 3, (9, 9)),
        ],
    )
    def test_equals_upsampling_smoothing_and_resizing_in_turn(
        self, grid, model_size, sigma, image_size
    ):
        patches = draw(*grid)
        ours = render_map(patches, model_size=model_size, sigma_px=sigma, image_size=image_size)
        wanted = slow_render(patches, model_size, sigma, image_size)
        assert ours.shape == wanted.shape and ours.dtype == torch.float32
        np.testing.assert_allclose(ours.numpy(), wanted, rtol=0, atol=1e-6)

    def test_without_smoothing_it_is_the_upsampled_grid(self):
        grid = draw(2, 5, 4)
        ours = render_map(grid, model_size=(70, 56), sigma_px=0)
        torch.testing.assert_close(ours, upsample(grid, (70, 56)), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("fill", [0.0, 1.0])
    def test_values_stay_in_their_range(self, fill):
        flat = render_map(
            torch.full((1, 5, 5), fill), model_size=(70, 70), sigma_px=10, image_size=(53, 61)
        )
        assert flat.min() >= 0 and flat.max() <= 1
        torch.testing.assert_close(flat, torch.full_like(flat, fill), rtol=0, atol=1e-5)
        corners = (draw(4, 6, 6) > 0.5).float()
        maps = render_map(corners, model_size=(84, 84), sigma_px=0, image_size=(51, 200))
        assert maps.min() >= 0 and maps.max() <= 1

    def test_alone_equals_in_a_batch(self):
        grid = draw(3, 5, 5)
        options = {"model_size": (70, 70), "sigma_px": 10, "image_size": (50, 60)}
        together = render_map(grid, **options)
        alone = torch.cat([render_map(one[None], **options) for one in grid])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)

    def test_gradients_flow_even_after_a_use_in_inference_mode(self):
        """The matrices are kept between calls; a first call may not spoil a later one."""
        grid = draw(1, 3, 7).requires_grad_()
        with torch.inference_mode():
            render_map(grid.detach(), model_size=(43, 99), sigma_px=2.5, image_size=(31, 17))
        render_map(grid, model_size=(43, 99), sigma_px=2.5, image_size=(31, 17)).sum().backward()
        assert grid.grad.isfinite().all() and (grid.grad > 0).all()

    def test_a_peak_stays_where_it_was(self):
        grid = torch.zeros(1, 5, 9)
        grid[0, 1, 6] = 1
        score_map = render_map(grid, model_size=(70, 126), sigma_px=4, image_size=(100, 300))[0]
        row, column = divmod(int(score_map.argmax()), 300)
        assert abs(row - 30) <= 1 and abs(column - 216.7) <= 2


class TestAbnormalProbability:
    def test_equals_two_cosines_and_a_softmax_written_out(self):
        tokens, pair = draw(2, 3, 4).numpy() - 0.5, draw(2, 4, seed=1).numpy() - 0.5
        ours = abnormal_probability(torch.tensor(tokens), torch.tensor(pair), temperature=0.07)
        for image in range(2):
            for place in range(3):
                token = tokens[image, place]
                normal, abnormal = (
                    float(token @ text) / np.linalg.norm(token) / np.linalg.norm(text) / 0.07
                    for text in pair
                )
                wanted = math.exp(abnormal) / (math.exp(normal) + math.exp(abnormal))
                assert float(ours[image, place]) == pytest.approx(wanted, abs=1e-5)

    def test_each_image_may_have_its_own_text(self):
        tokens, pairs = draw(3, 5, 4) - 0.5, draw(3, 2, 4, seed=1) - 0.5
        together = abnormal_probability(tokens, pairs)
        alone = [abnormal_probability(t[None], p) for t, p in zip(tokens, pairs, strict=True)]
        torch.testing.assert_close(together, torch.cat(alone))
        shared = abnormal_probability(tokens, pairs[:1])
        torch.testing.assert_close(shared, abnormal_probability(tokens, pairs[0]))

    def test_lengths_do_not_matter_and_lower_temperature_is_sharper(self):
        tokens, pair = draw(1, 5, 4) - 0.5, draw(2, 4, seed=1) - 0.5
        once = abnormal_probability(tokens, pair)
        torch.testing.assert_close(once, abnormal_probability(7 * tokens, 0.1 * pair))
        sharp = abnormal_probability(tokens, pair, temperature=0.01)
        assert ((sharp - 0.5).abs() > (once - 0.5).abs()).all()

    def test_half_precision_comes_out_as_float32(self):
        tokens, pair = draw(1, 5, 4).half(), draw(2, 4, seed=1)
        assert abnormal_probability(tokens, pair).dtype == torch.float32

    def test_a_token_on_the_abnormal_direction(self):
        """The example of the house style: one patch of four is abnormal."""
        tokens = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
        chances = abnormal_probability(tokens, torch.eye(2))
        assert grid_map(chances, (2, 2)).round().tolist() == [[[0, 0], [0, 1]]]
        assert float(chances[0, 3]) == pytest.approx(1 / (1 + math.exp(-1 / 0.07)))

    @pytest.mark.parametrize(
        ("tokens", "pair"),
        [((2, 4), (2, 4)), ((1, 3, 4), (2, 5)), ((1, 3, 4), (3, 4)), ((1, 3, 4), (4,)),
         ((3, 3, 4), (2, 2, 4)), ((1, 3, 4), (1, 1, 2, 4))],
    )  # fmt: skip
    def test_shapes_that_do_not_fit_are_refused(self, tokens, pair):
        with pytest.raises(
            ValueError, match=r"tokens should be \(B, N, D\) and text_pair \(2, D\)"
        ):
            abnormal_probability(draw(*tokens), draw(*pair))

    @pytest.mark.parametrize("temperature", [0, -0.07, float("nan")])
    def test_a_temperature_that_is_not_above_zero_is_refused(self, temperature):
        with pytest.raises(ValueError, match="temperature should be above 0"):
            abnormal_probability(draw(1, 3, 4), draw(2, 4), temperature=temperature)


def test_pair_logits_are_cosines_over_temperature():
    tokens, text = draw(2, 3, 4) - 0.5, draw(5, 4, seed=1) - 0.5
    wanted = F.cosine_similarity(tokens[:, :, None], text[None, None], dim=-1) / 0.5
    torch.testing.assert_close(pair_logits(tokens, text, temperature=0.5), wanted)


def test_unit_vectors_have_length_one_and_zero_stays_zero():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert unit(vectors).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0, 0]]


def test_patches_fill_the_grid_row_by_row():
    assert grid_map(torch.arange(6.0)[None], (2, 3)).tolist() == [[[0, 1, 2], [3, 4, 5]]]


def test_patches_that_form_no_grid_are_refused():
    with pytest.raises(ValueError, match="26 patches do not form a 5x5 grid; .*class token"):
        grid_map(draw(1, 26), (5, 5))


def test_upsampling_equals_torch_and_keeps_height_and_width_apart():
    grid = draw(2, 2, 3)
    wanted = F.interpolate(grid[:, None], size=(5, 11), mode="bilinear", align_corners=False)
    assert torch.equal(upsample(grid, (5, 11)), wanted[:, 0])


class TestWindows:
    @pytest.mark.parametrize(("grid", "side"), [((4, 6), 2), ((5, 3), 3), ((3, 3), 1), ((4, 4), 4)])
    def test_a_patch_has_the_harmonic_mean_of_its_windows(self, grid, side):
        rows, columns = grid
        places = [(i, j) for i in range(rows - side + 1) for j in range(columns - side + 1)]
        scores = draw(2, len(places)) * 0.98 + 0.01
        ours = window_map(scores, grid, side)
        for row in range(rows):
            for column in range(columns):
                held = [
                    number
                    for number, (i, j) in enumerate(places)
                    if i <= row < i + side and j <= column < j + side
                ]
                wanted = len(held) / (1 / scores[:, held].double()).sum(dim=1)
                torch.testing.assert_close(ours[:, row, column].double(), wanted, rtol=1e-5, atol=0)

    def test_equal_windows_give_an_even_map(self):
        even = window_map(torch.full((1, 9), 0.3), (4, 4), 2)
        torch.testing.assert_close(even, torch.full((1, 4, 4), 0.3))

    def test_a_score_of_zero_takes_its_patches_to_zero_and_nothing_breaks(self):
        scores = torch.full((1, 9), 0.5)
        scores[0, 0] = 0
        ours = window_map(scores, (4, 4), 2)
        assert ours.isfinite().all() and ours[0, :2, :2].max() < 1e-30
        torch.testing.assert_close(ours[0, 2:, 2:], torch.full((2, 2), 0.5))

    def test_another_number_of_windows_is_refused(self):
        with pytest.raises(ValueError, match="8 patches do not form a 3x3 grid"):
            window_map(torch.rand(1, 8), (4, 4), 2)


def test_the_harmonic_mean_is_scipys():
    from scipy.stats import hmean

    maps = draw(3, 2, 4, 4) + 0.01
    ours = harmonic_mean((maps / 2).clamp(max=1))
    np.testing.assert_allclose(ours, hmean((maps / 2).double().numpy(), axis=0), rtol=1e-5)


def test_apples_mps_is_asked_for_no_float64():
    """Tensors without values stand for those of MPS."""

    class AsMps(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.device.type == "mps":
                assert made.dtype != torch.float64, f"{func} on MPS"
            return made

    with FakeTensorMode(), AsMps():
        maps = harmonic_mean(torch.empty(3, 2, 4, 4, device="mps"))
        windows = window_map(torch.empty(2, 9, device="mps"), (4, 4), 2)
        with pytest.raises(AssertionError, match="on MPS"):
            torch.empty(2, device="mps").double()
    for made in (maps, windows):
        assert (made.device.type, made.dtype, made.shape) == ("mps", torch.float32, (2, 4, 4))


def test_the_nearest_distance_equals_a_loop():
    tokens, memory = draw(2, 5, 8, seed=1) - 0.5, draw(7, 8, seed=2) - 0.5
    ours = nearest_distance(tokens, memory)
    for index in range(2):
        for number in range(5):
            cosines = torch.cosine_similarity(tokens[index, number], memory, dim=-1)
            assert float(ours[index, number]) == pytest.approx(
                (1 - float(cosines.max())) / 2, abs=1e-6
            )
    assert float(nearest_distance(memory[None, :1], memory)[0, 0]) == pytest.approx(0, abs=1e-6)


def test_upsampling_can_hold_the_corners():
    grid = draw(2, 3, 4)
    corners = upsample(grid, (9, 16), align_corners=True)
    assert torch.equal(corners[:, 0, 0], grid[:, 0, 0])
    torch.testing.assert_close(corners[:, -1, -1], grid[:, -1, -1])
    assert (corners - upsample(grid, (9, 16))).abs().max() > 0.01


def test_pixels_are_upsampled_logits_through_a_softmax_of_two():
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randn(2, 6, 5, generator=generator)
    pair = torch.randn(2, 2, 5, generator=generator)
    found = pixel_probability(tokens, pair, (2, 3), patch_size=7, temperature=0.2)
    cosines = F.cosine_similarity(tokens[:, :, None], pair[:, None], dim=-1) / 0.2  # (B, N, 2)
    planes = F.interpolate(
        cosines.mT.reshape(2, 2, 2, 3), size=(14, 21), mode="bilinear", align_corners=True
    )
    assert found.shape == (2, 14, 21)
    torch.testing.assert_close(found, planes.softmax(dim=1)[:, 1])


def test_a_grid_in_pixels_holds_its_corners():
    grid = torch.tensor([[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]])
    found = in_pixels(grid, 4)
    assert found.shape == (1, 8, 12)
    assert found[0, [0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [0, 2, 3, 5]
