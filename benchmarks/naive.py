"""FAPrompt as its Algorithm 1 reads and its public code runs: the yardstick of our speed.

float32, softmax attention written out, 77 text positions, static prompts encoded again for
every image, one image at a time. Same weights, same results as ours within 1e-4; only the
way there is the plain one. One habit of the public code is left out, in its favour: it
computes gradients of the frozen text tower as well, and never uses them.

`naive_score` is for inference, `naive_step` for training.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.methods.faprompt import FAPrompt, FAPromptOutput


def naive_score(backbone: Backbone, method: FAPrompt, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (B,) and smoothed maps (B, H, W) of pixels (B, 3, H, W), image by image."""
    _require_float32(backbone)
    with torch.no_grad():
        results = [_score_one(backbone, method, image[None]) for image in pixels]
    return torch.stack([score for score, _ in results]), torch.stack([m for _, m in results])


def naive_step(
    backbone: Backbone,
    method: FAPrompt,
    optimizer: torch.optim.Optimizer,
    pixels: Tensor,
    label: Tensor,
    mask: Tensor,
) -> dict[str, float]:
    """One training step on a batch: encode its images once more, then prompts; the loss terms."""
    features = naive_images(backbone, pixels)
    return naive_prompt_step(backbone, method, optimizer, *features, label, mask)


