"""PatchCore: the suite, and embedding, coreset, neighbours and maps against plain loops."""

import json

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from faprompt.clip.vision import ImageFeatures
from faprompt.clip.weights import load_backbone
from faprompt.clip.wide_resnet import unpack_stages
from faprompt.config import to_mapping
from faprompt.detector import Detector
from faprompt.errors import ConfigError, MissingExtraError, ModelError
from faprompt.methods import full_shot
from faprompt.methods.patchcore import choose_coreset
from faprompt.methods.registry import build_method, preset_config
from faprompt.models import build_detector, load_detector
from tests.helpers import large, small
from tests.methods.suite import MethodSuite

pytest.importorskip("anomalib")
PLAIN = {"image_size": small.SIDE, "sigma_px": 2.0, "centre_crop": 0}


def see(method, pixels) -> ImageFeatures:
    with torch.no_grad():
        return method.encode_image(small.backbone(), pixels)


def learned(classes=("part",), **options):
    """A method on the drawn CLIP that knows these classes, each from pictures of its own seed."""
    built = [build_method("patchcore", small.backbone(), {**PLAIN, **options}) for _ in classes]
    for seed, (name, part) in enumerate(zip(classes, built, strict=True), start=50):
        part.remember(name, [see(part, small.pixels(3, seed=seed))], seed=1)
    whole = build_method("patchcore", small.backbone(), {**PLAIN, **options})
    whole.adopt(built)
    return whole


def score(method, features, **options):
    with torch.no_grad():
        return method(features, small.backbone().text, **options)


class TestSuite(MethodSuite):
    name = "patchcore"
    kind = "full-shot"
    options = {"centre_crop": 0}
    class_name = "part"
    learns = False  # by steps
    official = False
    more_presets = ("code", "common")
    pixel_map = True
    out_of_range = {"coreset": 0, "neighbours": 0, "memory_limit": -1, "centre_crop": -1}

    @classmethod
    def build(cls, **options):
        return learned(**options)

    @classmethod
    def build_large(cls):
        return large.method(cls.name, large.wide_resnet(), classes=("part",), memory=(16_385,))

    def test_no_part_of_the_backbone_is_the_methods_own(self):
        state = self.build().state_dict()
        assert set(state) == {"models.0.patches", "models.0.spread"}
        assert state["models.0.patches"].shape == (4, 128), "a tenth of 3 x 16 patches"


def slow_embedding(tokens, side, *, unit_tokens):
    """(patches, channels) of one picture: zero-padded 3x3 means of every layer, side by side."""
    layers = []
    for grid in tokens:
        grid = grid.numpy().astype(np.float64).reshape(side, side, -1)
        if unit_tokens:
            grid = grid / np.linalg.norm(grid, axis=-1, keepdims=True)
        padded = np.pad(grid, ((1, 1), (1, 1), (0, 0)))
        means = [
            [padded[row : row + 3, column : column + 3].sum(axis=(0, 1)) / 9
             for column in range(side)]
            for row in range(side)
        ]  # fmt: skip
        layers.append(np.array(means).reshape(side * side, -1))
    return np.concatenate(layers, axis=1)


def slow_score(patches, memory, neighbours):
    """(image score, distances): the paper's equations 6 and 7, patch by patch."""
    table = np.array([[np.linalg.norm(p - m) for m in memory] for p in patches])
    nearest, places = table.min(axis=1), table.argmin(axis=1)
    worst = nearest.argmax()
    if neighbours == 1:
        return nearest[worst], nearest
    anchor = memory[places[worst]]
    around = np.argsort([np.linalg.norm(anchor - m) for m in memory])[:neighbours]
    weights = np.exp(table[worst, around] - table[worst, around].max())
    return (1 - weights[0] / weights.sum()) * nearest[worst], nearest


