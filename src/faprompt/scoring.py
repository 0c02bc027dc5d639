"""Maps and scores from tokens and text directions: pure functions for any batch size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from faprompt.imaging.map_rendering import TOP_SHARE, map_matrices

CLIP_AD_TEMPERATURE = 0.07  # image and patch logits in AnomalyCLIP's and FAPrompt's code
LEAST_SCORE = torch.finfo(torch.float32).tiny  # replaces 0 in a harmonic mean


def abnormal_probability(
    tokens: Tensor, text_pair: Tensor, *, temperature: float = CLIP_AD_TEMPERATURE
) -> Tensor:
    """Return the probability of "abnormal" for each token: a softmax over two cosines.

    Args:
        tokens: (B, N, D) of any length; both sides are normalised here.
        text_pair: (2, D), or (B, 2, D) when each image has its own text. Row 0 normal,
            row 1 abnormal.
        temperature: divides the cosines; above 0.

    Returns:
        (B, N) float32 in [0, 1].

    Raises:
        ValueError: shapes that do not fit, or a temperature not above 0.

    Source:
        AnomalyCLIP (Zhou et al., ICLR 2024), local score; kept by FAPrompt (ICCV 2025).
    """
    fits = tokens.ndim == 3 and text_pair.shape[-2:] == (2, tokens.shape[-1])
    if not fits or text_pair.shape[:-2] not in ((), (1,), tokens.shape[:1]):
        raise ValueError(
            "tokens should be (B, N, D) and text_pair (2, D) or (B, 2, D), "
            f"got {tuple(tokens.shape)} and {tuple(text_pair.shape)}."
        )
    return pair_logits(tokens, text_pair, temperature=temperature).softmax(dim=-1)[..., 1]


def pair_logits(
    tokens: Tensor, text: Tensor, *, temperature: float = CLIP_AD_TEMPERATURE
) -> Tensor:
    """Return cosines over temperature (B, N, T): tokens (B, N, D), text (T, D) or (B, T, D)."""
    if not temperature > 0:
        raise ValueError(f"temperature should be above 0, got {temperature}.")
    return unit(tokens) @ unit(text).mT / temperature


def probability_by_prompt(
    tokens: Tensor,
    normal_text: Tensor,
    abnormal_text: Tensor,
    *,
    temperature: float = CLIP_AD_TEMPERATURE,
) -> Tensor:
    """Return the probability of each abnormality prompt against the normal one.

    Args:
        tokens: (B, N, D) of any length.
        normal_text: (D,).
        abnormal_text: (K, D), or (B, K, D) when each image has its own.
        temperature: as in `pair_logits`.

    Returns:
        (B, K, N) in [0, 1].
    """
    normal = pair_logits(tokens, normal_text[None], temperature=temperature)
    each = pair_logits(tokens, abnormal_text, temperature=temperature)
    return (each - normal).sigmoid().mT  # a softmax of two is a sigmoid


def unit(vectors: Tensor) -> Tensor:
    """Normalise each last-axis vector to length 1, in float32."""
    return F.normalize(vectors.float(), dim=-1)


def grid_map(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Reshape (B, N), row-major, to (B, rows, columns).

    Raises:
        ValueError: N is not rows x columns.
    """
    rows, columns = grid
    if patches.shape[-1] != rows * columns:
        raise ValueError(
            f"{patches.shape[-1]} patches do not form a {rows}x{columns} grid; "
            "if the class token is still there, drop it."
        )
    return patches.reshape(*patches.shape[:-1], rows, columns)


