"""CLIP weights written in other people's formats, by code that shares nothing with ours."""

import json
import warnings
from dataclasses import asdict

import torch
from safetensors.torch import save_file

from faprompt.clip.spec import infer_spec, open_clip_module


def open_clip_config(spec):
    """Arguments of open_clip's `CLIP` that build the towers of a spec."""
    sizes = ("image_size", "patch_size", "width", "layers", "mlp_ratio")
    vision = {name: getattr(spec.vision, name) for name in sizes}
    vision["head_width"] = spec.vision.width // spec.vision.heads
    return {
        "embed_dim": spec.embed_dim,
        "quick_gelu": spec.quick_gelu,
        "vision_cfg": vision,
        "text_cfg": asdict(spec.text),
    }


def build_open_clip(spec):
    """open_clip's `CLIP` of a spec, with random weights and its own forward passes."""
    return open_clip_module().model.CLIP(**open_clip_config(spec))


def write_openai_archive(path, state):
    """A TorchScript archive like OpenAI's: fp16, and three sizes as buffers."""
    clip = build_open_clip(infer_spec(state, quick_gelu=True))
    clip.load_state_dict(state)
    clip = clip.eval().half()
    image_size = clip.visual.image_size[0]
    for name, value in (
        ("input_resolution", image_size),
        ("context_length", 77),
        ("vocab_size", len(state["token_embedding.weight"])),
    ):
        clip.__dict__.pop(name, None)
        clip.register_buffer(name, torch.tensor(value))
    example = (torch.zeros(1, 3, image_size, image_size).half(), torch.zeros(1, 77).long())
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.jit.trace(clip, example, check_trace=False).save(str(path))
    return path


def to_transformers(state):
    """OpenAI's names -> those of transformers' CLIPModel, block by block."""
    out = {
        "logit_scale": state["logit_scale"],
        "text_projection.weight": state["text_projection"].T.contiguous(),
        "visual_projection.weight": state["visual.proj"].T.contiguous(),
    }
    text, vision = "text_model.embeddings", "vision_model.embeddings"
    out[f"{text}.token_embedding.weight"] = state["token_embedding.weight"]
    out[f"{text}.position_embedding.weight"] = state["positional_embedding"]
    out[f"{text}.position_ids"] = torch.arange(77)[None]
    out[f"{vision}.class_embedding"] = state["visual.class_embedding"]
    out[f"{vision}.patch_embedding.weight"] = state["visual.conv1.weight"]
    out[f"{vision}.position_embedding.weight"] = state["visual.positional_embedding"]
    out[f"{vision}.position_ids"] = torch.arange(len(state["visual.positional_embedding"]))[None]
    for kind in ("weight", "bias"):
        out[f"text_model.final_layer_norm.{kind}"] = state[f"ln_final.{kind}"]
        out[f"vision_model.pre_layrnorm.{kind}"] = state[f"visual.ln_pre.{kind}"]
        out[f"vision_model.post_layernorm.{kind}"] = state[f"visual.ln_post.{kind}"]
    for theirs, ours in (("text_model", "transformer"), ("vision_model", "visual.transformer")):
        number = 0
        while f"{ours}.resblocks.{number}.ln_1.weight" in state:
            here, there = f"{ours}.resblocks.{number}", f"{theirs}.encoder.layers.{number}"
            for kind in ("weight", "bias"):
                width = len(state[f"{here}.ln_1.weight"])
                packed = state[f"{here}.attn.in_proj_{kind}"]
                for index, letter in enumerate("qkv"):
                    part = packed[index * width : (index + 1) * width].clone()
                    out[f"{there}.self_attn.{letter}_proj.{kind}"] = part
                out[f"{there}.self_attn.out_proj.{kind}"] = state[f"{here}.attn.out_proj.{kind}"]
                out[f"{there}.layer_norm1.{kind}"] = state[f"{here}.ln_1.{kind}"]
                out[f"{there}.layer_norm2.{kind}"] = state[f"{here}.ln_2.{kind}"]
                out[f"{there}.mlp.fc1.{kind}"] = state[f"{here}.mlp.c_fc.{kind}"]
                out[f"{there}.mlp.fc2.{kind}"] = state[f"{here}.mlp.c_proj.{kind}"]
            number += 1
    return out


def transformers_config(**changes):
    """config.json for `file_state`: one head per tower."""
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2}
    tower = {**sizes, "num_attention_heads": 1, "hidden_act": "quick_gelu"}
    return {
        "model_type": "clip",
        "projection_dim": 32,
        "text_config": {**tower, "vocab_size": 300},
        "vision_config": {**tower, "image_size": 28, "patch_size": 14},
        **changes,
    }


def write_transformers_folder(folder, state, config=None, *, weights="model.safetensors"):
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config or transformers_config())
    if weights.endswith(".bin"):
        torch.save(to_transformers(state), folder / weights)
    else:
        save_file(to_transformers(state), folder / weights)
    return folder


def write_open_clip_folder(folder, state, *, name="open_clip_model.safetensors", **config):
    """An open_clip hub folder; `config` goes beside the two towers."""
    folder.mkdir(parents=True, exist_ok=True)
    model = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 28, "patch_size": 14, "width": 64, "layers": 2},
        "text_cfg": {"context_length": 77, "vocab_size": 300, "width": 64, "heads": 1, "layers": 2},
    }
    pixels = {"mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3]}
    write_json(
        folder / "open_clip_config.json",
        {"model_cfg": {**model, **config}, "preprocess_cfg": pixels},
    )
    if name.endswith(".bin"):
        torch.save(state, folder / name)
    else:
        save_file(state, folder / name)
    return folder


def write_json(path, data):
    path.write_text(json.dumps(data), encoding="utf-8")
