"""What is measured: drawn weights, bound networks, and memories of the size a class leaves."""

from __future__ import annotations

import pytest
import torch

from faprompt.clip import wide_resnet
from faprompt.clip.weights import TEST_TINY
from faprompt.errors import ConfigError
from faprompt.methods import patchcore
from faprompt.methods.registry import build_method
from faprompt.models import load_detector
from faprompt.reproduce import cost_models
from tests.helpers import small


@pytest.fixture
def narrow(monkeypatch):
    """The real name means a narrow network here."""
    monkeypatch.setattr(wide_resnet, "_SHAPE", wide_resnet._TEST_SHAPE)


def build(monkeypatch, name="patchcore", *, preset="common", normal_pictures=7, **options):
    """As in a study, but of small pictures."""
    fit = cost_models.fit_to_backbone
    sides = {"image_size": small.SIDE, **options}
    monkeypatch.setattr(cost_models, "fit_to_backbone", lambda *a, **o: {**fit(*a, **o), **sides})
    return cost_models.build_measured(
        name, small.backbone(), preset=preset, normal_pictures=normal_pictures
    )


class TestWeights:
    def test_they_are_drawn_alike(self, monkeypatch):
        monkeypatch.setattr(cost_models, "pretrained_spec", lambda *_: TEST_TINY)
        before = torch.get_rng_state()
        first, second = (cost_models.pick_backbone("ViT-B-32", drawn=True) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), before)
        assert first.state_fingerprint() == second.state_fingerprint()
        assert first.name == "ViT-B-32, drawn weights"
        assert not any(p.requires_grad for p in first.parameters())

    def test_of_what_is_no_known_architecture_there_are_none(self):
        with pytest.raises(ConfigError, match="open_clip's names only, not for 'no/such'"):
            cost_models.pick_backbone("no/such", drawn=True)

    def test_a_bound_method_has_its_own_network(self, narrow):
        shared = small.backbone()
        own = cost_models.fit_network("rd4ad", shared, preset="paper", drawn=True)
        assert own.name == "wide_resnet50_2" and not own.has_text
        assert not any(p.requires_grad for p in own.parameters())
        again = cost_models.fit_network("patchcore", shared, preset="paper", drawn=True)
        assert again.state_fingerprint() == own.state_fingerprint()
        for name, preset in (("patchcore", "common"), ("faprompt", "paper")):
            assert cost_models.fit_network(name, shared, preset=preset, drawn=True) is shared
        assert cost_models.fit_network("rd4ad", own, preset="paper", drawn=True) is own

    def test_it_is_as_exact_as_the_studys(self, narrow, monkeypatch):
        shared = cost_models.load_backbone("test-tiny", precision="bf16")
        own = cost_models.fit_network("rd4ad", shared, preset="paper", drawn=True)
        assert (own.precision, own.vision.compute_dtype) == ("bf16", torch.bfloat16)
        asked = []
        monkeypatch.setattr(cost_models, "load_backbone", lambda *a, **o: asked.append((a, o)))
        cost_models.fit_network("rd4ad", shared, preset="paper", drawn=False)
        given = {"precision": "bf16", "device": torch.device("cpu")}
        assert asked == [(("wide_resnet50_2",), given)]


class TestMemory:
    @pytest.fixture(autouse=True)
    def _extra(self):
        pytest.importorskip("anomalib")

    @pytest.mark.parametrize(
        ("pictures", "options", "kept"),
        [
            (7, {}, 11),  # a tenth of 7 x 16 patches, rounded down
            (1, {"coreset": 0.01}, 1),
            (200, {}, 320),
            (200, {"memory_limit": 100}, 100),
            (3, {"coreset": 1.0, "image_size": 70}, 75),
        ],
    )
    def test_its_size_is_that_of_a_class(self, monkeypatch, pictures, options, kept):
        monkeypatch.setattr(patchcore, "choose_coreset", lambda *_, **__: pytest.fail("searched"))
        method = build(monkeypatch, normal_pictures=pictures, **options).method
        assert (method.config.classes, method.config.memory) == (("bottle",), (kept,))
        (model,) = method.models
        assert model.patches.shape == (kept, 128) and float(model.spread) == 1
        assert len(model.patches.unique(dim=0)) == kept, "all differ, as in a coreset"

    def test_at_the_studys_size(self):
        """200 pictures of 37 x 37 patches; more of them meet the limit."""
        method = build_method("patchcore", small.backbone(), preset="common")
        patches = (method.config.image_size // 14) ** 2
        assert method.memory_size(200 * patches) == 27_380
        assert method.memory_size(391 * patches) == 50_000

    def test_it_is_a_model_as_a_folder_holds_one(self, monkeypatch, tmp_path):
        detector = build(monkeypatch)
        assert not detector.method.training
        detector.save_pretrained(tmp_path / "model")
        loaded = load_detector(tmp_path / "model")
        pixels = small.pixels(2)
        with torch.no_grad():
            ours, theirs = (d(pixels, class_names=["bottle"] * 2) for d in (detector, loaded))
        assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
        assert float(ours[0].min()) > 0 and float(ours[1].max()) < 1

    def test_on_the_papers_network(self, narrow, monkeypatch):
        """224 pixels seen of 256, in patches of 8: 784 a picture."""
        own = cost_models.fit_network("patchcore", small.backbone(), preset="paper", drawn=True)
        built = cost_models.build_measured("patchcore", own, preset="paper", normal_pictures=5)
        assert built.method.config.memory == (392,)
        assert built.method.models[0].patches.shape == (392, 1536)


def test_what_is_not_full_shot_is_left_as_it_is(monkeypatch):
    detector = build(monkeypatch, "faprompt", preset="paper")
    plain = build_method("faprompt", small.backbone(), {"image_size": 56})
    state = plain.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in detector.method.state_dict().items())


def test_pixels_are_of_the_methods_side_and_always_the_same():
    method = small.method("faprompt", image_size=70)
    pixels = cost_models.draw_pixels(method, 2, torch.device("cpu"))
    assert pixels.shape == (2, 3, 70, 70)
    assert torch.equal(pixels, cost_models.draw_pixels(method, 2, torch.device("cpu")))
