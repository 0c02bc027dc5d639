"""What methods share whose prompts say what a picture shows.

A picture's class comes with it where a dataset says so, in training and evaluation alike;
elsewhere, and with `use_class_names=false`, it is `class_word`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from faprompt.errors import ConfigError
from faprompt.methods.base import Method
from faprompt.prompts.words import name_pictures


class ClassNameMethod(Method):
    """Asks for class names. Its config has `class_word` and `use_class_names`."""

    config: Any  # of two families, which share these two options and no base

    @property
    def uses_class_names(self) -> bool:
        """As configured."""
        return bool(self.config.use_class_names)

    def name_classes(self, class_names: Sequence[str] | None, count: int) -> list[str]:
        """What each of `count` pictures shows, in words."""
        asked = class_names if self.config.use_class_names else None
        return name_pictures(asked, count, otherwise=self.config.class_word)

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
