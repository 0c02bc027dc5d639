"""FiLo's sentences for a class: what can be wrong with it, and where in the picture.

Source: models/FiLo.py of CASIA-IVA-Lab/FiLo (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from faprompt.clip.tokens import Tokenizer, TokenTree
from faprompt.errors import ConfigError
from faprompt.prompts.prompt_parts import sentence_tree
from faprompt.prompts.templates import APRIL_STATES

POSITIONS = (
    "top left", "top", "top right", "left", "center", "right", "bottom left", "bottom",
    "bottom right",
)  # fmt: skip


def state_sentences(
    class_name: str, phrases: Sequence[str], position: int | None = None
) -> tuple[list[str], list[str]]:
    """Return the normal and the abnormal sentences of a class, as they follow the context.

    Args:
        class_name: in words.
        phrases: what can be wrong with the class; five general states follow them.
        position: 0 to 8, the only position in the sentences; None for all nine, with the
            sentence of state s and position p at 9 s + p.

    Example:
        >>> state_sentences("nut", ["cracks"], 4)[1][:2]
        ['abnormal nut with cracks at center.', 'damaged nut at center.']
    """
    normal, general = ([state.format(class_name) for state in side] for side in APRIL_STATES)
    states = [*(f"abnormal {class_name} with {phrase}" for phrase in phrases), *general]
    places = POSITIONS if position is None else (POSITIONS[position],)
    return (
        [f"{state}." for state in normal],
        [f"{state} at {place}." for state in states for place in places],
    )


class Descriptions:
    """`state_sentences` of any class, without the sentences that a backbone cannot tokenize.

    Args:
        tokenizer: of the backbone.
        phrases: returns what can be wrong with a class, by its name.
        refuse: raise an error for a sentence with an unknown word, instead of skipping it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        phrases: Callable[[str], Sequence[str]],
        *,
        refuse: bool = False,
    ) -> None:
        self.phrases = phrases
        self._tokenizer, self._refuse = tokenizer, refuse
        self._trees: dict[tuple[str, int | None], tuple[TokenTree, TokenTree]] = {}

    def describe(self, class_name: str, position: int | None = None) -> tuple[list[str], list[str]]:
        """Return normal and abnormal sentences; of all positions if one position has none.

        Raises:
            ConfigError: a side has no sentence that this backbone can tokenize; or, with
                `refuse`, one sentence has an unknown word.
        """
        sides = state_sentences(class_name, self.phrases(class_name), position)
        normal, abnormal = (
            [line for line in side if self._tokenizer.knows(line)] for side in sides
        )
        skipped = [line for side in sides for line in side if not self._tokenizer.knows(line)]
        if position is not None and not abnormal and not self._refuse:
            return self.describe(class_name)
        if skipped and (self._refuse or not normal or not abnormal):
            raise ConfigError(
                f"This backbone's vocabulary lacks words of {skipped[0]!r} and "
                f"{len(skipped) - 1} more; set unknown_words=skip, use_class_names=false, or "
                "use a backbone with CLIP's whole vocabulary."
            )
        return normal, abnormal

    def trees(self, class_name: str, position: int | None) -> tuple[TokenTree, TokenTree]:
        """Return the tokens of `describe`; cached, since tokenizing takes longer than encoding."""
        key = (class_name, position)
        if key not in self._trees:
            normal, abnormal = (
                sentence_tree(self._tokenizer, lines) for lines in self.describe(*key)
            )
            self._trees[key] = (normal, abnormal)
        return self._trees[key]
