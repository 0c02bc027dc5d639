"""Loss terms of the learned methods: pure functions of probabilities and ground truth.

Every shape keeps its batch axis, also for one image (the authors' code squeezes it away).

Source: loss.py of zqhang/AnomalyCLIP, identical in mala-lab/FAPrompt, and FAPrompt's
train.py for the last three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

FOCAL_GAMMA = 2.0  # loss.py, FocalLoss and FocalLoss_img
FOCAL_SMOOTHING = 1e-5  # loss.py, FocalLoss


def focal(true_class_probability: Tensor) -> Tensor:
    """Return the pixel focal loss, mean over everything.

    Args:
        true_class_probability: any shape, in [0, 1], of each pixel's true class.
    """
    e = FOCAL_SMOOTHING
    q = (1 - 2 * e) * true_class_probability + 2 * e  # (1 - e) s + e (1 - s) + e in loss.py
    return -((1 - q) ** FOCAL_GAMMA * q.log()).mean()


def dice(probability: Tensor, mask: Tensor) -> Tensor:
    """Return 1 - Dice overlap per image with smoothing 1, mean over the batch.

    Args:
        probability: (B, H, W) in [0, 1].
        mask: (B, H, W) of 0 and 1, same dtype.
    """
    return _dice(*_sums(probability, mask), mask.sum(dim=(1, 2))).mean()


def focal_dice(abnormal_map: Tensor, mask: Tensor) -> Tensor:
    """Return focal plus Dice loss of the abnormal map (APRIL-GAN, train.py).

    Args:
        abnormal_map: (B, H, W) probability of "abnormal" per pixel.
        mask: (B, H, W) of 0 and 1, 1 where anomalous.

    Raises:
        ValueError: the two differ in shape.
    """
    mask = _checked_mask(abnormal_map, mask)
    return _focal_of_map(abnormal_map, mask) + dice(abnormal_map, mask)


def local_loss(abnormal_map: Tensor, mask: Tensor) -> Tensor:
    """Return `focal_dice` of the abnormal map plus Dice of the normal map, its complement."""
    mask = _checked_mask(abnormal_map, mask)
    return _focal_of_map(abnormal_map, mask) + _both_dice(*_sums(abnormal_map, mask), mask)


def upsampled_local_loss(grid: Tensor, mask: Tensor) -> Tensor:
    """Return `local_loss` of a grid upsampled to the mask's size, in less than half its time.

    Upsampling is a matrix per axis, map = A grid B'. So the sums of a map, alone and over the
    mask, are those of the grid with the weights A' 1 B and A' mask B, and only the focal loss
    is computed in pixels. Ours.

    Args:
        grid: (B, rows, columns) probability of "abnormal" per patch.
        mask: (B, H, W) of 0 and 1, 1 where anomalous.

    Raises:
        ValueError: the axes are not these, or B differs.
    """
    if grid.ndim != 3 or mask.ndim != 3 or len(grid) != len(mask):
        raise ValueError(
            f"grid and mask should be (B, rows, columns) and (B, H, W), got {tuple(grid.shape)} "
            f"and {tuple(mask.shape)}."
        )
    mask = mask.to(grid.dtype)
    down, across = (
        _upsampling_matrix(places, pixels, grid)
        for places, pixels in zip(grid.shape[1:], mask.shape[1:], strict=True)
    )
    overlap = (grid * (down.T @ mask @ across)).sum(dim=(1, 2))
    total = (grid * torch.outer(down.sum(dim=0), across.sum(dim=0))).sum(dim=(1, 2))
    return _focal_of_map(down @ grid @ across.T, mask) + _both_dice(overlap, total, mask)


def _sums(probability: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return each image's sum of the probability over the mask, and over everything."""
    return (probability * mask).sum(dim=(1, 2)), probability.sum(dim=(1, 2))


def _dice(overlap: Tensor, total: Tensor, area: Tensor) -> Tensor:
    return 1 - (2 * overlap + 1) / (total + area + 1)


def _both_dice(overlap: Tensor, total: Tensor, mask: Tensor) -> Tensor:
    """Return Dice of a map plus Dice of its complement against the rest of the mask, mean."""
    area, pixels = mask.sum(dim=(1, 2)), mask[0].numel()
    outside = pixels - total - area + overlap
    return (_dice(overlap, total, area) + _dice(outside, pixels - total, pixels - area)).mean()


def _focal_of_map(abnormal_map: Tensor, mask: Tensor) -> Tensor:
    """Return the focal loss of the true class: p where the mask is 1, 1 - p where it is 0."""
    return focal(torch.addcmul(1 - mask, 2 * mask - 1, abnormal_map))


def _checked_mask(abnormal_map: Tensor, mask: Tensor) -> Tensor:
    if abnormal_map.shape != mask.shape or mask.ndim != 3:
        raise ValueError(
            f"map and mask should both be (B, H, W), got {tuple(abnormal_map.shape)} "
            f"and {tuple(mask.shape)}."
        )
    return mask.to(abnormal_map.dtype)


def _upsampling_matrix(places: int, pixels: int, like: Tensor) -> Tensor:
    """Return (pixels, places), which upsamples one axis (bilinear, corners not aligned)."""
    identity = torch.eye(places, dtype=like.dtype, device=like.device)
    return F.interpolate(identity[:, None], size=pixels, mode="linear")[:, 0].T


def over_layers(
    term: Callable[[Tensor, Tensor], Tensor], layer_maps: Iterable[Tensor], mask: Tensor
) -> Tensor:
    """Sum a term, such as `local_loss`, over the maps (B, H, W) of several layers."""
    return torch.stack([term(layer_map, mask) for layer_map in layer_maps]).sum()


def score_focal(score: Tensor, label: Tensor, *, as_logit: bool) -> Tensor:
    """Return the binary focal loss of image scores, gamma 2, mean over the batch.

    Args:
        score: (B,) in [0, 1].
        label: (B,) of 0 and 1.
        as_logit: True applies a sigmoid to the probability again, as the authors' code does.
    """
    label = label.to(score.dtype)
    if as_logit:
        entropy = F.binary_cross_entropy_with_logits(score, label, reduction="none")
    else:
        clipped = score.clamp(1e-6, 1 - 1e-6)
        entropy = F.binary_cross_entropy(clipped, label, reduction="none")
    return ((1 - (-entropy).exp()) ** FOCAL_GAMMA * entropy).mean()


def orthogonality(abnormal_text: Tensor) -> Tensor:
    """Sum |cosine| over all pairs of abnormality prompts (FAPrompt, Eq. 2).

    Args:
        abnormal_text: (K, D), any length; K(K-1)/2 pairs, so 0..45 for K = 10.
    """
    unit = F.normalize(abnormal_text, dim=-1)
    cosines = (unit @ unit.T).abs()
    return cosines.triu(diagonal=1).sum()


def prior_penalty(prior: Tensor, label: Tensor) -> Tensor:
    """Sum the mean square of the prior over the normal images of the batch (FAPrompt, Eq. 5).

    Args:
        prior: (B, width).
        label: (B,), 0 is normal. Without a normal image the result is 0.
    """
    return prior[label == 0].square().mean(dim=-1).sum()
