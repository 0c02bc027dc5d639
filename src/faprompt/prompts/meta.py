"""Small networks from features of the backbone to vectors for its prompts.

CoCoOp turns the image's feature into a shift of the context, TCP a sentence's feature into
the vectors of a class, FAPrompt an image's strangest patches into its prior.
Source: trainers/cocoop.py of KaiyangZhou/CoOp, trainers/tcp.py of
htyao89/Textual-based_Class-aware_prompt_tuning, FAPrompt.py of mala-lab/FAPrompt.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from faprompt.prompts.words import learned_vectors
from faprompt.scoring import unit

REDUCTION = 16  # hidden width of CoCoOp's net is D/16, of FAPrompt's psi D*M/16


class ImageContext(nn.Module):
    """CoCoOp's prompt learner: context vectors, all shifted by what an image shows."""

    def __init__(self, tokens: int, embed_dim: int, width: int) -> None:
        super().__init__()
        self.context = learned_vectors(tokens, width)
        self.meta_net = MetaNet(embed_dim, width, reduction=REDUCTION, activation=torch.relu)

    def forward(self, class_token: Tensor) -> Tensor:
        """(B, D) of any length -> (B, tokens, width)."""
        return self.context + self.meta_net(unit(class_token))[:, None]


def quick_gelu(values: Tensor) -> Tensor:
    """CLIP's own activation, x sigmoid(1.702 x)."""
    return values * torch.sigmoid(1.702 * values)


class MetaNet(nn.Module):
    """Two linear layers with biases, in torch's own initialisation."""

    def __init__(
        self, width: int, out: int, *, reduction: int, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        hidden = max(1, width // reduction)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, out)
        self.activation = activation

    def forward(self, features: Tensor) -> Tensor:
        """Unit-length features (..., width) -> (..., out)."""
        return self.linear2(self.activation(self.linear1(features)))