@pytest.mark.parametrize("unit_tokens", [True, False])
@pytest.mark.parametrize("neighbours", [1, 9])
def test_scores_and_maps_equal_a_search_through_all_patches(neighbours, unit_tokens):
    method = learned(coreset=0.5, neighbours=neighbours, unit_tokens=unit_tokens)
    memory = method.models[0].patches.numpy().astype(np.float64)
    assert memory.shape == (24, 128)
    normal = see(method, small.pixels(3, seed=50)).patch_tokens
    pictures = [[normal[layer][row] for layer in (1, 2)] for row in range(3)]
    known = [slow_embedding(tokens, 4, unit_tokens=unit_tokens) for tokens in pictures]
    known = np.concatenate(known)
    assert max(np.abs(known - m).max(axis=1).min() for m in memory) < 1e-4, "all are normal ones"
    spread = np.mean([np.linalg.norm(k - known.mean(axis=0)) for k in known])
    features = see(method, small.pixels(2, seed=9))
    out = score(method, features)
    for row in range(2):
        tokens = [features.patch_tokens[layer][row] for layer in (1, 2)]
        patches = slow_embedding(tokens, 4, unit_tokens=unit_tokens)
        wanted, distances = slow_score(patches, memory, neighbours)
        assert float(out.score[row]) == pytest.approx(wanted / (wanted + spread), abs=1e-4)
        grid = torch.from_numpy(distances.reshape(1, 1, 4, 4))
        wide = torch.nn.functional.interpolate(grid, size=(56, 56), mode="bilinear")
        smooth = gaussian_filter(wide[0, 0].numpy(), 2.0)
        np.testing.assert_allclose(out.patch_map[row], smooth / (smooth + spread), atol=1e-4)


def test_the_map_is_smoothed_once():
    method = learned()
    detector = Detector(small.backbone(), method, name="once")
    pixels = small.pixels(1, seed=9)
    with torch.no_grad():
        maps = detector(pixels)[1]
    torch.testing.assert_close(maps, score(method, see(method, pixels)).patch_map)


@pytest.mark.parametrize("count", [1, 5, 40])
def test_the_coreset_is_greedy_from_the_same_start(count):
    components = pytest.importorskip("anomalib.models.components.dimensionality_reduction")
    patches = torch.randn(40, 30, generator=torch.Generator().manual_seed(2))
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    chosen = choose_coreset(patches, count, seed=7).tolist()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    if count == 40:
        assert chosen == list(range(40))
        return
    with torch.random.fork_rng():
        torch.manual_seed(7)
        state = np.random.get_state()
        np.random.seed(7)
        projection = components.SparseRandomProjection(eps=0.9)
        places = projection.fit(patches).transform(patches).numpy()
        np.random.set_state(state)
        wanted = [int(torch.randint(40, (1,)))]
    while len(wanted) < count:
        least = [min(np.linalg.norm(p - places[w]) for w in wanted) for p in places]
        wanted.append(int(np.argmax(least)))
    assert chosen == wanted
    assert choose_coreset(patches, count, seed=7).tolist() == chosen


def test_a_training_picture_is_known_when_all_patches_are_kept():
    method = learned(coreset=1.0)
    seen, strange = (see(method, small.pixels(3, seed=seed)) for seed in (50, 9))
    assert score(method, seen).score.max() < 0.01 < 0.1 < score(method, strange).score.min()
    assert score(method, seen).patch_map.max() < 0.01


def test_pictures_without_any_structure_are_learned_too():
    method = build_method("patchcore", small.backbone(), PLAIN)
    blank = see(method, torch.zeros(1, 3, 56, 56))
    blank.patch_tokens.update({k: torch.ones_like(t) for k, t in blank.patch_tokens.items()})
    method.remember("blank", [blank], seed=1)
    out = score(method, see(method, small.pixels(2)))
    assert out.score.isfinite().all() and out.score.min() > 0 and out.score.max() < 1


def test_the_memory_may_be_bounded():
    assert learned(coreset=1.0, memory_limit=7).config.memory == (7,)
    assert learned(coreset=1.0, memory_limit=0).config.memory == (48,), "all of 3 x 16"
    options = {**PLAIN, "classes": ("part",), "memory": (9,)}
    for limit in (9, 0):
        build_method("patchcore", small.backbone(), {**options, "memory_limit": limit})
    told = r"at least 1 and at most memory_limit=8 a class, got \(9,\)"
    with pytest.raises(ConfigError, match=told):
        build_method("patchcore", small.backbone(), {**options, "memory_limit": 8})
    with pytest.raises(ConfigError, match=r"memory should be at least 1 a class, got \(0,\)"):
        build_method("patchcore", small.backbone(), {**options, "memory": (0,)})
    with pytest.raises(ConfigError, match="memory should be one number a class, got 0"):
        build_method("patchcore", small.backbone(), {**PLAIN, "classes": ("part",)})


