"""The golden backbone, methods and inputs, and our numbers under the names of the files."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone, build_backbone
from faprompt.clip.spec import infer_spec
from faprompt.clip.vision import ImageFeatures, ImageOptions
from faprompt.methods.anomalyclip import AnomalyCLIP, AnomalyCLIPConfig
from faprompt.methods.base import Method
from faprompt.methods.faprompt import PRESETS, FAPrompt, FAPromptConfig
from faprompt.model_import import read_released
from faprompt.scoring import render_map, unit, upsample
from tests.golden import recipe

SEED = 7
SHAPE = {
    "embed_dim": 128, "resolution": 56, "patch": 14, "vision_width": 128, "vision_layers": 24,
    "text_width": 128, "text_layers": 12,
}  # fmt: skip
FOLDER = Path(__file__).resolve().parents[1] / "golden"
OFFICIAL = {**PRESETS["official"], "image_size": 70}
FAPROMPT_FILES = {
    "faprompt_official": OFFICIAL,
    "faprompt_topk": {**OFFICIAL, "selection": "topk"},
    "faprompt_topk_fp32": {**OFFICIAL, "selection": "topk", "round_deep_to_half": False},
}
FILES = (*FAPROMPT_FILES, "anomalyclip")
FP32_FILES = ("faprompt_topk_fp32",)  # in the others the deep prompts are rounded to fp16
LAYERS = (6, 12, 18, 24)  # of the AnomalyCLIP file
LOSSES = {  # ours -> (theirs, by what ours is weighted and theirs is not)
    "orthogonal": ("loss_orthogonal", 0.1),
    "local": ("loss_local", 1),
    "image_cross_entropy": ("loss_image_cross_entropy", 1),
    "image_focal": ("loss_image_focal", 1),
    "prior": ("loss_prior", 1),
    "image": ("loss_image", 1),
}


@cache
def clip_state() -> dict[str, torch.Tensor]:
    state = recipe.clip_state_dict(SEED, **SHAPE)
    return {key: torch.as_tensor(np.asarray(value)) for key, value in state.items()}


@cache
def backbone() -> Backbone:
    state = clip_state()
    return build_backbone(infer_spec(state, quick_gelu=True), state, name="golden")


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


def pixels() -> torch.Tensor:
    return torch.from_numpy(recipe.images(SEED, 4, 70))


def masks() -> torch.Tensor:
    return torch.from_numpy(recipe.masks(SEED, 4, 70))


def labels() -> torch.Tensor:
    return torch.tensor([0, 1, 0, 1])


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as archive:
        return {key: archive[key] for key in archive.files}


@cache
def features(name: str) -> ImageFeatures:
    with torch.no_grad():
        layers = LAYERS if name == "anomalyclip" else None
        return backbone().encode_image(pixels(), ImageOptions(layers=layers))


def method(name: str) -> Method:
    """The method of a file, with the recipe's parameters and the file's options."""
    if name == "anomalyclip":
        state = tensors(recipe.anomalyclip_state(SEED, width=128))
        config = AnomalyCLIPConfig(image_size=70, round_deep_to_half=True, map_layers=LAYERS)
        built: Method = AnomalyCLIP(config, backbone())
        built.load_state_dict(read_released("anomalyclip", state, embed_dim=128).state)
    else:
        state = tensors(recipe.faprompt_state(SEED, width=128))
        built = FAPrompt(FAPromptConfig(**FAPROMPT_FILES[name]), backbone())
        built.load_state_dict(read_released("faprompt", state, embed_dim=128).state)
    return built


def first_forward(name: str, built: Method) -> dict[str, Tensor]:
    """`eval/...` of a file."""
    with torch.no_grad():
        out = built(features(name), backbone().text)
        if name == "anomalyclip":
            return anomalyclip_stages(out)
        overlap = built.loss(out, labels(), masks())["orthogonal"] / 0.1
        return faprompt_stages(out) | {"eval/loss_orthogonal": overlap}


def faprompt_stages(out) -> dict[str, Tensor]:
    size, tokens = (70, 70), features("faprompt_official")
    coarse, refined = upsample(out.coarse, size), upsample(out.refined, size)
    stages = {
        "image_features": unit(tokens.class_token),
        "patch_features": unit(tokens.patch_tokens[24]),
        "normal_text_features": out.normal_text[None],
        "abnormal_text_features": out.abnormal_text,
        "coarse_patch_probability": out.coarse.flatten(1),
        "coarse_map": torch.stack([1 - coarse, coarse], dim=1),
        "selected_index": out.selected,
        "prior": out.prior,
        "refined_abnormal_text_features": out.refined_text,
        "text_features": out.text_pair,
        "refined_patch_probability": out.refined.flatten(1),
        "refined_map": torch.stack([1 - refined, refined], dim=1),
        "image_probability": out.image_logits.softmax(-1)[:, 1],
        "image_score": out.score,
        "anomaly_map": upsample(out.patch_map, size),
        "anomaly_map_smoothed": render_map(out.patch_map, model_size=size, sigma_px=10),
    }
    return {f"eval/{key}": value for key, value in stages.items()}


def anomalyclip_stages(out) -> dict[str, Tensor]:
    size, count = (70, 70), len(LAYERS)  # the authors sum the layers' maps, we average them
    return {
        "eval/image_features": unit(features("anomalyclip").class_token),
        "eval/text_features": unit(out.text_pair),
        "eval/image_score": out.score,
        "eval/anomaly_map": count * upsample(out.patch_map, size),
        "eval/anomaly_map_smoothed": count * render_map(out.patch_map, model_size=size, sigma_px=4),
    }


def train(name: str, built: Method) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Three steps: `step0..2/loss_...`, and our gradients of the first."""
    optimizer = torch.optim.Adam(built.parameters(), lr=1e-3, betas=(0.5, 0.999))
    told: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}
    for step in range(3):
        terms = built.loss(built(features(name), backbone().text), labels(), masks())
        total = sum(terms.values())
        told[f"step{step}/loss_total"] = total.detach()
        for ours, term in terms.items():
            theirs, weight = LOSSES[ours]
            told[f"step{step}/{theirs}"] = term.detach() / weight
        optimizer.zero_grad()
        total.backward()
        gradients = gradients or {n: p.grad.clone() for n, p in built.named_parameters()}
        optimizer.step()
    return told, gradients


