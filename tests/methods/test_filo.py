"""FiLo: the suite, the figures of its code, and each formula recomputed."""

import math

import pytest
import torch
import torch.nn.functional as F

from faprompt import losses
from faprompt.clip.backbone import build_backbone
from faprompt.clip.spec import BackboneSpec, TextSpec, VisionSpec
from faprompt.clip.tokens import END, START, Tokenizer, bpe_ids
from faprompt.errors import ConfigError
from faprompt.methods.filo import FiLo, FiLoConfig, ManyShapes
from faprompt.methods.registry import build_method, describe_methods
from faprompt.prompts.descriptions import POSITIONS, phrases
from faprompt.prompts.templates import APRIL_STATES
from faprompt.scoring import unit
from tests.helpers import small
from tests.methods.suite import LearnedSuite
from tests.methods.test_class_prompts import plain_text

SHORT = {"phrases": ("a flaw",), "context_tokens": 3}


class TestSuite(LearnedSuite):
    name = "filo"
    options = SHORT
    official = False
    pixel_map = True


@pytest.fixture(scope="module")
def features():
    with torch.no_grad():
        return small.method("filo", **SHORT).encode_image(small.backbone(), small.pixels())


def run(method, features, **keywords):
    return method(features, small.backbone().text, **keywords)


def test_it_has_as_many_parameters_as_the_code():
    spec = BackboneSpec(
        embed_dim=768,
        quick_gelu=False,
        vision=VisionSpec(image_size=336, patch_size=14, width=1024, layers=24, heads=16),
        text=TextSpec(width=768, layers=12, heads=12),
    )
    with torch.device("meta"):
        method = FiLo(FiLoConfig(), build_backbone(spec, name="large"))
    sizes = {
        name: sum(p.numel() for p in part.parameters()) for name, part in method.named_children()
    }
    assert sizes == {
        "normal_prompts": 83_760, "abnormal_prompts": 83_760, "linears": 3_148_800,
        "shapes": 221_787_648, "adapter": 589_824,
    }  # fmt: skip
    row = next(row for row in describe_methods() if row["name"] == "filo")
    assert sum(sizes.values()) == row["parameters"] == 225_693_792
    assert method.layers == (6, 12, 18, 24, 36, 42, 48)
    assert method.image_options["value_blocks"] == 18


class TestImagePass:
    def test_both_paths_are_there_as_the_blocks_leave_them(self, features):
        backbone, pixels = small.backbone(), small.pixels()
        options = {"raw_tokens": True, "position_filter": "bicubic"}
        with torch.no_grad():
            plain = backbone.encode_image(
                pixels, layers=(1, 2), value_path=False, class_ln_post=True, **options
            )
            value = backbone.encode_image(pixels, layers=(2,), value_blocks=1, **options)
        assert list(features.patch_tokens) == [1, 2, 4]
        for key, wanted in ((1, plain.patch_tokens[1]), (2, plain.patch_tokens[2])):
            torch.testing.assert_close(features.patch_tokens[key], wanted)
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
        assert phrases("macaroni1") != phrases("macaroni2")
        assert phrases("colon")[0] == "polyp" and phrases("Class3") == phrases("AITEX")

    def test_an_abnormal_sentence_stands_at_nine_times_status_plus_position(self):
        method = small.method("filo")
        normal, abnormal = method.describe("metal nut")
        assert normal == [f"{state.format('metal nut')}." for state in APRIL_STATES[0]]
        assert len(normal) == 7 and len(abnormal) == (8 + 5) * 9
        assert abnormal[9 * 2 + 4] == "abnormal metal nut with corrosion at center."
        assert abnormal[9 * 8 + 0] == "damaged metal nut at top left."
        assert abnormal[-1] == "metal nut with damage at bottom right."

    def test_at_one_position_there_is_one_sentence_a_status(self):
        method = small.method("filo")
        normal, everywhere = method.describe("metal nut")
        for position in range(9):
            told = method.describe("metal nut", position)
            assert told == (normal, everywhere[position::9]) and len(told[1]) == 13

    def test_a_class_nobody_described_has_the_general_states(self):
        _, abnormal = small.method("filo").describe("spoon")
        assert len(abnormal) == 5 * 9

    def test_phrases_of_ones_own_replace_the_stored(self):
        _, abnormal = small.method("filo", phrases="burr,rust").describe("screw")
        assert len(abnormal) == 7 * 9 and abnormal[0] == "abnormal screw with burr at top left."

    @staticmethod
    def cut(method, words):
        method._tokenizer = Tokenizer(tuple(sorted({*bpe_ids(words), START, END})))
        return method

    def test_sentences_a_cut_vocabulary_lacks_are_skipped(self):
        words = "flawless perfect object. damaged at top left"
        normal, abnormal = self.cut(small.method("filo"), words).describe("object")
        assert normal == ["object.", "flawless object.", "perfect object."]
        assert abnormal == ["damaged object at top left.", "damaged object at top.",
                            "damaged object at left."]  # fmt: skip

    def test_a_position_without_any_sentence_left_counts_as_all(self):
        method = self.cut(small.method("filo"), "flawless perfect object. damaged at top left")
        assert method.describe("object", 0)[1] == ["damaged object at top left."]
        assert method.describe("object", 8) == method.describe("object")

    def test_or_refused_where_asked_for(self):
        words = "flawless perfect object. damaged at top left"
        method = self.cut(small.method("filo", unknown_words="refuse"), words)
        with pytest.raises(ConfigError, match="filo: .*lacks words of .* set unknown_words=skip"):
            method.describe("object")
        with pytest.raises(ConfigError, match="filo: .*lacks words of 'spoon.'"):
            self.cut(small.method("filo"), words).describe("spoon")


class TestForward:
    def test_each_image_has_its_own_texts(self, features):
        method = small.method("filo", **SHORT)
        with torch.no_grad():
            pair = run(method, features, class_names=["pill", "nut", ""]).text_pair
            for row, name in enumerate(("pill", "nut", "object")):
                learners = (method.normal_prompts, method.abnormal_prompts)
                for side, (learner, lines) in enumerate(
                    zip(learners, method.describe(name), strict=True)
                ):
                    context = learner(features.class_token[row, None])[0]
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


class TestLoss:
    def test_every_map_is_taught_and_the_adapter_teaches_no_text(self, features):
        method = small.method("filo", **SHORT)
        out = run(method, features)
        label, mask = torch.tensor([0, 1, 0]), torch.zeros(3, 56, 56)
        mask[1, 5:30, 10:40] = 1
        terms = method.loss(out, label, mask)
        wanted = sum(losses.local_loss(layer_map, mask) for layer_map in out.layer_maps)
        torch.testing.assert_close(terms["local"], wanted)
        torch.testing.assert_close(terms["image"], F.cross_entropy(out.image_logits, label))
        terms["image"].backward()
        moved = {name for name, p in method.named_parameters() if p.grad is not None}
        assert moved == {"adapter.down.weight", "adapter.up.weight"}


def test_temperatures_and_counts_out_of_range_are_refused():
    options = {"adapter_temperature": 0, "context_tokens": 0}
    with pytest.raises(ConfigError, match="adapter_temperature should|context_tokens should"):
        build_method("filo", small.backbone(), options)


def test_nine_positions_row_by_row():
    assert len(POSITIONS) == 9 and POSITIONS[4] == "center" and POSITIONS[8] == "bottom right"
