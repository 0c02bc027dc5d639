"""How many test pictures each dataset has, as the paper counts them (FAPrompt, Tables 1 and 2).

Three things the tables do not say. MVTec's tile has 84 anomalous pictures where Table 1
prints 83, and 84 is what a complete download holds. The paper prints some class names
otherwise (`Metal_nut`, `pipe.fryum`). Where a dataset is one pooled group, its class name
is ours: prepared copies call the same group `brain`, `headct2` and so on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache

from faprompt.data.dataset import ClassCount
from faprompt.data.picture_files import examples

# Where the paper's own print differs from a complete download: (dataset, class) -> remark.
MISPRINTS = {("mvtec", "tile"): "the paper prints 83 anomalous; the dataset has 84"}

# How far the anomalous count may be from the paper's where its own making is not fully known.
TOLERANCES = {"aitex": (3, "the paper does not say how it treats strips with two masks or none")}

# Class names that anybody may give: these datasets are known by all their classes, not by some.
_PLAIN_NAMES = frozenset({"dagm"})

# dataset,class,normal,anomalous
_TABLE = """
mvtec,bottle,20,63
mvtec,cable,58,92
mvtec,capsule,23,109
mvtec,carpet,28,89
mvtec,grid,21,57
mvtec,hazelnut,40,70
mvtec,leather,32,92
mvtec,metal_nut,22,93
mvtec,pill,26,141
mvtec,screw,41,119
mvtec,tile,33,84
mvtec,toothbrush,12,30
mvtec,transistor,60,40
mvtec,wood,19,60
mvtec,zipper,32,119
visa,candle,100,100
visa,capsules,60,100
visa,cashew,50,100
visa,chewinggum,50,100
visa,fryum,50,100
visa,macaroni1,100,100
visa,macaroni2,100,100
visa,pcb1,100,100
visa,pcb2,100,100
visa,pcb3,101,100
visa,pcb4,101,100
visa,pipe_fryum,50,100
btad,01,21,49
btad,02,30,200
btad,03,400,41
mpdd,bracket_black,32,47
mpdd,bracket_brown,26,51
mpdd,bracket_white,30,30
mpdd,connector,30,14
mpdd,metal_plate,26,71
mpdd,tubes,32,69
dtd_synthetic,Blotchy_099,20,80
dtd_synthetic,Fibrous_183,20,80
dtd_synthetic,Marbled_078,20,80
dtd_synthetic,Matted_069,20,79
dtd_synthetic,Mesh_114,36,80
dtd_synthetic,Perforated_037,20,80
dtd_synthetic,Stratified_154,20,80
dtd_synthetic,Woven_001,30,70
dtd_synthetic,Woven_068,51,79
dtd_synthetic,Woven_104,20,80
dtd_synthetic,Woven_125,20,79
dtd_synthetic,Woven_127,80,80
dagm,Class1,504,71
dagm,Class2,491,84
dagm,Class3,491,84
dagm,Class4,507,68
dagm,Class5,495,80
dagm,Class6,508,67
dagm,Class7,1000,150
dagm,Class8,1000,150
dagm,Class9,1000,150
dagm,Class10,1000,150
sdd,sdd,286,54
aitex,aitex,564,183
elpv,elpv,377,715
brainmri,brain,98,155
headct,brain,100,100
br35h,brain,1500,1500
lag,fundus,786,1711
cvc_colondb,colon,0,380
cvc_clinicdb,colon,0,612
kvasir,colon,0,1000
endo,colon,0,200
isic,skin,0,379
tn3k,thyroid,0,614
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Our counts against the paper's."""

    matches: bool | None  # None where the paper has no such dataset
    differences: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()  # what differs and still matches


@cache
def _table() -> dict[str, dict[str, tuple[int, int]]]:
    table: dict[str, dict[str, tuple[int, int]]] = {}
    for line in _TABLE.split():
        dataset, class_name, normal, anomalous = line.split(",")
        table.setdefault(dataset, {})[class_name] = int(normal), int(anomalous)
    return table


def published_counts(dataset: str) -> dict[str, tuple[int, int]]:
    """Class -> (normal, anomalous) of the test split; empty for a dataset the paper has not.

    Example:
        >>> published_counts("brainmri"), published_counts("magnetic_tile")
        ({'brain': (98, 155)}, {})
    """
    return dict(_table().get(dataset, {}))


def dataset_of_classes(class_names: frozenset[str]) -> str | None:
    """The dataset with several classes whose names include all of these.

    DAGM's names (`Class1`, ...) are told only when all ten are there.

    Example:
        >>> dataset_of_classes(frozenset({"tile", "wood"})), dataset_of_classes(frozenset({"mug"}))
        ('mvtec', None)
    """
    for dataset, classes in _table().items():
        if len(classes) > 1 and class_names and class_names <= classes.keys():
            whole = class_names == classes.keys()
            return dataset if whole or dataset not in _PLAIN_NAMES else None
    return None


def compare_counts(
    dataset: str,
    counts: Mapping[str, ClassCount],
    *,
    split: str = "test",
    left_out: Collection[str] = (),
) -> Comparison:
    """Compare a reading with the paper.

    Datasets of several classes are compared class by class, and all classes have to be
    there. Datasets that are one pooled group are compared by their totals. Within the
    tolerance of a dataset a difference is a remark.

    Args:
        dataset: its id.
        counts: pictures of each class that was read.
        split: the paper counts the test split.
        left_out: classes that were left out on purpose; they are not compared.
    """
    published = published_counts(dataset)
    if not published or split != "test" or (left_out and len(published) == 1):
        return Comparison(None)
    published = {name: pair for name, pair in published.items() if name not in left_out}
    found = {name: (count.normal, count.anomalous) for name, count in counts.items()}
    if len(published_counts(dataset)) == 1:
        pooled = "in all"
        normal, anomalous = zip(*found.values(), strict=True)
        found, published = {pooled: (sum(normal), sum(anomalous))}, {pooled: _only(published)}
    differences = _differences(found, published)
    if differences and _is_near(dataset, found, published):
        width, why = TOLERANCES[dataset]
        return Comparison(True, remarks=(f"{differences[0]}, within {width}: {why}",))
    return Comparison(not differences, differences)


def _is_near(
    dataset: str,
    found: Mapping[str, tuple[int, int]],
    published: Mapping[str, tuple[int, int]],
) -> bool:
    """True when only the anomalous counts differ, by no more than the dataset's tolerance."""
    width, _ = TOLERANCES.get(dataset, (0, ""))
    return found.keys() == published.keys() and all(
        found[name][0] == normal and abs(found[name][1] - anomalous) <= width
        for name, (normal, anomalous) in published.items()
    )


def _only(published: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    (counts,) = published.values()
    return counts


def _differences(
    found: Mapping[str, tuple[int, int]], published: Mapping[str, tuple[int, int]]
) -> tuple[str, ...]:
    told = [
        f"{name} {found[name][0]} + {found[name][1]} instead of {want[0]} + {want[1]}"
        for name, want in published.items()
        if name in found and found[name] != want
    ]
    missing = [name for name in published if name not in found]
    unknown = [name for name in found if name not in published]
    lines = [f"normal + anomalous differ: {examples(told)}"] if told else []
    lines += [f"classes missing: {examples(missing)}"] if missing else []
    lines += [f"classes the paper does not have: {examples(unknown)}"] if unknown else []
    return tuple(lines)
