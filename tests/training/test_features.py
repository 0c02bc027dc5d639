"""The feature cache: equal to fresh features, bounded, resumable, and nobody else's."""

import json
import shutil
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from faprompt.clip.vision import ImageFeatures, ImageOptions
from faprompt.errors import ConfigError, FapromptError
from faprompt.token_cache import StoreShape, TokenRecipe, open_store
from faprompt.training.features import Encoder, Pictures, feature_recipe, prepare_features
from faprompt.training.training_config import default_cache_dir
from faprompt.work import no_progress, read_ahead
from tests.helpers.log import logged_notes
from tests.training import toys


class Prepared:
    """`prepare_features` with everything it needs, and what it said."""

    def __init__(self, samples, folder, method=None, backbone=None, transform=None, **options):
        method, backbone = method or toys.faprompt(), backbone or toys.backbone()
        config = toys.config(folder, **options)
        pictures = Pictures(samples, transform or toys.TRANSFORM, readers=config.readers)
        self.encoder = Encoder(method, backbone, pictures, config)
        self.recipe = feature_recipe(method, backbone, pictures, dtype=config.cache_dtype)
        self.folder = folder / "cache" / self.recipe.key
        with logged_notes() as self.notes:
            self.source = prepare_features(self.encoder, self.recipe, config, progress=no_progress)


RECIPE = TokenRecipe(backbone="b", precision="fp32", image_options={}, transform={}, pictures=())


def shape(pictures, layers, channels=4):
    return StoreShape(
        pictures=pictures, layers=layers, grid=(1, 2), channels=channels, class_channels=channels
    )


def fresh(samples, layers=None):
    pixels = list(Pictures(samples, toys.TRANSFORM).read(range(len(samples))))
    with torch.no_grad():
        return [
            toys.backbone().encode_image(image[None], ImageOptions(layers=layers))
            for image in pixels
        ]


def test_cached_equals_fresh_to_the_bit(samples, tmp_path):
    prepared = Prepared(samples, tmp_path, method=toys.anomalyclip(map_layers=(2, 4)))
    order = [6, 0, 3, 3]
    batch, wanted = prepared.source.batch(order), fresh(samples, layers=(2, 4))
    assert prepared.source.origin == "cached" and batch.grid == (5, 4)
    assert list(batch.patch_tokens) == [2, 4]
    assert torch.equal(batch.class_token, torch.cat([wanted[i].class_token for i in order]))
    for layer, tokens in batch.patch_tokens.items():
        assert torch.equal(tokens, torch.cat([wanted[i].patch_tokens[layer] for i in order]))
        assert tokens.dtype == torch.float32 and not tokens.requires_grad
    assert not torch.equal(batch.patch_tokens[2], batch.patch_tokens[4])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_streamed_equals_cached(dtype, samples, tmp_path):
    cached = Prepared(samples, tmp_path, cache_dtype=dtype).source.batch([1, 4, 2])
    streamed = Prepared(samples, tmp_path, cache_dtype=dtype, cache="off").source
    assert streamed.origin == "streamed"
    again = streamed.batch([1, 4, 2])
    assert torch.equal(cached.class_token, again.class_token)
    assert torch.equal(cached.patch_tokens[4], again.patch_tokens[4])
    exact = torch.cat([fresh(samples)[i].patch_tokens[4] for i in (1, 4, 2)])
    error = (cached.patch_tokens[4] - exact).abs().max()
    assert (error == 0) == (dtype == "float32") and error < 2e-3


def test_streamed_training_equals_cached_training(samples, tmp_path):
    cached, streamed = toys.faprompt(), toys.faprompt()
    toys.run(cached, samples, tmp_path)
    with logged_notes() as notes:
        report = toys.run(
            streamed, samples, tmp_path, out="streamed", options={"cache_limit_gb": 1e-7,
            "cache_dir": str(tmp_path / "elsewhere")},
        )  # fmt: skip
    assert report.features == "streamed" and not (tmp_path / "elsewhere").exists()
    assert any("above cache_limit_gb=1e-07" in n and "again in every epoch" in n for n in notes)
    toys.assert_same(cached, streamed)


@pytest.mark.parametrize("cache", ["on", "off"])
@pytest.mark.parametrize("option", ["value_path", "class_ln_post"])
def test_the_method_says_which_path_its_tokens_come_from(option, cache, samples, tmp_path):
    method = toys.anomalyclip()
    setting = option == "class_ln_post"  # the opposite of the default
    method.image_options = ImageOptions(**{option: setting})
    batch = Prepared(samples, tmp_path, method=method, cache=cache).source.batch([0])
    pixels = Pictures(samples, toys.TRANSFORM).pixels(0)[None]
    with torch.no_grad():
        wanted = toys.backbone().encode_image(pixels, ImageOptions(**{option: setting}))
        default = toys.backbone().encode_image(pixels)
    assert torch.equal(batch.class_token, wanted.class_token)
    assert torch.equal(batch.patch_tokens[4], wanted.patch_tokens[4])
    other_class = (wanted.class_token - default.class_token).abs().max() > 1e-3
    other_patches = (wanted.patch_tokens[4] - default.patch_tokens[4]).abs().max() > 1e-3
    assert (other_class, other_patches) == (option == "class_ln_post", option == "value_path")


