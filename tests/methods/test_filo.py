"""FiLo: the suite, the figures of its code, and each formula recomputed."""

import math

import pytest
import torch
import torch.nn.functional as F

from faprompt import losses
from faprompt.clip.tokens import END, START, Tokenizer, bpe_ids
from faprompt.clip.vision import ImageOptions
from faprompt.data.dataset_catalog import defect_phrases as phrases
from faprompt.errors import ConfigError
from faprompt.methods.filo import ManyShapes
from faprompt.methods.registry import build_method, preset_config
from faprompt.prompts.descriptions import POSITIONS
from faprompt.prompts.templates import APRIL_STATES
from faprompt.scoring import unit
from tests.helpers import large, small
from tests.methods.suite import LearnedSuite
from tests.methods.test_coop import plain_text

SHORT = {"phrases": ("a flaw",), "context_tokens": 3, "adapter_epochs": 1}
HEADS, ADAPTER = (0, 2), (1, 2)  # epoch and epochs of either stage


class TestSuite(LearnedSuite):
    name = "filo"
    parameters = (225_693_792, 225_693_792)
    options = SHORT
    official = False
    more_presets = ("common", "clean")
    stages = (HEADS, ADAPTER)
    pixel_map = True
    out_of_range = {"temperature": 0, "adapter_epochs": 0}


class TestCleanTapsSuite(TestSuite):
    options = {**SHORT, "taps": "clean", "row_dice": False}


def test_constants_are_those_of_the_code():
    config, common, clean = (preset_config("filo", name) for name in ("paper", "common", "clean"))
    assert (config.image_size, config.sigma_px, config.context_tokens) == (518, 0, 12)
    assert (config.temperature, config.adapter_temperature) == (0.01, 0.07)
    assert (config.taps, config.row_dice, config.adapter_epochs) == ("aliased", True, 5)
    assert config.box_slips
    assert (config.position_filter, common.position_filter) == ("plain-bicubic", "bilinear")
    assert (config.grounding, config.use_class_names) == ("none", True)
    assert (clean.taps, clean.row_dice, clean.box_slips) == ("clean", False, False)


@pytest.fixture(scope="module")
def features():
    with torch.no_grad():
        return small.method("filo", **SHORT).encode_image(small.backbone(), small.pixels())


def run(method, features, **keywords):
    return method(features, small.backbone().text, **keywords)


def test_it_has_as_many_parameters_as_the_code():
    method = large.method("filo")
    sizes = {
        name: sum(p.numel() for p in part.parameters()) for name, part in method.named_children()
    }
    assert sizes == {
        "normal_prompts": 83_760, "abnormal_prompts": 83_760, "linears": 3_148_800,
        "shapes": 221_787_648, "adapter": 589_824,
    }  # fmt: skip
    assert method.image_options.token_keys(24) == (12, 18, 24, 48)
    assert method._linear_taps == (48, 12, 18, 24) and method._shape_taps == (48, 48, 48)
    told = method.image_options
    assert (told.value_blocks, told.layers, told.plain_layers) == (18, (24,), (12, 18, 24))
    assert told.next_attention and told.raw_tokens
    clean = large.method("filo", taps="clean")
    assert clean.image_options.token_keys(24) == (6, 12, 18, 24, 36, 42, 48)
    assert clean._shape_taps == (36, 42, 48)
    assert clean._linear_taps == (6, 12, 18, 24) and not clean.image_options.next_attention


