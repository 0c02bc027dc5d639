"""What can be wrong with a class, in words: `descriptions.json`, which may be edited.

`mvtec` and `visa` hold FiLo's phrases, written with a language model by its authors; several
of VisA's are the names of that set's own defects. `domains` are ours, for the other sets.
Source: models/FiLo.py of CASIA-IVA-Lab/FiLo (Apache-2.0).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from faprompt.clip.tokens import Tokenizer, TokenTree
from faprompt.errors import ConfigError
from faprompt.prompts.prompt_parts import readable, sentence_tree
from faprompt.prompts.templates import APRIL_STATES

POSITIONS = (
    "top left", "top", "top right", "left", "center", "right", "bottom left", "bottom",
    "bottom right",
)  # fmt: skip


def phrases(class_name: str) -> tuple[str, ...]:
    """FiLo's phrases for a class, or its domain's; none for a class nobody described.

    A number at the end is dropped where it tells nothing: pcb1 to pcb4 are "pcb". "macaroni"
    has those of macaroni2, which in FiLo's table come last.

    Example:
        >>> phrases("metal_nut")[:3]
        ('cracks', 'irregular threading', 'corrosion')
        >>> phrases("pcb3") == phrases("pcb") and phrases("spoon") == ()
        True
    """
    name = readable(class_name).lower()
    table = _table()
    return table.get(name, table.get(name.rstrip("0123456789"), ()))


def state_sentences(
    class_name: str, found: Sequence[str], position: int | None = None
) -> tuple[list[str], list[str]]:
    """FiLo's words after the context: normal sentences, and abnormal ones.

    Args:
        class_name: in words.
        found: phrases of what can be wrong with it; five general states follow them.
        position: 0 to 8, the only one to be told; None for all nine, the abnormal sentence of
            status s at position p standing at 9 s + p.

    Example:
        >>> state_sentences("nut", ["cracks"], 4)[1][:2]
        ['abnormal nut with cracks at center.', 'damaged nut at center.']
    """
    normal, general = ([state.format(class_name) for state in side] for side in APRIL_STATES)
    statuses = [*(f"abnormal {class_name} with {phrase}" for phrase in found), *general]
    places = POSITIONS if position is None else (POSITIONS[position],)
    return (
        [f"{state}." for state in normal],
        [f"{status} at {place}." for status in statuses for place in places],
    )


class Descriptions:
    """`state_sentences` of any class, as far as one backbone has tokens for them.

    Args:
        tokenizer: the backbone's.
        phrases: for every class, in place of the stored ones.
        refuse: do so where a sentence has a word without a token, instead of leaving it out.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, phrases: Sequence[str] = (), refuse: bool = False
    ) -> None:
        self._tokenizer, self._own, self._refuse = tokenizer, tuple(phrases), refuse
        self._trees: dict[tuple[str, int | None], tuple[TokenTree, TokenTree]] = {}

    def phrases(self, class_name: str) -> tuple[str, ...]:
        """What can be wrong with a class: one's own, or the stored ones."""
        return self._own or phrases(class_name)

    def describe(self, class_name: str, position: int | None = None) -> tuple[list[str], list[str]]:
        """Normal and abnormal sentences; of all positions where a position has none left.

        Raises:
            ConfigError: this backbone has no tokens for any on either side, or, with `refuse`,
                for one.
        """
        sides = state_sentences(class_name, self.phrases(class_name), position)
        kept = tuple([line for line in lines if self._tokenizer.knows(line)] for lines in sides)
        skipped = [line for lines in sides for line in lines if not self._tokenizer.knows(line)]
        if position is not None and not kept[1] and not self._refuse:
            return self.describe(class_name)
        if skipped and (self._refuse or not all(kept)):
            raise ConfigError(
                f"This backbone's vocabulary lacks words of {skipped[0]!r} and "
                f"{len(skipped) - 1} more; set unknown_words=skip, use_class_names=false, or "
                "use a backbone with CLIP's whole vocabulary."
            )
        return kept[0], kept[1]

    def trees(self, class_name: str, position: int | None) -> tuple[TokenTree, TokenTree]:
        """What `describe` says, as tokens; kept, for tokenizing takes longer than encoding."""
        key = (class_name, position)
        if key not in self._trees:
            normal, abnormal = (
                sentence_tree(self._tokenizer, lines) for lines in self.describe(*key)
            )
            self._trees[key] = (normal, abnormal)
        return self._trees[key]


@cache
def _table() -> dict[str, tuple[str, ...]]:
    data = json.loads(files("faprompt.prompts").joinpath("descriptions.json").read_text("utf-8"))
    found = {name: domain["phrases"] for domain in data["domains"] for name in domain["classes"]}
    found |= data["visa"] | data["mvtec"]
    return {name: tuple(lines) for name, lines in found.items()}
