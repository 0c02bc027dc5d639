"""Every number in the golden files, which the authors' own code produced."""

import numpy as np
import pytest
import torch

from faprompt.methods.anomalyclip import AnomalyCLIP, AnomalyCLIPConfig
from faprompt.methods.faprompt import PRESETS, FAPrompt, FAPromptConfig
from faprompt.methods.reference import read_anomalyclip, read_faprompt
from faprompt.scoring import render_map, unit, upsample
from tests.golden import recipe
from tests.helpers import golden

OFFICIAL = {**PRESETS["official"], "image_size": 70}
VARIANTS = {
    "faprompt_official": OFFICIAL,
    "faprompt_topk": {**OFFICIAL, "selection": "topk"},
    "faprompt_topk_fp32": {**OFFICIAL, "selection": "topk", "round_deep_to_half": False},
}
LAYERS = (6, 12, 18, 24)
LOSS_NAMES = {
    "orthogonal": "loss_orthogonal",
    "local": "loss_local",
    "image_cross_entropy": "loss_image_cross_entropy",
    "image_focal": "loss_image_focal",
    "prior": "loss_prior",
}


def close(actual, wanted, tolerance=1e-4):
    actual = actual.detach().numpy() if isinstance(actual, torch.Tensor) else actual
    np.testing.assert_allclose(actual, wanted, rtol=0, atol=tolerance)


def close_relative(actual, wanted, tolerance=1e-3):
    """Relative to the tensor's own size; large tensors are stored as their norm."""
    actual = actual.detach()
    if wanted.ndim == 0:
        actual = actual.norm()
    wanted = torch.from_numpy(np.asarray(wanted)).reshape(actual.shape)
    assert float((actual - wanted).norm()) <= tolerance * float(wanted.norm())


@pytest.fixture(scope="module")
def features():
    with torch.no_grad():
        return golden.backbone().encode_image(golden.pixels())


def build_faprompt(options):
    reference = golden.tensors(recipe.faprompt_state(golden.SEED, width=128))
    method = FAPrompt(FAPromptConfig(**options), golden.backbone())
    method.load_state_dict(read_faprompt(reference).state)
    return method


def build_anomalyclip():
    reference = golden.tensors(recipe.anomalyclip_state(golden.SEED, width=128))
    config = AnomalyCLIPConfig(image_size=70, round_deep_to_half=True, map_layers=LAYERS)
    method = AnomalyCLIP(config, golden.backbone())
    method.load_state_dict(read_anomalyclip(reference).state)
    return method


def run(method, features):
    return method(features, golden.backbone().text)


def train_three_steps(method, features, check):
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3, betas=(0.5, 0.999))
    for step in range(3):
        terms = method.loss(run(method, features), golden.labels(), golden.masks())
        check(step, terms)
        optimizer.zero_grad()
        sum(terms.values()).backward()
        if step == 0:
            gradients = {name: p.grad.clone() for name, p in method.named_parameters()}
        optimizer.step()
    return gradients


def reference_names(method):
    """Our parameter -> [(reference key, reshape)] pairs, for gradients and end values."""
    names = {}
    for name, parameter in method.named_parameters():
        short = name.removeprefix("prompts.").replace("prior.", "patch_meta_net.")
        if short == "deep_prompts":
            names[name] = [f"compound_prompts_text.{i}" for i in range(len(parameter))]
        else:
            alias = {"normal_context": "ctx_pos", "abnormal_tokens": "ctx_neg",
                     "abnormal_context": "ctx_neg"}  # fmt: skip
            names[name] = [alias.get(short, short)]
    return names


def check_against(method, values, file, prefix):
    for name, keys in reference_names(method).items():
        parts = values[name] if len(keys) > 1 else [values[name]]
        for part, key in zip(parts, keys, strict=True):
            close_relative(part, file[f"{prefix}/{key}"])


