"""CLIP folders of the `transformers` library, turned into OpenAI's key names.

`transformers` itself is not needed. Its CLIPModel holds the same tensors under other
names: queries, keys and values apart instead of packed, and projections as Linear
weights, that is, transposed. Its config says what shapes cannot: heads and activation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faprompt.clip.spec import BackboneSpec, infer_spec
from faprompt.config import read_json
from faprompt.errors import ModelError

_NAMES = {
    "logit_scale": "logit_scale",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",  # their spelling
    "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
    "vision_model.post_layernorm.weight": "visual.ln_post.weight",
    "vision_model.post_layernorm.bias": "visual.ln_post.bias",
}
_TRANSPOSED = {
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
}
_BLOCK = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)\.(weight|bias)")
_PARTS = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}
_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_TOWERS = {"text": "transformer.resblocks", "vision": "visual.transformer.resblocks"}
_BUFFERS = re.compile(r"(text|vision)_model\.embeddings\.position_ids")

# what CLIPTextConfig and CLIPVisionConfig mean where they keep silent
_DEFAULTS: dict[str, dict[str, Any]] = {
    "text": {"num_attention_heads": 8, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
    "vision": {"num_attention_heads": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
}


def from_transformers(
    config: Mapping[str, Any], state: Mapping[str, Tensor], *, quick_gelu: bool | None = None
) -> tuple[BackboneSpec, dict[str, Tensor]]:
    """The spec and the OpenAI-named state of a transformers CLIPModel.

    Args:
        config: its config.json; `model_type` is "clip".
        state: its tensors, by its names. Position-id buffers are ignored; names it does not
            know are passed on, for the strict loader to refuse.
        quick_gelu: overrides `hidden_act`.

    Raises:
        ModelError: another kind of model, towers that differ in their activation, an
            activation other than "gelu" and "quick_gelu", or an incomplete block.
    """
    if config.get("model_type") != "clip":
        raise ModelError(
            f"config.json has model_type {config.get('model_type')!r}, wanted 'clip': "
            "a CLIPModel with both towers."
        )
    towers = {tower: _tower_config(config, tower) for tower in _TOWERS}
    activation = _quick_gelu(towers) if quick_gelu is None else quick_gelu
    converted = openai_names(state)
    vision_heads, text_heads = (towers[t]["num_attention_heads"] for t in ("vision", "text"))
    spec = infer_spec(converted, quick_gelu=activation, heads=(vision_heads, text_heads))
    return spec, converted


def preprocessor_record(folder: Path) -> dict[str, Any]:
    """`mean` and `std` of a folder's preprocessor_config.json, None where it does not say."""
    path = folder / "preprocessor_config.json"
    pixels = read_json(path) if path.is_file() else {}
    return {"mean": pixels.get("image_mean"), "std": pixels.get("image_std")}


def openai_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A transformers CLIP state dict under OpenAI's names.

    Raises:
        ModelError: a block has some of its queries, keys and values, but not all.
    """
    renamed: dict[str, Tensor] = {}
    packed: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        block = _BLOCK.fullmatch(key)
        if _BUFFERS.fullmatch(key):
            continue
        if key in _TRANSPOSED:
            renamed[_TRANSPOSED[key]] = tensor.T
        elif block and block[3] in _QKV:
            place = f"{_TOWERS[block[1]]}.{block[2]}.attn.in_proj_{block[4]}"
            packed.setdefault(place, {})[block[3]] = tensor
        elif block and block[3] in _PARTS:
            renamed[f"{_TOWERS[block[1]]}.{block[2]}.{_PARTS[block[3]]}.{block[4]}"] = tensor
        else:
            renamed[_NAMES.get(key, key)] = tensor
    for place, parts in packed.items():
        missing = [part for part in _QKV if part not in parts]
        if missing:
            raise ModelError(f"{place} cannot be packed: {', '.join(missing)} is missing.")
        renamed[place] = torch.cat([parts[part] for part in _QKV])
    return renamed


def _tower_config(config: Mapping[str, Any], tower: str) -> dict[str, Any]:
    """One tower's options; the older `..._config_dict` wins over `..._config`, as there."""
    given = (config.get(f"{tower}_config"), config.get(f"{tower}_config_dict"))
    options = _DEFAULTS[tower] | (given[0] or {}) | (given[1] or {})
    if options["layer_norm_eps"] != 1e-5:
        raise ModelError(f"layer_norm_eps is {options['layer_norm_eps']}, CLIP's is 1e-5.")
    return options


def _quick_gelu(towers: Mapping[str, Mapping[str, Any]]) -> bool:
    acts = {options["hidden_act"] for options in towers.values()}
    if len(acts) > 1 or not acts <= {"gelu", "quick_gelu"}:
        raise ModelError(
            f"hidden_act is {' and '.join(sorted(map(str, acts)))}; wanted 'gelu' or "
            "'quick_gelu', the same in both towers."
        )
    return acts == {"quick_gelu"}