@pytest.mark.parametrize("cache", ["on", "off"])
def test_tokens_as_the_blocks_leave_them_have_the_towers_width(cache, samples, tmp_path):
    method = toys.anomalyclip(map_layers=(2, 4))
    usual = Prepared(samples, tmp_path, method=method, cache=cache)
    method = toys.anomalyclip(map_layers=(2, 4))
    method.image_options = replace(method.image_options, raw_tokens=True)
    raw = Prepared(samples, tmp_path, method=method, cache=cache)
    assert raw.recipe.key != usual.recipe.key
    assert raw.recipe.about()["image_options"]["raw_tokens"]
    assert not usual.recipe.about()["image_options"]["raw_tokens"]
    batch = raw.source.batch([2, 0])
    assert batch.class_token.shape == (2, 32)
    for layer, tokens in usual.source.batch([2, 0]).patch_tokens.items():
        assert batch.patch_tokens[layer].shape == (2, 20, 64)
        projected = toys.backbone().vision.project(batch.patch_tokens[layer])
        torch.testing.assert_close(projected, tokens, rtol=0, atol=1e-6)


def test_encoding_in_groups_gives_the_same_within_rounding(samples, tmp_path):
    alone = Prepared(samples, tmp_path, cache="off").source.batch(range(7))
    grouped = Prepared(samples, tmp_path, cache="off", encode_batch_size=4).source.batch(range(7))
    torch.testing.assert_close(alone.patch_tokens[4], grouped.patch_tokens[4], atol=1e-5, rtol=1e-5)


def test_size_is_reported_before_the_files_are_there(samples, tmp_path, monkeypatch):
    told = []

    def info(note):
        told.append((note, (tmp_path / "cache").exists()))

    monkeypatch.setattr("faprompt.training.features.logger.info", info)
    toys.run(toys.faprompt(), samples, tmp_path)
    note, existed = told[0]
    assert note.startswith("Feature cache: 0.00 GB for 7 pictures") and not existed
    (folder,) = (tmp_path / "cache").iterdir()
    wanted = StoreShape(pictures=7, layers=(4,), grid=(5, 4), channels=32, class_channels=32)
    assert wanted.total_bytes == 7 * 4 * 32 * 21 + 7 * 8
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert sizes.pop("index.json") > 0
    header = 128  # of an NPY file
    assert sizes == {
        "class_tokens.npy": header + 896, "patch_tokens.npy": header + 17920,
        "done.npy": header + 56,
    }  # fmt: skip
    assert sum(sizes.values()) == wanted.total_bytes + 3 * header


