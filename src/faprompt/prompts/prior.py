"""DAP: the data-dependent abnormality prior, computed from an image's most abnormal patches.

Source: FAPrompt (ICCV 2025), Eq. 3-4 and appendix B.1; FAPrompt.py of mala-lab/FAPrompt.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from faprompt.prompts.prompt_parts import REDUCTION, MetaNet

Selection = Literal["topk", "first"]
RankBy = Literal["similarity", "probability"]


class AbnormalityPrior(MetaNet):
    """Map M patch tokens, in order, to one vector in the space of prompt tokens: psi."""

    def __init__(self, embed_dim: int, patches: int, text_width: int) -> None:
        super().__init__(
            embed_dim * patches, text_width, reduction=REDUCTION, activation=torch.relu
        )

    def forward(self, selected: Tensor) -> Tensor:
        """Map unit-length patch tokens (B, M, D), best first, to the prior (B, text width)."""
        return super().forward(selected.flatten(1))


def select_patches(
    similarity: Tensor,
    probability: Tensor,
    *,
    count: int,
    selection: Selection,
    rank_by: RankBy,
) -> Tensor:
    """Select the patches that the prior is computed from, best first.

    Args:
        similarity: (B, N) cosine with the abnormal prototype.
        probability: (B, N) chance of "abnormal".
        count: M.
        selection: "topk" is the method in the paper; "first" takes patches 0..M-1 in raster
            order, as the authors' released code does.
        rank_by: what "topk" ranks by: similarity in the paper, probability in the code.

    Returns:
        (B, M) int64. No gradient flows through the choice.

    Raises:
        ValueError: fewer patches than `count`, or an unknown choice.
    """
    if selection not in get_args(Selection) or rank_by not in get_args(RankBy):
        raise ValueError(
            f"selection should be one of {', '.join(get_args(Selection))} and rank_by one of "
            f"{', '.join(get_args(RankBy))}, got {selection!r} and {rank_by!r}."
        )
    batch, available = probability.shape
    if available < count:
        raise ValueError(
            f"The prior wants {count} patches but the image has only {available}; "
            "use a larger image size or fewer patches."
        )
    if selection == "first":
        return torch.arange(count, device=probability.device).expand(batch, -1)
    ranked = similarity if rank_by == "similarity" else probability
    return ranked.detach().topk(count, dim=-1).indices


def gather_patches(patches: Tensor, index: Tensor) -> Tensor:
    """Gather patches (B, N, D) at an index (B, M) into (B, M, D)."""
    return patches.gather(1, index[..., None].expand(-1, -1, patches.shape[-1]))
