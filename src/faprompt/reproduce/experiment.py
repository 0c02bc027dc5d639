"""Read what to run from a TOML file: methods, datasets, backbones and how to report them.

title = "Parts"                      [[methods]]
seeds = [111, 7]                     name = "faprompt"
backbones = ["ViT-L-14-336"]         preset = "official"
precision = "fp32"                   options = {prompts = 5}
published = [7]                      train_on = "visa"
datasets = ["mvtec", {folder = "bottles", label = "Bottles"}, {id = "btad", classes = ["01"]}]

[data]
root = "sets"

[evaluation], [training] and [table] hold options. Each method is trained by its own recipe;
[training] overrides every recipe, and the table `training` of a method overrides both.
A study has more keys:

figure = "lines"                     [[claims]]
paper = "what the paper finds"       text = "ten prompts are better than one"
axes = [{name = "K", title = "prompts"}]     better = "K = 10"
                                     than = ["K = 1"]

There each method also says its `axis` (not needed with one axis), its place `x` and a `note`.
[gallery] and [spread] hold the options of these figures. A study of cost has [complexity] alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from faprompt.config import check_fields, from_mapping, parse_toml
from faprompt.errors import ConfigError
from faprompt.evaluation import EvaluationConfig
from faprompt.reproduce.experiment_parts import (
    Axis,
    Claim,
    CostOptions,
    DataOptions,
    DatasetEntry,
    GalleryOptions,
    MethodEntry,
    SpreadOptions,
    TableOptions,
)
from faprompt.reproduce.protocol import PRO, RESULT_TABLES, dataset_ids, group_of
from faprompt.training.training_config import TrainingConfig, recipe_config

Form = Literal["", "lines", "dots", "seeds", "costs", "spread", "gallery"]
PAPER_SEED = 111
PREFIX = "study-"  # of the files that `faprompt study NAME` finds
OWN_GROUP = "all sets"  # its mean counts the datasets that a user names
_TABLE_OF = {"costs": "complexity", "spread": "spread", "gallery": "gallery"}  # figure -> table
_FORMER = (
    "this is the former form of a study. Write the keys of [benchmark] at the top, each point "
    'as [[methods]] with name = "faprompt" (formerly method), its label and its axis, and '
    "published = false where a point had no published_as; see configs/paper."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A benchmark (methods x backbones x seeds x datasets), or with `figure` a study."""

    methods: tuple[MethodEntry, ...] = ()
    datasets: tuple[DatasetEntry, ...] = ()
    backbones: tuple[str, ...] = ("tiny",)
    seeds: tuple[int, ...] = (PAPER_SEED,)  # of trained methods
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"  # of the image tower
    title: str = "Benchmark"
    published: tuple[int, ...] = ()  # numbers of the paper's tables to print beside
    data: DataOptions = DataOptions()
    evaluation: EvaluationConfig = EvaluationConfig()
    training: Mapping[str, Any] = field(default_factory=dict)  # given; see `training_of`
    table: TableOptions = TableOptions()
    name: str = "study"
    figure: Form = ""
    paper: str = ""  # what the paper finds, in a sentence
    axes: tuple[Axis, ...] = (Axis(name="method", title="method"),)
    claims: tuple[Claim, ...] = ()
    complexity: CostOptions | None = None
    spread: SpreadOptions | None = None
    gallery: GalleryOptions | None = None
    base: Path = Path(".")  # folder of the file; relative paths start here

    def __post_init__(self) -> None:
        for figure, table in _TABLE_OF.items():
            if (self.figure == figure) != (getattr(self, table) is not None):
                raise ValueError(f"figure = {figure!r} and [{table}] belong together")
        if self.complexity is not None:
            ignored = [name for name, value in _defaults().items() if getattr(self, name) != value]
            if ignored:
                raise ValueError(
                    "a study of cost has title, paper and [complexity] alone; leave out "
                    f"{', '.join(ignored)}"
                )
            return
        check_fields(self, [*self._table_faults(), *self._list_faults(), *self._label_faults()])

    def _table_faults(self) -> Iterator[str]:
        if self.evaluation.by_defect:
            yield "by_defect is for `faprompt evaluate`; the groups here are classes"
        if PRO in (m for pair in self.table.metrics for m in pair) and not self.evaluation.pro_200:
            yield f"a table of {PRO} needs {PRO} = true under [evaluation]"
        wrong = [number for number in self.published if number not in RESULT_TABLES]
        if wrong:
            yield f"published should be tables 4 to 16 of the paper, got {wrong}"

    def _list_faults(self) -> Iterator[str]:
        for what, names in (
            ("methods", [entry.title for entry in self.methods]),
            ("datasets", [entry.key for entry in self.datasets]),
            ("backbones", self.backbones),
            ("seeds", self.seeds),
            ("axes", [axis.name for axis in self.axes]),
        ):
            if not names:
                yield f"{what} should name at least one"
            elif len(set(names)) < len(names):
                yield f"{what} should differ, got {', '.join(map(str, names))}"

    def _label_faults(self) -> Iterator[str]:
        if not self.figure and self.claims:
            yield "claims belong to a study; add `figure`, or leave them out"
        if self.gallery is not None and self.claims:
            yield "a gallery has no figures that could support claims"
        axes, labels = [axis.name for axis in self.axes], [e.title for e in self.methods]
        for entry in self.methods:
            if entry.axis not in axes and (entry.axis or len(axes) > 1):
                yield f"{entry.title}: axis should be one of {', '.join(axes)}, got {entry.axis!r}"
        empty = [axis.name for axis in self.axes if not self.entries_of(axis)]
        if empty and len(axes) > 1:
            yield f"axes without a method: {', '.join(empty)}"
        named = [label for claim in self.claims for label in (claim.better, *claim.than)]
        named += (self.spread.wide, self.spread.narrow) if self.spread else ()
        named += self.gallery.failures_of if self.gallery else ()
        wrong = [label for label in named if label not in labels]
        if wrong:
            yield f"claims, spread and failures name methods that are not there: {', '.join(wrong)}"

    def entries_of(self, axis: Axis) -> tuple[MethodEntry, ...]:
        """Return the methods of an axis, in order."""
        return tuple(entry for entry in self.methods if entry.axis in (axis.name, ""))

    def training_of(self, method: MethodEntry, **fixed: Any) -> TrainingConfig:
        """Return how a method is trained: its recipe, overridden by what was given."""
        what, given = f"[training] of {method.title}", {**self.training, **method.training}
        return recipe_config(method.name, method.preset, given, what=what, **fixed)


