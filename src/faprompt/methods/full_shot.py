"""What PatchCore and RD4AD share: a model for every class, learned from its normal pictures alone.

The zero-shot methods learn on one set and see others; these learn on the very set they are
measured on, and stand beside them as upper bounds. Their parts come from anomalib.
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

from faprompt.clip._open_clip import open_clip_module
from faprompt.clip.text import TextTower
from faprompt.clip.vision import ImageFeatures
from faprompt.errors import ConfigError, MissingExtraError
from faprompt.methods.base import Method, MethodConfig, MethodOutput
from faprompt.methods.class_names import number_classes


@dataclass(frozen=True, slots=True, kw_only=True)
class FullShotConfig(MethodConfig):
    """`classes` is written by training: one model each, in this order."""

    classes: tuple[str, ...] = ()

    def faults(self) -> list[str]:
        """See `MethodConfig.faults`."""
        if len(set(self.classes)) < len(self.classes):
            return [f"classes should differ, got {self.classes}"]
        return []


class FullShotMethod(Method):
    """Children build `models`, one a class, and write `score_class`.

    `remembers` says whether a class is learned by `remember`, in one go and without steps.
    `written` are the options that training writes, a value for each class.
    """

    full_shot = True
    remembers: ClassVar[bool] = False
    written: ClassVar[tuple[str, ...]] = ("classes",)
    models: nn.ModuleList
    config: FullShotConfig

    @property
    def uses_class_names(self) -> bool:
        """They choose the model."""
        return True

    @property
    def learns(self) -> bool:
        """Always, be it by steps or by remembering."""
        return True

    def static_text(self, text: TextTower) -> None:
        """Nothing: there are no words."""

    def score_class(self, model: nn.Module, features: ImageFeatures) -> Any:
        """`MethodOutput` of pictures of one class, by its model."""
        raise NotImplementedError

    def remember(self, class_name: str, batches: Iterable[ImageFeatures], *, seed: int) -> str:
        """Learn one class from its normal pictures, in place of all that was known.

        Args:
            class_name: what the pictures show.
            batches: of `encode_image`.
            seed: of what is drawn; the global random states are left as they were.

        Returns:
            A line for the person.

        Raises:
            TypeError: the method learns in steps.
        """
        raise TypeError(f"{self.name!r} learns in steps, see `loss`.")

    def adopt(self, parts: Sequence[FullShotMethod]) -> None:
        """Take over the classes of other methods of this kind and these options."""
        told: dict[str, Any] = {
            name: tuple(value for part in parts for value in getattr(part.config, name))
            for name in self.written
        }
        self.config = replace(self.config, **told)
        self.models = nn.ModuleList(model for part in parts for model in part.models)

    def forward(
        self,
        features: ImageFeatures,
        text: TextTower,
        *,
        static: Any = None,
        with_prompt_scores: bool = False,
        class_names: Sequence[str] | None = None,
    ) -> Any:
        """See `Method.forward`; every picture is scored by the model of its class.

        Raises:
            ConfigError: the class of a picture is not among those that were learned, or is
                not told where there are several.
        """
        numbers = self.choose(class_names)
        if len(set(numbers)) == 1:
            output = self.score_class(self.models[numbers[0]], features)
        else:
            output = self._join(features, torch.tensor(numbers))
        if not with_prompt_scores:
            return output
        return MethodOutput(
            score=output.score,
            patch_map=output.patch_map,
            prompt_scores=output.score[:, None],
        )

    def choose(self, class_names: Sequence[str] | None) -> list[int]:
        """The number of each picture's model, or one for all; errors as in `forward`."""
        known = self.config.classes
        if not known:
            raise ConfigError(f"{self.name} has learned no class yet; train it first.")
        return number_classes(
            known, class_names,
            each=f"{self.name} has a model for each", nothing=f"{self.name} has learned nothing",
            advice="Train on their normal pictures",
        )  # fmt: skip

    def _join(self, features: ImageFeatures, numbers: torch.Tensor) -> MethodOutput:
        """Outputs of several models, in the order of the pictures."""
        groups = {int(number): (numbers == number).nonzero()[:, 0] for number in numbers.unique()}
        outputs = [
            self.score_class(self.models[number], _only(features, rows.to(_device(features))))
            for number, rows in groups.items()
        ]
        order = torch.cat(list(groups.values())).argsort()
        return MethodOutput(
            score=torch.cat([output.score for output in outputs])[order],
            patch_map=torch.cat([output.patch_map for output in outputs])[order],
        )


@cache
def anomalib_module(name: str) -> Any:
    """A module of anomalib.

    Raises:
        MissingExtraError: anomalib is not installed.
    """
    open_clip_module()  # mends a torchvision that is of another build than torch
    try:
        with warnings.catch_warnings():  # of names that anomalib itself is about to move
            warnings.simplefilter("ignore")
            return importlib.import_module(f"anomalib.{name}")
    except ImportError as error:
        raise MissingExtraError(
            f"PatchCore and RD4AD stand on anomalib, which cannot be imported ({error}): "
            "pip install 'faprompt[baselines]'."
        ) from error


def _only(features: ImageFeatures, rows: torch.Tensor) -> ImageFeatures:
    tokens = {layer: tokens[rows] for layer, tokens in features.patch_tokens.items()}
    return ImageFeatures(features.class_token[rows], tokens, features.grid)


def _device(features: ImageFeatures) -> torch.device:
    return features.class_token.device
