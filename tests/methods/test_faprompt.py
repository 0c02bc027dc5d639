"""FAPrompt: the suite, the paper's figures, and each formula recomputed."""

import pytest
import torch
import torch.nn.functional as F

from faprompt import losses
from faprompt.config import to_mapping
from faprompt.errors import ConfigError
from faprompt.methods import faprompt as module
from faprompt.methods.faprompt import FAPromptConfig, count_parameters
from faprompt.methods.registry import build_method
from faprompt.scoring import abnormal_probability, unit, upsample
from tests.helpers import large, small
from tests.methods.suite import LearnedSuite


class FAPromptSuite(LearnedSuite):
    name = "faprompt"
    parameters = (4_100_064, 9_612_256)
    more_presets = ("cap", "cap-without-oc", "dap", "dap-without-prior", "first-upload")


class TestSuite(FAPromptSuite):
    options = {"prompts": 3}
    prompts = 3


class TestSuiteOfTheOfficialOptions(FAPromptSuite):
    options = dict(module.PRESETS["official"])
    prompts = 10


class TestSuiteOfCAP(FAPromptSuite):
    options = {**module.PRESETS["cap"], "prompts": 3}
    prompts = 3


class TestSuiteOfDAP(FAPromptSuite):
    options = dict(module.PRESETS["dap"])
    prompts = 1


@pytest.fixture(scope="module")
def features():
    with torch.no_grad():
        return small.backbone().encode_image(small.pixels())


def run(method, features, **keywords):
    return method(features, small.backbone().text, **keywords)


def sizes(method):
    return {name: parameter.numel() for name, parameter in method.named_parameters()}


class TestParameterCounts:
    """At the paper's width, but on empty tensors."""

    def test_both_ways_of_counting(self):
        count = count_parameters(FAPromptConfig())
        assert (count.live, count.reported) == (4_100_064, 9_612_256)
        assert count.reported - count.live == 8 * (768 * 896 + 896) == 5_512_192
        one_token = count_parameters(FAPromptConfig(abnormal_tokens=1))
        assert one_token.reported == 9_604_576

    def test_of_the_first_upload(self):
        options = module.PRESETS["first-upload"]
        count = count_parameters(FAPromptConfig(**options))
        assert (count.live, count.reported) == (4_092_384, 9_604_576)
        assert sum(sizes(large.method("faprompt", **options)).values()) == count.live

    def test_the_module_has_as_many(self):
        assert sizes(large.method("faprompt")) == {
            "prompts.normal_context": 3_840,
            "prompts.abnormal_tokens": 15_360,
            "prompts.deep_prompts": 24_576,
            "prior.linear1.weight": 7680 * 480,
            "prior.linear1.bias": 480,
            "prior.linear2.weight": 480 * 768,
            "prior.linear2.bias": 768,
        }

    @pytest.mark.parametrize(
        "options",
        [{"prompts": 1}, {"patches": 5}, {"deep_depth": 5}, {"deep_length": 2},
         {"normal_tokens": 10, "abnormal_tokens": 4}, {"deep_depth": 1}, {"refine": False}],
    )  # fmt: skip
    def test_the_module_has_as_many_with_other_options(self, options):
        found = sum(sizes(large.method("faprompt", **options)).values())
        assert found == count_parameters(FAPromptConfig(**options)).live


def test_the_papers_constants():
    assert to_mapping(FAPromptConfig()) == {
        "image_size": 518, "sigma_px": 10.0, "picture_handling": "upright",
        "prompts": 10, "normal_tokens": 5, "abnormal_tokens": 2, "patches": 10,
        "deep_depth": 9, "deep_length": 4,
        "class_word": "object", "abnormal_word": "damaged", "temperature": 0.07,
        "coarse_share": 2 / 3, "selection": "topk", "rank_by": "similarity",
        "image_cross_entropy": False, "focal_as_logit": False, "round_deep_to_half": False,
        "coarse_weight": 1.0, "refined_weight": 0.5, "orthogonal_weight": 0.1,
        "prior_weight": 1.0, "long_deep_prompts": "refuse", "refine": True,
    }  # fmt: skip


