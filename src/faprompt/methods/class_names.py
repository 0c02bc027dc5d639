"""The class of each picture: its name in words, and its number among those learned.

A picture's class comes with it if a dataset names it, in training and evaluation alike.
Otherwise, and with `use_class_names=false`, it is `class_word`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from faprompt.data.dataset_catalog import display_names
from faprompt.errors import ConfigError
from faprompt.methods.base import Method, Names

_SHOWN = 12  # class names in an error


class ClassNameMethod(Method):
    """A method with class names; its config has `class_word` and `use_class_names`."""

    config: Any  # of two families, which share these two options and no base
    shared_names: ClassVar[Mapping[str, str]] = {}  # of a dataset's folders of one product
    raw_class_names: bool = False  # as a dataset has them, "metal_nut" or "01", not in words

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.uses_class_names = config.use_class_names

    def name_classes(self, class_names: Names, count: int, *, shared: bool = True) -> list[str]:
        """Return in words what each of `count` pictures shows; one name counts for all of them.

        `shared` applies `shared_names`.
        """
        asked = class_names if self.config.use_class_names else None
        word, raw = self.config.class_word, self.raw_class_names
        names = display_names(asked, count, otherwise=word, raw=raw)
        if shared:
            names = [self.shared_names.get(name, name) for name in names]
        return names * count if len(names) == 1 < count else names

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Around the encoding of sentences: a word without a token is a ConfigError."""
        try:
            yield
        except ValueError as error:
            raise ConfigError(
                f"{self.name}: {error} Choose another class_word; or set use_class_names=false, "
                f"and every picture shows {self.config.class_word!r}."
            ) from error


def number_classes(
    known: Sequence[str], class_names: Names, *, each: str, nothing: str, advice: str
) -> list[int]:
    """Return the place of each name in `known`; a single known class needs no name.

    Args:
        known, class_names: classes, at least one; and those of the pictures.
        each: start of the error without names: "patchcore has a model for each".
        nothing: start of the error for unknown names: "patchcore has learned nothing".
        advice: what to do about it.

    Raises:
        ConfigError: a class is unknown, or not named although there are several.
    """
    shown = ", ".join(known[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
    if class_names is None and len(known) > 1:
        raise ConfigError(
            f"{each} of {len(known)} classes and was not told "
            f"which these pictures show; say it by --class-name. Known: {shown}."
        )
    names = [known[0]] if class_names is None else list(class_names)
    strange = sorted(set(names) - set(known))
    if strange:
        raise ConfigError(
            f"{nothing} of {', '.join(strange)}; known: {shown}. {advice}, "
            "or say by --class-name which of these they are."
        )
    return [known.index(name) for name in names]
