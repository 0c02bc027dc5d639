"""CLIP's two towers done literally, slowly and in float64, to judge the real ones by.

Written from the equations of CLIP, AnomalyCLIP and FAPrompt on a state dict under OpenAI's
names. Attention is a softmax written out per head and per query, the V-V path keeps its
class row to the end, text has all its positions, and the position table is interpolated
pixel by pixel.
"""

import numpy as np


def as_numpy(state):
    return {key: value.double().numpy() for key, value in state.items()}


def encode_image(state, pixels, *, heads, start, layers):
    """One picture (3, H, W) -> class token (no ln_post), {layer: patch tokens (N, D)}.

    `start` is the number of blocks before the V-V path begins.
    """
    original = embed_pixels(state, pixels)
    second, patch_tokens = original, {}
    for layer in range(1, count_blocks(state, "visual.transformer") + 1):
        block = f"visual.transformer.resblocks.{layer - 1}"
        q, k, v = queries_keys_values(state, block, original)
        if layer > start:
            second = second + attend(state, block, v, v, v, heads)
        original = original + attend(state, block, q, k, v, heads)
        original = original + mlp(state, block, original)
        if layer <= start:
            second = original
        if layer in layers:
            projected = layer_norm(state, "visual.ln_post", second) @ state["visual.proj"]
            patch_tokens[layer] = projected[1:]
    return original[0] @ state["visual.proj"], patch_tokens


def embed_pixels(state, pixels):
    """Tokens (1 + rows*columns, width) after `ln_pre`."""
    kernel = state["visual.conv1.weight"]
    width, _, patch, _ = kernel.shape
    rows, columns = pixels.shape[1] // patch, pixels.shape[2] // patch
    tokens = [state["visual.class_embedding"]]
    for row in range(rows):
        for column in range(columns):
            top, left = row * patch, column * patch
            window = pixels[:, top : top + patch, left : left + patch]
            tokens.append(kernel.reshape(width, -1) @ window.reshape(-1))
    table = resize_table(state["visual.positional_embedding"], rows, columns)
    return layer_norm(state, "visual.ln_pre", np.stack(tokens) + table)


def resize_table(table, rows, columns):
    """Bilinear between centres, edges repeated, class row kept."""
    side = round((len(table) - 1) ** 0.5)
    square = table[1:].reshape(side, side, -1)
    resized = [table[0]]
    for row in range(rows):
        for column in range(columns):
            y, x = (
                max(0.0, (i + 0.5) * side / n - 0.5) for i, n in ((row, rows), (column, columns))
            )
            top, left = int(y), int(x)
            bottom, right = min(top + 1, side - 1), min(left + 1, side - 1)
            upper = (1 - x + left) * square[top, left] + (x - left) * square[top, right]
            lower = (1 - x + left) * square[bottom, left] + (x - left) * square[bottom, right]
            resized.append((1 - y + top) * upper + (y - top) * lower)
    return np.stack(resized)


def encode_prompt(state, vectors, end, *, heads, deep=()):
    """One prompt (L, width), without positions, read at `end`; deep[0] goes before block 2."""
    stream = vectors + state["positional_embedding"][: len(vectors)]
    hidden = np.triu(np.full((len(stream), len(stream)), -np.inf), 1)
    for layer in range(1, count_blocks(state, "transformer") + 1):
        block = f"transformer.resblocks.{layer - 1}"
        if 2 <= layer < 2 + len(deep):
            stream = stream.copy()
            room = len(stream) - 1
            stream[1 : 1 + len(deep[layer - 2])] = deep[layer - 2][:room]
        q, k, v = queries_keys_values(state, block, stream)
        stream = stream + attend(state, block, q, k, v, heads, hidden)
        stream = stream + mlp(state, block, stream)
    return layer_norm(state, "ln_final", stream)[end] @ state["text_projection"]


def queries_keys_values(state, block, stream):
    normed = layer_norm(state, f"{block}.ln_1", stream)
    packed = normed @ state[f"{block}.attn.in_proj_weight"].T + state[f"{block}.attn.in_proj_bias"]
    return np.split(packed, 3, axis=1)


def attend(state, block, queries, keys, values, heads, hidden=None):
    """Attention token by token and head by head, with the output projection."""
    width = queries.shape[1] // heads
    seen = np.zeros_like(queries)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for token in range(len(queries)):
            logits = keys[:, part] @ queries[token, part] / np.sqrt(width)
            if hidden is not None:
                logits = logits + hidden[token]
            weights = np.exp(logits - logits.max())
            seen[token, part] = weights / weights.sum() @ values[:, part]
    return seen @ state[f"{block}.attn.out_proj.weight"].T + state[f"{block}.attn.out_proj.bias"]


def mlp(state, block, stream):
    normed = layer_norm(state, f"{block}.ln_2", stream)
    hidden = normed @ state[f"{block}.mlp.c_fc.weight"].T + state[f"{block}.mlp.c_fc.bias"]
    hidden = hidden / (1 + np.exp(-1.702 * hidden))
    return hidden @ state[f"{block}.mlp.c_proj.weight"].T + state[f"{block}.mlp.c_proj.bias"]


def layer_norm(state, name, tokens):
    mean, variance = tokens.mean(-1, keepdims=True), tokens.var(-1, keepdims=True)
    normed = (tokens - mean) / np.sqrt(variance + 1e-5)
    return normed * state[f"{name}.weight"] + state[f"{name}.bias"]


def count_blocks(state, tower):
    prefix = f"{tower}.resblocks."
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})
