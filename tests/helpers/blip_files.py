"""Small BLIPs with drawn weights, written by transformers' own classes."""

from __future__ import annotations

import json
import string
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from faprompt.clip.backbone import Backbone
from faprompt.clip.transformers_folders import transformers_module
from faprompt.clip.weights import load_backbone

WORDS = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "photo", "normal", "an", "anomal", "##ous",
    "object", "damaged", "the", "of", ".", "-", *string.ascii_lowercase,
    *(f"##{letter}" for letter in string.ascii_lowercase),
    "visual", "inspection", "anomaly", "detection", "corrupted", "unblemished", "without",
    "defect", "damage",
)  # fmt: skip
_FOLDER = TemporaryDirectory(prefix="blip-")
VISION = {
    "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 7,
    "num_attention_heads": 2, "image_size": 56, "patch_size": 14, "layer_norm_eps": 1e-6,
}  # fmt: skip
TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 1,
    "vocab_size": len(WORDS) + 2, "bos_token_id": 2, "sep_token_id": 3,
}  # fmt: skip


def draw(*, patch_size: int = 14, image_size: int = 56):
    """A `BlipForImageTextRetrieval` whose every weight is noise; its text is half as wide."""
    blip = transformers_module("a test")
    vision = {**VISION, "patch_size": patch_size, "image_size": image_size}
    config = blip.BlipConfig(vision_config=vision, text_config=TEXT, image_text_hidden_size=32)
    model = blip.BlipForImageTextRetrieval(config).eval().requires_grad_(False)
    noise = torch.Generator().manual_seed(3)
    for name, weight in model.named_parameters():
        width = weight.shape[-1] if weight.ndim > 1 and "embedding" not in name else 25
        weight.copy_(torch.randn(weight.shape, generator=noise) * width**-0.5)
        if "norm" in name.lower() and name.endswith("weight"):
            weight += 1
    return model


def write(folder: Path, model=None, **config) -> Path:
    """What transformers writes, with a vocabulary; `config` goes into config.json as it is."""
    (model or draw()).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    words = transformers_module("a test").BertTokenizer(vocab=str(folder / "vocab.txt"))
    words.save_pretrained(folder)
    pixels = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps(pixels), encoding="utf-8")
    if config:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **config}), "utf-8")
    return folder


@cache
def backbone() -> Backbone:
    """Of `draw()`, read from a folder that lasts as long as the tests."""
    return load_backbone(write(Path(_FOLDER.name)))
