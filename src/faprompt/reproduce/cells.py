"""Plan an experiment: its cells, where their data and prompts come from, what is missing.

Nothing is computed and no weights are loaded here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from faprompt.config import from_mapping, to_mapping
from faprompt.data import Dataset, list_datasets, read_dataset
from faprompt.errors import ConfigError, DatasetError, ModelError
from faprompt.methods.registry import (
    method_class,
    own_backbone,
    preset_config,
    preset_recipe,
)
from faprompt.model_folder import read_config
from faprompt.models import find_model
from faprompt.reproduce.experiment import PAPER_SEED, Experiment
from faprompt.reproduce.experiment_parts import DatasetEntry, MethodEntry
from faprompt.reproduce.protocol import dataset_ids, training_set
from faprompt.training.full_shot_training import SPLIT, read_normal

PROTOCOL = "protocol"  # train on the set that the paper's protocol names


@dataclass(frozen=True, slots=True)
class Column:
    """One detector of the table: a method on a backbone."""

    method: MethodEntry
    backbone: str  # "" where a model brings its own and is missing
    title: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset and the folder it is read from."""

    entry: DatasetEntry
    folder: Path | None  # None where the experiment names no place
    missing: tuple[str, ...] = ()
    split: str = "test"

    @property
    def key(self) -> str:
        """Name that differs from other sources; the test split is not spelled out."""
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
        """Name of its folder, without the key. The paper's seed is not spelled out."""
        seed = "" if self.seed in (None, PAPER_SEED) else f"__seed{self.seed}"
        method = slug(self.column.method.title)
        backbone = slug(self.column.backbone or "model")
        return f"{method}__{backbone}__{slug(self.source.entry.key)}{seed}"

    @property
    def missing(self) -> tuple[str, ...]:
        """Reasons why it cannot run here."""
        known = (*self.column.missing, *self.source.missing)
        trained = self.trained_on.missing if self.trained_on else ()
        return (*known, *(f"to train on: {reason}" for reason in trained if reason not in known))


@dataclass(frozen=True, slots=True)
class Plan:
    """All cells of an experiment.

    The cells of one detector stand together in a benchmark; in a study those of one dataset, as
    its runs share the tokens of the tested pictures.
    """

    config: Experiment
    columns: tuple[Column, ...]
    sources: tuple[Source, ...]
    cells: tuple[Cell, ...]
    titles: Mapping[str, str] = field(default_factory=dict)  # title of a method -> of its run

    def cells_of(self, column: Column, source: Source) -> tuple[Cell, ...]:
        """Return the cells behind one place of a table: one, or one per seed."""
        return tuple(c for c in self.cells if c.column is column and c.source is source)

    def columns_of(self, method: MethodEntry) -> tuple[Column, ...]:
        """Return the columns of a method of the experiment: one per backbone."""
        title = self.titles[method.title]
        return tuple(c for c in self.columns if c.method.title == title)

    def one_seed(self, seed: int) -> Plan:
        """Return the plan with the cells of one seed and those that have none."""
        cells = tuple(cell for cell in self.cells if cell.seed in (None, seed))
        return replace(self, config=replace(self.config, seeds=(seed,)), cells=cells)


def build_plan(config: Experiment, *, data_root: Path | None = None) -> Plan:
    """Plan the cells of an experiment.

    Args:
        config: what is to be run.
        data_root: folder of the datasets; overrides the config's own root.

    Raises:
        ConfigError: it is a study of cost, two cells would share a folder, or a dataset lacks a
            class that is named.
    """
    if config.complexity is not None:
        raise ConfigError(f"{config.name} measures cost; it has no runs to plan.")
    root = data_root or (config.base / config.data.root if config.data.root else None)
    methods, titles = config.methods, {method.title: method.title for method in config.methods}
    if config.figure:
        methods, titles = _merge_equal_runs(config.methods)
    columns = tuple(_columns(config, methods))
    sources = tuple(_source(entry, config, root) for entry in config.datasets)
    cells = list(_cells(config, columns, sources, root))
    names = [cell.name.casefold() for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            f"{config.title}: several cells would be written to {', '.join(twice)}; "
            "give their methods or datasets labels that differ in letters or digits."
        )
    if config.figure:
        order = {id(source): place for place, source in enumerate(sources)}
        cells.sort(key=lambda cell: order[id(cell.source)])
    return Plan(config, columns, sources, tuple(cells), titles)


def slug(text: str) -> str:
    """Return text as the name of a folder.

    Example:
        >>> slug("CAP w/o L_oc"), slug("../weights/ViT-L.pt")
        ('CAP-w-o-L_oc', 'weights-ViT-L.pt')
    """
    return re.sub(r"_{2,}", "_", re.sub(r"[^\w.-]+", "-", text)).strip("-._") or "unnamed"


