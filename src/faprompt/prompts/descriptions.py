"""What can be wrong with a class, in words: `descriptions.json`, which may be edited.

`mvtec` and `visa` hold FiLo's phrases, written with a language model by its authors; several
of VisA's are the names of that set's own defects. `domains` are ours, for the other sets.
Source: models/FiLo.py of CASIA-IVA-Lab/FiLo (Apache-2.0).
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

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


@cache
def _table() -> dict[str, tuple[str, ...]]:
    data = json.loads(files("faprompt.prompts").joinpath("descriptions.json").read_text("utf-8"))
    found = {name: domain["phrases"] for domain in data["domains"] for name in domain["classes"]}
    found |= data["visa"] | data["mvtec"]
    return {name: tuple(lines) for name, lines in found.items()}
