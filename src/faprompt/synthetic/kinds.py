"""Tables of what can be drawn: kinds of things, kinds of defects, and their family.

Backbone and prompts are trained on the family `aux`; `test` shares no kind with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Family = Literal["aux", "test"]
KindSet = Literal["train", "aux", "test", "all"]
Sort = Literal["texture", "layout", "object", "scan"]


@dataclass(frozen=True, slots=True)
class ObjectKind:
    """One kind of thing that can be drawn. `name` is also the word used in captions."""

    name: str
    sort: Sort
    family: Family
    regular: bool = False  # a strict pattern, which can be out of step
    colourful: float = 0.4  # share of pictures in colour
    weight: float = 1.0  # how often it is drawn, beside the others


@dataclass(frozen=True, slots=True)
class DefectKind:
    """One kind of defect."""

    name: str
    family: Family
    sorts: tuple[Sort, ...]  # of the things that may have it
    weight: float = 1.0
    needs_pattern: bool = False  # only on regular things

    def fits(self, thing: ObjectKind) -> bool:
        """Return whether this thing may have such a defect."""
        return thing.sort in self.sorts and (thing.regular or not self.needs_pattern)


OBJECT_KINDS: tuple[ObjectKind, ...] = (
    # textures
    ObjectKind("brushed metal", "texture", "aux", colourful=0.1, weight=4.0),
    ObjectKind("milled metal", "texture", "aux", colourful=0.1),
    ObjectKind("cast metal", "texture", "aux", colourful=0.1, weight=1.5),
    ObjectKind("stone", "texture", "aux"),
    ObjectKind("leather", "texture", "aux", colourful=0.6),
    ObjectKind("carpet", "texture", "aux", colourful=0.5),
    ObjectKind("fabric", "texture", "aux", regular=True, colourful=0.5, weight=1.5),
    ObjectKind("mesh", "texture", "aux", regular=True, colourful=0.2),
    ObjectKind("ribbed sheet", "texture", "aux", regular=True, colourful=0.3, weight=1.5),
    ObjectKind("perforated sheet", "texture", "aux", regular=True, colourful=0.3),
    ObjectKind("paper", "texture", "aux", colourful=0.4),
    ObjectKind("marble", "texture", "aux", colourful=0.5),
    ObjectKind("foam", "texture", "aux", colourful=0.4),
    ObjectKind("granite", "texture", "aux", colourful=0.4),
    ObjectKind("knit", "texture", "aux", regular=True, colourful=0.5),
    ObjectKind("wood", "texture", "test", colourful=0.7),
    ObjectKind("tile floor", "texture", "test", regular=True, colourful=0.5),
    ObjectKind("basket", "texture", "test", regular=True, colourful=0.5),
    # layouts
    ObjectKind("solar cell", "layout", "aux", regular=True, colourful=0.3, weight=1.5),
    ObjectKind("circuit board", "layout", "aux", regular=True, colourful=0.7, weight=1.5),
    ObjectKind("connector", "layout", "aux", regular=True, colourful=0.4),
    ObjectKind("label", "layout", "aux", regular=True, colourful=0.6),
    ObjectKind("keypad", "layout", "test", regular=True, colourful=0.5),
    # objects
    ObjectKind("plate", "object", "aux", colourful=0.3, weight=1.5),
    ObjectKind("washer", "object", "aux", colourful=0.3),
    ObjectKind("nut", "object", "aux", colourful=0.3),
    ObjectKind("coin", "object", "aux", colourful=0.5),
    ObjectKind("bottle", "object", "aux", colourful=0.6),
    ObjectKind("capsule", "object", "aux", colourful=0.8),
    ObjectKind("biscuit", "object", "aux", colourful=0.7),
    ObjectKind("cable", "object", "aux", colourful=0.7),
    ObjectKind("star", "object", "aux", colourful=0.5),
    ObjectKind("rod", "object", "aux", colourful=0.3),
    ObjectKind("gear", "object", "test", colourful=0.3),
    ObjectKind("pill", "object", "test", colourful=0.7),
    ObjectKind("screw", "object", "test", colourful=0.3),
    # scans
    ObjectKind("head scan", "scan", "aux", colourful=0.03, weight=4.0),
    ObjectKind("body scan", "scan", "aux", colourful=0.03, weight=1.5),
    ObjectKind("chest scan", "scan", "aux", colourful=0.02),
    ObjectKind("ultrasound", "scan", "aux", colourful=0.05),
    ObjectKind("skin", "scan", "aux", colourful=0.9),
    ObjectKind("bowel", "scan", "aux", colourful=0.95),
    ObjectKind("eye", "scan", "test", colourful=0.8),
)

_SOLID: tuple[Sort, ...] = ("texture", "layout", "object")
_ALL: tuple[Sort, ...] = ("texture", "layout", "object", "scan")

DEFECT_KINDS: tuple[DefectKind, ...] = (
    DefectKind("scratch", "aux", _SOLID, 1.5),
    DefectKind("crack", "aux", _SOLID, 2.5),
    DefectKind("pore", "aux", _SOLID, 2.0),
    DefectKind("stain", "aux", _SOLID, 1.5),
    DefectKind("dent", "aux", _SOLID),
    DefectKind("contamination", "aux", _SOLID),
    DefectKind("missing part", "aux", _SOLID),
    DefectKind("broken pattern", "aux", ("texture", "layout"), 1.5, needs_pattern=True),
    DefectKind("shifted pattern", "aux", ("texture", "layout"), 1.5, needs_pattern=True),
    DefectKind("colour change", "aux", _ALL),
    DefectKind("deformation", "aux", ("layout", "object")),
    DefectKind("bright lesion", "aux", ("scan",), 5.0),
    DefectKind("dark lesion", "aux", ("scan",), 2.5),
    DefectKind("hole", "test", _ALL),
    DefectKind("tear", "test", _ALL),
    DefectKind("burn", "test", _ALL),
    DefectKind("thread", "test", _ALL),
    DefectKind("swelling", "test", ("object", "scan")),
)


def objects_of(kinds: KindSet) -> tuple[ObjectKind, ...]:
    """Return the kinds of things that a set may show.

    Args:
        kinds: "train" and "aux" leave out the test family, "test" shows nothing else, "all"
            shows everything; any other value is a ValueError.
    """
    return tuple(kind for kind in OBJECT_KINDS if _belongs(kind.family, kinds))


def defects_of(kinds: KindSet) -> tuple[DefectKind, ...]:
    """Return the kinds of defects that a set may show; see `objects_of`."""
    return tuple(kind for kind in DEFECT_KINDS if _belongs(kind.family, kinds))


def _belongs(family: Family, kinds: KindSet) -> bool:
    if kinds not in get_args(KindSet):
        raise ValueError(f"kinds should be one of {', '.join(get_args(KindSet))}, got {kinds!r}.")
    return kinds == "all" or (family == "test") == (kinds == "test")
