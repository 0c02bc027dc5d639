"""Which options a method is trained with: the defaults, its own recipe, what the user gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from faprompt.config import from_mapping
from faprompt.methods.registry import preset_recipe
from faprompt.training.training_config import TrainingConfig


def recipe_config(
    method: str,
    preset: str,
    given: Mapping[str, Any],
    *,
    what: str = "training options",
    **fixed: Any,
) -> TrainingConfig:
    """The training of a method: defaults, then its recipe for the preset, then what was given.

    A recipe's momentum belongs to its optimizer and goes with it.

    Args:
        method: one of `list_methods()`.
        preset: one of the method's.
        given: options of `TrainingConfig` by name, also as text.
        what: named in errors.
        fixed: options that go before all others, such as the seed of one run of several.

    Raises:
        ConfigError: unknown method, preset or option, or values that do not fit.

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
    """The heart of a training in a few words.

    Example:
        >>> describe_recipe(TrainingConfig())
        'adam 0.001, batch 8, 7 epochs'
    """
    words = f"{config.optimizer} {config.learning_rate:g}, batch {config.batch_size}"
    cosine = ", cosine" if config.schedule == "cosine" else ""
    return f"{words}, {config.epochs} epochs{cosine}"
