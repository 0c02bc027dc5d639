"""The image tower against open_clip's own and against the equations done slowly."""

import pytest
import torch

from faprompt.clip.backbone import build_backbone
from faprompt.clip.spec import VisionSpec, open_clip_module
from faprompt.clip.vision import (
    WINDOWS_AT_ONCE,
    ConvStem,
    ImageOptions,
    position_table,
    window_places,
)
from tests.helpers import naive
from tests.helpers.compare import close

ALL_LAYERS = (1, 2, 3, 4, 5, 6)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def draw_pixels(count, height, width, seed=0):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


class TestPlainPath:
    """With the V-V path off this is CLIP, as open_clip runs it."""

    def test_class_token_is_open_clips_image_feature_after_ln_post(self, backbone, rival):
        pixels = draw_pixels(3, 56, 56)
        wanted = rival.encode_image(pixels)
        ours = backbone.encode_image(pixels, ImageOptions(value_path=False, class_ln_post=True))
        close(ours.class_token, wanted, 1e-5)
        token = backbone.encode_image(pixels, ImageOptions(value_path=False)).class_token
        assert ((token - wanted).abs().amax(dim=1) > 0.1).all()

    @pytest.mark.parametrize("raw", [False, True])
    def test_patch_tokens_are_open_clips_intermediates(self, backbone, rival, raw):
        pixels = draw_pixels(2, 56, 56)
        options = ImageOptions(layers=ALL_LAYERS, value_path=False, raw_tokens=raw)
        ours = backbone.encode_image(pixels, options)
        theirs = rival.visual.forward_intermediates(
            pixels, indices=[0, 1, 2, 3, 4, 5], normalize_intermediates=not raw, output_fmt="NLC"
        )["image_intermediates"]
        assert list(ours.patch_tokens) == list(ALL_LAYERS)
        for layer, tokens in zip(ALL_LAYERS, theirs, strict=True):
            wanted = tokens if raw else tokens @ rival.visual.proj
            close(ours.patch_tokens[layer], wanted, 1e-5)

    def test_asking_for_fewer_layers_changes_nothing(self, backbone):
        pixels = draw_pixels(2, 56, 56)
        every = backbone.encode_image(pixels, ImageOptions(layers=ALL_LAYERS, value_path=False))
        one = backbone.encode_image(pixels, ImageOptions(layers=(3,), value_path=False))
        assert list(one.patch_tokens) == [3]
        close(one.patch_tokens[3], every.patch_tokens[3], 1e-6)
        close(one.class_token, every.class_token, 1e-5)