def naive_images(backbone: Backbone, pixels: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Class tokens (B, D), patch tokens (B, N, D) and the grid; one image at a time."""
    _require_float32(backbone)
    with torch.no_grad():
        encoded = [encode_image(backbone, image[None]) for image in pixels]
    return torch.cat([e[0] for e in encoded]), torch.cat([e[1] for e in encoded]), encoded[0][2]


def naive_prompt_step(
    backbone: Backbone,
    method: FAPrompt,
    optimizer: torch.optim.Optimizer,
    class_token: Tensor,
    patch_tokens: Tensor,
    grid: tuple[int, int],
    label: Tensor,
    mask: Tensor,
) -> dict[str, float]:
    """The part of a step that learns: 11 + 11 B prompts of 77 positions, loss, Adam."""
    output = naive_forward(backbone, method, class_token, patch_tokens, grid)
    terms = method.loss(output, label, mask)
    optimizer.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    optimizer.step()
    return {name: float(value.detach()) for name, value in terms.items()}


def naive_forward(
    backbone: Backbone,
    method: FAPrompt,
    class_token: Tensor,
    patch_tokens: Tensor,
    grid: tuple[int, int],
) -> FAPromptOutput:
    """One forward of a batch, as train.py and test.py write it: first pass, prior, second pass."""
    config = method.config
    patches = patch_tokens / patch_tokens.norm(dim=-1, keepdim=True)
    image = class_token / class_token.norm(dim=-1, keepdim=True)
    text = encode_prompts(backbone, method, method.prompts.abnormal_tokens)
    pair = _unit_pair(text)
    coarse = (patches @ pair.T / config.temperature).softmax(dim=-1)[..., 1]
    ranked = coarse if config.rank_by == "probability" else patches @ pair[1]
    pairs, priors, chosen, second = [], [], [], []
    for index in range(len(patches)):
        if config.selection == "first":
            selected = torch.arange(config.patches, device=patches.device)
        else:
            selected = ranked[index].detach().topk(config.patches).indices
        prior = method.prior(patches[index, selected][None])
        refined_text = encode_prompts(backbone, method, method.prompts.abnormal_tokens + prior)
        pairs.append(_unit_pair(refined_text))
        priors.append(prior[0])
        chosen.append(selected)
        second.append(refined_text[1:])
    text_pair = torch.stack(pairs)
    refined = (patches @ text_pair.mT / config.temperature).softmax(dim=-1)[..., 1]
    logits = (image[:, None] @ text_pair.mT / config.temperature)[:, 0]
    peak = config.coarse_share * coarse.amax(-1) + (1 - config.coarse_share) * refined.amax(-1)
    shape = (len(patches), *grid)
    return FAPromptOutput(
        score=(logits.softmax(dim=-1)[:, 1] + peak) / 2,
        patch_map=((coarse + refined) / 2).reshape(shape),
        image_logits=logits,
        coarse=coarse.reshape(shape),
        refined=refined.reshape(shape),
        prior=torch.stack(priors),
        selected=torch.stack(chosen),
        normal_text=text[0],
        abnormal_text=text[1:],
        refined_text=torch.stack(second),
        text_pair=text_pair,
    )


def encode_image(backbone: Backbone, pixels: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """(1, 3, H, W) -> class token (1, D), patch tokens (1, N, D), grid; both paths in full."""
    visual = backbone.vision.visual
    patches = visual.conv1(pixels)
    grid = (patches.shape[-2], patches.shape[-1])
    tokens = torch.cat([visual.class_embedding.expand(1, 1, -1), patches.flatten(2).mT], dim=1)
    stream = visual.ln_pre(tokens + _positions(visual.positional_embedding, grid))
    start = backbone.spec.vision.value_path_start
    value = stream
    for number, block in enumerate(visual.transformer.resblocks, start=1):
        q, k, v = _heads(block, block.ln_1(stream))
        if number <= start:
            stream = stream + _attend(block, q, k, v)
            stream = value = stream + block.mlp(block.ln_2(stream))
            continue
        value = value + _attend(block, v, v, v)
        stream = stream + _attend(block, q, k, v)
        stream = stream + block.mlp(block.ln_2(stream))
    return stream[:, 0] @ visual.proj, visual.ln_post(value)[:, 1:] @ visual.proj, grid


def encode_prompts(backbone: Backbone, method: FAPrompt, abnormal_tokens: Tensor) -> Tensor:
    """(1 + K, D): the normal prompt and K abnormal ones, all 77 positions of each."""
    text, prompts = backbone.text, method.prompts
    count, length = len(abnormal_tokens), text.spec.context_length
    padding = text.token_embedding.weight[0]
    shared = torch.cat([prompts.start_word, prompts.normal_context])
    rows = [torch.cat([shared, prompts.normal_words])]
    for own in abnormal_tokens:
        rows.append(torch.cat([shared, own, prompts.abnormal_words]))
    ends = [len(row) - 1 for row in rows]
    stream = torch.stack([torch.cat([row, padding.expand(length - len(row), -1)]) for row in rows])
    stream = stream + text.positional_embedding
    mask = torch.full((length, length), float("-inf"), device=stream.device).triu(1)
    for number, block in enumerate(text.transformer.resblocks, start=1):
        stream = _insert(stream, prompts, number)
        q, k, v = _heads(block, block.ln_1(stream))
        stream = stream + _attend(block, q, k, v, mask)
        stream = stream + block.mlp(block.ln_2(stream))
    stream = text.ln_final(stream)
    return stream[torch.arange(1 + count), torch.tensor(ends)] @ text.text_projection


def _score_one(backbone: Backbone, method: FAPrompt, pixels: Tensor) -> tuple[Tensor, Tensor]:
    output = naive_forward(backbone, method, *encode_image(backbone, pixels))
    size = (pixels.shape[-2], pixels.shape[-1])
    maps = []
    for grid in (output.coarse, output.refined):
        both = torch.stack([1 - grid, grid], dim=1)
        maps.append(F.interpolate(both, size=size, mode="bilinear", align_corners=False))
    first, second = maps
    score_map = (first[:, 1] + 1 - first[:, 0] + second[:, 1] + 1 - second[:, 0]) / 4
    if method.config.sigma_px > 0:
        smooth = gaussian_filter(score_map[0].cpu().numpy(), sigma=method.config.sigma_px)
        return output.score[0], torch.from_numpy(smooth)
    return output.score[0], score_map[0].cpu()


def _unit_pair(text: Tensor) -> Tensor:
    """(1 + K, D) -> (2, D): the normal feature and the mean abnormal one, unit length."""
    pair = torch.stack([text[0], text[1:].mean(dim=0)])
    return pair / pair.norm(dim=-1, keepdim=True)


def _heads(block: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    attention = block.attn
    packed = F.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    batch, length, width = tokens.shape
    split = packed.reshape(batch, length, 3, attention.num_heads, width // attention.num_heads)
    q, k, v = split.permute(2, 0, 3, 1, 4)
    return q, k, v


def _attend(block: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention, the whole matrix of weights written out."""
    weights = (q * q.shape[-1] ** -0.5) @ k.mT
    if mask is not None:
        weights = weights + mask
    seen = weights.softmax(dim=-1) @ v
    return block.attn.out_proj(seen.transpose(1, 2).flatten(2))


def _insert(stream: Tensor, prompts: Any, number: int) -> Tensor:
    """Deep prompts over positions 1..t before layers 2, 3, ..., as the authors insert them."""
    if not 2 <= number < 2 + len(prompts.deep_prompts):
        return stream
    matrix = prompts.deep_prompts[number - 2]
    matrix = matrix.half().to(stream.dtype) if prompts.round_to_half else matrix
    deep = matrix.expand(len(stream), -1, -1)
    return torch.cat([stream[:, :1], deep, stream[:, 1 + len(matrix) :]], dim=1)


def _positions(table: Tensor, grid: tuple[int, int]) -> Tensor:
    side = round((len(table) - 1) ** 0.5)
    square = table[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=grid, mode="bilinear", align_corners=False)
    return torch.cat([table[:1], resized.permute(0, 2, 3, 1).flatten(0, 2)])


def _require_float32(backbone: Backbone) -> None:
    if backbone.precision != "fp32":
        raise ValueError(
            f"The naive road runs in float32, this backbone holds {backbone.precision}; "
            "run it before set_precision, or on a backbone of its own."
        )