def test_too_large_for_limit_or_disk(samples, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="above cache_limit_gb=1e-07; raise cache_limit_gb"):
        Prepared(samples, tmp_path, cache="on", cache_limit_gb=1e-7)
    usage = namedtuple("usage", "total used free")(10, 10, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    prepared = Prepared(samples, tmp_path)
    assert prepared.source.origin == "streamed" and "0.00 GB free" in prepared.notes[0]


def test_a_full_cache_is_used_again(samples, tmp_path):
    Prepared(samples, tmp_path).source.close()
    again = Prepared(samples, tmp_path)
    assert again.encoder.encoded == 0
    assert "7 of 7 pictures" in again.notes[0]


def test_the_key_knows_everything_that_matters(samples, tmp_path):
    def key(pictures=samples, method=None, backbone=None, transform=toys.TRANSFORM, **options):
        set_of = Pictures(pictures, transform, bit_depth=options.get("bit_depth"))
        return feature_recipe(
            method or toys.faprompt(), backbone or toys.backbone(), set_of,
            dtype=options.get("dtype", "float32"),
        ).key  # fmt: skip

    plain, finished = toys.faprompt(), toys.faprompt()
    plain.image_options = ImageOptions(value_path=False)
    finished.image_options = ImageOptions(class_ln_post=True)
    variants = [
        key(samples[::-1]),
        key(samples[1:]),
        key([replace(samples[0], region=(0, 0, 8, 8)), *samples[1:]]),
        key(method=toys.anomalyclip(map_layers=(2, 4))),
        key(method=plain),
        key(method=finished),
        key(backbone=toys.draw_backbone(seed=8)),
        key(backbone=toys.draw_backbone().set_precision("bf16")),
        key(transform=replace(toys.TRANSFORM, image_size=(32, 32))),
        key(dtype="float16"),
        key(bit_depth=12),
    ]
    base = key()
    assert len({base, *variants}) == 1 + len(variants)
    assert key(method=toys.faprompt(seed=77)) == base  # prompts have no part in it
    samples[3].image_path.write_bytes(samples[3].image_path.read_bytes() + b" ")
    assert key() != base


def test_a_foreign_folder_is_refused(samples, tmp_path):
    prepared = Prepared(samples, tmp_path)
    prepared.source.close()
    index = prepared.folder / "index.json"
    index.write_text(json.dumps({"key": "f" * 64}))
    with pytest.raises(FapromptError, match="is the feature cache of ffffffffffff, wanted"):
        Prepared(samples, tmp_path)
    index.write_text("{")
    with pytest.raises(FapromptError, match="is no feature cache.*delete it or choose another"):
        Prepared(samples, tmp_path)
    shutil.rmtree(prepared.folder)
    prepared.folder.mkdir()
    (prepared.folder / "thesis.txt").write_text("precious")
    with pytest.raises(FapromptError, match="is no feature cache"):
        Prepared(samples, tmp_path)
    assert (prepared.folder / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("name", ["patch_tokens.npy", "class_tokens.npy", "done.npy"])
def test_a_cache_that_lost_a_file_is_made_anew(name, samples, tmp_path):
    first = Prepared(samples, tmp_path)
    wanted = first.source.batch(range(7))
    first.source.close()
    with (first.folder / name).open("r+b") as file:
        file.truncate(8)
    again = Prepared(samples, tmp_path)
    assert again.encoder.encoded == 7
    assert torch.equal(again.source.batch(range(7)).patch_tokens[4], wanted.patch_tokens[4])


@pytest.mark.parametrize("name", ["patch_tokens.npy", "class_tokens.npy"])
def test_changed_tokens_are_noticed(name, samples, tmp_path):
    first = Prepared(samples, tmp_path)
    first.source.close()
    with (first.folder / name).open("r+b") as file:
        file.seek(128 + 3)  # of picture 0, behind the header
        file.write(b"\x55")
    source = Prepared(samples, tmp_path).source
    source.batch([1, 2])
    with pytest.raises(FapromptError, match="damaged at picture 0; delete the folder"):
        source.batch([1, 0])


def test_only_committed_rows_count(tmp_path):
    store = open_store(tmp_path / "s", RECIPE, shape(3, (1, 2)))
    tokens = torch.randn(2, 1, 2, 4, generator=torch.Generator().manual_seed(0))
    features = ImageFeatures(torch.arange(4.0)[None], {1: tokens[0], 2: tokens[1]}, (1, 2))
    store.write([1], features)
    assert store.missing() == [0, 1, 2]
    store.commit()
    assert store.missing() == [0, 2]
    found = open_store(tmp_path / "s", RECIPE, shape(3, (1, 2))).read([1])
    assert torch.equal(found.class_token, features.class_token) and found.grid == (1, 2)
    assert list(found.patch_tokens) == [1, 2]
    assert all(torch.equal(found.patch_tokens[k], features.patch_tokens[k]) for k in (1, 2))
    with pytest.raises(FapromptError, match="damaged at picture 0"):
        store.read([0])


def test_a_full_disk_is_an_error_with_a_way_out(tmp_path):
    store = open_store(tmp_path / "s", RECIPE, shape(1, (1,)))

    class Full:
        def seek(self, place):
            raise OSError(28, "No space left on device")

    store._patch_file = Full()
    with pytest.raises(FapromptError, match="No space left.*another cache_dir, or set cache=off"):
        store.write([0], ImageFeatures(torch.zeros(1, 4), {1: torch.zeros(1, 2, 4)}, (1, 2)))


def test_a_folder_that_cannot_be_made_is_an_error_with_a_way_out(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FapromptError, match="could not be written.*choose another cache_dir"):
        open_store(tmp_path / "file" / "s", RECIPE, shape(1, (1,)))
    (tmp_path / "empty").mkdir()
    assert open_store(tmp_path / "empty", RECIPE, shape(1, (1,))).missing() == [0]


def test_default_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "faprompt" / "features"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache_dir() == tmp_path / "home" / ".cache" / "faprompt" / "features"


def test_a_region_is_read_alone(samples):
    whole = np.asarray(Image.open(samples[1].image_path))
    part = Pictures([replace(samples[1], region=(4, 8, 30, 44))], toys.TRANSFORM).pixels(0)
    assert np.array_equal(part, toys.TRANSFORM.to_pixels(np.ascontiguousarray(whole[8:44, 4:30])))
    assert not np.array_equal(part, toys.TRANSFORM.to_pixels(whole))


def test_read_ahead_keeps_the_order_and_passes_errors_on():
    assert list(read_ahead(lambda n: n * n, range(50), workers=3)) == [n * n for n in range(50)]
    assert list(read_ahead(str, [], workers=2)) == []
    results = read_ahead(lambda n: 1 / (3 - n), range(9), workers=2)
    assert [next(results) for _ in range(3)] == [1 / 3, 1 / 2, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
