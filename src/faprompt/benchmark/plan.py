"""What a benchmark would run: its cells, where their data and prompts come from, what is missing.

Nothing is computed and no weights are loaded here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from faprompt.benchmark.config import (
    FULL_SHOT,
    LEARNED,
    PAPER_SEED,
    PROTOCOL,
    TRAINING_FREE,
    BenchmarkConfig,
    DatasetEntry,
    MethodEntry,
    known_datasets,
    method_kind,
)
from faprompt.benchmark.protocol import training_set
from faprompt.data import Dataset, list_datasets, read_dataset
from faprompt.errors import ConfigError, DatasetError, ModelError
from faprompt.methods.registry import own_backbone
from faprompt.model_folder import read_config
from faprompt.models import find_model
from faprompt.training.full_shot import SPLIT, read_normal


@dataclass(frozen=True, slots=True)
class Column:
    """One detector of the table: a method on a backbone."""

    method: MethodEntry
    backbone: str  # "" where a model brings its own and is not there to tell
    title: str
    missing: tuple[str, ...] = ()

    @property
    def learns(self) -> bool:
        """Whether the benchmark trains it."""
        return self.method.learns


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset and the folder it is read from."""

    entry: DatasetEntry
    folder: Path | None  # None where the config tells no place
    missing: tuple[str, ...] = ()
    split: str = "test"

    @property
    def key(self) -> str:
        """What tells it from others; the test split is not spelled out."""
        return self.entry.key if self.split == "test" else f"{self.entry.key}, {self.split} split"

    def read(self) -> Dataset:
        """Return its split, with the entry's classes; of the train split the normal pictures.

        Raises:
            DatasetError: the folder is not the dataset, or lacks the split or a class.
        """
        assert self.folder is not None, "a source without a folder is missing"
        reader = self.entry.id or self.entry.reader
        if self.split == SPLIT:
            found = read_normal(self.folder, reader)
        else:
            found = read_dataset(self.folder, reader, split=self.split)
        return found.with_classes(self.entry.classes)


@dataclass(frozen=True, slots=True)
class Cell:
    """One evaluation: a column on a dataset, with one seed where it is trained."""

    column: Column
    source: Source
    trained_on: Source | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """Its folder below `cells`. The paper's seed is not spelled out."""
        seed = "" if self.seed in (None, PAPER_SEED) else f"__seed{self.seed}"
        method = slug(self.column.method.title)
        backbone = slug(self.column.backbone or "model")
        return f"{method}__{backbone}__{slug(self.source.entry.key)}{seed}"

    @property
    def missing(self) -> tuple[str, ...]:
        """Why it cannot run here, if anything stands in the way."""
        told = (*self.column.missing, *self.source.missing)
        trained = self.trained_on.missing if self.trained_on else ()
        return (*told, *(f"to train on: {reason}" for reason in trained if reason not in told))


@dataclass(frozen=True, slots=True)
class Plan:
    """All cells of a benchmark, those of one detector after another."""

    config: BenchmarkConfig
    columns: tuple[Column, ...]
    sources: tuple[Source, ...]
    cells: tuple[Cell, ...]

    def cells_of(self, column: Column, source: Source) -> tuple[Cell, ...]:
        """The cells behind one place of a table: one, or one per seed."""
        return tuple(c for c in self.cells if c.column is column and c.source is source)


def build_plan(config: BenchmarkConfig, *, data_root: Path | None = None) -> Plan:
    """The cells of a benchmark.

    Args:
        config: what is to be compared.
        data_root: where datasets lie; goes before the config's own root.

    Raises:
        ConfigError: two cells would share a folder, or a dataset lacks a class that is named.
    """
    root = data_root or (config.base / config.data.root if config.data.root else None)
    columns = tuple(_columns(config))
    sources = tuple(_source(entry, config, root) for entry in config.datasets)
    cells = tuple(_cells(config, columns, sources, root))
    names = [cell.name.casefold() for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"{config.title}: several cells would be written to {', '.join(twice)}; "
            "give their methods or datasets labels that differ in letters or digits."
        )
    return Plan(config, columns, sources, cells)


