"""relations: the suite, head, loss, text method, parts."""

from functools import cache

import numpy as np
import pytest
import torch

from faprompt.clip.vision import ImageFeatures
from faprompt.clip.weights import load_backbone
from faprompt.detector import Detector
from faprompt.errors import ConfigError
from faprompt.explanation import explain_picture
from faprompt.methods.registry import build_method, preset_config
from faprompt.methods.relations import RelationHead
from faprompt.models import load_detector
from faprompt.references import ReferenceBank, References
from faprompt.relation_maps import mirror_distance, patch_targets, self_similarity
from faprompt.scoring import top_mean
from faprompt.synthetic import write_dataset
from faprompt.training.training_session import TrainOptions, train
from tests.helpers import small
from tests.helpers.compare import cosine_distances
from tests.methods.suite import LearnedSuite, TrainingFreeSuite

SIDE = 128  # the least: four cells of layer 15 a side
TEXT = {
    "text_method": "faprompt", "text_backbone": "test-tiny",
    "text_options": ("image_size=56", "sigma_px=2"),
}  # fmt: skip


@cache
def trunk():
    return load_backbone("test-efficientnet")


def build(*, on=None, stir=0.1, **options):
    """A method whose head is no longer what its seed drew."""
    options = {"image_size": SIDE, "sigma_px": 2.0, **options}
    built = build_method("relations", on or trunk(), options)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter += stir * torch.randn(parameter.shape, generator=generator)
    return built


class TestOnTheTrunk(LearnedSuite):
    name = "relations"
    options = {"image_size": SIDE, "dropout": 0.0}
    side, patch = SIDE, 16
    parameters = (13_857, 13_857)
    official = False
    more_presets = ("untrained",)
    out_of_range = {"dropout": 1.0}
    steps = 25

    @classmethod
    def backbone(cls):
        return trunk()

    @classmethod
    def build(cls, **options):
        return build(**{**cls.options, **options})

    test_exported_before_any_prediction_it_gives_the_same = None  # slow: it is below, with text


class TestOnAClip(LearnedSuite):
    """The relations of V-V tokens."""

    name = "relations"
    options = {"image_size": small.SIDE, "dropout": 0.0}
    parameters = (13_857, 13_857)
    official = False
    more_presets = ("untrained",)
    out_of_range = {"dropout": -0.1}
    steps = 25

    @classmethod
    def build(cls, **options):
        return build(on=small.backbone(), **{**cls.options, **options})

    # what is the same on every backbone
    test_exported_before_any_prediction_it_gives_the_same = None
    test_it_has_as_many_parameters_as_published = None
    test_unknown_presets_are_refused_with_the_known_ones = None
    test_a_map_cannot_be_smoothed_by_more_than_its_size = None


class TestWithText(TestOnTheTrunk):
    """Another detector beside the relations, on a backbone of its own and frozen."""

    options = {"image_size": SIDE, "dropout": 0.0, **TEXT}

    test_exported_before_any_prediction_it_gives_the_same = (
        LearnedSuite.test_exported_before_any_prediction_it_gives_the_same
    )
    # what a text method does not change
    test_unknown_presets_are_refused_with_the_known_ones = None
    test_a_map_cannot_be_smoothed_by_more_than_its_size = None
    test_unknown_options_are_refused_with_the_known_ones = None
    test_options_out_of_range_are_all_told = None
    test_it_has_as_many_parameters_as_published = None
    test_it_is_in_the_list = None
    test_gradients_reach_every_parameter_and_nothing_else = None  # its own test is below
    test_learning_lowers_the_loss = None


