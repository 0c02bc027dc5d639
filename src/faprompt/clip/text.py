"""Encode prompts made of continuous vectors with CLIP's text tower.

A prompt is split into a part that all prompts share and a part of its own:

    [SOT] V1 V2 V3 V4 V5 | A1 A2 damaged object . [EOT]
          prefix (once)  |   suffix (once per prompt)

The mask is causal, so the prefix's keys and values are computed once per layer and shared by
all suffixes of all images. Positions after the end token are not computed (12 instead of 77).
Deep prompts overwrite positions 1..t of layers 2..d, wherever the split lies.

Source: AnomalyCLIP_lib/AnomalyCLIP.py and prompt_ensemble.py of zqhang/AnomalyCLIP; the
split is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faprompt.clip.spec import TextSpec
from faprompt.clip.tokens import TokenTree


@dataclass(frozen=True, slots=True)
class DeepPrompts:
    """Matrices that overwrite positions 1..t before layers 2, 3, ... of the text tower.

    vectors: (d - 1, t, width). `round_to_half` reproduces the authors' cast to float16 at the
    insertion; the gradient passes through float16, too.
    """

    vectors: Tensor
    round_to_half: bool = False

    def for_layer(self, layer: int) -> Tensor | None:
        """Return (t, width) to write before `layer` (from 1), or None."""
        if not 2 <= layer < 2 + self.vectors.shape[0]:
            return None
        matrix = self.vectors[layer - 2]
        return matrix.half().to(matrix.dtype) if self.round_to_half else matrix


@dataclass(frozen=True, slots=True)
class Injection:
    """Vectors that overwrite positions 1..t before one layer, different for each prompt (TCP).

    vectors: (N, t, width), one row per suffix; positions 1..t must lie in the suffixes.
    """

    vectors: Tensor
    layer: int

    def for_layer(self, layer: int) -> Tensor | None:
        """Return (N, t, width) to write before `layer` (from 1), or None."""
        return self.vectors if layer == self.layer else None


@dataclass(frozen=True, slots=True)
class EncodedPrefix:
    """A prefix (P, width), with the keys and values that its suffixes share.

    keys, values: one per layer, each (1, heads, P, head width); empty for a bidirectional tower,
    which can share nothing. For `encode_tree` the prefixes of N pictures may be one tensor
    (N, P, width), with keys and values (N, heads, P, head width).
    """

    vectors: Tensor
    keys: tuple[Tensor, ...] = ()
    values: tuple[Tensor, ...] = ()

    @property
    def length(self) -> int:
        """Number of positions, P."""
        return self.vectors.shape[-2]

    def before(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put the prefix's keys and values before a layer's (N, heads, S, head width)."""
        own = (self.keys[layer - 1], self.values[layer - 1])
        k, v = (
            torch.cat([shared.expand(theirs.shape[0], -1, -1, -1), theirs], dim=2)
            for shared, theirs in zip(own, (keys, values), strict=True)
        )
        return k, v


