"""BLIP folders of the `transformers` library: found, checked and turned into a backbone.

Wanted is a `BlipForImageTextRetrieval` such as Salesforce/blip-itm-base-coco, with its words.
Nothing of it is unpickled or run; the matching head and the cross-attention are left behind.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from faprompt.clip._open_clip import open_clip_module
from faprompt.clip.archive import read_tensors
from faprompt.clip.backbone import Backbone, load_strictly
from faprompt.clip.blip import BlipTextTower, BlipVisionTower, BlipVisual
from faprompt.clip.catalog import download_blip, with_pixel_statistics
from faprompt.clip.huggingface import preprocessor_record
from faprompt.clip.spec import HEAD_WIDTH, BackboneSpec, TextSpec, VisionSpec, hidden_ratio
from faprompt.clip.tokens import WordPieces
from faprompt.config import read_json
from faprompt.errors import ModelError

CONTEXT_LENGTH = 35  # blip_itm.py
PLAIN_BLOCKS = 5  # before the V-V path: literally as in ViT-L/14, of 12 here
TEMPERATURE = 0.07  # before training; the conversion to transformers dropped the learned one
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_WORDS = ("tokenizer.json", "vocab.txt")
_NAMES = {  # beginnings and parts of transformers' names -> ours, in this order
    "vision_model.encoder.layers.": "vision.visual.transformer.resblocks.",
    ".self_attn.qkv.": ".attn.in_proj_",
    ".self_attn.projection.": ".attn.out_proj.",
    ".layer_norm": ".ln_",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
    "vision_model.embeddings.patch_embedding.": "vision.visual.conv1.",
    "vision_model.embeddings.class_embedding": "vision.visual.class_embedding",
    "vision_model.embeddings.position_embedding": "vision.visual.positional_embedding",
    "vision_model.post_layernorm.": "vision.visual.ln_post.",
    "vision_proj.": "vision.visual.proj.",
    "text_encoder.embeddings.word_embeddings.": "text.token_embedding.",
    "text_encoder.embeddings.position_embeddings.weight": "text.positional_embedding",
    "text_encoder.embeddings.LayerNorm.": "text.ln_embedding.",
    "text_encoder.encoder.layer.": "text.layers.",
    "text_proj.": "text.text_projection.",
}
_UNREAD = ("itm_head.", ".crossattention.", ".position_ids")  # the matching head, and no weights


def fetch_blip(name: str) -> Path:
    """The folder of a BLIP known by name.

    Raises:
        ModelError: it could not be downloaded, or transformers is missing.
    """
    transformers_module(name)  # refuses before a gigabyte is fetched
    return download_blip(name).parent


def find_blip(path: Path) -> Path | None:
    """The folder, given itself or by its weights file, if its config says it is a BLIP."""
    folder = path if os.path.isdir(path) else path.parent  # unlike Path.is_dir, never an error
    if folder != path and path.name not in WEIGHTS:
        return None
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError):  # whoever reads it next will say
        return None
    is_blip = isinstance(config, dict) and config.get("model_type") == "blip"
    return folder if is_blip else None


def load_blip(folder: Path, *, name: str, quick_gelu: bool | None = None) -> Backbone:
    """A frozen backbone from a transformers folder of a `BlipForImageTextRetrieval`.

    Raises:
        ModelError: transformers or a file is missing; another BLIP than one with both
            projections; missing, unknown or misshapen tensors; or QuickGELU is asked for.
    """
    transformers = transformers_module(folder)
    if quick_gelu:
        raise ModelError(f"{folder} holds a BLIP, which has exact GELU; drop ':quickgelu'.")
    weights = next((folder / file for file in WEIGHTS if (folder / file).is_file()), None)
    if weights is None or not any((folder / file).is_file() for file in _WORDS):
        raise ModelError(
            f"{folder} is not whole. Wanted beside its config.json: {' or '.join(WEIGHTS)}, and "
            f"{' or '.join(_WORDS)} with tokenizer_config.json."
        )
    state = read_tensors(weights)
    try:
        config = transformers.BlipConfig.from_pretrained(folder, local_files_only=True)
        bert = transformers.BertTokenizer.from_pretrained(folder, local_files_only=True)
        spec = with_pixel_statistics(_read_spec(config), preprocessor_record(folder))
    except Exception as error:  # transformers lets its config and tokenizer raise anything
        raise ModelError(f"{folder / 'config.json'} with its tokenizer: {error}") from error
    if len(bert) > spec.text.vocab_size:
        raise ModelError(
            f"{folder}: its tokenizer has {len(bert)} tokens, its table {spec.text.vocab_size}."
        )
    with torch.device("meta"):  # nothing is drawn only to be overwritten
        vision, text = _build_towers(transformers, config, spec)
    temperature = state.pop("temp", torch.tensor(TEMPERATURE))
    load_strictly(nn.ModuleDict({"vision": vision, "text": text}), _own_names(state), name)
    return Backbone(
        spec,
        vision,
        text,
        WordPieces(bert, context_length=spec.text.context_length),
        logit_scale=-temperature.float().log().reshape(()),
        name=name,
    )


def transformers_module(source: str | Path) -> Any:
    """The `transformers` package, imported at first use.

    Raises:
        ModelError: it is not installed, or before 5, whose layers answer otherwise.
    """
    open_clip_module()  # brings torchvision in, which transformers needs and may not be whole
    try:
        import transformers

        found = str(transformers.__version__)
    except ImportError:
        found = "none"
    if found == "none" or int(found.split(".")[0]) < 5:
        raise ModelError(
            f"{source} is a BLIP, whose text tower comes from transformers 5 or newer; installed "
            f"here: {found}. Use pip install 'faprompt[baselines]', or choose a CLIP backbone."
        )
    return transformers


def _read_spec(config: Any) -> BackboneSpec:
    vision, text = config.vision_config, config.text_config
    for tower in (vision, text):
        if tower.hidden_act != "gelu":
            raise ModelError(f"hidden_act is {tower.hidden_act!r}, BLIP's is 'gelu'.")
        if tower.num_attention_heads * HEAD_WIDTH != tower.hidden_size:
            raise ModelError(
                f"{tower.model_type} has {tower.num_attention_heads} heads for a width of "
                f"{tower.hidden_size}, but BLIP's have {HEAD_WIDTH} channels each, and some "
                "converted configs are known to be wrong; write "
                f"num_attention_heads = {tower.hidden_size // HEAD_WIDTH} into config.json."
            )
    return BackboneSpec(
        embed_dim=config.image_text_hidden_size,
        quick_gelu=False,
        vision=VisionSpec(
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            width=vision.hidden_size,
            layers=vision.num_hidden_layers,
            heads=vision.num_attention_heads,
            mlp_ratio=hidden_ratio(vision.hidden_size, vision.intermediate_size),
            value_blocks=max(1, vision.num_hidden_layers - PLAIN_BLOCKS),
        ),
        text=TextSpec(
            width=text.hidden_size,
            layers=text.num_hidden_layers,
            heads=text.num_attention_heads,
            context_length=min(CONTEXT_LENGTH, text.max_position_embeddings),
            vocab_size=text.vocab_size,
            mlp_ratio=hidden_ratio(text.hidden_size, text.intermediate_size),
        ),
    )


def _build_towers(
    transformers: Any, config: Any, spec: BackboneSpec
) -> tuple[BlipVisionTower, BlipTextTower]:
    text_config = config.text_config
    text_config.is_decoder = False  # no cross-attention
    bert = transformers.BlipTextModel(text_config, add_pooling_layer=False)
    visual = BlipVisual(spec.vision, spec.embed_dim, config.vision_config.layer_norm_eps)
    text = BlipTextTower(bert, spec.text, spec.embed_dim)
    return BlipVisionTower(visual, spec.vision), text


def _own_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A BlipForImageTextRetrieval's tensors under our names; unknown ones are passed on."""
    renamed = {}
    for key, tensor in state.items():
        if any(part in key for part in _UNREAD):
            continue
        for theirs, ours in _NAMES.items():
            key = key.replace(theirs, ours)
        flat = key.endswith(("visual.class_embedding", "visual.positional_embedding"))
        renamed[key] = tensor.squeeze() if flat else tensor
    return renamed