class TestTextOnTheSameBackbone(LearnedSuite):
    """FAPrompt and relations of one CLIP, which learn together."""

    name = "relations"
    options = {
        "image_size": small.SIDE, "dropout": 0.0,
        "text_method": "faprompt", "text_options": ("prompts=3", "patches=4"),
    }  # fmt: skip

    @classmethod
    def build(cls, **options):
        return build(on=small.backbone(), **{**cls.options, **options})

    # what the other classes test
    test_it_is_in_the_list = None
    test_it_has_as_many_parameters_as_published = None
    test_exported_before_any_prediction_it_gives_the_same = None
    test_unknown_presets_are_refused_with_the_known_ones = None
    test_a_map_cannot_be_smoothed_by_more_than_its_size = None
    test_unknown_options_are_refused_with_the_known_ones = None
    test_options_out_of_range_are_all_told = None

    def test_the_output_and_the_losses_are_those_of_the_text_method(self, features):
        method = self.build()
        output = self.run(method, features)
        with torch.no_grad():
            own = method.text_model(
                method.text_model.encode_image(small.backbone(), self.pixels()),
                small.backbone().text,
            )
        torch.testing.assert_close(output.text.score.detach(), own.score)
        torch.testing.assert_close(output.text.patch_map.detach(), own.patch_map)
        mask = torch.zeros(3, self.side, self.side)
        mask[1, 10:30, 20:40] = 1
        label = torch.tensor([0, 1, 0])
        terms, wanted = method.loss(output, label, mask), method.text_model.loss(own, label, mask)
        assert {name for name in terms if name.startswith("text_")} == {f"text_{n}" for n in wanted}
        for name, term in wanted.items():
            torch.testing.assert_close(terms[f"text_{name}"].detach(), term)


class TestUntrained(TrainingFreeSuite):
    name = "relations"
    options = {"image_size": SIDE, "head": False}
    side, patch = SIDE, 16

    @classmethod
    def backbone(cls):
        return trunk()

    @classmethod
    def build(cls, **options):
        return build(**{**cls.options, **options})

    test_it_is_in_the_list = None  # the class learns, and only this preset does not
    test_exported_before_any_prediction_it_gives_the_same = None
    test_it_has_as_many_parameters_as_published = None

    def test_options_out_of_range_are_all_told(self):
        with pytest.raises(ConfigError, match=r"mirror_layers should be some of layers=\(8, 11\)"):
            build(mirror_layers=(15,), layers=(8, 11))
        with pytest.raises(ConfigError, match=r"map_layers should lie in 1..15, got \(16,\)"):
            build(layers=(16,))


def test_the_head_is_its_formula():
    head = RelationHead(3)
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        levels = torch.quantile(x.flatten(2), torch.tensor([0.1, 0.5, 0.9]), dim=-1)
        both = torch.cat([x, x - levels[1][..., None, None]], dim=1)
        mixed = torch.einsum("oi,birc->borc", head.mix.weight[..., 0, 0], both)
        mixed = mixed + head.mix.bias[:, None, None]
        inner = torch.nn.functional.gelu(head.summary(levels.permute(1, 2, 0).flatten(1)))
        gate, bias = head.gate(inner)[:, :32], head.gate(inner)[:, 32:]
        h = torch.nn.functional.gelu(
            2 * gate.sigmoid()[..., None, None] * mixed + bias[..., None, None]
        )
        h = h + torch.nn.functional.conv2d(h, head.smooth.weight, head.smooth.bias, padding=1)
        wanted = (h * head.logit.weight[0]).sum(dim=1) + head.logit.bias
        torch.testing.assert_close(head(x), wanted)


def features_of(method, count=3):
    with torch.no_grad():
        return method.encode_image(trunk(), small.pixels(count, SIDE, SIDE))


def test_the_score_is_the_mean_of_the_top_of_the_map():
    method = build().eval()
    output = method(features_of(method), None)
    torch.testing.assert_close(output.score, output.patch_map.flatten(1).amax(dim=1))  # 2 % of 64
    assert output.relations.shape == (3, len(method.names), 8, 8) and len(method.names) == 15
    torch.testing.assert_close(output.logits.sigmoid(), output.patch_map)