def test_the_official_preset_differs_in_exactly_these_options():
    paper = to_mapping(build_method("faprompt", small.backbone()).config)
    official = to_mapping(build_method("faprompt", small.backbone(), preset="official").config)
    differing = {key: (paper[key], official[key]) for key in paper if paper[key] != official[key]}
    assert differing == {
        "selection": ("topk", "first"),
        "rank_by": ("similarity", "probability"),
        "image_cross_entropy": (False, True),
        "focal_as_logit": (False, True),
        "round_deep_to_half": (False, True),
        "long_deep_prompts": ("refuse", "overwrite"),
        "picture_handling": ("upright", "released"),
    }


def test_the_first_upload_differs_from_official_in_exactly_these_options():
    official = to_mapping(build_method("faprompt", small.backbone(), preset="official").config)
    first = to_mapping(build_method("faprompt", small.backbone(), preset="first-upload").config)
    differing = {k: (official[k], first[k]) for k in first if first[k] != official[k]}
    assert differing == {"abnormal_tokens": (2, 1), "image_cross_entropy": (True, False)}


def test_options_go_before_the_preset():
    built = build_method("faprompt", small.backbone(), {"selection": "topk"}, preset="official")
    assert built.config.selection == "topk" and built.config.rank_by == "probability"


class TestForward:
    def test_without_a_prior_both_passes_agree(self, features):
        method = small.method()
        with torch.no_grad():
            method.prior.linear2.weight.zero_()
            method.prior.linear2.bias.zero_()
            out = run(method, features)
        assert not out.prior.any()
        torch.testing.assert_close(out.refined, out.coarse, rtol=0, atol=1e-6)
        torch.testing.assert_close(out.refined_text, out.abnormal_text.expand(3, -1, -1))

    def test_the_prior_moves_the_abnormal_side_alone(self, features):
        method = small.method()
        with torch.no_grad():
            before = run(method, features)
            method.prior.linear2.bias += torch.linspace(-3, 3, 64)
            after = run(method, features)
        assert torch.equal(before.normal_text, after.normal_text)
        assert torch.equal(before.abnormal_text, after.abnormal_text)
        assert torch.equal(before.coarse, after.coarse)
        assert torch.equal(before.text_pair[:, 0], after.text_pair[:, 0])
        assert (before.text_pair[:, 1] - after.text_pair[:, 1]).abs().max() > 1e-3
        assert (before.refined - after.refined).abs().max() > 1e-4

    def test_each_image_has_its_own_prior(self, features):
        with torch.no_grad():
            prior = run(small.method(), features).prior
        assert prior.shape == (3, 64)
        assert (prior[0] - prior[1]).abs().max() > 1e-3

    def test_score_and_map_follow_their_formulas(self, features):
        with torch.no_grad():
            out = run(small.method(), features)
        pair = torch.stack(
            [out.normal_text.expand(3, -1), out.refined_text.mean(dim=1)], dim=1
        )  # prompts are averaged before they are normalised
        torch.testing.assert_close(out.text_pair, unit(pair))
        cosines = (unit(features.class_token)[:, None] * out.text_pair).sum(-1)
        torch.testing.assert_close(out.image_logits, cosines / 0.07, rtol=0, atol=1e-4)
        chance = out.image_logits.softmax(-1)[:, 1]
        coarse, refined = out.coarse.flatten(1).amax(1), out.refined.flatten(1).amax(1)
        wanted = (chance + (2 * coarse + refined) / 3) / 2
        torch.testing.assert_close(out.score, wanted)
        torch.testing.assert_close(out.patch_map, (out.coarse + out.refined) / 2)

    def test_maps_compare_patches_with_each_pass(self, features):
        with torch.no_grad():
            out = run(small.method(), features)
        patches = unit(features.patch_tokens[2])
        prototype = out.abnormal_text.mean(dim=0)
        for grid, normal, abnormal in (
            (out.coarse, out.normal_text, prototype.expand(3, -1)),
            (out.refined, out.normal_text, out.refined_text.mean(dim=1)),
        ):
            gap = patches @ unit(abnormal)[:, :, None] - (patches @ unit(normal))[..., None]
            wanted = (gap[..., 0] / 0.07).sigmoid()
            torch.testing.assert_close(grid.flatten(1), wanted, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("rank_by", ["similarity", "probability"])
    def test_topk_ranks_by_what_it_is_told(self, features, rank_by):
        with torch.no_grad():
            out = run(small.method(rank_by=rank_by), features)
        patches, prototype = features.patch_tokens[2], out.abnormal_text.mean(dim=0)
        similarity = F.cosine_similarity(patches, prototype, dim=-1)
        ranked = similarity if rank_by == "similarity" else out.coarse.flatten(1)
        assert all(len(set(places)) == 10 for places in out.selected.tolist())
        best = ranked.sort(dim=1, descending=True).values[:, :10]
        found = ranked.gather(1, out.selected)  # near ties may stand in either order
        torch.testing.assert_close(found, best, rtol=0, atol=1e-5)

    def test_first_feeds_the_beginning_of_the_top_row(self, features):
        with torch.no_grad():
            out = run(small.method(selection="first"), features)
        assert out.selected.tolist() == [list(range(10))] * 3

    def test_selected_patches_feed_the_prior_in_their_order(self, features):
        method = small.method()
        with torch.no_grad():
            out = run(method, features)
            patches = unit(features.patch_tokens[2])
            chosen = torch.stack([p[i] for p, i in zip(patches, out.selected, strict=True)])
            torch.testing.assert_close(out.prior, method.prior(chosen))

    def test_one_prompt_is_the_prototype(self, features):
        with torch.no_grad():
            out = run(small.method(prompts=1), features, with_prompt_scores=True)
        torch.testing.assert_close(out.prompt_scores[:, 0], out.score)

    def test_prompt_scores_are_those_of_each_prompt_alone(self, features):
        method = small.method(prompts=3)
        with torch.no_grad():
            out = run(method, features, with_prompt_scores=True)
            patches, image = unit(features.patch_tokens[2]), unit(features.class_token)
            for k in range(3):
                for b in range(3):
                    first = self.chances(patches[b], out.normal_text, out.abnormal_text[k])
                    second = self.chances(patches[b], out.normal_text, out.refined_text[b, k])
                    whole = self.chances(image[b, None], out.normal_text, out.refined_text[b, k])
                    wanted = (whole[0] + (2 * first.max() + second.max()) / 3) / 2
                    assert out.prompt_scores[b, k].item() == pytest.approx(float(wanted), abs=1e-5)

    @staticmethod
    def chances(tokens, normal, abnormal):
        logits = torch.stack([tokens @ unit(normal), tokens @ unit(abnormal)], dim=-1) / 0.07
        return logits.softmax(-1)[:, 1]

    @pytest.mark.parametrize("patches", [1, 4, 16])
    def test_another_number_of_patches(self, features, patches):
        method = small.method(patches=patches)
        assert method.prior.linear1.in_features == patches * 64
        with torch.no_grad():
            assert run(method, features).selected.shape == (3, patches)

    def test_an_image_with_too_few_patches_is_refused(self):
        with torch.no_grad():
            features = small.backbone().encode_image(small.pixels(1, 42, 42))
        with pytest.raises(ValueError, match="wants 10 patches but the image has only 9"):
            run(small.method(), features)


class TestLoss:
    LABEL = torch.tensor([0, 1, 0])

    @staticmethod
    def masks():
        masks = torch.zeros(3, 56, 56)
        masks[1, 5:30, 10:40] = 1
        return masks

    def terms(self, features, **options):
        method = small.method(**options)
        out = run(method, features)
        return method.loss(out, self.LABEL, self.masks()), out

    def test_terms_of_the_paper(self, features):
        terms, out = self.terms(features)
        assert set(terms) == {"local", "image_focal", "orthogonal", "prior"}
        coarse, refined = (
            losses.local_loss(upsample(grid, (56, 56)), self.masks())
            for grid in (out.coarse, out.refined)
        )
        torch.testing.assert_close(terms["local"], coarse + 0.5 * refined)
        focal = losses.score_focal(out.score, self.LABEL, as_logit=False)
        torch.testing.assert_close(terms["image_focal"], focal)
        overlap = losses.orthogonality(out.abnormal_text)
        torch.testing.assert_close(terms["orthogonal"], 0.1 * overlap)
        normal = out.prior[[0, 2]].square().mean(dim=1).sum()
        torch.testing.assert_close(terms["prior"], normal)

    def test_the_release_adds_cross_entropy_and_bends_the_focal_term(self, features):
        terms, out = self.terms(features, **module.PRESETS["official"])
        wanted = -out.image_logits.log_softmax(-1)[range(3), self.LABEL].mean()
        torch.testing.assert_close(terms["image_cross_entropy"], wanted)
        focal = losses.score_focal(out.score, self.LABEL, as_logit=True)
        torch.testing.assert_close(terms["image_focal"], focal)

    def test_the_first_upload_has_one_image_loss_and_it_is_bent(self, features):
        terms, out = self.terms(features, **module.PRESETS["first-upload"])
        assert set(terms) == {"local", "image_focal", "orthogonal", "prior"}
        focal = losses.score_focal(out.score, self.LABEL, as_logit=True)
        torch.testing.assert_close(terms["image_focal"], focal)

    def test_a_weight_of_zero_switches_a_term_off(self, features):
        terms, _ = self.terms(
            features, orthogonal_weight=0, prior_weight=0, coarse_weight=0, refined_weight=0
        )
        assert {k for k, v in terms.items() if v.item()} == {"image_focal"}

    def test_psi_learns_through_the_second_pass_only(self, features):
        method = small.method()
        out = run(method, features)
        (out.coarse.sum() + losses.orthogonality(out.abnormal_text)).backward(retain_graph=True)
        assert all(p.grad is None or not p.grad.any() for p in method.prior.parameters())
        assert all(p.grad.any() for p in method.prompts.parameters())
        method.zero_grad()
        out.refined.sum().backward()
        assert all(p.grad.any() for p in method.parameters())

    def test_no_gradient_flows_through_the_selection(self, features, monkeypatch):
        def gradients():
            method = small.method()
            out = run(method, features)
            sum(method.loss(out, self.LABEL, self.masks()).values()).backward()
            return out.selected, [p.grad for p in method.parameters()]

        selected, first = gradients()
        monkeypatch.setattr(module, "select_patches", lambda *_, **__: selected.clone())
        _, second = gradients()
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    def test_no_gradient_flows_into_the_pictures(self):
        detector = small.detector()
        pixels = small.pixels(2).requires_grad_()
        scores, maps = detector(pixels)
        (scores.sum() + maps.sum()).backward()
        assert pixels.grad is None
        assert all(p.grad is not None for p in detector.method.parameters())


class TestAblation:
    """Tables 15 and 16."""

    @pytest.mark.parametrize(
        "preset, wanted",
        [
            ("cap", {"refine": False}),
            ("cap-without-oc", {"refine": False, "orthogonal_weight": 0.0}),
            ("dap", {"prompts": 1}),
            ("dap-without-prior", {"prompts": 1, "prior_weight": 0.0}),
        ],
    )
    def test_each_differs_from_the_paper_in_these_options_alone(self, preset, wanted):
        built = build_method("faprompt", small.backbone(), preset=preset)
        assert to_mapping(built.config) == {**to_mapping(FAPromptConfig()), **wanted}

    def test_cap_is_the_first_pass_alone(self, features):
        method = small.method(refine=False)
        with torch.no_grad():
            out = run(method, features)
        assert method.prior is None and out.selected.shape == (3, 0)
        assert out.prior.shape == (3, 64) and not out.prior.any()
        whole = small.method()
        whole.prompts.load_state_dict(method.prompts.state_dict())
        with torch.no_grad():
            coarse = run(whole, features).coarse
        torch.testing.assert_close(out.patch_map, coarse, rtol=0, atol=1e-6)
        pair = torch.stack([out.normal_text, out.abnormal_text.mean(dim=0)])
        chance = abnormal_probability(features.class_token[:, None], pair)[:, 0]
        wanted = (chance + coarse.flatten(1).amax(1)) / 2
        torch.testing.assert_close(out.score, wanted, rtol=0, atol=1e-5)

    @pytest.mark.parametrize(
        "preset, terms",
        [("cap", {"orthogonal"}), ("cap-without-oc", set()), ("dap", {"prior"}),
         ("dap-without-prior", set())],
    )  # fmt: skip
    def test_what_each_is_trained_by(self, features, preset, terms):
        method = small.method(**module.PRESETS[preset])
        found = method.loss(run(method, features), TestLoss.LABEL, TestLoss.masks())
        assert {name for name, term in found.items() if term.item()} == {
            "local", "image_focal", *terms,
        }  # fmt: skip

    def test_the_loss_of_cap_has_one_map(self, features):
        method = small.method(refine=False, refined_weight=7)
        out = run(method, features)
        local = method.loss(out, TestLoss.LABEL, TestLoss.masks())["local"]
        wanted = losses.local_loss(upsample(out.coarse, (56, 56)), TestLoss.masks())
        torch.testing.assert_close(local, wanted)

    def test_cap_needs_no_patches_for_a_prior(self):
        options = {"image_size": 42, "refine": False}
        assert build_method("faprompt", small.backbone(), options).learns


class TestRefusals:
    def test_deep_prompts_longer_than_the_context(self):
        with pytest.raises(ConfigError, match="length 6 would overwrite more than the 5 context"):
            build_method("faprompt", small.backbone(), {"deep_length": 6})
        official = build_method("faprompt", small.backbone(), {"deep_length": 6}, preset="official")
        assert official.prompts.deep_prompts.shape[1] == 6
        longer = {"deep_length": 6, "normal_tokens": 6}
        assert build_method("faprompt", small.backbone(), longer).learns

    def test_an_image_size_with_too_few_patches(self):
        with pytest.raises(ConfigError, match="patches=10 feed the prior, but image_size=42"):
            build_method("faprompt", small.backbone(), {"image_size": 42})

    def test_prompts_that_do_not_fit_into_the_context(self):
        with pytest.raises(ConfigError, match="faprompt on test-tiny: A prompt of .* does not fit"):
            small.detector(normal_tokens=80)

    def test_all_faults_at_once(self):
        options = {"prompts": 0, "deep_depth": 0, "coarse_share": 1.5, "rank_by": "sim", "M": 3}
        with pytest.raises(ConfigError, match="rank_by: 'sim' is none of.*unknown option 'M'"):
            build_method("faprompt", small.backbone(), options)
        del options["rank_by"], options["M"]
        with pytest.raises(ConfigError) as caught:
            build_method("faprompt", small.backbone(), options)
        for told in ("prompts should", "deep_depth should", "coarse_share should be 0 to 1"):
            assert told in str(caught.value)

    def test_unknown_methods_are_refused_with_the_known_ones(self):
        with pytest.raises(
            ConfigError, match="No method 'faprompts'; known: clip, clip-ac, .*anom"
        ):
            build_method("faprompts", small.backbone())