def _defaults() -> dict[str, Any]:
    """Return the fields that mean nothing in a study of cost, with their defaults."""
    used = ("title", "name", "figure", "paper", "complexity", "base")
    plain = {each.name: each.default for each in fields(Experiment) if each.name not in used}
    return plain | {"training": {}}


def read_experiment(path: Path) -> Experiment:
    """Read a benchmark or a study from a TOML file.

    Raises:
        ConfigError: no such file, no TOML, unknown keys or unfit values.
    """
    try:
        values = parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    name = path.stem.removeprefix(PREFIX)
    return parse_experiment({"name": name, **values}, base=path.parent, what=str(path))


def read_study(name: str) -> Experiment:
    """Read a study by its name, or by the path of a TOML file; errors as in `read_experiment`."""
    known = list_studies()
    path = Path(name) if name.endswith(".toml") else known.get(name)
    if path is None:
        listed = ", ".join(known) or f"none; they are files {PREFIX}NAME.toml of configs/paper"
        raise ConfigError(
            f"No study {name!r}; known: {listed}. Give one of these, or the path of a TOML file."
        )
    study = read_experiment(path)
    if not study.figure:
        raise ConfigError(
            f"{path} has no `figure`: run it with `faprompt benchmark`, or name one of lines, "
            "dots, seeds, costs, spread, gallery."
        )
    return study


def list_studies() -> dict[str, Path]:
    """Return name -> file of every study; files in the working folder come first."""
    found: dict[str, Path] = {}
    for folder in study_folders():
        for path in sorted(folder.glob(f"{PREFIX}*.toml")):
            found.setdefault(path.stem.removeprefix(PREFIX), path)
    return found


def study_folders() -> tuple[Path, ...]:
    """Return where studies are searched: the working folder, the package, the repository."""
    package = Path(__file__).resolve().parents[1]
    inner = Path("configs", "paper")
    return inner, package / "bundled" / "paper", package.parents[1] / inner