def test_the_untrained_map_is_its_formula():
    method = build(head=False)
    features = features_of(method)
    tokens = features.patch_tokens[11]
    own = self_similarity(tokens, (8, 8)).mean(dim=1)
    mirror = mirror_distance(tokens, (8, 8)).mean(dim=1)
    output = method(features, None)
    distance = (own + mirror) / 2
    torch.testing.assert_close(output.patch_map, distance / (distance + 0.5))
    torch.testing.assert_close(output.score, top_mean(output.patch_map.flatten(1)))
    assert not preset_config("relations", "untrained").head
    plain = build(head=False, mirror=False)
    torch.testing.assert_close(plain(features, None).patch_map, own / (own + 0.5))


def test_layers_and_mirror_choose_the_relations():
    method = build(layers=(5, 11), mirror_layers=(11,))
    assert method.names == (
        *(f"self-similarity {k}, layer {layer}" for layer in (5, 11) for k in (1, 5, 26)),
        "mirror left-right, layer 11", "mirror up-down, layer 11",
    )  # fmt: skip
    features = features_of(method)
    found, tokens = method.relations(features), features.patch_tokens
    torch.testing.assert_close(found[:, :3], self_similarity(tokens[5], (8, 8)))
    torch.testing.assert_close(found[:, 6:], mirror_distance(tokens[11], (8, 8)))
    clip = build(on=small.backbone(), image_size=small.SIDE)
    assert clip.image_options.layers == (1, 2)


