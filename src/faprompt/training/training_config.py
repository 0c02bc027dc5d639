"""Options of a training, each with its source, and the recipes of the methods."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from faprompt.config import Count, Natural, Range, check_fields, from_mapping, to_mapping
from faprompt.data.masks import MaskPolicy
from faprompt.methods.registry import preset_recipe

Switch = Literal["auto", "on", "off"]
_LARGEST_RATE = 1e30  # optimizers multiply it in float32
Rate = Annotated[float, Range(above=0, high=_LARGEST_RATE)]
Share = Annotated[float, Range(low=0, below=1)]

# Options that do not change the result; they may differ when a run is resumed.
WORK_OPTIONS = (
    "epochs", "cache", "cache_dir", "cache_limit_gb", "encode_batch_size", "readers",
    "checkpoint_every_steps", "tensorboard", "device",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Options of a training.

    Sources: [B.1] is that section of the paper's appendix, [C] train.py of mala-lab/FAPrompt at
    7e9d9d2, [Dassl] KaiyangZhou/Dassl.pytorch; [ours] is of this project.

    The defaults are FAPrompt's; other methods have `Method.recipes`. Resuming requires the same
    options, except `WORK_OPTIONS`; with a cosine schedule the epochs must be the same too.
    """

    epochs: Count = 7  # [B.1]; train.py has 10, train.sh 15, test.sh loads epoch 7. May grow later
    batch_size: Count = 8  # [B.1], [C]
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"  # [B.1], [C]
    learning_rate: Rate = 1e-3  # [B.1], [C]
    betas: tuple[Share, Share] = (0.5, 0.999)  # [C] train.py; of adam and adamw
    eps: Rate = 1e-8  # [C] Adam's default; of adam and adamw
    momentum: Share = 0.0  # of sgd
    # [C] Adam's default; adamw takes it off the parameters instead
    weight_decay: Annotated[float, Range(low=0, high=_LARGEST_RATE)] = 0.0
    schedule: Literal["constant", "cosine"] = "constant"  # [B.1], [C]; see `learning_rate_at`
    warmup_epochs: Natural = 0  # [B.1], [C]; before the schedule begins
    warmup_rate: Rate = 1e-5  # [Dassl] their learning rate
    seed: int = 111  # [B.1], [C]; here it orders the pictures of every epoch
    cache_dtype: Literal["float32", "float16"] = "float32"  # [ours] of patch tokens, see below
    bit_depth: int | None = None  # [ours] bits a camera used in values stored with more than 8
    mask_policy: MaskPolicy = "any-channel"  # [ours] see `read_mask`; [C] is "reference"
    unmasked: Literal["refuse", "skip", "empty"] = "refuse"  # [C] is "empty", see below
    cache: Switch = "auto"  # [ours] "on" insists where "auto" would stream
    cache_dir: str | None = None  # [ours] see `default_cache_dir`
    cache_limit_gb: Annotated[float, Range(low=0)] = 20.0  # [ours] 1e9 bytes, for one training set
    encode_batch_size: Count = 1  # [ours] 1 makes cached and streamed tokens equal to the bit
    readers: Count = 2  # [ours] threads that read pictures ahead of the image tower
    checkpoint_every_steps: Natural = 100  # [ours] also after each epoch and interrupt; 0: none
    tensorboard: bool | Literal["auto"] = "auto"  # [ours] "auto" writes where it is installed
    device: str = "cpu"  # [ours] any torch device

    # cache_dtype: float16 halves the cache (MVTec AD at 518: 3.6 GB) and rounds patch tokens by
    # up to 1 in 2048, cached and streamed ones alike.
    # unmasked: what is done with anomalous pictures without a mask. The authors' code trains on
    # them as if no pixel were anomalous.

    def __post_init__(self) -> None:
        faults = []
        if len(self.betas) != 2:
            faults.append(f"betas should be two numbers, got {self.betas}")
        if self.momentum and self.optimizer != "sgd":
            faults.append(
                f"momentum={self.momentum} is of sgd, and optimizer is {self.optimizer}; "
                "leave one of them out"
            )
        check_fields(self, faults)


def run_options(config: TrainingConfig) -> dict[str, Any]:
    """Return the options that a resumed run must share with its first session."""
    free = set(WORK_OPTIONS) - ({"epochs"} if config.schedule == "cosine" else set())
    return {name: value for name, value in to_mapping(config).items() if name not in free}


def recipe_config(
    method: str,
    preset: str,
    given: Mapping[str, Any],
    *,
    what: str = "training options",
    **fixed: Any,
) -> TrainingConfig:
    """Return how a method is trained: the defaults, its recipe, then the given options.

    The momentum of a recipe is dropped when another optimizer is given.

    Args:
        method: one of `list_methods()`.
        preset: one of the method's.
        given: options of `TrainingConfig` by name, also as text.
        what: named in errors.
        fixed: options that override all others, such as the seed of one run of several.

    Raises:
        ConfigError: unknown method, preset or option, or values out of range.

    Example:
        >>> config = recipe_config("coop", "paper", {"epochs": "10"})
        >>> config.optimizer, config.learning_rate, config.epochs
        ('sgd', 0.002, 10)
        >>> recipe_config("coop", "paper", {"optimizer": "adam"}).momentum
        0.0
    """
    recipe = preset_recipe(method, preset)
    asked = {**given, **fixed}
    values = {**recipe, **asked}
    if values.get("optimizer") != recipe.get("optimizer") and "momentum" not in asked:
        values.pop("momentum", None)
    return from_mapping(TrainingConfig, values, what=what)


def describe_recipe(config: TrainingConfig) -> str:
    """Describe a training in a few words.

    Example:
        >>> describe_recipe(TrainingConfig())
        'adam 0.001, batch 8, 7 epochs'
    """
    words = f"{config.optimizer} {config.learning_rate:g}, batch {config.batch_size}"
    cosine = ", cosine" if config.schedule == "cosine" else ""
    return f"{words}, {config.epochs} epochs{cosine}"


def default_cache_dir() -> Path:
    """Return `$XDG_CACHE_HOME/faprompt/features`, or `~/.cache/faprompt/features`."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "faprompt" / "features"
