"""Camera and frame: they change light and sharpness, never the contents."""

import random

import pytest
import torch

from faprompt.synthetic import scene
from faprompt.synthetic.canvas import Canvas
from faprompt.synthetic.scene import add_clutter

SIZE = 64


class Loaded(random.Random):
    """Dice that always show the same number where a share is asked for."""

    def __init__(self, value):
        super().__init__(0)
        self.value = value

    def random(self):
        return self.value


def new_canvas(count=6, host=None, size=SIZE):
    generator = torch.Generator().manual_seed(1)
    return Canvas(count, size, generator=generator, host=host or random.Random(1), channels=1)


def checks(count=6):
    steps = torch.arange(SIZE) // 8 % 2
    return (0.3 + 0.4 * (steps[:, None] ^ steps)).expand(count, 1, SIZE, SIZE).clone()


def test_compression_stays_near_and_forgets_fine_detail():
    noisy = (
        checks() + torch.randn(6, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 0.02
    )
    squeezed = scene._compress(new_canvas(host=Loaded(0.0)), noisy)
    assert not torch.equal(squeezed, noisy)
    assert (squeezed - noisy).abs().mean() < 0.03
    assert (squeezed - noisy).abs().max() < 0.3
    block = squeezed[:, 0, :8, :8]
    assert block.std((1, 2)).mean() < 0.02  # the noise inside a flat block shrinks
    assert torch.equal(scene._compress(new_canvas(host=Loaded(0.9)), noisy), noisy)


def test_compression_leaves_sizes_alone_that_are_no_whole_blocks():
    odd = torch.rand(6, 1, 60, 60)
    assert torch.equal(scene._compress(new_canvas(host=Loaded(0.0), size=60), odd), odd)


def test_the_cosine_basis_is_orthonormal():
    basis = scene._cosines()
    torch.testing.assert_close(basis @ basis.T, torch.eye(8), atol=1e-5, rtol=0)


@pytest.mark.parametrize("even", [True, False])
def test_photograph_keeps_the_pattern(even):
    drawn = checks()
    pictures = scene.photograph(new_canvas(), drawn, even=even)
    assert pictures.shape == drawn.shape
    for picture in pictures:
        likeness = torch.corrcoef(torch.stack((picture.flatten(), drawn[0].flatten())))[0, 1]
        assert likeness > 0.6


def test_even_light_varies_less():
    flat = torch.full((40, 1, SIZE, SIZE), 0.5)
    spread = [
        scene._light(new_canvas(40), even).std((1, 2)).mean().item() for even in (True, False)
    ]
    assert spread[0] < 0.4 * spread[1]
    assert scene.photograph(new_canvas(40), flat).shape == flat.shape


def test_frames_darken_the_border_and_spare_the_middle():
    flat = torch.full((60, 1, SIZE, SIZE), 0.5)
    framed = scene.cut_by_frame(new_canvas(60), flat)
    middle = framed[:, :, 26:38, 26:38]
    torch.testing.assert_close(middle, flat[:, :, 26:38, 26:38], atol=1e-4, rtol=0)
    border = torch.cat((framed[:, :, 0].flatten(), framed[..., 0].flatten()))
    assert border.mean() < 0.45 and border.min() < 0.2


def test_turning_a_share_of_the_surfaces():
    stripes = (torch.arange(SIZE) % 8 < 4).float().expand(6, 1, SIZE, SIZE).clone()
    assert torch.equal(scene.turn_texture(new_canvas(), stripes, share=0.0), stripes)
    turned = scene.turn_texture(new_canvas(), stripes, share=1.0)
    assert turned.min() >= 0 and turned.max() <= 1
    assert (turned - stripes).abs().mean((1, 2, 3)).max() > 0.2
    assert turned.mean((1, 2, 3)).sub(0.5).abs().max() < 0.1  # nothing empty came in


@pytest.mark.parametrize("choice", range(5))
def test_clutter_is_moderate(choice):
    class Chooser(random.Random):
        def choice(self, options):
            return options[choice]

    flat = torch.full((8, 1, SIZE, SIZE), 0.5)
    made = add_clutter(new_canvas(8, host=Chooser(0)), flat)
    assert made.shape == flat.shape and made.isfinite().all()
    assert made.min() >= 0 and made.max() <= 1.0
    assert (made - flat).abs().amax((1, 2, 3)).max() > 0.05