class TestDualPath:
    @pytest.mark.parametrize("size", [(56, 56), (42, 98), (70, 28), (14, 14), (56, 56)])
    def test_equals_the_equations_at_any_size(self, size, backbone, slow_state):
        """Sizes follow one another on one backbone, so a table overwritten in passing shows."""
        pixels = draw_pixels(1, *size)
        ours = backbone.encode_image(pixels, ImageOptions(layers=ALL_LAYERS))
        assert ours.grid == (size[0] // 14, size[1] // 14)
        class_token, patch_tokens = naive.encode_image(
            slow_state, pixels[0].double().numpy(), heads=2, start=1, layers=ALL_LAYERS
        )
        close(ours.class_token[0], class_token, 1e-4)
        for layer in ALL_LAYERS:
            close(ours.patch_tokens[layer][0], patch_tokens[layer], 1e-4)

    def test_class_token_does_not_know_of_the_second_path(self, backbone):
        pixels = draw_pixels(2, 42, 70)
        dual = backbone.encode_image(pixels)
        plain = backbone.encode_image(pixels, ImageOptions(value_path=False))
        close(dual.class_token, plain.class_token, 1e-5)
        assert (dual.patch_tokens[6] - plain.patch_tokens[6]).abs().max() > 0.1

    def test_layers_before_the_second_path_are_plain(self, backbone):
        pixels = draw_pixels(1, 56, 56)
        dual = backbone.encode_image(pixels, ImageOptions(layers=(1, 2)))
        plain = backbone.encode_image(pixels, ImageOptions(layers=(1, 2), value_path=False))
        close(dual.patch_tokens[1], plain.patch_tokens[1], 1e-6)
        assert (dual.patch_tokens[2] - plain.patch_tokens[2]).abs().max() > 0.1

    def test_alone_equals_in_a_batch(self, backbone):
        pixels = draw_pixels(3, 56, 42)
        together = backbone.encode_image(pixels, ImageOptions(layers=(3, 6)))
        for index in range(3):
            alone = backbone.encode_image(pixels[index : index + 1], ImageOptions(layers=(3, 6)))
            close(alone.class_token[0], together.class_token[index], 1e-5)
            for layer in (3, 6):
                close(alone.patch_tokens[layer][0], together.patch_tokens[layer][index], 1e-5)

    def test_the_last_layer_is_the_default(self, backbone):
        assert list(backbone.encode_image(draw_pixels(1, 56, 56)).patch_tokens) == [6]


class TestBothPathsAtOnce:
    def test_equal_two_passes(self, backbone):
        pixels = draw_pixels(2, 56, 42)
        both = backbone.encode_image(pixels, ImageOptions(layers=(4, 6), plain_layers=(1, 4, 6)))
        value = backbone.encode_image(pixels, ImageOptions(layers=(4, 6)))
        plain = backbone.encode_image(pixels, ImageOptions(layers=(1, 4, 6), value_path=False))
        assert list(both.patch_tokens) == [1, 4, 6, 6 + 4, 6 + 6]
        for layer in (1, 4, 6):
            close(both.patch_tokens[layer], plain.patch_tokens[layer], 1e-5)
        for layer in (4, 6):
            close(both.patch_tokens[6 + layer], value.patch_tokens[layer], 1e-5)
        close(both.class_token, value.class_token, 1e-5)

    def test_the_plain_one_alone(self, backbone):
        pixels = draw_pixels(1, 56, 42)
        plain = backbone.encode_image(pixels, ImageOptions(layers=(), plain_layers=(2,)))
        wanted = backbone.encode_image(pixels, ImageOptions(layers=(2,), value_path=False))
        assert list(plain.patch_tokens) == [2]
        close(plain.patch_tokens[2], wanted.patch_tokens[2], 1e-6)

    def test_the_next_attention_equals_the_equations(self, backbone, slow_state):
        pixels = draw_pixels(1, 42, 56)
        ours = backbone.encode_image(
            pixels,
            ImageOptions(layers=(6,), plain_layers=(2, 5, 6), next_attention=True, raw_tokens=True),
        )
        stream, states = naive.embed_pixels(slow_state, pixels[0].double().numpy()), {}
        for layer in range(1, 7):
            block = f"visual.transformer.resblocks.{layer - 1}"
            q, k, v = naive.queries_keys_values(slow_state, block, stream)
            stream = stream + naive.attend(slow_state, block, q, k, v, 2)
            states[layer - 1] = stream  # block and a half
            stream = stream + naive.mlp(slow_state, block, stream)
        states[6] = stream
        assert list(ours.patch_tokens) == [2, 5, 6, 12]
        for layer in (2, 5, 6):
            close(ours.patch_tokens[layer][0], states[layer][1:], 1e-4)
        usual = backbone.encode_image(pixels, ImageOptions(layers=(6,), raw_tokens=True))
        close(ours.patch_tokens[12], usual.patch_tokens[6], 1e-5)

    @pytest.mark.parametrize("asked", [([], []), ([6], [7]), ([], [0])])
    def test_layers_outside_the_tower_are_refused(self, asked, backbone):
        with pytest.raises(ValueError, match=r"layers should lie in 1\.\.6"):
            backbone.encode_image(
                draw_pixels(1, 28, 28), ImageOptions(layers=asked[0], plain_layers=asked[1])
            )


class TestValueBlocks:
    """The V-V path over another number of blocks than the paper's share."""

    def test_none_of_them_is_the_plain_path(self, backbone):
        pixels = draw_pixels(2, 56, 42)
        none = backbone.encode_image(pixels, ImageOptions(layers=ALL_LAYERS, value_blocks=0))
        plain = backbone.encode_image(pixels, ImageOptions(layers=ALL_LAYERS, value_path=False))
        assert torch.equal(none.class_token, plain.class_token)
        for layer in ALL_LAYERS:
            assert torch.equal(none.patch_tokens[layer], plain.patch_tokens[layer])

    @pytest.mark.parametrize("blocks", [1, 3, 6])
    def test_equals_the_equations(self, blocks, backbone, slow_state):
        pixels = draw_pixels(1, 42, 56)
        ours = backbone.encode_image(pixels, ImageOptions(layers=(4, 6), value_blocks=blocks))
        class_token, patch_tokens = naive.encode_image(
            slow_state, pixels[0].double().numpy(), heads=2, start=6 - blocks, layers=(4, 6)
        )
        close(ours.class_token[0], class_token, 1e-4)
        for layer in (4, 6):
            close(ours.patch_tokens[layer][0], patch_tokens[layer], 1e-4)

    @pytest.mark.parametrize("blocks", [-1, 7])
    def test_more_than_there_are_is_refused(self, blocks, backbone):
        with pytest.raises(ValueError, match=r"value_blocks should lie in 0\.\.6"):
            backbone.encode_image(draw_pixels(1, 28, 28), ImageOptions(value_blocks=blocks))


class TestRawTokens:
    @pytest.mark.parametrize(
        ("value_path", "raw_ln_post"), [(True, False), (False, False), (True, True)]
    )
    def test_projected_they_are_the_usual_ones(self, value_path, raw_ln_post, backbone):
        pixels = draw_pixels(1, 42, 42)
        options = {"layers": (2, 6), "value_path": value_path, "raw_ln_post": raw_ln_post}
        raw = backbone.encode_image(pixels, ImageOptions(raw_tokens=True, **options))
        usual = backbone.encode_image(pixels, ImageOptions(**options))
        for layer in (2, 6):
            tokens = raw.patch_tokens[layer]
            assert tokens.shape == (1, 9, 128)
            vision = backbone.vision
            projected = tokens @ vision.visual.proj if raw_ln_post else vision.project(tokens)
            close(projected, usual.patch_tokens[layer], 1e-6)
        assert torch.equal(raw.class_token, usual.class_token)


class TestWindows:
    @pytest.mark.parametrize(
        ("grid", "side", "count"), [(15, 2, 196), (15, 3, 169), (37, 2, 1296), (37, 3, 1225)]
    )
    def test_as_many_as_the_paper_has(self, grid, side, count):
        places = window_places((grid, grid), side)
        assert places.shape == (count, side * side)
        assert all(len(set(row)) == side * side for row in places.tolist()[:: count // 9])

    @pytest.mark.parametrize(("grid", "side"), [((3, 5), 2), ((4, 3), 3), ((2, 2), 2), ((2, 3), 1)])
    def test_places_equal_a_loop(self, grid, side):
        rows, columns = grid
        wanted = [
            [(i + y) * columns + j + x for y in range(side) for x in range(side)]
            for i in range(rows - side + 1)
            for j in range(columns - side + 1)
        ]
        assert window_places(grid, side).tolist() == wanted

    def test_each_equals_a_picture_of_these_tokens_alone(self, backbone, rival):
        """Through open_clip's own transformer, window by window."""
        pixels = draw_pixels(2, 56, 42)
        ours = backbone.encode_image(
            pixels, ImageOptions(value_path=False, class_ln_post=True, windows=(2, 3))
        )
        tokens, grid = backbone.vision.embed(pixels)
        for side in (2, 3):
            places = window_places(grid, side)
            assert ours.windows[side].shape == (2, len(places), 48)
            for index in range(2):
                for number, place in enumerate(places):
                    kept = tokens[index][[0, *(place + 1).tolist()]]
                    seen = rival.visual.transformer(kept[None])[0, 0]
                    wanted = rival.visual.ln_post(seen) @ rival.visual.proj
                    close(ours.windows[side][index, number], wanted, 1e-5)

    def test_a_window_over_everything_is_the_picture(self, backbone):
        pixels = draw_pixels(2, 42, 42)
        ours = backbone.encode_image(pixels, ImageOptions(windows=(3,)))
        close(ours.windows[3][:, 0], ours.class_token, 1e-5)

    def test_more_windows_than_fit_at_once(self, backbone):
        pixels = draw_pixels(2, 14 * 18, 14 * 18)
        assert WINDOWS_AT_ONCE < 2 * 17 * 17
        many = backbone.encode_image(pixels, ImageOptions(windows=(2,), value_path=False)).windows[
            2
        ]
        one = backbone.encode_image(
            pixels[:1], ImageOptions(windows=(2,), value_path=False)
        ).windows[2]
        close(many[0], one[0], 1e-5)

    def test_none_unless_asked(self, backbone):
        assert backbone.encode_image(draw_pixels(1, 28, 28)).windows == {}

    @pytest.mark.parametrize("side", [0, 4])
    def test_one_that_does_not_fit_is_refused(self, side, backbone):
        with pytest.raises(ValueError, match=f"window of {side}x{side} patches .* 3x5 grid"):
            backbone.encode_image(draw_pixels(1, 42, 70), ImageOptions(windows=(side,)))


class TestPositionTable:
    def test_native_grid_is_the_table_itself(self):
        table = torch.randn(17, 8)
        assert position_table(table, (4, 4)) is table

    def test_class_row_is_kept_and_the_table_untouched(self):
        table = torch.randn(17, 8)
        before = table.clone()
        resized = position_table(table, (3, 7))
        assert resized.shape == (22, 8)
        assert torch.equal(resized[0], table[0])
        assert torch.equal(table, before)

    @pytest.mark.parametrize("grid", [(5, 5), (3, 7), (9, 2)])
    def test_equals_slow_bilinear(self, grid):
        table = torch.randn(17, 8, dtype=torch.float64)
        wanted = naive.resize_table(table.numpy(), *grid)
        close(position_table(table, grid), wanted, 1e-6)

    @pytest.mark.parametrize("side", [6, 3])
    def test_bicubic_is_what_open_clip_does(self, side):
        from types import SimpleNamespace

        open_clip_module()  # it mends torchvision
        from open_clip.model import resize_pos_embed

        table = torch.randn(17, 8)
        held = {"visual.positional_embedding": table.clone()}
        model = SimpleNamespace(visual=SimpleNamespace(grid_size=(side, side)))
        resize_pos_embed(held, model)
        close(
            position_table(table, (side, side), "bicubic"),
            held["visual.positional_embedding"],
            1e-6,
        )

    def test_the_filter_reaches_the_tower(self, backbone):
        pixels = draw_pixels(1, 70, 70)
        one, other = (
            backbone.encode_image(pixels, ImageOptions(position_filter=name))
            for name in ("bilinear", "bicubic")
        )
        assert (one.class_token - other.class_token).abs().max() > 1e-3


class TestRefusals:
    @pytest.mark.parametrize("shape", [(3, 56, 56), (1, 1, 56, 56), (1, 56, 56, 3)])
    def test_pixels_of_another_shape(self, backbone, shape):
        with pytest.raises(ValueError, match=r"pixels should be \(B, 3, H, W\)"):
            backbone.encode_image(torch.zeros(shape))

    @pytest.mark.parametrize(
        ("size", "fit"), [((60, 56), "56x56"), ((56, 64), "56x70"), ((5, 20), "14x14")]
    )
    def test_a_size_that_does_not_divide_proposes_one_that_does(self, backbone, size, fit):
        with pytest.raises(ValueError, match=f"{size[0]}x{size[1]} pixels .* {fit} would"):
            backbone.encode_image(torch.zeros(1, 3, *size))
        height, width = map(int, fit.split("x"))
        assert backbone.encode_image(torch.zeros(1, 3, height, width)).class_token.isfinite().all()

    @pytest.mark.parametrize("layers", [[0], [7], [3, 24], [-1], []])
    def test_layers_outside_the_tower(self, backbone, layers):
        with pytest.raises(ValueError, match=r"layers should lie in 1\.\.6"):
            backbone.encode_image(torch.zeros(1, 3, 56, 56), ImageOptions(layers=layers))


class TestPrecision:
    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_features_stay_close(self, precision, spec, state, backbone):
        """Only the matrices of the image tower are rounded."""
        low = build_backbone(spec, state, name="low").set_precision(precision)
        assert low.precision == precision
        for key, tensor in low.state_dict().items():
            matrix = key.startswith("vision.") and (".attn." in key or ".mlp." in key)
            assert tensor.dtype == (DTYPES[precision] if matrix else torch.float32), key
        pixels = draw_pixels(2, 70, 56)
        exact = backbone.encode_image(pixels, ImageOptions(layers=(3, 6)))
        rounded = low.encode_image(pixels, ImageOptions(layers=(3, 6)))
        pairs = [(rounded.class_token, exact.class_token)]
        pairs += [(rounded.patch_tokens[n], exact.patch_tokens[n]) for n in (3, 6)]
        for ours, wanted in pairs:
            assert ours.dtype == torch.float32
            assert torch.cosine_similarity(ours, wanted, dim=-1).min() > 0.999
            assert not torch.equal(ours, wanted)

    def test_fp32_is_exactly_what_was_loaded(self, spec, state, backbone):
        again = build_backbone(spec, state, name="again").set_precision("fp32")
        pixels = draw_pixels(1, 56, 56)
        ours, wanted = (b.encode_image(pixels).class_token for b in (again, backbone))
        assert torch.equal(ours, wanted)

    def test_rounded_weights_cannot_go_back(self, spec, state):
        low = build_backbone(spec, state, name="low").set_precision("bf16")
        assert low.set_precision("bf16") is low
        for precision in ("fp32", "fp16"):
            with pytest.raises(ValueError, match=f"rounded to bf16 .* again for {precision}"):
                low.set_precision(precision)

    def test_another_word_is_refused(self, backbone):
        with pytest.raises(ValueError, match="one of fp32, bf16, fp16, int8, got 'int4'"):
            backbone.set_precision("int4")


class TestFrozen:
    def test_nothing_asks_for_a_gradient(self, backbone):
        assert list(backbone.parameters())
        assert not any(p.requires_grad for p in backbone.parameters())
        assert not backbone.training

    def test_gradients_still_pass_through_to_the_pixels(self, backbone):
        pixels = draw_pixels(1, 28, 28).requires_grad_()
        backbone.encode_image(pixels).patch_tokens[6].square().sum().backward()
        assert pixels.grad.abs().sum() > 0


class TestConvStem:
    def test_gives_the_grid_of_the_patch_convolution(self):
        spec = VisionSpec(
            image_size=64, patch_size=16, width=32, layers=1, heads=1,
            stem_channels=(8, 8, 16), stem_strides=(2, 2, 2, 2),
        )  # fmt: skip
        assert ConvStem(spec)(torch.zeros(2, 3, 48, 80)).shape == (2, 32, 3, 5)
