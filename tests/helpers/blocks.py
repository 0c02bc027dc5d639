"""One transformer block by torch's own multi-head attention."""

import torch.nn.functional as F


def run_block(block, stream, attn_mask=None):
    """Return what a block leaves of a stream (B, L, width); the mask is added, (L, L)."""
    attention, normed = block.attn, block.ln_1(stream).transpose(0, 1)
    seen, _ = F.multi_head_attention_forward(
        normed, normed, normed, attention.embed_dim, attention.num_heads,
        attention.in_proj_weight, attention.in_proj_bias, None, None, False, 0.0,
        attention.out_proj.weight, attention.out_proj.bias,
        need_weights=False, attn_mask=attn_mask,
    )  # fmt: skip
    stream = stream + seen.transpose(0, 1)
    return stream + block.mlp(block.ln_2(stream))