class TestClasses:
    @pytest.fixture(scope="class")
    @classmethod
    def method(cls):
        return learned(("mug", "nut.v2/ä"))

    def test_every_picture_is_scored_by_its_own_model(self, method):
        features = see(method, small.pixels(4, seed=9))
        names = ["nut.v2/ä", "mug", "mug", "nut.v2/ä"]
        mixed = score(method, features, class_names=names, with_prompt_scores=True)
        for name in set(names):
            alone = score(method, features, class_names=[name] * 4)
            rows = [row for row, other in enumerate(names) if other == name]
            torch.testing.assert_close(mixed.score[rows], alone.score[rows])
            torch.testing.assert_close(mixed.patch_map[rows], alone.patch_map[rows])
        other = score(method, features, class_names=["mug"] * 4)
        assert (mixed.score - other.score)[[0, 3]].abs().min() > 1e-3
        assert torch.equal(mixed.prompt_scores[:, 0], mixed.score)

    def test_saved_equals_loaded(self, method, tmp_path):
        detector = Detector(small.backbone(), method, name="two")
        detector.save_pretrained(tmp_path / "model")
        loaded = load_detector(tmp_path / "model")
        images, names = [small.picture(), small.picture(seed=3)], ["nut.v2/ä", "mug"]
        ours, theirs = (d.predict_batch(images, class_names=names) for d in (detector, loaded))
        for one, other in zip(ours, theirs, strict=True):
            assert one.score == other.score and np.array_equal(one.score_map, other.score_map)
        config = json.loads((tmp_path / "model" / "config.json").read_text())
        assert config["options"]["memory"] == [4, 4]
        config["options"]["memory"] = [4, 5]
        (tmp_path / "model" / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match=r"models\.1\.patches is \(4, 128\), wanted \(5, 128"):
            load_detector(tmp_path / "model")

    def test_what_is_not_told_or_not_known_is_refused_with_the_known(self, method):
        detector = Detector(small.backbone(), method, name="two")
        with pytest.raises(ConfigError, match="2 classes and was not told.*Known: mug, nut"):
            detector.predict(small.picture())
        with pytest.raises(ConfigError, match="learned nothing of bolt; known: mug, nut"):
            detector.predict_batch([small.picture()], class_names=["bolt"])

    def test_a_class_told_beforehand_is_that_of_pictures_of_which_nothing_is_said(self, method):
        plain, mug, nut = (
            Detector(small.backbone(), method, name="two", class_name=name)
            for name in (None, "mug", "nut.v2/ä")
        )
        scores = [
            plain.predict_batch([small.picture()], class_names=[name])[0].score
            for name in ("mug", "nut.v2/ä")
        ]
        assert scores[0] != scores[1]
        assert [one.predict(small.picture()).score for one in (mug, nut)] == scores
        assert mug.predict_batch([small.picture()], class_names=["nut.v2/ä"])[0].score == scores[1]
        assert len({one.fingerprint() for one in (plain, mug, nut)}) == 3

    def test_before_training_nothing_is_known(self):
        method = build_method("patchcore", small.backbone(), PLAIN)
        with pytest.raises(ConfigError, match="patchcore has learned no class yet"):
            score(method, see(method, small.pixels()))
        with pytest.raises(ModelError, match="'patchcore' has to be trained first"):
            build_detector("patchcore", "test-tiny", preset="common", options=PLAIN)