@pytest.mark.parametrize("name", VARIANTS)
class TestFAPrompt:
    def test_first_forward(self, name, features):
        file, method = golden.load(name), build_faprompt(VARIANTS[name])
        with torch.no_grad():
            out = run(method, features)
            terms = method.loss(out, golden.labels(), golden.masks())
        size = (70, 70)
        coarse, refined = upsample(out.coarse, size), upsample(out.refined, size)
        close(unit(features.class_token), file["eval/image_features"])
        close(unit(features.patch_tokens[24]), file["eval/patch_features"])
        close(out.normal_text[None], file["eval/normal_text_features"])
        close(out.abnormal_text, file["eval/abnormal_text_features"])
        close(terms["orthogonal"] / 0.1, file["eval/loss_orthogonal"])
        close(out.coarse.flatten(1), file["eval/coarse_patch_probability"])
        close(torch.stack([1 - coarse, coarse], dim=1), file["eval/coarse_map"])
        if VARIANTS[name]["selection"] == "topk":
            assert (out.selected.numpy() == file["eval/selected_index"]).all()
        close(out.prior, file["eval/prior"])
        close(out.refined_text, file["eval/refined_abnormal_text_features"])
        close(out.text_pair, file["eval/text_features"])
        close(out.refined.flatten(1), file["eval/refined_patch_probability"])
        close(torch.stack([1 - refined, refined], dim=1), file["eval/refined_map"])
        close(out.image_logits.softmax(-1)[:, 1], file["eval/image_probability"])
        close(out.score, file["eval/image_score"])
        close(upsample(out.patch_map, size), file["eval/anomaly_map"])
        smoothed = render_map(out.patch_map, model_size=size, sigma_px=10)
        close(smoothed, file["eval/anomaly_map_smoothed"])

    def test_three_training_steps(self, name, features):
        file, method = golden.load(name), build_faprompt(VARIANTS[name])

        def check(step, terms):
            total = sum(terms.values())
            close(total, file[f"step{step}/loss_total"])
            for ours, theirs in LOSS_NAMES.items():
                value = terms[ours] / (0.1 if ours == "orthogonal" else 1)
                close(value, file[f"step{step}/{theirs}"])

        gradients = train_three_steps(method, features, check)
        check_against(method, gradients, file, "grad")
        check_against(method, dict(method.named_parameters()), file, "after")
        with torch.no_grad():
            out = run(method, features)
        close_relative(out.score, file["after/eval/image_score"])
        smoothed = render_map(out.patch_map, model_size=(70, 70), sigma_px=10)
        close_relative(smoothed, file["after/eval/anomaly_map_smoothed"])


class TestAnomalyCLIP:
    def test_first_forward(self):
        file, method = golden.load("anomalyclip"), build_anomalyclip()
        with torch.no_grad():
            features = golden.backbone().encode_image(golden.pixels(), layers=LAYERS)
            out = run(method, features)
        close(unit(features.class_token), file["eval/image_features"])
        close(unit(out.text_pair), file["eval/text_features"])
        close(out.score, file["eval/image_score"])
        # the authors sum the layers' maps, we average them so that a map stays in 0..1
        close(upsample(out.patch_map, (70, 70)) * len(LAYERS), file["eval/anomaly_map"])
        smoothed = render_map(out.patch_map, model_size=(70, 70), sigma_px=4)
        close(smoothed * len(LAYERS), file["eval/anomaly_map_smoothed"])

    def test_three_training_steps(self):
        file, method = golden.load("anomalyclip"), build_anomalyclip()

        def check(step, terms):
            close(terms["image"], file[f"step{step}/loss_image"])
            close(sum(terms.values()), file[f"step{step}/loss_total"])
            close(terms["local"], file[f"step{step}/loss_local"])

        with torch.no_grad():
            features = golden.backbone().encode_image(golden.pixels(), layers=LAYERS)
        gradients = train_three_steps(method, features, check)
        check_against(method, gradients, file, "grad")
        check_against(method, dict(method.named_parameters()), file, "after")