def reference_values(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values by our parameter names -> by the reference checkpoint's."""
    short = {
        "normal_context": "ctx_pos",
        "abnormal_tokens": "ctx_neg",
        "abnormal_context": "ctx_neg",
    }
    named = {}
    for name, value in values.items():
        plain = name.removeprefix("prompts.").replace("prior.", "patch_meta_net.")
        if plain == "deep_prompts":
            named |= {f"compound_prompts_text.{i}": row for i, row in enumerate(value)}
        else:
            named[short.get(plain, plain)] = value
    return named


def difference(ours: Tensor, wanted: np.ndarray) -> float:
    """Largest absolute difference."""
    assert tuple(ours.shape) == wanted.shape, (tuple(ours.shape), wanted.shape)
    return float(np.abs(ours.numpy() - wanted).max())


def relative_difference(ours: Tensor, wanted: np.ndarray) -> float:
    """Length of the difference over the length wanted; large tensors are stored as a length."""
    ours = ours.detach().norm() if wanted.ndim == 0 else ours.detach()
    target = torch.from_numpy(np.asarray(wanted)).reshape(ours.shape)
    return float((ours - target).norm() / target.norm())


def loss_limit(name: str, key: str, wanted: float) -> float:
    """The largest difference allowed of a loss: 1e-4, or 1e-5 of its value if that is more.

    A weight that a step brings to a boundary of fp16 may be rounded either way, as the processor
    has it: files with the rounding have three times that from step 1 on, the others 1e-4 always.
    """
    if name in FP32_FILES:
        return 1e-4
    limit = max(1e-4, 1e-5 * abs(wanted))
    return limit if key.startswith("step0/") else 3 * limit


def compare(name: str) -> dict[str, tuple[float, float]]:
    """Every number of a file: key -> (our difference, the tolerance for it).

    `eval/...` and losses differ absolutely, see `loss_limit`; gradients and what comes after
    training relative to their length.
    """
    file, built = load(name), method(name)
    found = {key: (difference(v, file[key]), 1e-4) for key, v in first_forward(name, built).items()}
    losses, gradients = train(name, built)
    for key, value in losses.items():
        found[key] = (difference(value, file[key]), loss_limit(name, key, float(file[key])))
    later = {f"grad/{key}": value for key, value in reference_values(gradients).items()}
    end = reference_values(dict(built.named_parameters()))
    later |= {f"after/{key}": value for key, value in end.items()}
    again = {f"after/{key}": value for key, value in first_forward(name, built).items()}
    later |= {key: value for key, value in again.items() if key in file}
    return found | {key: (relative_difference(v, file[key]), 1e-3) for key, v in later.items()}