def parse_experiment(
    values: Mapping[str, Any], *, base: Path = Path("."), what: str = "experiment"
) -> Experiment:
    """Check plain data and build the experiment it describes; see `read_experiment`."""
    plain = dict(values)
    if "base" in plain:
        raise ConfigError(f"{what}: base is the file's own folder and cannot be set.")
    if "benchmark" in plain or _has_points(plain.get("axes")):
        raise ConfigError(f"{what}: {_FORMER}")
    for name, record in (
        ("data", DataOptions), ("evaluation", EvaluationConfig), ("table", TableOptions),
        ("complexity", CostOptions), ("spread", SpreadOptions), ("gallery", GalleryOptions),
    ):  # fmt: skip
        if name in plain:
            place = f"{what} [{name}]"
            plain[name] = from_mapping(record, _table(plain[name], place), what=place)
    for name, entry, short in (
        ("methods", MethodEntry, "name"), ("datasets", DatasetEntry, "id"),
        ("axes", Axis, "name"), ("claims", Claim, "text"),
    ):  # fmt: skip
        if name in plain:
            plain[name] = _entries(plain[name], entry, short, f"{what} {name}")
    plain["training"] = _table(plain.get("training", {}), f"{what} [training]")
    _check_training(plain["training"], plain.get("methods", ()), f"{what} [training]")
    return from_mapping(Experiment, {**plain, "base": base}, what=what)


def change_experiment(
    config: Experiment,
    *,
    backbones: Sequence[str] = (),
    datasets: Sequence[str] = (),  # ids or folders
    train_on: str = "",  # id or folder; full-shot methods keep their own
    seeds: Sequence[int] = (),
    epochs: int | None = None,  # of every training
    classes: Sequence[str] = (),  # the only ones of every dataset
) -> Experiment:
    """Return the experiment with a caller's overrides; empty ones change nothing.

    Raises:
        ConfigError: names that are unknown, empty or given twice.
    """
    changes: dict[str, Any] = {}
    if backbones:
        changes["backbones"] = tuple(backbones)
    if seeds:
        changes["seeds"] = tuple(seeds)
    if epochs is not None:
        changes["training"] = {**config.training, "epochs": epochs}
    try:
        entries = tuple(map(_dataset, datasets)) or config.datasets
        changes["datasets"] = tuple(
            replace(entry, classes=tuple(classes) or entry.classes) for entry in entries
        )
        if not all(group_of(name) for name in datasets):
            changes["table"] = replace(config.table, rows="datasets", group_means=True)
        changes["methods"] = tuple(_change_method(m, train_on, epochs) for m in config.methods)
        return replace(config, **changes)
    except ValueError as error:
        raise ConfigError(f"{config.title}: {error}.") from error


def _change_method(method: MethodEntry, train_on: str, epochs: int | None) -> MethodEntry:
    if epochs is not None and "epochs" in method.training:
        method = replace(method, training={**method.training, "epochs": epochs})
    trained = method.available and not method.model and not method.full_shot
    return replace(method, train_on=train_on) if train_on and trained else method


def _dataset(name: str) -> DatasetEntry:
    if name in dataset_ids():
        return DatasetEntry(id=name)
    return DatasetEntry(folder=name, label=Path(name).name, group=OWN_GROUP)


def _has_points(axes: Any) -> bool:
    return isinstance(axes, list) and any(isinstance(a, Mapping) and "points" in a for a in axes)


def _entries(given: Any, record: type, short: str, what: str) -> tuple[Any, ...]:
    """Build records from tables; bare text stands for the key `short`."""
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise ConfigError(f"{what} should be a list, got {given!r}.")
    tables = [{short: item} if isinstance(item, str) else item for item in given]
    return tuple(from_mapping(record, _table(item, what), what=what) for item in tables)


def _table(given: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{what} should be a table of options, got {given!r}.")
    return given


def _check_training(given: Mapping[str, Any], methods: Sequence[MethodEntry], what: str) -> None:
    """Refuse options that are unknown, or contradict the recipe of a method."""
    if any("seed" in table for table in (given, *(method.training for method in methods))):
        raise ConfigError(f"{what}: seed is set by `seeds` above.")
    learning = [method for method in methods if method.learns]
    if not learning:
        from_mapping(TrainingConfig, given, what=what)
    for method in learning:
        asked = {**given, **method.training}
        recipe_config(method.name, method.preset, asked, what=f"{what} of {method.title}")