def test_dropout_leaves_out_whole_relations_in_training_steps_only():
    method = build(dropout=0.5)
    relations = torch.rand(6, 15, 4, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    seen = []
    method.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    method.train().score_relations(relations)
    method.train().score_relations(relations)
    method.begin_epoch(1, 2)
    method.score_relations(relations)
    with torch.no_grad():
        method.score_relations(relations)
    method.eval().score_relations(relations)
    first, again, later, still, tested = seen
    left = first.flatten(2).any(dim=2)
    assert torch.equal(first, relations * left[..., None, None])
    assert 0.2 < left.float().mean() < 0.8 and len(left.unique(dim=0)) > 1
    assert torch.equal(first, again) and not torch.equal(first, later)
    assert torch.equal(still, relations) and torch.equal(tested, relations)


@pytest.mark.parametrize(
    "on, text",
    [
        ("test-efficientnet", {}),
        ("test-efficientnet", TEXT),
        ("test-tiny", {"text_method": "faprompt", "text_options": ("prompts=2",)}),
    ],
)
def test_it_trains_from_a_folder_as_any_method(on, text, tmp_path):
    write_dataset(tmp_path / "set", kinds="aux", count=4, seed=1, size=64)
    options = {"image_size": SIDE if on == "test-efficientnet" else small.SIDE, **text}
    chosen = TrainOptions(
        method="relations", backbone=on, options=options, device="cpu",
        training={"epochs": 2, "batch_size": 2, "cache_dir": str(tmp_path / "cache")},
    )  # fmt: skip
    report = train(tmp_path / "set", tmp_path / "model", chosen)
    assert report.steps == 4 and report.epoch_means[-1]["patches"] > 0
    assert ("text_prior" in report.epoch_means[-1]) == (on == "test-tiny")
    result = load_detector(tmp_path / "model").predict(small.picture())
    assert 0 < result.score < 1


def test_the_loss_is_its_formula():
    method = build(dropout=0.0)
    output = method(features_of(method), None)
    mask = torch.zeros(3, SIDE, SIDE)
    mask[1, 10:30, 20:40] = 1
    label = torch.tensor([0, 1, 0])
    terms = method.loss(output, label, mask)
    wanted = patch_targets(mask, (8, 8)).double().numpy()
    p, score = (v.detach().double().numpy() for v in (output.patch_map, output.score))
    entropy = -np.mean(3 * wanted * np.log(p) + (1 - wanted) * np.log(1 - p))
    both = 2 * (p * wanted).sum((1, 2)) + 1
    dice = np.mean(1 - both / (p.sum((1, 2)) + wanted.sum((1, 2)) + 1))
    assert terms["patches"].item() == pytest.approx(entropy + dice, rel=1e-4)
    picture = -np.mean(np.log(np.where(label.numpy() == 1, score, 1 - score)))
    assert terms["picture"].item() == pytest.approx(0.2 * picture, rel=1e-4)
    assert list(terms) == ["patches", "picture"]


def test_a_grid_that_is_too_small_is_refused():
    method = build(image_size=64)
    with pytest.raises(ValueError, match="grid of 2x2 patches is too small .* larger image_size"):
        method(method.encode_image(trunk(), small.pixels(1, 64, 64)), None)


def test_score_and_map_are_of_the_mean_logits_of_relations_and_text():
    method = build(text_weight=0.7, **TEXT).eval()
    other = Detector(small.backbone(), method.text_model, name="other")
    pixels = small.pixels(2, SIDE, SIDE)
    spec = small.backbone().spec
    mean, std = (torch.tensor(v)[:, None, None] for v in (spec.mean, spec.std))
    resized = torch.nn.functional.interpolate(
        pixels * 0.5 + 0.5, size=(56, 56), mode="bicubic", antialias=True
    )
    with torch.no_grad():
        told = other.encode((resized - mean) / std)
        features = method.encode_image(trunk(), pixels)
        found = method(features, None)
        own = method.score_relations(method.relations(features))
    logits = torch.nn.functional.interpolate(
        told.patch_map.logit()[:, None], size=(8, 8), mode="bilinear"
    )[:, 0]
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(found.patch_map.logit(), 0.3 * own.logits + 0.7 * logits, **close)
    joined = 0.3 * own.score.logit() + 0.7 * told.score.logit()
    torch.testing.assert_close(found.score.logit(), joined, **close)
    for weight, alone in ((0.0, own), (1.0, found.text)):
        method = build(text_weight=weight, **TEXT).eval()
        with torch.no_grad():
            output = method(features, None)
        torch.testing.assert_close(output.score, alone.score, **close)
        torch.testing.assert_close(output.patch_map, alone.patch_map, **close)
    assert method.names == build().names


def test_the_text_methods_parameters_are_saved_frozen_and_count(tmp_path):
    method = build(**TEXT)
    frozen = [n for n, p in method.named_parameters() if not p.requires_grad]
    assert frozen and all(name.startswith("text_model.") for name in frozen)
    assert not any(name.startswith("text_model.") and "visual" in name for name in frozen)
    method(features_of(method), None).score.sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in method.parameters())
    detector = Detector(trunk(), method.eval(), name="with text")
    before = detector.fingerprint()
    detector.save_pretrained(tmp_path)
    loaded = load_detector(tmp_path)
    assert loaded.fingerprint() == before
    for one, two in zip(method.parameters(), loaded.method.parameters(), strict=True):
        assert torch.equal(one, two)
    assert detector.decided_by()["files"] == small.backbone().state_fingerprint()
    with torch.no_grad():
        method.text_model.get_parameter(frozen[0].removeprefix("text_model.")).add_(1)
    assert detector.fingerprint() != before


def test_faults_of_the_text_method_are_named():
    with pytest.raises(ConfigError, match="text_options of faprompt: unknown option 'side'"):
        build(**{**TEXT, "text_options": ("side=5",)})
    with pytest.raises(ConfigError, match="image_size=60 does not split into the 14-pixel patches"):
        build(**{**TEXT, "text_options": ("image_size=60",)})
    with pytest.raises(ConfigError, match="text_method: 'clip' is none of , anomalyclip, faprompt"):
        build(text_method="clip")
    method = build(**TEXT)
    features = features_of(method)
    cached = ImageFeatures(features.class_token, features.patch_tokens, features.grid)
    with pytest.raises(ConfigError, match="which a cache of tokens does not hold"):
        method.eval()(cached, None)
    method.begin_training(["part"])  # the text method is frozen, so training does not need it
    assert method(cached, None).text is None
    with pytest.raises(ConfigError, match="test-efficientnet has no text tower; name a CLIP as"):
        build(text_method="faprompt")


