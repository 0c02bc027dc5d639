"""Options of a training run, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from faprompt.config import from_mapping, to_mapping
from faprompt.data.masks import MaskPolicy
from faprompt.methods.registry import preset_recipe

Switch = Literal["auto", "on", "off"]
_LARGEST_RATE = 1e30  # optimizers multiply it in float32

# Options that do not change what is learned: they may differ when a run is resumed.
WORK_OPTIONS = (
    "epochs", "cache", "cache_dir", "cache_limit_gb", "encode_batch_size", "readers",
    "checkpoint_every_steps", "tensorboard", "device",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How prompts are trained.

    Sources: [B.1] is that section of the paper's appendix, [C] train.py of mala-lab/FAPrompt at
    7e9d9d2, [Dassl] KaiyangZhou/Dassl.pytorch; [ours] is of this project.

    The defaults are FAPrompt's; what other methods want is in `Method.recipes`, see `recipes`.
    A run resumes only with the same values, those of `WORK_OPTIONS` excepted; the epochs that
    a cosine spans are no such option.
    """

    epochs: int = 7  # [B.1]; train.py has 10, train.sh 15, test.sh loads epoch 7. May grow later
    batch_size: int = 8  # [B.1], [C]
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"  # [B.1], [C]
    learning_rate: float = 1e-3  # [B.1], [C]
    betas: tuple[float, float] = (0.5, 0.999)  # [C] train.py; of adam and adamw
    eps: float = 1e-8  # [C] Adam's default; of adam and adamw
    momentum: float = 0.0  # of sgd
    weight_decay: float = 0.0  # [C] Adam's default; adamw takes it off the parameters instead
    schedule: Literal["constant", "cosine"] = "constant"  # [B.1], [C]; see `learning_rate_at`
    warmup_epochs: int = 0  # [B.1], [C]; before the schedule begins
    warmup_rate: float = 1e-5  # [Dassl] their learning rate
    seed: int = 111  # [B.1], [C]; here it orders the pictures of every epoch
    cache_dtype: Literal["float32", "float16"] = "float32"  # [ours] of patch tokens, see below
    bit_depth: int | None = None  # [ours] bits a camera used in values stored with more than 8
    mask_policy: MaskPolicy = "any-channel"  # [ours] see `read_mask`; [C] is "reference"
    unmasked: Literal["refuse", "skip", "empty"] = "refuse"  # [C] is "empty", see below
    cache: Switch = "auto"  # [ours] "on" insists where "auto" would stream
    cache_dir: str | None = None  # [ours] see `default_cache_dir`
    cache_limit_gb: float = 20.0  # [ours] largest cache of one training set, 1e9 bytes
    encode_batch_size: int = 1  # [ours] 1 makes cached and streamed tokens equal to the bit
    readers: int = 2  # [ours] threads that read pictures ahead of the image tower
    checkpoint_every_steps: int = 100  # [ours] besides each epoch and each interrupt; 0 for none
    tensorboard: bool | Literal["auto"] = "auto"  # [ours] "auto" writes where it is installed
    device: str = "cpu"  # [ours] any torch device

    # cache_dtype float16 halves the cache (MVTec AD at 518: 3.6 GB) and rounds the patch
    # tokens by up to 1 in 2048, in the cache and in the stream alike.
    # unmasked says what happens to anomalous pictures without a mask: the authors' code
    # trains on them as if nothing were wrong anywhere in the picture.

    def __post_init__(self) -> None:
        faults = _faults(self)
        if faults:
            raise ValueError("; ".join(faults))


def run_options(config: TrainingConfig) -> dict[str, Any]:
    """The options that a resumed run shares with its first session, as plain data."""
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
    """`$XDG_CACHE_HOME/faprompt/features`, or `~/.cache/faprompt/features`."""
    import os

    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "faprompt" / "features"


def _faults(config: TrainingConfig) -> list[str]:
    low = [
        f"{name} should be at least {least}, got {getattr(config, name)}"
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("encode_batch_size", 1),
            ("readers", 1),
            ("checkpoint_every_steps", 0),
            ("warmup_epochs", 0),
            ("weight_decay", 0),
            ("cache_limit_gb", 0),
        )
        if not getattr(config, name) >= least
    ]
    positive = [
        f"{name} should be above 0 and at most {_LARGEST_RATE:g}, got {getattr(config, name)}"
        for name in ("learning_rate", "eps", "warmup_rate")
        if not 0 < getattr(config, name) <= _LARGEST_RATE
    ]
    if config.weight_decay > _LARGEST_RATE:
        positive.append(f"weight_decay should be at most {_LARGEST_RATE:g}")
    if len(config.betas) != 2 or not all(0 <= beta < 1 for beta in config.betas):
        positive.append(f"betas should be two numbers in 0..1, 1 excluded, got {config.betas}")
    if not 0 <= config.momentum < 1:
        positive.append(f"momentum should be in 0..1, 1 excluded, got {config.momentum}")
    elif config.momentum and config.optimizer != "sgd":
        positive.append(
            f"momentum={config.momentum} is of sgd, and optimizer is {config.optimizer}; "
            "leave one of them out"
        )
    return low + positive