def slug(text: str) -> str:
    """A folder's name.

    Example:
        >>> slug("CAP w/o L_oc"), slug("../weights/ViT-L.pt")
        ('CAP-w-o-L_oc', 'weights-ViT-L.pt')
    """
    return re.sub(r"_{2,}", "_", re.sub(r"[^\w.-]+", "-", text)).strip("-._") or "unnamed"


def resolve(text: str, base: Path) -> str:
    """A path beside the config file if there is one of that name, else the text itself."""
    place = base / text
    return str(place) if text and place.exists() else text


def _columns(config: BenchmarkConfig) -> Iterator[Column]:
    several = len(config.backbones) > 1
    for method in config.methods:
        missing = _method_missing(method)
        if method.model:
            yield _model_column(method, config.base)
            continue
        own = method.available and own_backbone(method.name, method.preset)
        if own:
            yield Column(method, own, method.title, missing)
            continue
        for backbone in config.backbones:
            title = f"{method.title} ({backbone})" if several else method.title
            yield Column(method, resolve(backbone, config.base), title, missing)


def _method_missing(method: MethodEntry) -> tuple[str, ...]:
    if not method.available:
        return (f"this version has no method {method.name!r}",)
    kind = method_kind(method.name)
    if kind not in (LEARNED, TRAINING_FREE, FULL_SHOT):
        return (f"{method.name} is {kind}, which this version cannot run in a benchmark",)
    return ()


def _model_column(method: MethodEntry, base: Path) -> Column:
    try:
        config = read_config(find_model(resolve(method.model, base)))
    except ModelError as error:
        return Column(method, "", method.title, (str(error).rstrip("."),))
    told: tuple[str, ...] = ()
    if config["method"] != method.name:
        told = (f"the model {method.model} is {config['method']}, not {method.name}",)
    return Column(method, config["backbone"]["name"], method.title, told)


def _source(entry: DatasetEntry, config: BenchmarkConfig, root: Path | None) -> Source:
    if entry.id and entry.id not in list_datasets():
        return Source(entry, None, (f"this version has no reader for {entry.id!r}",))
    told = entry.folder or config.data.folders.get(entry.id, "")
    if root is None and not told:
        return Source(entry, None, ("no data root: give --data-root",))
    folder = (root or config.base) / (told or entry.id)
    if not folder.exists():
        return Source(entry, folder, (f"no folder {told or entry.id} below the data root",))
    source = Source(entry, folder)
    if entry.classes:
        _check_classes(source)
    return source


def _check_classes(source: Source) -> None:
    """Refuse a class that the dataset does not have; a folder that cannot be read is left alone."""
    try:
        whole = replace(source, entry=replace(source.entry, classes=())).read()
    except DatasetError:  # its cells will say so
        return
    try:
        whole.with_classes(source.entry.classes)
    except DatasetError as error:
        raise ConfigError(str(error)) from error


def _cells(
    config: BenchmarkConfig,
    columns: tuple[Column, ...],
    sources: tuple[Source, ...],
    root: Path | None,
) -> Iterator[Cell]:
    for column in columns:
        for seed in config.seeds if column.learns else (None,):
            for source in sources:
                trained_on = (
                    _training_source(column.method, source, config, root) if column.learns else None
                )
                yield Cell(column, source, trained_on, seed)


def _training_source(
    method: MethodEntry, tested: Source, config: BenchmarkConfig, root: Path | None
) -> Source:
    if method.full_shot:
        return _own_training_source(tested)
    wanted = method.train_on or PROTOCOL
    if wanted == PROTOCOL:
        wanted = training_set(tested.entry.id)
    for entry in config.datasets:
        if wanted in (entry.id, entry.label):
            return _source(replace(entry, classes=()), config, root)
    if wanted in known_datasets():
        return _source(DatasetEntry(id=wanted), config, root)
    return _source(DatasetEntry(folder=wanted, label=wanted), config, root)


def _own_training_source(tested: Source) -> Source:
    """The train split of the tested set itself; it is listed, and missing where it is empty."""
    own = replace(tested, split=SPLIT)
    if own.missing:
        return own
    try:
        own.read()
    except DatasetError as error:
        return replace(own, missing=(str(error).rstrip("."),))
    return own
