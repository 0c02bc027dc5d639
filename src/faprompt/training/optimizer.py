"""Build the optimizer, and compute the learning rate of each epoch.

Source: train.py of mala-lab/FAPrompt (Adam, one rate throughout); the schedule is that of
KaiyangZhou/Dassl.pytorch (optim/lr_scheduler.py), with which CoOp, CoCoOp and TCP train.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from faprompt.methods.base import Method
from faprompt.training.training_config import TrainingConfig


def learning_rate_at(config: TrainingConfig, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0.

    After W epochs of `warmup_rate`, a cosine of E epochs is `0.5 r (1 + cos(pi (e - W) / E))`.
    As in Dassl, E counts all epochs, so the cosine does not reach 0.

    Example:
        >>> config = TrainingConfig(
        ...     learning_rate=0.002, schedule="cosine", epochs=4, warmup_epochs=1
        ... )
        >>> [round(learning_rate_at(config, epoch), 6) for epoch in range(4)]
        [1e-05, 0.002, 0.001707, 0.001]
    """
    if epoch < config.warmup_epochs:
        return config.warmup_rate
    if config.schedule == "constant":
        return config.learning_rate
    turn = math.pi * (epoch - config.warmup_epochs) / config.epochs
    return 0.5 * config.learning_rate * (1 + math.cos(turn))


def build_optimizer(method: Method, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return the optimizer, with one group of named parameters for each `Method.rate_factors`."""
    factors: dict[float, list[tuple[str, torch.nn.Parameter]]] = {}
    for name, parameter in method.named_parameters():
        found = (f for prefix, f in method.rate_factors.items() if name.startswith(prefix))
        factors.setdefault(next(found, 1.0), []).append((name, parameter))
    groups = [{"params": named, "rate_factor": factor} for factor, named in factors.items()]
    common: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, **common)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, betas=config.betas, eps=config.eps, **common)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of each group to `rate` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]
