"""WinCLIP: the suite, and its windows, maps, tiles and memory against plain loops."""

import numpy as np
import pytest
import torch

from faprompt.clip.vision import ImageFeatures
from faprompt.config import to_mapping
from faprompt.detector import Detector
from faprompt.errors import ConfigError, ImageReadError
from faprompt.imaging.picture_views import square_tiles
from faprompt.methods.registry import build_method, preset_config
from faprompt.methods.winclip import WinCLIP
from faprompt.prompts import templates
from faprompt.results import AnomalyResult
from tests.helpers import small
from tests.methods.suite import TrainingFreeSuite


class TestSuite(TrainingFreeSuite):
    name = "winclip"
    more_presets = ("common", "code")


class TestSuiteOfTheCode(TrainingFreeSuite):
    name = "winclip"
    more_presets = ("common", "code")
    options = {**WinCLIP.presets["code"], "windows": (1, 4)}


def chance(token, pair, temperature):
    """Softmax of two cosines, one token at a time."""
    cosines = [float(token @ word / (token.norm() * word.norm())) for word in pair]
    weights = np.exp(np.array(cosines) / temperature)
    return weights[1] / weights.sum()


def slow_map(scores, grid, side):
    """Harmonic mean over the windows that hold each patch, by a loop over windows."""
    rows, columns = grid
    inverse, count = np.zeros(grid), np.zeros(grid)
    places = [(i, j) for i in range(rows - side + 1) for j in range(columns - side + 1)]
    for (i, j), score in zip(places, scores, strict=True):
        for row in range(i, i + side):
            for column in range(j, j + side):
                inverse[row, column] += 1 / score
                count[row, column] += 1
    return count / inverse


def test_the_map_is_the_harmonic_mean_of_windows_and_picture():
    method = small.method("winclip", temperature=0.05)
    pixels = small.pixels(2, 56, 70)
    features = method.encode_image(small.backbone(), pixels)
    out = method(features, small.backbone().text)
    pair, grid = method.text_pair, (4, 5)
    for index in range(2):
        whole = chance(features.class_token[index], pair, 0.05)
        maps = [
            slow_map([chance(t, pair, 0.05) for t in features.windows[k][index]], grid, k)
            for k in (2, 3)
        ]
        wanted = 3 / (1 / maps[0] + 1 / maps[1] + 1 / whole)
        assert float(out.score[index]) == pytest.approx(whole, abs=1e-5)
        np.testing.assert_allclose(out.patch_map[index], wanted, atol=1e-5)


def test_the_pair_is_the_ensemble_of_154_and_88_sentences():
    ours = small.method("winclip", class_word="metal_nut").text_pair
    for row, states, count in zip(ours, templates.WINCLIP_STATES, (154, 88), strict=True):
        texts = [
            t.format(s.format("metal nut")) for t in templates.WINCLIP_TEMPLATES for s in states
        ]
        assert len(set(texts)) == count
        features = torch.nn.functional.normalize(small.backbone().encode_texts(texts), dim=-1)
        mean = features.mean(dim=0)
        torch.testing.assert_close(row, mean / mean.norm())


def test_the_codes_pair_has_other_sentences_and_another_average():
    paper, code = small.method("winclip"), small.method("winclip", **WinCLIP.presets["code"])
    average = small.method("winclip", average="mean-norm")
    assert (paper.text_pair - average.text_pair).abs().max() > 1e-5
    assert (code.text_pair - average.text_pair).abs().max() > 1e-5


def test_tiles_keep_the_class_of_their_picture():
    detector = small.detector("winclip")
    images = [small.picture(60, 150), small.picture(60, 60, seed=1)]
    named = detector.predict_batch(images, class_names=["metal_nut", "pill"])
    for image, name, result in zip(images, ("metal_nut", "pill"), named, strict=True):
        other = small.detector("winclip", class_word=name).predict(image)
        assert result.score == pytest.approx(other.score, abs=1e-5)
        np.testing.assert_allclose(result.score_map, other.score_map, atol=1e-5)


def test_presets():
    paper = {
        "image_size": 240, "sigma_px": 0.0,
        "picture_handling": "upright", "windows": (2, 3), "class_word": "object",
        "prompt_set": "paper", "average": "norm-mean-norm", "temperature": 0.01, "tiles": True,
        "references": (), "shots": 0, "seed": 111, "use_class_names": True,
        "raw_class_names": False, "reference_ln_post": False,
    }  # fmt: skip
    assert to_mapping(preset_config("winclip", "paper")) == paper
    assert to_mapping(preset_config("winclip", "common")) == {**paper, "image_size": 518}
    code = to_mapping(preset_config("winclip", "code"))
    assert (code["temperature"], code["average"], code["tiles"]) == (0.07, "mean-norm", False)
    assert code["raw_class_names"] and code["reference_ln_post"]


