"""Facts on known datasets, read from `datasets.toml`, and what follows from them.

The file has each dataset's title, group, published counts, labels, source and licence, and the
words that prompts use for its classes. Its header explains the fields.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeVar

from faprompt.config import from_mapping, parse_toml
from faprompt.data.dataset import ClassCount
from faprompt.data.picture_files import examples
from faprompt.errors import ConfigError

Labels = Literal["P", "I", "P, A"]
Level = Literal["image", "pixel"]
_Record = TypeVar("_Record")

_LABELS: Mapping[Labels, tuple[str, tuple[Level, ...]]] = {
    "P": ("pixel masks", ("image", "pixel")),
    "I": ("image labels only", ("image",)),
    "P, A": ("pixel masks, every picture anomalous", ("pixel",)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFacts:
    """Facts on one dataset: one table of `datasets.toml`, whose header explains the fields."""

    labels: Labels
    source: str
    licence: str
    remark: str = ""
    paper_title: str = ""
    group: Literal["", "industrial", "medical"] = ""
    counts: Mapping[str, Sequence[int]] = field(default_factory=dict)  # see `published_counts`
    misprints: Mapping[str, str] = field(default_factory=dict)
    tolerance: int = 0
    tolerance_reason: str = ""
    common_class_names: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    descriptions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    domain: str = ""

    def __post_init__(self) -> None:
        for name, pair in self.counts.items():
            if len(pair) != 2 or not all(isinstance(count, int) and count >= 0 for count in pair):
                raise ValueError(f"counts.{name} should be [normal, anomalous], got {pair}")
        for name, phrases in self.descriptions.items():
            if isinstance(phrases, str):
                raise ValueError(f"descriptions.{name} should be a list, got {phrases!r}")
        if unknown := self.misprints.keys() - self.counts.keys():
            raise ValueError(f"misprints of classes without counts: {', '.join(sorted(unknown))}")

    @property
    def labelled(self) -> str:
        """The labels in words."""
        return _LABELS[self.labels][0]

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels at which the paper measures the dataset."""
        return _LABELS[self.labels][1]


