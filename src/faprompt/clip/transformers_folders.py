"""Read folders of the `transformers` library: CLIP models, and BLIP as a CLIP.

CLIP needs no `transformers`: its CLIPModel holds OpenAI's tensors under other names, with
separate queries, keys and values, and transposed projections. Its config tells what shapes do
not show: heads and activation. BLIP means a `BlipForImageTextRetrieval` such as
Salesforce/blip-itm-base-coco. Nothing in a folder is unpickled or run.

BLIP's image side is our own tower with BLIP's weights, so the V-V path is the same code; its
final norm is applied to every token. The text side consists of the modules of `transformers`,
without the cross-attention that only the matching head reads; the feature is read at [CLS].

Source of BLIP: Li et al. (ICML 2022); models/vit.py, med.py and blip_itm.py of salesforce/BLIP.
Ours: the contrastive (ITC) head, because the matching head needs each prompt together with the
image, and a V-V path that begins at block 6 as in ViT-L/14, whatever the depth.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from faprompt.clip.backbone import Backbone, load_strictly
from faprompt.clip.spec import (
    HEAD_WIDTH,
    BackboneSpec,
    TextSpec,
    VisionSpec,
    hidden_ratio,
    infer_spec,
    torchvision_module,
)
from faprompt.clip.tensor_files import read_tensors
from faprompt.clip.text import DeepPrompts, EncodedPrefix, Injection, TextTower, overwrite
from faprompt.clip.tokens import TokenTree, WordPieces
from faprompt.clip.transformer import Transformer
from faprompt.clip.vision import PositionFilter, VisionTower
from faprompt.config import read_json
from faprompt.errors import ModelError

# defaults of CLIPTextConfig and CLIPVisionConfig
_CLIP_TOWER = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_CLIP_HEADS = {"vision": 12, "text": 8}
_CLIP_NAMES = {  # parts of transformers' names -> ours, replaced in this order
    "text_model.encoder.layers.": "transformer.resblocks.",
    "vision_model.encoder.layers.": "visual.transformer.resblocks.",
    ".self_attn.out_proj.": ".attn.out_proj.",
    ".layer_norm": ".ln_",
    ".mlp.fc1.": ".mlp.c_fc.",
    ".mlp.fc2.": ".mlp.c_proj.",
    "text_model.embeddings.token_embedding.": "token_embedding.",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.": "ln_final.",
    "text_projection.weight": "text_projection",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.": "visual.conv1.",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",  # their spelling
    "vision_model.post_layernorm.": "visual.ln_post.",
    "visual_projection.weight": "visual.proj",
}
_CLIP_QKV = ("q_proj", "k_proj", "v_proj")

BLIP_CONTEXT = 35  # blip_itm.py
BLIP_PLAIN_BLOCKS = 5  # before the V-V path: as in ViT-L/14, of 12 here
BLIP_TEMPERATURE = 0.07  # before training; the conversion to transformers dropped the learned one
_BLIP_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_BLIP_WORDS = ("tokenizer.json", "vocab.txt")
_BLIP_NAMES = {  # as _CLIP_NAMES
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
_BLIP_UNREAD = ("itm_head.", ".crossattention.", ".position_ids")  # matching head, no weights


def from_transformers(
    config: Mapping[str, Any], state: Mapping[str, Tensor], *, quick_gelu: bool | None = None
) -> tuple[BackboneSpec, dict[str, Tensor]]:
    """Return the spec and the OpenAI-named state of a transformers CLIPModel.

    `quick_gelu` overrides `hidden_act` of its config.json.

    Raises:
        ModelError: another kind of model, towers that differ in their activation, an
            activation other than "gelu" and "quick_gelu", or an incomplete block.
    """
    if config.get("model_type") != "clip":
        raise ModelError(
            f"config.json has model_type {config.get('model_type')!r}, wanted 'clip': "
            "a CLIPModel with both towers."
        )
    vision, text = (_tower_config(config, tower) for tower in ("vision", "text"))
    if quick_gelu is None:
        activations = {vision["hidden_act"], text["hidden_act"]}
        if activations not in ({"gelu"}, {"quick_gelu"}):
            raise ModelError(
                f"hidden_act is {' and '.join(sorted(map(str, activations)))}; wanted 'gelu' or "
                "'quick_gelu', the same in both towers."
            )
        quick_gelu = activations == {"quick_gelu"}
    converted = openai_names(state)
    heads = (vision["num_attention_heads"], text["num_attention_heads"])
    return infer_spec(converted, quick_gelu=quick_gelu, heads=heads), converted


def openai_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a transformers CLIP state dict under OpenAI's names.

    Position ids are dropped. Unknown names are kept, for the strict loader to refuse.

    Raises:
        ModelError: a block has some of its queries, keys and values, but not all.
    """
    renamed: dict[str, Tensor] = {}
    packed: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        if key.endswith(".embeddings.position_ids"):
            continue
        name = _rename(key, _CLIP_NAMES)
        block, _, part = name.rpartition(".self_attn.")
        projection, _, kind = part.partition(".")
        if block and projection in _CLIP_QKV:
            packed.setdefault(f"{block}.attn.in_proj_{kind}", {})[projection] = tensor
        else:
            transposed = key in ("text_projection.weight", "visual_projection.weight")
            renamed[name] = tensor.T if transposed else tensor
    for name, parts in packed.items():
        missing = [f"self_attn.{part}" for part in _CLIP_QKV if part not in parts]
        if missing:
            raise ModelError(f"{name} cannot be packed: {', '.join(missing)} is missing.")
        renamed[name] = torch.cat([parts[part] for part in _CLIP_QKV])
    return renamed


