"""A Grounding DINO of `transformers` with drawn weights: 89 thousand parameters, a few words."""

from __future__ import annotations

from pathlib import Path

import torch

from faprompt.clip.spec import open_clip_module

WORDS = ("anomaly", "damage", "broken", "defect", "contamination", "a", "flaw", "burn", "mark")
CLS, SEP, STOP, QUESTION = 101, 102, 1012, 1029  # BERT's numbers, which the model relies on


def vocabulary() -> list[str]:
    """Pieces by number, fillers between those that have to stand where they do."""
    fixed = {0: "[PAD]", 1: "[UNK]", 2: "[MASK]", CLS: "[CLS]", SEP: "[SEP]", STOP: "."}
    fixed |= {QUESTION: "?"} | dict(enumerate(WORDS, start=SEP + 1))
    return [fixed.get(number, f"[unused{number}]") for number in range(QUESTION + 1)]


def write(folder: Path) -> Path:
    """The folder of a checkpoint: config, safetensors and tokenizer."""
    open_clip_module()  # lets torchvision in, whatever its build
    import transformers as hf

    width, layers = 32, 2  # the least that its norms and its shared heads take
    swin = hf.SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 1, 1], window_size=4,
        out_indices=[1, 2, 3],
    )  # fmt: skip
    bert = hf.BertConfig(
        vocab_size=QUESTION + 1, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64,
    )  # fmt: skip
    config = hf.GroundingDinoConfig(
        backbone_config=swin, text_config=bert, d_model=width, encoder_layers=1,
        decoder_layers=layers, encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2,
        decoder_attention_heads=2, num_queries=7, num_feature_levels=3, encoder_n_points=2,
        decoder_n_points=2, max_text_len=64,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    pieces = {piece: number for number, piece in enumerate(vocabulary())}
    hf.BertTokenizer(vocab=pieces, do_lower_case=True).save_pretrained(folder)
    return folder