def test_pictures_that_are_not_square_are_tiled():
    detector, image = small.detector("winclip"), small.picture(60, 150)
    boxes = square_tiles(60, 150)
    assert len(boxes) == 3
    parts = [detector.predict(image[y0:y1, x0:x1]) for x0, y0, x1, y1 in boxes]
    whole, square = detector.predict_batch([image, image[:, :60]], with_prompt_scores=True)
    assert whole.score == pytest.approx(np.mean([part.score for part in parts]), abs=1e-6)
    assert whole.prompt_scores == (pytest.approx(whole.score),)
    assert whole.score_map.shape == (60, 150)
    np.testing.assert_allclose(whole.score_map[:, :48], parts[0].score_map[:, :48], atol=1e-5)
    both = (parts[0].score_map[:, 48:] + parts[1].score_map[:, :12]) / 2
    np.testing.assert_allclose(whole.score_map[:, 48:60], both, atol=1e-5)
    assert square.score == pytest.approx(parts[0].score, abs=1e-6)


def test_without_tiles_the_picture_is_squashed():
    detector, image = small.detector("winclip", tiles=False), small.picture(60, 150)
    with torch.no_grad():
        scores, _ = detector(detector.to_pixels(image)[None])
    assert detector.predict(image).score == pytest.approx(float(scores[0]), abs=1e-6)


class TestReferences:
    @pytest.fixture(scope="class")
    @classmethod
    def files(cls, tmp_path_factory):
        folder = tmp_path_factory.mktemp("normal")
        return [
            str(small.picture_file(folder / f"{seed}.png", height=56, width=56, seed=seed))
            for seed in (1, 2)
        ]

    @pytest.fixture(scope="class")
    @classmethod
    def method(cls, files):
        return small.method("winclip", references=files)

    def see(self, method, seed):
        image = torch.from_numpy(small.picture(56, 56, seed=seed)).permute(2, 0, 1)[None] / 255
        mean, std = (torch.tensor(v)[:, None, None] for v in (
            small.backbone().spec.mean, small.backbone().spec.std,
        ))  # fmt: skip
        return method.encode_image(small.backbone(), (image - mean) / std)

    def test_a_remembered_picture_is_as_near_as_can_be(self, method):
        known, strange = (self.see(method, seed) for seed in (2, 9))
        plain = small.method("winclip")
        text = small.backbone().text
        with torch.no_grad():
            assert method(known, text).score == pytest.approx(
                float(plain(known, text).score) / 2, abs=1e-5
            )
            assert method(strange, text).score > plain(strange, text).score / 2 + 1e-4

    def test_scores_and_maps_equal_a_loop_over_all_tokens(self, method, files):
        seen = [self.see(method, seed) for seed in (1, 2)]
        query = self.see(method, 9)

        def tokens(features: ImageFeatures, scale):
            return features.windows[scale][0] if scale else features.patch_tokens[2][0]

        maps = []
        for scale in (0, 2, 3):
            memory = torch.cat([tokens(features, scale) for features in seen])
            least = [
                min(float(1 - torch.cosine_similarity(token, m, dim=0)) / 2 for m in memory)
                for token in tokens(query, scale)
            ]
            maps.append(slow_map(least, (4, 4), scale or 1))
        distance = np.mean(maps, axis=0)
        plain = small.method("winclip")
        with torch.no_grad():
            out = method(query, small.backbone().text)
            words = plain(query, small.backbone().text)
        assert float(out.score[0]) == pytest.approx(
            (float(words.score[0]) + distance.max()) / 2, abs=1e-5
        )
        wanted = (words.patch_map[0].numpy() + distance) / 2
        np.testing.assert_allclose(out.patch_map[0], wanted, atol=1e-5)
        assert query.patch_tokens[2].shape == (1, 16, small.backbone().spec.vision.width)

    def test_long_pictures_are_remembered_as_tiles(self, tmp_path):
        path = small.picture_file(tmp_path / "long.png", height=56, width=112)
        tiled = small.method("winclip", references=[str(path)])
        squashed = small.method("winclip", references=[str(path)], tiles=False)
        assert tiled.memory.tokens(0, 2).shape == (3 * 9, 64)
        assert squashed.memory.tokens(0, 2).shape == (9, 64)

    def test_the_fingerprint_knows_the_pictures_and_not_only_their_names(self, tmp_path):
        def fingerprint(seed):
            path = small.picture_file(tmp_path / "one.png", height=56, width=56, seed=seed)
            method = small.method("winclip", references=[str(path)])
            return Detector(small.backbone(), method, name="few").fingerprint()

        assert fingerprint(1) == fingerprint(1) != fingerprint(2)

    def test_saved_equals_loaded(self, method, tmp_path):
        from faprompt.models import load_detector

        detector = Detector(small.backbone(), method, name="few")
        detector.save_pretrained(tmp_path / "model")
        ours, theirs = (
            d.predict(small.picture()) for d in (detector, load_detector(tmp_path / "model"))
        )
        assert isinstance(ours, AnomalyResult) and ours.score == theirs.score
        assert np.array_equal(ours.score_map, theirs.score_map)

    def test_a_missing_picture_is_named(self):
        with pytest.raises(ImageReadError, match=r"nowhere\.png"):
            small.method("winclip", references=["nowhere.png"])


@pytest.mark.parametrize("windows", ["", "0", "2,2"])
def test_windows_that_are_none_are_refused(windows):
    with pytest.raises(ConfigError, match="windows should be different sides of at least 1"):
        build_method("winclip", small.backbone(), {"windows": windows})


def test_windows_larger_than_the_grid_are_refused():
    options = {"image_size": 28, "windows": "2,3"}
    with pytest.raises(ConfigError, match=r"winclip on test-tiny: .*do not fit the 2x2 patches"):
        build_method("winclip", small.backbone(), options)