def pixel_statistics(folder: Path) -> tuple[Any, Any]:
    """Return mean and std of a folder's preprocessor_config.json, None where it has none."""
    path = folder / "preprocessor_config.json"
    pixels = read_json(path) if path.is_file() else {}
    return pixels.get("image_mean"), pixels.get("image_std")


def _tower_config(config: Mapping[str, Any], tower: str) -> dict[str, Any]:
    """Return one tower's options; the older `..._config_dict` wins, as in transformers."""
    options = _CLIP_TOWER | {"num_attention_heads": _CLIP_HEADS[tower]}
    options |= config.get(f"{tower}_config") or {}
    options |= config.get(f"{tower}_config_dict") or {}
    if options["layer_norm_eps"] != 1e-5:
        raise ModelError(f"layer_norm_eps is {options['layer_norm_eps']}, CLIP's is 1e-5.")
    return options


def _rename(key: str, names: Mapping[str, str]) -> str:
    for theirs, ours in names.items():
        key = key.replace(theirs, ours)
    return key


def find_blip(path: Path) -> Path | None:
    """Return the folder of a BLIP, given itself or by its weights file; None for others."""
    folder = path if os.path.isdir(path) else path.parent  # unlike Path.is_dir, never an error
    if folder != path and path.name not in _BLIP_WEIGHTS:
        return None
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError):  # the next reader reports it
        return None
    is_blip = isinstance(config, dict) and config.get("model_type") == "blip"
    return folder if is_blip else None


def load_blip(folder: Path, *, name: str, quick_gelu: bool | None = None) -> Backbone:
    """Load a frozen backbone from a transformers folder of a `BlipForImageTextRetrieval`.

    Raises:
        ModelError: transformers or a file is missing; the BLIP lacks a projection; tensors are
            missing, unknown or misshapen; or QuickGELU is asked for.
    """
    transformers = transformers_module(folder)
    if quick_gelu:
        raise ModelError(f"{folder} holds a BLIP, which has exact GELU; drop ':quickgelu'.")
    weights = next((folder / file for file in _BLIP_WEIGHTS if (folder / file).is_file()), None)
    if weights is None or not any((folder / file).is_file() for file in _BLIP_WORDS):
        raise ModelError(
            f"{folder} is not whole. Wanted beside its config.json: {' or '.join(_BLIP_WEIGHTS)}, "
            f"and {' or '.join(_BLIP_WORDS)} with tokenizer_config.json."
        )
    state = read_tensors(weights)
    try:
        config = transformers.BlipConfig.from_pretrained(folder, local_files_only=True)
        bert = transformers.BertTokenizer.from_pretrained(folder, local_files_only=True)
        spec = _blip_spec(config).with_pixel_statistics(*pixel_statistics(folder))
    except Exception as error:  # transformers lets its config and tokenizer raise anything
        raise ModelError(f"{folder / 'config.json'} with its tokenizer: {error}") from error
    if len(bert) > spec.text.vocab_size:
        raise ModelError(
            f"{folder}: its tokenizer has {len(bert)} tokens, its table {spec.text.vocab_size}."
        )
    config.text_config.is_decoder = False  # no cross-attention
    with torch.device("meta"):  # no random weights that are overwritten at once
        visual = BlipVisual(spec.vision, spec.embed_dim, config.vision_config.layer_norm_eps)
        vision = BlipVisionTower(visual, spec.vision)
        text_model = transformers.BlipTextModel(config.text_config, add_pooling_layer=False)
        text = BlipTextTower(text_model, spec.text, spec.embed_dim)
    temperature = state.pop("temp", torch.tensor(BLIP_TEMPERATURE))
    load_strictly(nn.ModuleDict({"vision": vision, "text": text}), _blip_names(state), name)
    return Backbone(
        spec,
        vision,
        text,
        WordPieces(bert, context_length=spec.text.context_length),
        logit_scale=-temperature.float().log().reshape(()),
        name=name,
    )


def transformers_module(source: str | Path) -> Any:
    """Import the `transformers` package at first use, and return it.

    Raises:
        ModelError: it is not installed, or is older than 5, whose layers return other values.
    """
    torchvision_module()  # repairs torchvision, which transformers needs
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


