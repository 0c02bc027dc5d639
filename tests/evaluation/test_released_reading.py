"""`picture_handling=released`: labelled sets as the loaders of the public code read them.

The rival spells out those loaders with torchvision: `Image.open`, `Resize`, `convert("RGB")`,
`ToTensor` for pictures, and `convert("L")`, `> 0`, `Resize`, `> 0.5` for masks.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from faprompt.clip.spec import open_clip_module
from faprompt.data.masks import read_resized_mask
from faprompt.errors import ConfigError, DatasetError, ImageReadError
from faprompt.evaluation import EvaluationConfig, evaluate, write_evaluation
from faprompt.evaluation.gallery import write_gallery
from faprompt.evaluation.sample_batches import read_sample
from faprompt.imaging import Transform, read_resized
from faprompt.methods.registry import preset_config
from faprompt.training.features import Pictures
from faprompt.training.training_masks import read_masks
from faprompt.work import no_progress
from tests.evaluation import toys
from tests.helpers import small

open_clip_module()  # it mends a torchvision that is of another build than torch
from torchvision.transforms import InterpolationMode, Resize  # noqa: E402
from torchvision.transforms.functional import normalize, to_tensor  # noqa: E402

SIDE = 28
TRANSFORM = Transform(image_size=(SIDE, SIDE))


def published_pixels(path):
    picture = Image.open(path)
    resized = Resize((SIDE, SIDE), interpolation=InterpolationMode.BICUBIC)(picture)
    return normalize(to_tensor(resized.convert("RGB")), TRANSFORM.mean, TRANSFORM.std)


def published_mask(path):
    marked = np.array(Image.open(path).convert("L")) > 0
    grey = Image.fromarray(marked.astype(np.uint8) * 255, mode="L")
    return (to_tensor(Resize((SIDE, SIDE))(grey))[0] > 0.5).numpy()


def noise(*shape):
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


PICTURES = {
    "colour": lambda: Image.fromarray(noise(40, 61, 3)),
    "grey": lambda: Image.fromarray(noise(40, 61)),
    "alpha": lambda: Image.fromarray(noise(40, 61, 4)),
    "grey with alpha": lambda: Image.fromarray(noise(40, 61, 2), "LA"),
    "palette": lambda: Image.fromarray(noise(40, 61, 3)).quantize(16),
    "black and white": lambda: Image.fromarray(noise(40, 61)).convert("1"),
    "turned": lambda: Image.fromarray(noise(40, 61, 3)),
}


@pytest.fixture(params=PICTURES)
def picture(request, tmp_path):
    path, options = tmp_path / "picture.png", {}
    if request.param == "turned":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    PICTURES[request.param]().save(path, **options)
    return path


def a_sample(path, *masks, **facts):
    base = toys.sample(path.parent / "other", "mug", "dent", 0)
    return replace(base, image_path=path, mask_paths=masks, **facts)


def test_pictures_are_those_of_the_public_loader(picture):
    wanted = published_pixels(picture)
    measured = read_sample(a_sample(picture, label=0), policy="any-channel", released=TRANSFORM)
    torch.testing.assert_close(torch.from_numpy(TRANSFORM.to_pixels(measured.image)), wanted)
    trained = Pictures([a_sample(picture)], TRANSFORM, handling="released").pixels(0)
    torch.testing.assert_close(trained, wanted)


def test_upright_reading_differs_where_a_file_has_more_than_colours(tmp_path):
    """Alpha is composited there and dropped here; so the option is no empty word."""
    path = tmp_path / "picture.png"
    PICTURES["alpha"]().save(path)
    upright = Pictures([a_sample(path)], TRANSFORM).pixels(0)
    released = Pictures([a_sample(path)], TRANSFORM, handling="released").pixels(0)
    assert (upright - released).abs().max() > 0.5
    PICTURES["colour"]().save(path)
    upright = Pictures([a_sample(path)], TRANSFORM).pixels(0)
    released = Pictures([a_sample(path)], TRANSFORM, handling="released").pixels(0)
    assert torch.equal(upright, released)


@pytest.mark.parametrize("size", [(40, 61), (20, 30), (80, 80)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_masks_of_any_size_are_those_of_the_public_loader(tmp_path, mode, size):
    drawn = np.zeros((*size, 3), np.uint8)
    drawn[size[0] // 4 : size[0] // 2, 3:20] = (90, 0, 200)
    drawn[-4:, -4:] = (1, 0, 0)  # rounds to black
    mask = Image.fromarray(drawn).convert(mode)
    mask.save(tmp_path / "mask.png")
    PICTURES["colour"]().save(tmp_path / "picture.png")
    wanted = published_mask(tmp_path / "mask.png")
    sample = a_sample(tmp_path / "picture.png", tmp_path / "mask.png")
    np.testing.assert_array_equal(read_resized_mask(sample, (SIDE, SIDE)), wanted)
    packed = read_masks(
        [sample],
        (SIDE, SIDE),
        handling="released",
        policy="strict",
        readers=1,
        progress=no_progress,
    )
    np.testing.assert_array_equal(packed.batch([0])[0].numpy() > 0, wanted)
    assert 0 < wanted.mean() < 0.5


def test_several_masks_are_united_and_a_region_is_cut_first(tmp_path):
    path = tmp_path / "picture.png"
    PICTURES["colour"]().save(path)
    for number, column in enumerate((4, 50)):
        marked = np.zeros((40, 61), np.uint8)
        marked[:, column : column + 8] = 255
        Image.fromarray(marked).save(tmp_path / f"{number}.png")
    masks = tmp_path / "0.png", tmp_path / "1.png"
    both = read_resized_mask(a_sample(path, *masks), (SIDE, SIDE))
    np.testing.assert_array_equal(both, published_mask(masks[0]) | published_mask(masks[1]))
    left = a_sample(path, *masks, region=(0, 0, 30, 40))
    found = read_sample(left, policy="any-channel", released=TRANSFORM)
    assert found.image.shape == (SIDE, SIDE, 3) and found.mask[:, 4:11].all()
    assert not found.mask[:, 12:].any()
    np.testing.assert_array_equal(
        found.image,
        np.asarray(Image.open(path).crop((0, 0, 30, 40)).resize((SIDE, SIDE), Image.BICUBIC)),
    )


def test_files_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageReadError, match=r"bad\.png: "):
        read_resized(tmp_path / "bad.png", TRANSFORM)
    PICTURES["colour"]().save(tmp_path / "picture.png")
    with pytest.raises(ImageReadError, match="above the limit of 100"):
        read_resized(tmp_path / "picture.png", TRANSFORM, max_pixels=100)
    with pytest.raises(DatasetError, match=r"mask .*bad\.png cannot be read"):
        read_resized_mask(a_sample(tmp_path / "picture.png", tmp_path / "bad.png"), (SIDE, SIDE))
    with pytest.raises(DatasetError, match="names none"):
        read_resized_mask(a_sample(tmp_path / "picture.png"), (SIDE, SIDE))


def test_an_evaluation_measures_masks_of_another_size_only_where_asked_to(tmp_path):
    dataset = toys.dataset(tmp_path / "set")
    mask = next(sample for sample in dataset.samples if sample.label).mask_paths[0]
    Image.open(mask).resize((31, 17)).save(mask)
    quick = EvaluationConfig(replicates=0, gallery=2)
    with pytest.raises(DatasetError, match="17x31"):
        evaluate(toys.detector(), dataset, quick)
    options = {"sigma_px": 1.0, "use_class_names": False, "picture_handling": "released"}
    detector = small.detector("clip", **options)
    found = evaluate(detector, dataset, quick)
    assert {"pixel_auroc", "aupro"} <= set(found.mean)
    write_evaluation(found, tmp_path / "out")
    assert "read as the public code reads them" in (tmp_path / "out" / "metrics.md").read_text()
    assert write_gallery(detector, found, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["mean"] == found.mean
    assert written["environment"]["picture_handling"] == "released"
    with pytest.raises(ConfigError, match="resolution=model"):
        evaluate(detector, dataset, EvaluationConfig(resolution="picture"))


def test_the_presets_of_released_code_read_so():
    for name, presets in (
        ("faprompt", ("official", "first-upload")),
        ("anomalyclip", ("official",)),
    ):
        assert preset_config(name, "paper").picture_handling == "upright"
        for preset in presets:
            assert preset_config(name, preset).picture_handling == "released"
    with pytest.raises(ConfigError, match="picture_handling"):
        small.detector("clip", picture_handling="sideways")
    with pytest.raises(ConfigError, match="keeps the aspect ratio"):
        small.detector("anovl", squares=True, views=False, picture_handling="released")
