"""relations: the suite, its pure functions against slow loops, head, loss, text logit, parts."""

from functools import cache

import numpy as np
import pytest
import torch

from faprompt.clip.vision import ImageFeatures, ImageOptions
from faprompt.clip.weights import load_backbone
from faprompt.detector import Detector
from faprompt.errors import ConfigError
from faprompt.explanation import explain_picture
from faprompt.methods.registry import build_method, preset_config
from faprompt.methods.relations import (
    RelationHead,
    at_step,
    mirror_distance,
    patch_targets,
    picture_percentiles,
    self_similarity,
)
from faprompt.models import load_detector
from faprompt.references import ReferenceBank, References
from faprompt.scoring import top_mean
from faprompt.synthetic import write_dataset
from faprompt.training.training_session import TrainOptions, train
from tests.helpers import small
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
    """The text logit of another detector as one more relation; its parameters are frozen."""

    options = {"image_size": SIDE, "dropout": 0.0, "text_dropout": 0.0, **TEXT}

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
        "image_size": small.SIDE, "dropout": 0.0, "text_dropout": 0.0,
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

    def test_the_logit_and_the_losses_are_those_of_the_text_method(self, features):
        method = self.build()
        output = self.run(method, features)
        with torch.no_grad():
            own = method.text_model(
                method.text_model.encode_image(small.backbone(), self.pixels()),
                small.backbone().text,
            )
        torch.testing.assert_close(output.text.score.detach(), own.score)
        torch.testing.assert_close(
            output.relations[:, -1], own.patch_map.logit(), atol=1e-4, rtol=1e-4
        )
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
        with pytest.raises(ConfigError, match="text_method needs the head that joins it"):
            build(head=False, **TEXT)
        with pytest.raises(ConfigError, match=r"map_layers should lie in 1..15, got \(16,\)"):
            build(layers=(16,))


def draw_tokens(rows, columns, *, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, rows * columns, 5, generator=generator)


def slow_distances(tokens):
    values = tokens.double().numpy()
    units = values / np.linalg.norm(values, axis=-1, keepdims=True)
    return 1 - units @ units.transpose(0, 2, 1)


@pytest.mark.parametrize("grid", [(4, 4), (5, 7), (1, 9)])
def test_self_similarity_against_a_slow_loop(grid):
    rows, columns = grid
    tokens = draw_tokens(rows, columns)
    found = self_similarity(tokens, grid, counts=(1, 3)).numpy()
    distances = slow_distances(tokens)
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
    distances = slow_distances(tokens)
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


def test_the_head_is_its_formula():
    head = RelationHead(3)
    x = draw_tokens(4, 5, batch=2, seed=3)[..., :3].mT.unflatten(2, (4, 5))
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


@pytest.mark.parametrize("relation", [self_similarity, mirror_distance])
@pytest.mark.parametrize("grid", [(8, 8), (7, 9)])
def test_the_coarse_layer_is_compared_at_its_own_resolution(relation, grid):
    with torch.no_grad():
        pixels = small.pixels(2, 16 * grid[0], 16 * grid[1])
        maps = trunk().vision(pixels, 15)[15]
        tokens = trunk().encode_image(pixels, ImageOptions(layers=(15,))).patch_tokens[15]
    own = relation(maps.flatten(2).mT, (maps.shape[-2], maps.shape[-1]))
    wanted = torch.nn.functional.interpolate(own, size=grid, mode="bilinear")
    torch.testing.assert_close(at_step(relation, tokens, grid, 2), wanted, rtol=0, atol=1e-5)


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


