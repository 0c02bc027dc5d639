"""Give BLIP's towers the interface of a CLIP, so that methods run on them unchanged.

    image   patches + positions -> blocks, no ln_pre -> norm -> linear      of every token
    text    [CLS] V1..V5 damaged object . [SEP]                             word vectors
              -> + positions -> norm -> BERT's layers, bidirectional        [CLS] -> linear

The image side is our own tower with BLIP's weights, so the V-V path is the same code. BLIP's
final norm is applied to every token, the class token too. The text side consists of the
modules of `transformers`, without the cross-attention that only the matching head reads.

Source: Li et al., BLIP (ICML 2022); models/vit.py, med.py and blip_itm.py of salesforce/BLIP,
as in `BlipForImageTextRetrieval` of transformers. Ours: we use the contrastive (ITC) head,
because the matching head needs each prompt together with the image, and a V-V path that
begins at block 6 as in ViT-L/14, whatever the depth.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from faprompt.clip._open_clip import open_clip_module
from faprompt.clip.spec import TextSpec, VisionSpec
from faprompt.clip.text import DeepPrompts, EncodedPrefix, Injection, TextTower, overwrite
from faprompt.clip.tokens import TokenTree
from faprompt.clip.vision import PositionFilter, VisionTower


class BlipVisual(nn.Module):
    """Hold BLIP's image transformer under open_clip's names, with open_clip's blocks."""

    def __init__(self, spec: VisionSpec, embed_dim: int, eps: float) -> None:
        super().__init__()
        parts = open_clip_module().transformer
        norm = partial(parts.LayerNorm, eps=eps)
        patches = (spec.image_size // spec.patch_size) ** 2
        self.conv1 = nn.Conv2d(3, spec.width, spec.patch_size, stride=spec.patch_size)
        self.class_embedding = nn.Parameter(torch.empty(spec.width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + patches, spec.width))
        self.ln_pre = nn.Identity()
        self.transformer = parts.Transformer(
            spec.width, spec.layers, spec.heads, spec.mlp_ratio, norm_layer=norm
        )
        self.ln_post = norm(spec.width)
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
        self._check_length(prefix.shape[0])
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
        return self.encode(prefix, self.embed_tokens(ids), self.find_end(ids))
