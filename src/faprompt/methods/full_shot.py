"""Full-shot methods, PatchCore and RD4AD: one model per class, learned from its normal pictures.

The zero-shot methods learn on one set and see others; these learn on the very set they are
measured on, and serve as upper bounds. Their parts come from anomalib.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import torch
from torch import nn

from faprompt.clip.spec import torchvision_module
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageFeatures
from faprompt.errors import ConfigError, MissingExtraError
from faprompt.methods.base import (
    Method,
    MethodConfig,
    MethodOutput,
    Names,
    group_rows,
    number_classes,
    take_rows,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FullShotConfig(MethodConfig):
    """Options of full-shot methods."""

    classes: tuple[str, ...] = ()  # written by training: one model each, in this order

    def faults(self) -> list[str]:
        if len(set(self.classes)) < len(self.classes):
            return [f"classes should differ, got {self.classes}"]
        return []


class FullShotMethod(Method):
    """Children build `models`, one per class, and write `score_class`."""

    full_shot = True
    needs_text = False
    uses_class_names = True  # the name chooses the model
    remembers: ClassVar[bool] = False  # learned by `remember`, in one go and without steps
    written: ClassVar[tuple[str, ...]] = ("classes",)  # options training writes, one per class
    models: nn.ModuleList
    config: FullShotConfig

    @property
    def learns(self) -> bool:
        """True: by steps or by remembering."""
        return True

    def score_class(self, model: nn.Module, features: ImageFeatures) -> MethodOutput:
        """Score pictures of one class by its model."""
        raise NotImplementedError

    def remember(self, class_name: str, batches: Iterable[ImageFeatures], *, seed: int) -> str:
        """Learn one class from features of its normal pictures, in place of all others.

        The global random states are left as they were. Returns a line for the user.

        Raises:
            TypeError: the method learns in steps.
        """
        raise TypeError(f"{self.name!r} learns in steps, see `loss`.")

    def adopt(self, parts: Sequence[FullShotMethod]) -> None:
        """Take over the classes of methods of this kind and with these options."""
        written: dict[str, Any] = {
            name: tuple(value for part in parts for value in getattr(part.config, name))
            for name in self.written
        }
        self.config = replace(self.config, **written)
        self.models = nn.ModuleList(model for part in parts for model in part.models)

    def score(
        self, features: ImageFeatures, text: TextTower, static: Any, class_names: Names
    ) -> MethodOutput:
        """Score every picture by the model of its class; see `choose` for errors."""
        numbers = self.choose(class_names)
        if len(set(numbers)) == 1:
            return self.score_class(self.models[numbers[0]], features)
        rows, order = group_rows(numbers)
        outputs = [
            self.score_class(self.models[number], take_rows(features, some))
            for number, some in rows.items()
        ]
        return MethodOutput(
            score=torch.cat([output.score for output in outputs])[order],
            patch_map=torch.cat([output.patch_map for output in outputs])[order],
        )

    def choose(self, class_names: Names) -> list[int]:
        """Return the number of each picture's model, or one for all.

        Raises:
            ConfigError: a class was not learned, or is not named although there are several.
        """
        known = self.config.classes
        if not known:
            raise ConfigError(f"{self.name} has learned no class yet; train it first.")
        return number_classes(
            known, class_names,
            each=f"{self.name} has a model for each", nothing=f"{self.name} has learned nothing",
            advice="Train on their normal pictures",
        )  # fmt: skip


@cache
def anomalib_module(name: str) -> Any:
    """Import a module of anomalib.

    Raises:
        MissingExtraError: anomalib is not installed.
    """
    torchvision_module()  # mends a torchvision that is of another build than torch
    try:
        with warnings.catch_warnings():  # of names that anomalib itself is about to move
            warnings.simplefilter("ignore")
            return importlib.import_module(f"anomalib.{name}")
    except ImportError as error:
        raise MissingExtraError(
            f"PatchCore and RD4AD need anomalib, which cannot be imported ({error}): "
            "pip install 'faprompt[baselines]'."
        ) from error