@pytest.mark.parametrize("options", [{}, TEXT, {"head": False}])
def test_explain_tells_which_relation_spoke(options):
    method = build(**options).eval()
    detector = Detector(trunk(), method, name="explained")
    picture = small.picture(64, 64)
    found = explain_picture(detector, picture)
    assert found.result.score == detector.predict(picture).score
    kinds, alone = ["self-similarity", "mirror"], ["relations", "text"] if options is TEXT else []
    assert list(found.stages) == [f"of {name}" for name in (*kinds, *alone)]
    assert found.terms[0].value == pytest.approx(found.result.score, abs=1e-6)
    assert [term.weight for term in found.terms] == [1] + [0] * (len(found.terms) - 1)
    shown = [f"{name} alone" for name in alone]
    shown += [] if "head" in options else [f"score without {kind}" for kind in kinds]
    assert [term.name for term in found.terms[1:]] == shown
    values = {term.name: term.value for term in found.terms}
    assert found.patches_title == "Strangest patch and nearest ones"
    with torch.no_grad():
        features = detector.encode_image(detector.to_pixels(picture)[None])
        relations = method.relations(features)
        told = method(features, None).text if alone else None
    weight = 0.6 if alone else 0.0
    text = 0.0 if told is None else float(told.score.logit())
    for kind in kinds if "head" not in options else ():
        rest = relations.clone()
        rest[:, [n for n, each in enumerate(method.names) if each.startswith(kind)]] = 0
        with torch.no_grad():
            own = float(method.score_relations(rest).score.logit())
        wanted = 1 / (1 + np.exp(-(1 - weight) * own - weight * text))
        assert values[f"score without {kind}"] == pytest.approx(wanted, rel=1e-4)
    strangest = int(found.fused.argmax())
    assert found.patches[0].row * 8 + found.patches[0].column == strangest
    distances = cosine_distances(features.patch_tokens[11])[0, strangest]
    far = [
        n for n in range(64) if max(abs(n // 8 - strangest // 8), abs(n % 8 - strangest % 8)) > 1
    ]
    wanted = sorted(far, key=lambda n: distances[n])[:5]
    assert [p.row * 8 + p.column for p in found.patches[1:]] == wanted
    near = [0, *distances[wanted]]
    assert [p.distance for p in found.patches] == pytest.approx(near, abs=1e-5)
    assert "head" in options or "set to 0" in found.method_notes[0]
    assert found.method_notes[-1].startswith("Patch 1 has the highest value")
    assert not any("no abnormality prompts" in note for note in found.notes())


def test_references_and_tiles_work_as_for_every_method():
    method = build().eval()
    detector = Detector(trunk(), method, name="memory")
    good = [small.picture(64, 64, seed=seed) for seed in range(3)]
    kept = {str(n): detector.reference_tokens(image) for n, image in enumerate(good)}
    assert list(kept["0"][0]) == [8, 11, 15] and kept["0"][0][8].shape == (64, 192)
    bank = ReferenceBank.of(kept)
    with_memory = detector.with_setup(references=References({"": bank}))
    for image in good:  # they are in the memory, so nothing surprises
        alone, joined = detector.predict(image).score, with_memory.predict(image).score
        assert joined == pytest.approx(0.5 * alone, abs=2e-2)
    long = small.picture(64, 192, seed=9)
    tiled = with_memory.with_setup(tiles="auto").predict(long)
    whole = with_memory.predict(long)
    assert tiled.score >= whole.score and tiled.score_map.shape == (64, 192)


def test_masked_pixels_are_left_out_of_the_text_methods_score_too():
    method = build(**TEXT).eval()
    detector = Detector(trunk(), method, name="masked")
    picture, mask = small.picture(64, 64), np.zeros((64, 64), bool)
    mask[:, 40:] = True
    changed = picture.copy()
    changed[mask] = 255
    ours, theirs = (detector.predict_batch([p], masks=[mask])[0] for p in (picture, changed))
    assert ours.score == theirs.score and not ours.score_map[mask].any()