@dataclass(frozen=True, slots=True)
class _Domain:
    phrases: tuple[str, ...]
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of a comparison with the published counts."""

    matches: bool | None  # None if the paper does not have the dataset
    differences: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()  # differences within the tolerance


@cache
def known_datasets() -> Mapping[str, DatasetFacts]:
    """Return the facts on each known dataset by its id, in the paper's order.

    Raises:
        ConfigError: a table of `datasets.toml` has a fault; the message names the table.
    """
    facts = _records("datasets", DatasetFacts)
    for name, own in facts.items():
        if own.domain and own.domain not in _domains():
            raise ConfigError(
                f"datasets.toml, datasets.{name}: domain {own.domain!r} is none of "
                f"{', '.join(_domains())}."
            )
    return facts


def dataset_facts(name: str) -> DatasetFacts | None:
    """Return the facts on a dataset by its id; None for layouts of your own pictures.

    Example:
        >>> dataset_facts("elpv").labels, dataset_facts("folder")
        ('I', None)
    """
    return known_datasets().get(name)


def published_counts(dataset: str) -> dict[str, tuple[int, int]]:
    """Return class -> (normal, anomalous) of the test split; {} if the paper has no counts.

    Example:
        >>> published_counts("brainmri"), published_counts("magnetic_tile")
        ({'brain': (98, 155)}, {})
    """
    facts = dataset_facts(dataset)
    return {name: (pair[0], pair[1]) for name, pair in facts.counts.items()} if facts else {}


def datasets_of_group(group: str, level: Level) -> tuple[str, ...]:
    """Return the datasets that the paper's group mean counts at a level.

    Example:
        >>> datasets_of_group("medical", "image")
        ('brainmri', 'headct', 'lag', 'br35h')
    """
    return tuple(
        name
        for name, facts in known_datasets().items()
        if group and facts.group == group and level in facts.levels
    )


def dataset_of_classes(class_names: frozenset[str]) -> str | None:
    """Return the dataset of several classes that has all of these.

    Example:
        >>> dataset_of_classes(frozenset({"tile", "wood"})), dataset_of_classes(frozenset({"mug"}))
        ('mvtec', None)
    """
    for dataset, facts in known_datasets().items():
        if len(facts.counts) > 1 and class_names and class_names <= facts.counts.keys():
            complete = class_names == facts.counts.keys()
            return dataset if complete or not facts.common_class_names else None
    return None


def compare_counts(
    dataset: str,
    counts: Mapping[str, ClassCount],
    *,
    split: str = "test",
    left_out: Collection[str] = (),
) -> Comparison:
    """Compare the pictures of a dataset with the published counts.

    A dataset of several classes is compared class by class; all classes have to be present, save
    those that were left out on purpose. A dataset that the paper pools into one group is compared
    by its totals. Only the test split has published counts.
    """
    facts, published = dataset_facts(dataset), published_counts(dataset)
    is_pooled = len(published) == 1
    if facts is None or not published or split != "test" or (left_out and is_pooled):
        return Comparison(None)
    wanted = {name: pair for name, pair in published.items() if name not in left_out}
    found = {name: (count.normal, count.anomalous) for name, count in counts.items()}
    if is_pooled:
        normal, anomalous = zip(*found.values(), strict=True)
        found = {"in all": (sum(normal), sum(anomalous))}
        wanted = {"in all": next(iter(published.values()))}
    differences = _differences(found, wanted)
    is_close = found.keys() == wanted.keys() and all(
        found[name][0] == normal and abs(found[name][1] - anomalous) <= facts.tolerance
        for name, (normal, anomalous) in wanted.items()
    )
    if differences and is_close:
        reason = f"within {facts.tolerance}: {facts.tolerance_reason}"
        return Comparison(True, remarks=(f"{differences[0]}, {reason}",))
    return Comparison(not differences, differences)


def display_name(class_name: str) -> str:
    """Return the words for a class in prompts: its `names` entry, or the name with blanks.

    Example:
        >>> display_name("elpv"), display_name("Woven_001"), display_name("metal_nut")
        ('solar cell', 'woven texture', 'metal nut')
    """
    return _display_names().get(_key(class_name), class_name.replace("_", " ").strip())


def display_names(
    class_names: Sequence[str] | None, count: int, *, otherwise: str, raw: bool = False
) -> list[str]:
    """Return the words for what each of `count` pictures shows.

    `class_names` has one name per picture, as a dataset spells it; `otherwise` is the word for
    pictures without one. `raw` keeps the dataset's spelling, as much public code does.

    Example:
        >>> display_names(["metal_nut", "sdd", ""], 3, otherwise="object")
        ['metal nut', 'metal part', 'object']
        >>> display_names(["metal_nut", "sdd", ""], 3, otherwise="object", raw=True)
        ['metal_nut', 'sdd', 'object']
    """
    if class_names is None:
        return [otherwise] * count
    words = str.strip if raw else display_name
    return [words(name) or otherwise for name in class_names]


def defect_phrases(class_name: str) -> tuple[str, ...]:
    """Return phrases for what can be wrong with a class; () for an unknown class.

    A number at the end is ignored if the catalog does not have it: pcb1 to pcb4 are "pcb".

    Example:
        >>> defect_phrases("metal_nut")[:3]
        ('cracks', 'irregular threading', 'corrosion')
        >>> defect_phrases("pcb3") == defect_phrases("pcb") and defect_phrases("spoon") == ()
        True
    """
    name = _key(class_name)
    return _phrases().get(name, _phrases().get(name.rstrip("0123456789"), ()))


@cache
def _catalog() -> dict[str, Any]:
    return parse_toml(files("faprompt.data").joinpath("datasets.toml").read_text("utf-8"))


def _records(table: str, record: type[_Record]) -> dict[str, _Record]:
    return {
        name: from_mapping(record, values, what=f"datasets.toml, {table}.{name}")
        for name, values in _catalog()[table].items()
    }


@cache
def _domains() -> dict[str, _Domain]:
    return _records("domains", _Domain)


@cache
def _display_names() -> dict[str, str]:
    return {
        _key(name): words
        for facts in known_datasets().values()
        for name, words in facts.names.items()
    }


@cache
def _phrases() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for facts in known_datasets().values():
        if facts.domain:
            names = (*facts.counts, *facts.names, *facts.names.values())
            found |= dict.fromkeys(map(_key, names), _domains()[facts.domain].phrases)
    for domain in _domains().values():
        found |= dict.fromkeys(map(_key, domain.classes), domain.phrases)
    for facts in known_datasets().values():
        found |= {_key(name): tuple(lines) for name, lines in facts.descriptions.items()}
    return found


def _key(class_name: str) -> str:
    return class_name.replace("_", " ").strip().lower()


def _differences(
    found: Mapping[str, tuple[int, int]], wanted: Mapping[str, tuple[int, int]]
) -> tuple[str, ...]:
    differing = [
        f"{name} {found[name][0]} + {found[name][1]} instead of {pair[0]} + {pair[1]}"
        for name, pair in wanted.items()
        if name in found and found[name] != pair
    ]
    titles = {
        "normal + anomalous differ": differing,
        "classes missing": [name for name in wanted if name not in found],
        "classes the paper does not have": [name for name in found if name not in wanted],
    }
    return tuple(f"{title}: {examples(names)}" for title, names in titles.items() if names)
