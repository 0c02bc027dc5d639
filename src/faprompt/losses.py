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
    s = true_class_probability
    q = (1 - e) * s + e * (1 - s) + e
    return (-((1 - q) ** FOCAL_GAMMA) * q.log()).mean()


def dice(probability: Tensor, mask: Tensor) -> Tensor:
    """Return 1 - Dice overlap per image with smoothing 1, mean over the batch.

    Args:
        probability: (B, H, W) in [0, 1].
        mask: (B, H, W) of 0 and 1, same dtype.
    """
    overlap = (probability * mask).sum(dim=(1, 2))
    total = probability.sum(dim=(1, 2)) + mask.sum(dim=(1, 2))
    return (1 - (2 * overlap + 1) / (total + 1)).mean()


def focal_dice(abnormal_map: Tensor, mask: Tensor) -> Tensor:
    """Return focal plus Dice loss of the abnormal map (APRIL-GAN, train.py).

    Args:
        abnormal_map: (B, H, W) probability of "abnormal" per pixel.
        mask: (B, H, W), 1 where anomalous.

    Raises:
        ValueError: the two differ in shape.
    """
    if abnormal_map.shape != mask.shape or mask.ndim != 3:
        raise ValueError(
            f"map and mask should both be (B, H, W), got {tuple(abnormal_map.shape)} "
            f"and {tuple(mask.shape)}."
        )
    mask = mask.to(abnormal_map.dtype)
    true_class = torch.where(mask > 0.5, abnormal_map, 1 - abnormal_map)
    return focal(true_class) + dice(abnormal_map, mask)


def local_loss(abnormal_map: Tensor, mask: Tensor) -> Tensor:
    """Return `focal_dice` of the abnormal map plus Dice of the normal map, its complement."""
    own = focal_dice(abnormal_map, mask)
    return own + dice(1 - abnormal_map, 1 - mask.to(abnormal_map.dtype))


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