def test_the_text_logit_has_a_dropout_of_its_own():
    method = build(dropout=0.0, text_dropout=0.5, **TEXT).train()
    relations = torch.rand(40, 16, 4, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    seen = []
    method.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    method.score_relations(relations)
    left = seen[0].flatten(2).any(dim=2).float().mean(dim=0)
    assert (left[:-1] == 1).all() and 0.25 < left[-1] < 0.75


@pytest.mark.parametrize("on", ["test-efficientnet", "test-tiny"])
def test_it_trains_from_a_folder_as_any_method(on, tmp_path):
    write_dataset(tmp_path / "set", kinds="aux", count=4, seed=1, size=64)
    options = {"image_size": SIDE if on == "test-efficientnet" else small.SIDE}
    options |= {"text_method": "faprompt", "text_options": "prompts=2"} if on == "test-tiny" else {}
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


def test_the_text_logit_is_that_of_the_other_detector():
    method = build(**TEXT).eval()
    assert method.names[-1] == "text" and len(method.names) == 16
    other = Detector(small.backbone(), method.text_model, name="other")
    pixels = small.pixels(2, SIDE, SIDE)
    spec = small.backbone().spec
    mean, std = (torch.tensor(v)[:, None, None] for v in (spec.mean, spec.std))
    resized = torch.nn.functional.interpolate(
        pixels * 0.5 + 0.5, size=(56, 56), mode="bicubic", antialias=True
    )
    with torch.no_grad():
        chance = other.encode((resized - mean) / std).patch_map
        features = method.encode_image(trunk(), pixels)
        found = method.relations(features)[:, -1]
    wanted = torch.nn.functional.interpolate(chance.logit()[:, None], size=(8, 8), mode="bilinear")
    torch.testing.assert_close(found, wanted[:, 0], rtol=1e-4, atol=1e-4)


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
    for refused in (lambda: method(cached, None), lambda: method.begin_training(["part"])):
        with pytest.raises(ConfigError, match="which a cache of tokens does not hold"):
            refused()
    with pytest.raises(ConfigError, match="test-efficientnet has no text tower; name a CLIP as"):
        build(text_method="faprompt")


@pytest.mark.parametrize("options", [{}, TEXT, {"head": False}])
def test_explain_tells_which_relation_spoke(options):
    method = build(**options).eval()
    detector = Detector(trunk(), method, name="explained")
    picture = small.picture(64, 64)
    found = explain_picture(detector, picture)
    assert found.result.score == detector.predict(picture).score
    groups = ["self-similarity", "mirror", *(["text"] if options is TEXT else [])]
    assert list(found.stages) == groups
    assert found.terms[0].value == pytest.approx(found.result.score, abs=1e-6)
    assert [term.weight for term in found.terms] == [1] + [0] * (len(found.terms) - 1)
    assert len(found.terms) == (1 if "head" in options else 1 + len(groups))
    assert found.patches_title == "Strangest patch and nearest ones"
    with torch.no_grad():
        features = detector.encode_image(detector.to_pixels(picture)[None])
        relations = method.relations(features)
    for term, name in zip(found.terms[1:], groups, strict=False):
        rest = relations.clone()
        rest[:, [n for n, each in enumerate(method.names) if each.startswith(name)]] = 0
        with torch.no_grad():
            wanted = method.score_relations(rest).score
        assert term.name == f"score without {name}" and term.value == pytest.approx(float(wanted))
    strangest = int(found.fused.argmax())
    assert found.patches[0].row * 8 + found.patches[0].column == strangest
    distances = slow_distances(features.patch_tokens[11])[0, strangest]
    far = [
        n for n in range(64) if max(abs(n // 8 - strangest // 8), abs(n % 8 - strangest % 8)) > 1
    ]
    wanted = sorted(far, key=lambda n: distances[n])[:5]
    assert [p.row * 8 + p.column for p in found.patches[1:]] == wanted


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


def test_masked_pixels_are_left_out_of_the_text_logit_too():
    method = build(**TEXT).eval()
    detector = Detector(trunk(), method, name="masked")
    picture, mask = small.picture(64, 64), np.zeros((64, 64), bool)
    mask[:, 40:] = True
    changed = picture.copy()
    changed[mask] = 255
    ours, theirs = (detector.predict_batch([p], masks=[mask])[0] for p in (picture, changed))
    assert ours.score == theirs.score and not ours.score_map[mask].any()