def _blip_spec(config: Any) -> BackboneSpec:
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
            value_blocks=max(1, vision.num_hidden_layers - BLIP_PLAIN_BLOCKS),
        ),
        text=TextSpec(
            width=text.hidden_size,
            layers=text.num_hidden_layers,
            heads=text.num_attention_heads,
            context_length=min(BLIP_CONTEXT, text.max_position_embeddings),
            vocab_size=text.vocab_size,
            mlp_ratio=hidden_ratio(text.hidden_size, text.intermediate_size),
        ),
    )


def _blip_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, tensor in state.items():
        if not any(part in key for part in _BLIP_UNREAD):
            name = _rename(key, _BLIP_NAMES)
            flat = name.endswith(("visual.class_embedding", "visual.positional_embedding"))
            renamed[name] = tensor.squeeze() if flat else tensor
    return renamed


class BlipVisual(nn.Module):
    """Hold BLIP's image transformer under OpenAI's names."""

    def __init__(self, spec: VisionSpec, embed_dim: int, eps: float) -> None:
        super().__init__()
        patches = (spec.image_size // spec.patch_size) ** 2
        self.conv1 = nn.Conv2d(3, spec.width, spec.patch_size, stride=spec.patch_size)
        self.class_embedding = nn.Parameter(torch.empty(spec.width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + patches, spec.width))
        self.ln_pre = nn.Identity()
        self.transformer = Transformer(spec.width, spec.layers, spec.heads, spec.mlp_ratio, eps=eps)
        self.ln_post = nn.LayerNorm(spec.width, eps=eps)
        self.proj = nn.Linear(spec.width, embed_dim)


class BlipVisionTower(VisionTower):
    """Run our image tower, with BLIP's final norm and biased projection for every token."""

    def embed(
        self, pixels: Tensor, position_filter: PositionFilter = "bilinear"
    ) -> tuple[Tensor, tuple[int, int]]:
        """See `VisionTower.embed`; the position table is always resized as in BLIP."""
        return super().embed(pixels, "plain-bicubic")

    def project(self, tokens: Tensor) -> Tensor:
        """Project a block's tokens (..., width) to (..., D)."""
        return self.visual.proj(self.visual.ln_post(tokens.float()))

    def _project_class(self, token: Tensor, ln_post: bool) -> Tensor:
        return self.project(token)


class BlipTextTower(TextTower):
    """Encode vectors in place of token ids with BERT; the feature is read at [CLS].

    BERT is bidirectional, so a shared prefix saves no work: every prompt is run whole.
    """

    def __init__(self, bert: Any, spec: TextSpec, embed_dim: int) -> None:
        nn.Module.__init__(self)
        self.spec = spec
        self.token_embedding = bert.embeddings.word_embeddings
        self.positional_embedding = bert.embeddings.position_embeddings.weight
        self.ln_embedding = bert.embeddings.LayerNorm
        self.layers = bert.encoder.layer
        self.text_projection = nn.Linear(spec.width, embed_dim)

    def find_end(self, ids: Tensor) -> Tensor:
        """Return the places (N,) int64 of the end token, the last one that is no padding (0)."""
        return ids.count_nonzero(dim=-1) - 1

    def encode_prefix(self, prefix: Tensor, deep: DeepPrompts | None = None) -> EncodedPrefix:
        """See `TextTower.encode_prefix`; only the vectors are stored."""
        self._check_length(prefix.shape[-2])
        return EncodedPrefix(prefix)

    def encode(
        self,
        prefix: EncodedPrefix,
        suffixes: Tensor,
        end: Tensor | int,
        deep: DeepPrompts | Injection | None = None,
    ) -> Tensor:
        """See `TextTower.encode`; positions after the end token are masked as padding.

        An `Injection` may overwrite the prefix here, because it is not shared.
        """
        before = prefix.vectors.expand(suffixes.shape[0], -1, -1)
        vectors = torch.cat([before, suffixes], dim=1)
        length = vectors.shape[1]
        self._check_length(length)
        stream = self.ln_embedding(vectors + self.positional_embedding[:length])
        last = prefix.length + torch.as_tensor(end, device=stream.device).reshape(-1, 1)
        padding = torch.arange(length, device=stream.device) > last  # (N or 1, length)
        mask = torch.zeros_like(padding, dtype=stream.dtype).masked_fill(padding, -math.inf)
        for number, layer in enumerate(self.layers, start=1):
            stream = overwrite(stream, 0, deep, number)
            stream = layer(stream, attention_mask=mask[:, None, None])
        return self.text_projection(stream[:, 0])

    def encode_tree(self, prefix: EncodedPrefix, tree: TokenTree) -> Tensor:
        """See `TextTower.encode_tree`; every sentence is run whole."""
        rows = [torch.tensor(row, device=prefix.vectors.device) for row in tree.sentences]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        count, each = len(rows), prefix.vectors
        if each.ndim == 2:
            return self.encode(prefix, self.embed_tokens(ids), self.find_end(ids))
        pictures = each.shape[0]
        whole = EncodedPrefix(each.repeat_interleave(count, dim=0))
        found = self.encode(
            whole, self.embed_tokens(ids.repeat(pictures, 1)), self.find_end(ids).repeat(pictures)
        )
        return found.unflatten(0, (-1, count))