class TextTower(nn.Module):
    """Encode vectors in place of token ids with CLIP's causal text transformer."""

    def __init__(self, clip: Any, spec: TextSpec) -> None:
        super().__init__()
        self.spec = spec
        self.transformer = clip.transformer
        self.token_embedding = clip.token_embedding
        self.ln_final = clip.ln_final
        self.positional_embedding = clip.positional_embedding
        self.text_projection = clip.text_projection

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Return the vectors (..., width) of token ids (...,) int64, without positions."""
        return self.token_embedding(ids)

    def find_end(self, ids: Tensor) -> Tensor:
        """Return the places (N,) int64 of the end token, the largest id of each row in CLIP."""
        return ids.argmax(dim=-1)

    def encode_tokens(self, ids: Tensor) -> Tensor:
        """Encode (N, L) ids, zero-padded after the end token, to (N, D), not normalised."""
        end = self.find_end(ids)
        if not torch.compiler.is_compiling():  # an export sees no values
            ids = ids[:, : int(end.max()) + 1]
        empty = self.encode_prefix(self.token_embedding.weight.new_zeros(0, self.spec.width))
        return self.encode(empty, self.embed_tokens(ids), end)

    def encode_prefix(self, prefix: Tensor, deep: DeepPrompts | None = None) -> EncodedPrefix:
        """Encode the shared beginning of some prompts once.

        Args:
            prefix: (P, width) or (N, P, width) vectors at positions 0..P-1, without positions
                added; P may be 0.
            deep: deep prompts, or None.

        Raises:
            ValueError: the prefix is longer than the context.
        """
        length = prefix.shape[-2]
        self._check_length(length)
        stream = prefix + self.positional_embedding[:length]
        stream = stream if prefix.ndim == 3 else stream[None]
        keys: list[Tensor] = []
        values: list[Tensor] = []
        blocks = self.transformer.resblocks
        for number, block in enumerate(blocks, start=1):
            stream = overwrite(stream, 0, deep, number)
            q, k, v = _project(block, stream)
            keys.append(k)
            values.append(v)
            if number < len(blocks) and length:  # the last block's output is not used
                seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
                stream = _finish(block, stream, seen)
        return EncodedPrefix(prefix, tuple(keys), tuple(values))

    def encode(
        self,
        prefix: EncodedPrefix,
        suffixes: Tensor,
        end: Tensor | int,
        deep: DeepPrompts | Injection | None = None,
    ) -> Tensor:
        """Return text features of prompts with the same beginning.

        Args:
            prefix: their beginning, from `encode_prefix` with the same `deep`.
            suffixes: (N, S, width) vectors at positions P..P+S-1, without positions added.
            end: position of the end token within the suffix; one for all, or (N,) int64.
            deep: deep prompts, vectors of each prompt for one layer, or None.

        Returns:
            (N, D), read at the end token, after `ln_final` and the projection; not normalised.

        Raises:
            ValueError: the prompts are longer than the context, or an `Injection` would have
                to be written into the shared prefix.
        """
        count, length, _ = suffixes.shape
        first = prefix.length
        if isinstance(deep, Injection) and first > 1:
            raise ValueError(
                f"Each prompt's own vectors begin at position 1, but a prefix of {first} is "
                "shared; keep it to the start token."
            )
        self._check_length(first + length)
        stream = suffixes + self.positional_embedding[first : first + length]
        mask = _causal_mask(first, length, suffixes.device)
        rows = torch.arange(count, device=suffixes.device)
        blocks = self.transformer.resblocks
        for number, block in enumerate(blocks, start=1):
            stream = overwrite(stream, first, deep, number)
            q, k, v = _project(block, stream)
            k, v = prefix.before(number, k, v)
            layer_mask = mask
            if number == len(blocks):  # only the end token is read
                q = q[rows, :, end][:, :, None]
                layer_mask = mask[end].reshape(-1, 1, 1, mask.shape[-1])
                stream = stream[rows, end][:, None]
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=layer_mask)
            stream = _finish(block, stream, seen)
        return self.ln_final(stream[:, 0]) @ self.text_projection

    def encode_tree(self, prefix: EncodedPrefix, tree: TokenTree) -> Tensor:
        """Return text features of sentences after a common prefix; shared tokens run once.

        Args:
            prefix: their beginning, from `encode_prefix` without deep prompts.
            tree: the sentences, with the end tokens.

        Returns:
            (S, D) in the order of the S sentences, as from `encode`; (N, S, D) for N prefixes.

        Raises:
            ValueError: the prompts are longer than the context.
        """
        device = self.positional_embedding.device
        ids, depth, sees, ends = (
            torch.from_numpy(values).to(device)
            for values in (tree.ids, tree.depth, tree.sees, tree.ends)
        )
        self._check_length(prefix.length + int(tree.depth.max()) + 1)
        vectors = self.embed_tokens(ids) + self.positional_embedding[prefix.length + depth]
        mask = torch.cat([sees.new_ones(ids.shape[0], prefix.length), sees], dim=1)
        stream = vectors.expand(prefix.keys[0].shape[0], -1, -1)
        blocks = self.transformer.resblocks
        for number, block in enumerate(blocks, start=1):
            q, k, v = _project(block, stream)
            k, v = prefix.before(number, k, v)
            if number == len(blocks):  # only the end tokens are read
                q, mask, stream = q[:, :, ends], mask[ends], stream[:, ends]
            seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            stream = _finish(block, stream, seen)
        features = self.ln_final(stream) @ self.text_projection
        return features if prefix.vectors.ndim == 3 else features[0]

    def _check_length(self, length: int) -> None:
        if length > self.spec.context_length:
            raise ValueError(
                f"A prompt of {length} tokens does not fit into {self.spec.context_length}; "
                "shorten it."
            )


def _causal_mask(first: int, length: int, device: torch.device) -> Tensor:
    """Return (length, first + length) bool: position i sees the prefix and suffix 0..i."""
    return torch.ones(length, first + length, dtype=torch.bool, device=device).tril(first)


def overwrite(
    stream: Tensor, first: int, deep: DeepPrompts | Injection | None, layer: int
) -> Tensor:
    """Overwrite positions 1..t of tokens that begin at `first` with the layer's deep prompts."""
    matrix = None if deep is None else deep.for_layer(layer)
    if matrix is None:
        return stream
    start, stop = max(1, first), min(1 + matrix.shape[-2], first + stream.shape[1])
    if start >= stop:
        return stream
    written = matrix[..., start - 1 : stop - 1, :].to(stream.dtype).expand(stream.shape[0], -1, -1)
    return torch.cat([stream[:, : start - first], written, stream[:, stop - first :]], dim=1)


def _project(block: Any, stream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of one block, each (B, heads, L, head width)."""
    attention = block.attn
    packed = F.linear(block.ln_1(stream), attention.in_proj_weight, attention.in_proj_bias)
    batch, length, width = stream.shape
    heads = attention.num_heads
    q, k, v = packed.view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    return q, k, v


def _finish(block: Any, stream: Tensor, seen: Tensor) -> Tensor:
    stream = stream + block.attn.out_proj(seen.transpose(1, 2).flatten(2))
    return stream + block.mlp(block.ln_2(stream))
