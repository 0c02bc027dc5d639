"""Loss terms shared by the learnable methods: pure functions of probabilities and truth.

Source: loss.py of zqhang/AnomalyCLIP, identical in mala-lab/FAPrompt, and FAPrompt's
train.py for the last three. Shapes keep an explicit batch axis, so one image is a batch
like any other (the authors' code squeezes it away).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

FOCAL_GAMMA = 2.0  # loss.py, FocalLoss and FocalLoss_img
FOCAL_SMOOTHING = 1e-5  # loss.py, FocalLoss


def focal(true_class_probability: Tensor) -> Tensor:
    """Pixel focal loss, mean over everything.

    Args:
        true_class_probability: any shape, in [0, 1]: what each pixel gives to its true class.
    """
    e = FOCAL_SMOOTHING
    s = true_class_probability
    q = (1 - e) * s + e * (1 - s) + e
    return (-((1 - q) ** FOCAL_GAMMA) * q.log()).mean()


def dice(probability: Tensor, mask: Tensor) -> Tensor:
    """1 - Dice overlap per image with smoothing 1, mean over the batch.

    Args:
        probability: (B, H, W) in [0, 1].
        mask: (B, H, W) of 0 and 1, same dtype.
    """
    overlap = (probability * mask).sum(dim=(1, 2))
    total = probability.sum(dim=(1, 2)) + mask.sum(dim=(1, 2))
    return (1 - (2 * overlap + 1) / (total + 1)).mean()


def focal_dice(abnormal_map: Tensor, mask: Tensor) -> Tensor:
    """Focal plus Dice on the abnormal map, as APRIL-GAN (train.py) has it.

    Args:
        abnormal_map: (B, H, W) chance of "abnormal" per pixel; the normal map is its complement.
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
    """Focal plus Dice on the abnormal map plus Dice on the normal one; see `focal_dice`."""
    own = focal_dice(abnormal_map, mask)
    return own + dice(1 - abnormal_map, 1 - mask.to(abnormal_map.dtype))


def over_layers(
    term: Callable[[Tensor, Tensor], Tensor], layer_maps: Iterable[Tensor], mask: Tensor
) -> Tensor:
    """The sum of a term, such as `local_loss`, over the maps (B, H, W) of several layers."""
    return torch.stack([term(layer_map, mask) for layer_map in layer_maps]).sum()


def score_focal(score: Tensor, label: Tensor, *, as_logit: bool) -> Tensor:
    """Binary focal loss on an image score, gamma 2, mean over the batch.

    Args:
        score: (B,) in [0, 1].
        label: (B,) of 0 and 1.
        as_logit: True repeats the authors' code, which puts the probability through a
            sigmoid once more; False takes it as the probability it is.
    """
    label = label.to(score.dtype)
    if as_logit:
        entropy = F.binary_cross_entropy_with_logits(score, label, reduction="none")
    else:
        clipped = score.clamp(1e-6, 1 - 1e-6)
        entropy = F.binary_cross_entropy(clipped, label, reduction="none")
    return ((1 - (-entropy).exp()) ** FOCAL_GAMMA * entropy).mean()


def orthogonality(abnormal_text: Tensor) -> Tensor:
    """Sum of |cosine| over all pairs of abnormality prompts (FAPrompt, Eq. 2).

    Args:
        abnormal_text: (K, D), any length. The sum runs over K(K-1)/2 pairs, 0..45 for K = 10.
    """
    unit = F.normalize(abnormal_text, dim=-1)
    cosines = (unit @ unit.T).abs()
    return cosines.triu(diagonal=1).sum()


def prior_penalty(prior: Tensor, label: Tensor) -> Tensor:
    """Mean square of the prior, summed over the normal images of the batch (FAPrompt, Eq. 5).

    Args:
        prior: (B, width).
        label: (B,), 0 normal. Without a normal image the result is 0.
    """
    return prior[label == 0].square().mean(dim=-1).sum()
