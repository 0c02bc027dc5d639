"""What methods share whose prompts say what a picture shows.

A picture's class comes with it where a dataset says so, in training and evaluation alike;
elsewhere, and with `use_class_names=false`, it is `class_word`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from faprompt.data.dataset_catalog import display_names
from faprompt.errors import ConfigError
from faprompt.methods.base import Method

_SHOWN = 12  # class names in an error


class ClassNameMethod(Method):
    """Asks for class names. Its config has `class_word` and `use_class_names`."""

    config: Any  # of two families, which share these two options and no base
    shared_names: ClassVar[Mapping[str, str]] = {}  # of a dataset's folders of one product

    @property
    def uses_class_names(self) -> bool:
        """As configured."""
        return bool(self.config.use_class_names)

    @property
    def raw_class_names(self) -> bool:
        """Whether names go into the sentences as a dataset has them, "metal_nut" or "01"."""
        return False

    def name_classes(
        self, class_names: Sequence[str] | None, count: int, *, shared: bool = True
    ) -> list[str]:
        """Say in words what each of `count` pictures shows; a single name counts for all of them.

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
        """Around the encoding of sentences with a class name.

        Raises:
            ConfigError: a word this backbone has no token for.
        """
        try:
            yield
        except ValueError as error:
            raise ConfigError(
                f"{self.name}: {error} Choose another class_word; or set use_class_names=false, "
                f"and every picture shows {self.config.class_word!r}."
            ) from error


def number_classes(
    known: Sequence[str],
    class_names: Sequence[str] | None,
    *,
    each: str,
    nothing: str,
    advice: str,
) -> list[int]:
    """Number the class each picture shows; the only one, where untold.

    Args:
        known: classes; at least one.
        class_names: one a picture, or one that all of them show, or None.
        each: what there is, such as "patchcore has a model for each".
        nothing: what is lacking of others, such as "patchcore has learned nothing".
        advice: what to do about it.

    Returns:
        One number a name; a single one is of all pictures.

    Raises:
        ConfigError: a class is not known, or is not told where there are several.
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