class TestImagePass:
    @pytest.mark.parametrize(("taps", "keys"), [("aliased", [2, 4]), ("clean", [1, 2, 4])])
    def test_both_paths_are_there_as_the_blocks_leave_them(self, taps, keys):
        backbone, pixels = small.backbone(), small.pixels()
        options = {"raw_tokens": True, "position_filter": "plain-bicubic", "class_ln_post": True}
        with torch.no_grad():
            features = small.method("filo", **SHORT, taps=taps).encode_image(backbone, pixels)
            plain = backbone.encode_image(
                pixels, ImageOptions(layers=(1, 2), value_path=False, **options)
            )
            value = backbone.encode_image(
                pixels, ImageOptions(layers=(2,), value_blocks=1, **options)
            )
        assert list(features.patch_tokens) == keys
        for key in keys[:-1]:
            torch.testing.assert_close(features.patch_tokens[key], plain.patch_tokens[key])
        torch.testing.assert_close(features.patch_tokens[4], value.patch_tokens[2])
        torch.testing.assert_close(features.class_token, plain.class_token)
        assert (features.patch_tokens[2] - features.patch_tokens[4]).abs().max() > 1e-2

    def test_shapes_are_the_sum_of_six_convolutions(self):
        shapes = ManyShapes(3, 2)
        tokens = torch.randn(2, 4 * 5, 3, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found = shapes(tokens, (4, 5))
            wanted = torch.zeros(2, 20, 2)
            for branch in shapes.branches:
                high, wide = branch.kernel_size
                padded = F.pad(
                    tokens.view(2, 4, 5, 3).permute(0, 3, 1, 2),
                    (wide // 2, wide // 2, high // 2, high // 2),
                )
                for place in range(20):
                    row, column = divmod(place, 5)
                    window = padded[:, :, row : row + high, column : column + wide]
                    wanted[:, place] += torch.einsum("bchw,ochw->bo", window, branch.weight)
                    wanted[:, place] += branch.bias
        assert [branch.kernel_size for branch in shapes.branches] == [
            (1, 1), (3, 3), (5, 5), (7, 7), (1, 5), (5, 1),
        ]  # fmt: skip
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


class TestWords:
    def test_stored_phrases_are_as_many_as_the_authors(self):
        mvtec = [
            "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut",
            "pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper",
        ]  # fmt: skip
        visa = [
            "candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2",
            "pcb1", "pcb2", "pcb3", "pcb4", "pipe_fryum",
        ]  # fmt: skip
        assert sum(len(phrases(name)) for name in mvtec) == 121
        assert sum(len(phrases(name)) for name in visa) == 89
        assert phrases("macaroni") == phrases("macaroni2")
        assert phrases("macaroni1") != phrases("macaroni2")
        assert phrases("colon")[0] == "polyp" and phrases("Class3") == phrases("AITEX")

    def test_an_abnormal_sentence_stands_at_nine_times_status_plus_position(self):
        method = small.method("filo")
        normal, abnormal = method.words.describe("metal nut")
        assert normal == [f"{state.format('metal nut')}." for state in APRIL_STATES[0]]
        assert len(normal) == 7 and len(abnormal) == (8 + 5) * 9
        assert abnormal[9 * 2 + 4] == "abnormal metal nut with corrosion at center."
        assert abnormal[9 * 8 + 0] == "damaged metal nut at top left."
        assert abnormal[-1] == "metal nut with damage at bottom right."

    def test_at_one_position_there_is_one_sentence_a_status(self):
        method = small.method("filo")
        normal, everywhere = method.words.describe("metal nut")
        for position in range(9):
            told = method.words.describe("metal nut", position)
            assert told == (normal, everywhere[position::9]) and len(told[1]) == 13

    def test_a_class_nobody_described_has_the_general_states(self):
        _, abnormal = small.method("filo").words.describe("spoon")
        assert len(abnormal) == 5 * 9

    def test_phrases_of_ones_own_replace_the_stored(self):
        _, abnormal = small.method("filo", phrases="burr,rust").words.describe("screw")
        assert len(abnormal) == 7 * 9 and abnormal[0] == "abnormal screw with burr at top left."

    @staticmethod
    def cut(method, words):
        method.words._tokenizer = Tokenizer(tuple(sorted({*bpe_ids(words), START, END})))
        return method

    def test_sentences_a_cut_vocabulary_lacks_are_skipped(self):
        words = "flawless perfect object. damaged at top left"
        normal, abnormal = self.cut(small.method("filo"), words).words.describe("object")
        assert normal == ["object.", "flawless object.", "perfect object."]
        assert abnormal == ["damaged object at top left.", "damaged object at top.",
                            "damaged object at left."]  # fmt: skip

    def test_a_position_without_any_sentence_left_counts_as_all(self):
        method = self.cut(small.method("filo"), "flawless perfect object. damaged at top left")
        assert method.words.describe("object", 0)[1] == ["damaged object at top left."]
        assert method.words.describe("object", 8) == method.words.describe("object")

    def test_or_refused_where_asked_for(self):
        words = "flawless perfect object. damaged at top left"
        method = self.cut(small.method("filo", unknown_words="refuse"), words)
        with pytest.raises(ConfigError, match="lacks words of .* set unknown_words=skip"):
            method.words.describe("object")
        with pytest.raises(ConfigError, match="vocabulary lacks words of 'spoon.'"):
            self.cut(small.method("filo"), words).words.describe("spoon")


class TestForward:
    def test_folders_of_one_product_share_its_name(self):
        names = small.method("filo").name_classes(["pcb3", "macaroni1", "metal_nut", ""], 4)
        assert names == ["pcb", "macaroni", "metal nut", "object"]

    def test_each_image_has_its_own_texts(self, features):
        method = small.method("filo", **SHORT).eval()
        with torch.no_grad():
            pair = run(method, features, class_names=["pill", "nut", ""]).text_pair
            for row, name in enumerate(("pill", "nut", "object")):
                learners = (method.normal_prompts, method.abnormal_prompts)
                for side, (learner, lines) in enumerate(
                    zip(learners, method.words.describe(name), strict=True)
                ):
                    context = learner(method.adapter(features.class_token[row, None]))[0]
                    each = torch.stack([unit(plain_text(context, line)) for line in lines])
                    wanted = unit(each.mean(dim=0))
                    torch.testing.assert_close(pair[row, side], wanted, rtol=0, atol=1e-5)

    def test_maps_upsample_cosines_before_the_softmax(self, features):
        method = small.method("filo", **SHORT)
        with torch.no_grad():
            out = run(method, features)
            tokens = method.linears[1](features.patch_tokens[2])
            cosines = unit(tokens) @ out.text_pair.mT / math.sqrt(2) / 0.01  # (B, N, 2)
            planes = F.interpolate(
                cosines.mT.unflatten(-1, (4, 4)), size=(56, 56), mode="bilinear", align_corners=True
            )
        wanted = planes.softmax(dim=1)[:, 1]
        assert out.layer_maps.shape == (3, 3, 56, 56)
        torch.testing.assert_close(out.layer_maps[1], wanted, rtol=0, atol=1e-4)

    def test_the_score_is_half_a_cosine_and_half_a_peak(self, features):
        method = small.method("filo", **SHORT)
        with torch.no_grad():
            out = run(method, features)
            adapter, token = method.adapter, features.class_token
            inner = (token @ adapter.down.weight.T).clamp(min=0) @ adapter.up.weight.T
            image = unit(token + inner * inner.sigmoid())
        cosines = (image[:, None] * out.text_pair).sum(-1) / math.sqrt(2)
        wanted = (cosines[:, 1] + out.patch_map.flatten(1).amax(1)) / 2
        torch.testing.assert_close(out.score, wanted.clamp(0, 1))
        torch.testing.assert_close(out.image_logits, cosines / 0.07)

    def test_the_map_is_the_mean_blurred_by_three(self, features):
        with torch.no_grad():
            out = run(small.method("filo", **SHORT), features)
        weights = torch.exp(-torch.tensor([1.0, 0.0, 1.0]) / 32)
        kernel = torch.outer(weights, weights) / weights.sum() ** 2
        padded = F.pad(out.layer_maps.mean(0)[:, None], (1, 1, 1, 1), mode="reflect")
        wanted = F.conv2d(padded, kernel[None, None])[:, 0]
        torch.testing.assert_close(out.patch_map, wanted, rtol=0, atol=1e-5)


class TestStages:
    """15 epochs of the maps, 5 of the adapter, in small."""

    label, mask = torch.tensor([0, 1, 0]), torch.zeros(3, 56, 56)
    mask[1, 5:30, 10:40] = 1

    def begun(self, stage, **options):
        method = small.method("filo", **SHORT, **options).train()
        method.begin_epoch(*stage)
        return method

    @pytest.mark.parametrize("rows", [True, False])
    def test_first_every_map_is_taught(self, features, rows):
        method = self.begun(HEADS, row_dice=rows)
        out = run(method, features)
        terms = method.loss(out, self.label, self.mask)
        pieces = [(layer, self.mask) for layer in out.layer_maps]
        if rows:  # what a batch of one does to each picture
            pieces = [
                (layer[image][:, None], self.mask[image][:, None])
                for layer in out.layer_maps for image in range(3)
            ]  # fmt: skip
        wanted = sum(losses.local_loss(*each) for each in pieces) / (3 if rows else 1)
        torch.testing.assert_close(terms["local"], wanted)
        assert terms["image"] == 0

    def test_with_prompts_that_see_the_raw_token(self, features):
        method = self.begun(HEADS)
        with torch.no_grad():
            pair = run(method, features).text_pair
            method.adapter.up.weight += 1
            assert torch.equal(run(method, features).text_pair, pair)
            method.eval()
            assert (run(method, features).text_pair - pair).abs().max() > 1e-3

    def test_then_the_adapter_alone_learns_the_label(self, features):
        method = self.begun(ADAPTER)
        out = run(method, features)
        terms = method.loss(out, self.label, self.mask)
        torch.testing.assert_close(terms["image"], F.cross_entropy(out.image_logits, self.label))
        assert terms["local"] == 0 and not out.text_pair.requires_grad
        terms["image"].backward()
        moved = {name for name, p in method.named_parameters() if p.grad is not None}
        assert moved == {"adapter.down.weight", "adapter.up.weight"}

    def test_its_prompts_see_what_it_makes(self, features):
        method = self.begun(ADAPTER)
        with torch.no_grad():
            trained, used = run(method, features), run(method.eval(), features)
        assert torch.equal(trained.text_pair, used.text_pair)
        assert torch.equal(trained.score, used.score)

    def test_the_adapters_epochs_are_the_last(self):
        method = small.method("filo", **{**SHORT, "adapter_epochs": 5})
        moves = []
        for epoch in range(20):
            method.begin_epoch(epoch, 20)
            moves.append(method.heads_move)
            assert all(
                p.requires_grad == (name.startswith("adapter.") != method.heads_move)
                for name, p in method.named_parameters()
            )
        assert moves == [True] * 15 + [False] * 5

    def test_too_few_epochs_are_refused(self):
        with pytest.raises(ConfigError, match="last adapter_epochs=1 epochs .* epochs=1 are too"):
            small.method("filo", **SHORT).begin_epoch(0, 1)


def test_temperatures_and_counts_out_of_range_are_refused():
    options = {"adapter_temperature": 0, "context_tokens": 0}
    with pytest.raises(ConfigError, match="adapter_temperature should|context_tokens should"):
        build_method("filo", small.backbone(), options)


def test_nine_positions_row_by_row():
    assert len(POSITIONS) == 9 and POSITIONS[4] == "center" and POSITIONS[8] == "bottom right"
