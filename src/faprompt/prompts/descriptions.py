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

from faprompt.prompts.templates import APRIL_STATES
from faprompt.prompts.words import readable

POSITIONS = (
    "top left", "top", "top right", "left", "center", "right", "bottom left", "bottom",
    "bottom right",
)  # fmt: skip


def phrases(class_name: str) -> tuple[str, ...]:
    """FiLo's phrases for a class, or its domain's; none for a class nobody described.

    A number at the end is dropped where it tells nothing: pcb1 to pcb4 are "pcb".

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


@cache
def _table() -> dict[str, tuple[str, ...]]:
    data = json.loads(files("faprompt.prompts").joinpath("descriptions.json").read_text("utf-8"))
    found = {name: domain["phrases"] for domain in data["domains"] for name in domain["classes"]}
    found |= data["visa"] | data["mvtec"]
    return {name: tuple(lines) for name, lines in found.items()}