def upsample(grid: Tensor, image_size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Upsample (B, rows, columns) to (B, height, width), bilinear."""
    return F.interpolate(
        grid[:, None], size=image_size, mode="bilinear", align_corners=align_corners
    )[:, 0]


def in_pixels(grid: Tensor, patch_size: int) -> Tensor:
    """Upsample (B, rows, columns) to the model's pixels, bilinear, corners aligned."""
    rows, columns = grid.shape[-2:]
    return upsample(grid, (rows * patch_size, columns * patch_size), align_corners=True)


def pixel_probability(
    tokens: Tensor,
    text_pair: Tensor,
    grid: tuple[int, int],
    *,
    patch_size: int,
    temperature: float,
) -> Tensor:
    """Return the probability of "abnormal" for each pixel: logits upsampled before the softmax.

    Args:
        tokens, text_pair, temperature: as in `abnormal_probability`.
        grid: (rows, columns) of the tokens.
        patch_size: side of a patch in pixels.

    Returns:
        (B, height, width) float32 in [0, 1].

    Source:
        APRIL-GAN (Chen et al., 2023), test.py; kept by FiLo (Gu et al., ACM MM 2024).
    """
    logits = pair_logits(tokens, text_pair, temperature=temperature)
    gap = grid_map(logits[..., 1] - logits[..., 0], grid)
    return in_pixels(gap, patch_size).sigmoid()


def window_map(scores: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Return one score a patch: the harmonic mean of all windows it lies in.

    Args:
        scores: (B, W) in [0, 1], row-major over the windows of side x side patches.
        grid: (rows, columns) of patches.
        side: of a window, in patches.

    Returns:
        (B, rows, columns) float32 in [0, 1].

    Raises:
        ValueError: W is not the number of such windows.

    Source:
        WinCLIP (Jeong et al., CVPR 2023), harmonic averaging of windows.
    """
    rows, columns = grid
    windows = grid_map(scores, (rows - side + 1, columns - side + 1))
    inverse = 1 / _double(windows).clamp_min(LEAST_SCORE)
    sums, counts = (
        _window_sums(values, grid, side) for values in (inverse, torch.ones_like(inverse[:1]))
    )
    return (counts / sums).float().clamp(0, 1).to(scores.device)


def _window_sums(values: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Return the sum over the windows that hold each patch; ONNX has no double convolution."""
    rows, columns = grid
    padded = F.pad(values, (side - 1,) * 4)
    shifts = [(down, right) for down in range(side) for right in range(side)]
    parts = (padded[..., d : d + rows, r : r + columns] for d, r in shifts)
    return sum(parts, padded.new_zeros(()))


def harmonic_mean(maps: Tensor) -> Tensor:
    """Return the harmonic mean over the first axis of (S, ...) in [0, 1]."""
    inverse = 1 / _double(maps).clamp_min(LEAST_SCORE)
    return (1 / inverse.mean(dim=0)).float().clamp(0, 1).to(maps.device)


def _double(values: Tensor) -> Tensor:
    """Return values as float64; on the CPU where they are on Apple's MPS, which has no float64."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def nearest_distance(tokens: Tensor, memory: Tensor) -> Tensor:
    """Return half the cosine distance of each token to the nearest of a memory.

    Args:
        tokens: (B, N, D) of any length.
        memory: (R, D) of any length.

    Returns:
        (B, N) float32 in [0, 1].
    """
    nearest = (unit(tokens) @ unit(memory).T).amax(dim=-1)
    return ((1 - nearest) / 2).clamp(0, 1)


def top_mean(values: Tensor) -> Tensor:
    """Return the mean (B,) of the highest 2 % of (B, N) values, at least of one."""
    count = max(1, round(TOP_SHARE * values.shape[-1]))
    return values.topk(count, dim=-1).values.mean(dim=-1)


def render_map(
    grid: Tensor,
    *,
    model_size: tuple[int, int],
    sigma_px: float,
    image_size: tuple[int, int] | None = None,
) -> Tensor:
    """Make smoothed score maps of patch probabilities, with gradients; see `render_grid`.

    Args:
        grid: (B, rows, columns) in [0, 1].
        model_size, sigma_px, image_size: as in `render_grid`.

    Returns:
        (B, height, width) float32 in [0, 1].
    """
    places = (grid.shape[-2], grid.shape[-1])
    matrices = map_matrices(places, model_size, sigma_px, image_size or model_size)
    # copies: a tensor made while a model is exported or compiled has no values
    left, right = (torch.tensor(matrix, device=grid.device) for matrix in matrices)
    return (left @ grid.float() @ right.T).clamp(0, 1)