def resolve(text: str, base: Path) -> str:
    """Return the path beside the experiment's file where there is one, else the text itself."""
    place = base / text
    return str(place) if text and place.exists() else text


def _merge_equal_runs(
    methods: tuple[MethodEntry, ...],
) -> tuple[tuple[MethodEntry, ...], dict[str, str]]:
    """Make methods that are the same run one; also return the title of each method's run."""
    runs: dict[str, list[MethodEntry]] = {}
    for method in methods:
        runs.setdefault(_run_key(method), []).append(method)
    titles = {m.title: " / ".join(e.title for e in same) for same in runs.values() for m in same}
    merged = []
    for same in runs.values():
        first = same[0]
        printed = next((method for method in same if method.published), first)
        merged.append(
            replace(
                first,
                label=titles[first.title],
                options=_needed_options(first),
                published=printed.published,
                published_as=printed.published_as,
                setting=printed.setting,
            )  # fmt: skip
        )
    return tuple(merged), titles


def _run_key(method: MethodEntry) -> str:
    """Return a text that is equal for methods that are the same run."""
    if method.model or not method.available:
        return repr((method.name, method.model, method.title))
    preset = to_mapping(preset_config(method.name, method.preset))
    config = from_mapping(
        method_class(method.name).config_class, {**preset, **method.options}, what=method.title
    )
    recipe = preset_recipe(method.name, method.preset)
    given = (sorted(recipe.items()), method.train_on, sorted(method.training.items()))
    return repr((method.name, sorted(to_mapping(config).items()), *given))


def _needed_options(method: MethodEntry) -> dict[str, object]:
    """Return the options that differ from the preset's: only they are named under a table."""
    if method.model or not method.available:
        return dict(method.options)
    preset = to_mapping(preset_config(method.name, method.preset))
    return {k: v for k, v in method.options.items() if k not in preset or preset[k] != v}


def _columns(config: Experiment, methods: tuple[MethodEntry, ...]) -> Iterator[Column]:
    several = len(config.backbones) > 1
    for method in methods:
        if method.model:
            yield _model_column(method, config.base)
            continue
        own = method.available and own_backbone(method.name, method.preset)
        if own:
            yield Column(method, own, method.title)
            continue
        missing = () if method.available else (f"this version has no method {method.name!r}",)
        for backbone in config.backbones:
            title = f"{method.title} ({backbone})" if several else method.title
            yield Column(method, resolve(backbone, config.base), title, missing)


def _model_column(method: MethodEntry, base: Path) -> Column:
    try:
        config = read_config(find_model(resolve(method.model, base)))
    except ModelError as error:
        return Column(method, "", method.title, (str(error).rstrip("."),))
    missing: tuple[str, ...] = ()
    if config["method"] != method.name:
        missing = (f"the model {method.model} is {config['method']}, not {method.name}",)
    return Column(method, config["backbone"]["name"], method.title, missing)


def _source(entry: DatasetEntry, config: Experiment, root: Path | None) -> Source:
    if entry.id and entry.id not in list_datasets():
        return Source(entry, None, (f"this version has no reader for {entry.id!r}",))
    given = entry.folder or config.data.folders.get(entry.id, "")
    if root is None and not given:
        return Source(entry, None, ("no data root: give --data-root",))
    folder = (root or config.base) / (given or entry.id)
    if not folder.exists():
        return Source(entry, folder, (f"no folder {given or entry.id} below the data root",))
    if entry.classes:
        _check_classes(Source(entry, folder))
    return Source(entry, folder)


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
    config: Experiment,
    columns: tuple[Column, ...],
    sources: tuple[Source, ...],
    root: Path | None,
) -> Iterator[Cell]:
    for column in columns:
        method = column.method
        for seed in config.seeds if method.learns else (None,):
            for source in sources:
                learned = _training_source(method, source, config, root) if method.learns else None
                yield Cell(column, source, learned, seed)


def _training_source(
    method: MethodEntry, tested: Source, config: Experiment, root: Path | None
) -> Source:
    if method.full_shot:
        return _own_training_source(tested)
    wanted = method.train_on or PROTOCOL
    if wanted == PROTOCOL:
        wanted = training_set(tested.entry.id)
    for entry in config.datasets:
        if wanted in (entry.id, entry.label):
            return _source(replace(entry, classes=()), config, root)
    if wanted in dataset_ids():
        return _source(DatasetEntry(id=wanted), config, root)
    return _source(DatasetEntry(folder=wanted, label=wanted), config, root)


def _own_training_source(tested: Source) -> Source:
    """Return the train split of the tested set; it is missing where it has no normal picture."""
    own = replace(tested, split=SPLIT)
    if own.missing:
        return own
    try:
        own.read()
    except DatasetError as error:
        return replace(own, missing=(str(error).rstrip("."),))
    return own