class TestOnWideResNet:
    @pytest.fixture(scope="class")
    @classmethod
    def backbone(cls):
        return load_backbone("test-wide-resnet")

    def remember(self, backbone, **options):
        method = build_method("patchcore", backbone, {"sigma_px": 2.0, **options})
        side = method.config.image_size
        with torch.no_grad():
            features = method.encode_image(backbone, small.pixels(2, side, side, seed=50))
        method.remember("part", [features], seed=1)
        return method, features

    def test_it_looks_at_the_middle_and_fills_the_border(self, backbone):
        """A crop of 64 in 96 leaves 16 pixels, two patches of 8, on each side."""
        cropped, features = self.remember(backbone, image_size=96, centre_crop=64)
        plain, _ = self.remember(backbone, image_size=64, centre_crop=0)
        pixels = small.pixels(1, 96, 96, seed=9)
        middle = pixels[..., 16:80, 16:80]
        plain.adopt([cropped])
        with torch.no_grad():
            ours = cropped(cropped.encode_image(backbone, pixels), backbone.text)
            same = plain(plain.encode_image(backbone, middle), backbone.text)
        assert features.grid == (2, 2) and cropped.models[0].patches.shape == (12, 1536)
        torch.testing.assert_close(ours.score, same.score)
        assert ours.patch_map.shape == (1, 96, 96) and same.patch_map.shape == (1, 64, 64)
        torch.testing.assert_close(ours.patch_map[:, 28:68, 28:68], same.patch_map[:, 12:52, 12:52])
        torch.testing.assert_close(ours.patch_map[:, 0, 48], ours.patch_map[:, 5, 48])

    def test_stages_two_and_three_are_pooled_and_put_side_by_side(self, backbone):
        method, features = self.remember(backbone, image_size=64, centre_crop=0)
        maps = unpack_stages(features)
        wanted = [torch.nn.functional.avg_pool2d(maps[k], 3, 1, 1) for k in (2, 3)]
        wanted[1] = torch.nn.functional.interpolate(wanted[1], size=(8, 8), mode="bilinear")
        assert torch.equal(method.embed(features), torch.cat(wanted, dim=1))
        assert method.interpolation == "bilinear" and method.image_options.layers is None

    def test_the_papers_memory_at_224_pixels(self):
        """Spec 11.8: 209 pictures of a bottle leave 16,385 patches of 1,536 channels."""
        method = build_method("patchcore", load_backbone("test-wide-resnet"))
        assert method.memory_size(209 * 28 * 28) == 16_385

    @pytest.mark.parametrize(("preset", "kept"), [("paper", 70_560), ("code", 70_560)])
    def test_the_largest_class_of_visa_is_not_cut(self, preset, kept):
        method = build_method("patchcore", load_backbone("test-wide-resnet"), preset=preset)
        assert method.memory_size(900 * 28 * 28) == kept

    def test_the_common_memory_is(self):
        method = build_method("patchcore", small.backbone(), preset="common")
        assert method.memory_size(900 * 37 * 37) == 50_000


def test_presets():
    paper = {
        "image_size": 256, "sigma_px": 4.0,
        "picture_handling": "upright", "classes": (), "centre_crop": 224, "map_layers": (),
        "value_path": True, "unit_tokens": False, "coreset": 0.1, "memory_limit": 0,
        "neighbours": 9, "memory": (),
    }  # fmt: skip
    assert to_mapping(preset_config("patchcore", "paper")) == paper
    assert to_mapping(preset_config("patchcore", "code")) == {**paper, "neighbours": 1}
    common = {
        "image_size": 518, "centre_crop": 0, "unit_tokens": True, "memory_limit": 50_000,
    }  # fmt: skip
    assert to_mapping(preset_config("patchcore", "common")) == {**paper, **common}


@pytest.mark.parametrize("crop", [250, 224, 260])
def test_crops_that_leave_no_whole_patches_are_refused(crop):
    options = {"image_size": 256 if crop != 224 else 250, "centre_crop": crop}
    with pytest.raises(ConfigError, match="centre_crop should be 0, or leave a margin of whole"):
        build_method("patchcore", small.backbone(), options)


def test_the_papers_preset_belongs_to_its_network():
    with pytest.raises(ConfigError, match="goes with wide_resnet50_2.*--preset common"):
        build_method("patchcore", small.backbone())
    with pytest.raises(ConfigError, match=r"map_layers should lie in 1\.\.2, got \(3,\)"):
        build_method("patchcore", small.backbone(), {**PLAIN, "map_layers": "3"})


def test_without_anomalib_the_extra_is_named(monkeypatch):
    def refuse(name):
        raise ModuleNotFoundError("No module named 'anomalib'")

    monkeypatch.setattr(full_shot.importlib, "import_module", refuse)
    full_shot.anomalib_module.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'faprompt\[baselines\]'"):
        full_shot.anomalib_module("models")
