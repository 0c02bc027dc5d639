"""Read what to run from a TOML file: methods, datasets, backbones and how to report them.

title = "Parts"                      [[methods]]
seeds = [111, 7]                     name = "faprompt"
backbones = ["ViT-L-14-336"]         preset = "official"
precision = "fp32"                   options = {prompts = 5}
published = [7]                      train_on = "visa"
datasets = ["mvtec", {folder = "bottles", label = "Bottles"}, {id = "btad", classes = ["01"]}]

[data] root = "sets"                 [evaluation], [training] and [table] hold their options

Each method is trained by its own recipe; [training] overrides every recipe, and the table
`training` of a method overrides both. A study has more keys:

figure = "lines"                     [[claims]]
paper = "what the paper finds"       text = "ten prompts are better than one"
axes = [{name = "K", title = "prompts"}]     better = "K = 10"
                                     than = ["K = 1"]

There each method also says its `axis` (not needed with one axis), its place `x` and a `note`.
[gallery] and [spread] hold the options of these figures. A study of cost has [complexity] alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from faprompt.config import Count, Natural, check_fields, from_mapping, parse_toml
from faprompt.data import list_datasets
from faprompt.errors import ConfigError
from faprompt.evaluation import EvaluationConfig
from faprompt.methods.registry import METHODS, list_methods, method_class, preset_options
from faprompt.metrics import METRIC_NAMES
from faprompt.reproduce.protocol import (
    PAPER_TITLES,
    PRO,
    RESULT_TABLES,
    dataset_ids,
    group_of,
    paper_has,
    published_methods,
)
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
class MethodEntry:
    """A method with its options: a column of the tables, a point of the figure."""

    name: str  # as in `faprompt models list`, or of the paper's tables
    label: str = ""  # default: the name
    preset: str = "paper"
    options: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""  # a trained model: bundled name, folder or hub id; it brings its backbone
    train_on: str = ""  # "protocol" (the default), a dataset's id, or a folder
    published_as: str = ""  # the method in the published tables; default: the name
    setting: str = ""  # its setting there, such as "deep_length=2" in Table 6
    published: bool = True  # False: no number of the paper is shown beside it
    training: Mapping[str, Any] = field(default_factory=dict)  # overrides [training]
    axis: str = ""  # name of its axis, needed where there are several
    x: float | None = None  # place on the axis; default: its number there
    note: str = ""  # a remark for the page of the study

    def __post_init__(self) -> None:
        known = dict.fromkeys((*list_methods(), *published_methods()))
        if self.name not in known:
            raise ValueError(f"no method {self.name!r}; known: {', '.join(known)}")
        for name in ("options", "training"):
            if not isinstance(getattr(self, name), Mapping):
                raise ValueError(f"{name} should be a table, got {getattr(self, name)!r}")
        if not self.published and (self.published_as or self.setting):
            raise ValueError(
                f"{self.title}: published_as and setting name a number of the paper, and published "
                "is false; leave out one of them"
            )
        fixed = self.train_on or self.options or self.training or self.preset != "paper"
        if self.model and fixed:
            raise ValueError(
                f"{self.title}: a trained model keeps its own preset, options and training; leave "
                "out preset, options, training and train_on"
            )
        if self.full_shot and self.train_on:
            raise ValueError(
                f"{self.title}: a full-shot method learns from each tested set's own train split; "
                "leave train_on out"
            )
        if self.available and not self.model:
            try:
                from_mapping(
                    method_class(self.name).config_class,
                    self.all_options,
                    what=f"{self.name} options",
                )
            except ConfigError as error:
                raise ValueError(str(error).rstrip(".")) from error

    @property
    def available(self) -> bool:
        """Whether this version has the method."""
        return self.name in METHODS

    @property
    def learns(self) -> bool:
        """Whether it is trained before it is measured."""
        return not self.model and self.available and METHODS[self.name].kind() != "training-free"

    @property
    def full_shot(self) -> bool:
        """Whether it is trained on each tested set's own train split."""
        return not self.model and self.available and METHODS[self.name].full_shot

    @property
    def title(self) -> str:
        """Name in tables and figures."""
        return self.label or self.name

    @property
    def all_options(self) -> dict[str, Any]:
        """Options of the preset, overridden by its own."""
        return {**preset_options(self.name, self.preset), **self.options}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetEntry:
    """A labelled set: a known id, or any folder with a label."""

    id: str = ""
    folder: str = ""  # default: the id, below the data root
    label: str = ""
    reader: str = "auto"  # of a folder without an id
    group: str = ""  # group whose mean counts it; known sets have theirs
    classes: tuple[str, ...] = ()  # the only ones that are tested; default: all

    def __post_init__(self) -> None:
        readers = ("auto", *list_datasets())
        if bool(self.id) == bool(self.label and self.folder):
            raise ValueError("a dataset wants an id, or a folder with a label")
        if self.id and self.id not in dataset_ids():
            raise ValueError(f"no dataset {self.id!r}; known: {', '.join(dataset_ids())}")
        if self.reader not in readers:
            raise ValueError(f"no reader {self.reader!r}; known: {', '.join(readers)}")
        if len(set(self.classes)) < len(self.classes) or not all(self.classes):
            raise ValueError(f"classes should be names that differ, got {list(self.classes)}")

    @property
    def key(self) -> str:
        """Name in cells and published tables, such as "visa" or "btad (01)"."""
        return self._with_classes(self.id or self.label)

    @property
    def title(self) -> str:
        """Name of the row, spelled as in the paper."""
        return self._with_classes(self.label or PAPER_TITLES.get(self.id, self.id))

    def _with_classes(self, name: str) -> str:
        return f"{name} ({', '.join(self.classes)})" if self.classes else name

    @property
    def group_name(self) -> str:
        """Group whose mean counts it, or ""."""
        return self.group or group_of(self.id)

    def has(self, metric: str) -> bool:
        """Return whether a table of this metric has a row for it."""
        return paper_has(self.id, metric)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """How results are put together. A pair such as ["image_auroc", "image_ap"] shares a cell."""

    metrics: tuple[tuple[str, ...], ...] = (
        ("image_auroc",),
        ("image_ap",),
        ("pixel_auroc",),
        ("aupro",),
    )  # one table each
    rows: Literal["datasets", "classes", "groups"] = "datasets"
    group_means: bool = True  # below the datasets

    def __post_init__(self) -> None:
        known = tuple(dict.fromkeys((*METRIC_NAMES, PRO)))
        wrong = [name for pair in self.metrics for name in pair if name not in known]
        if wrong or not all(self.metrics) or not self.metrics:
            raise ValueError(f"metrics should be lists of {', '.join(known)}; got {self.metrics}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """Folders of the datasets; relative ones are below `root`, and `root` below the file's."""

    root: str = ""
    folders: Mapping[str, str] = field(default_factory=dict)  # dataset id -> folder

    def __post_init__(self) -> None:
        if not isinstance(self.folders, Mapping):
            raise ValueError(f"folders should be a table of id = folder, got {self.folders!r}")
        wrong = [name for name in self.folders if name not in dataset_ids()]
        if wrong:
            raise ValueError(f"folders of unknown datasets: {', '.join(wrong)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What is varied: a row of panels of the figure."""

    name: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A finding of the paper that figures can support: one setting is better than others."""

    text: str
    better: str  # label of a method
    than: tuple[str, ...]  # labels


@dataclass(frozen=True, slots=True, kw_only=True)
class CostOptions:
    """What a study of cost measures, and how often."""

    methods: tuple[str, ...] = ()  # default: all
    backbone: str = "ViT-L-14-336"
    preset: str = "common"  # of methods that have it, so that all see pictures alike
    batch_size: Count = 8  # of a training step; 1 picture at inference (Table 3)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # of the image tower
    warmup: Natural = 2  # calls that are not counted
    repeats: int = 10  # calls that are
    normal_pictures: Count = 200  # that PatchCore remembers; MVTec AD has 60 to 391 a class

    def __post_init__(self) -> None:
        wrong = [name for name in self.methods if name not in METHODS]
        faults = [f"no methods {', '.join(wrong)}; known: {', '.join(METHODS)}"] if wrong else []
        if self.repeats < 2:
            faults.append(f"repeats should be at least 2, got {self.repeats}")
        check_fields(self, faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadOptions:
    """Whose prompts' maps are compared, and on how many pictures."""

    wide: str  # label of the method whose prompts are said to spread
    narrow: str  # label of the method whose prompts are said to cluster
    per_label: int = 20  # normal pictures of a dataset that are mapped, and anomalous ones
    embedded: Count = 1  # models of each method, by seed, whose maps are drawn as a t-SNE

    def __post_init__(self) -> None:
        faults = []
        if self.wide == self.narrow:
            faults.append(f"wide and narrow should differ, got {self.wide!r} twice")
        if self.per_label < 2:
            faults.append(f"per_label should be at least 2, got {self.per_label}")
        check_fields(self, faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryOptions:
    """Which pictures are shown side by side, and on how many sheets."""

    anomalous: Natural = 3  # of each class, kinds of defect in turn
    normal: Natural = 1  # of each class
    several: Natural = 8  # of each dataset: several defects in one picture
    rows: Count = 8  # most pictures on a sheet; more go on the next
    seed: int = 111  # of the draw; not that of a training
    failures: Natural = 0  # most pictures per kind of mistake; 0 measures nothing and shows none
    failures_of: tuple[str, ...] = ()  # labels of methods

    def __post_init__(self) -> None:
        faults = []
        if not (self.anomalous or self.normal or self.several):
            faults.append("anomalous, normal or several should be above 0, so that some are shown")
        if bool(self.failures) != bool(self.failures_of):
            faults.append("failures and failures_of belong together")
        check_fields(self, faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A benchmark (methods x backbones x seeds x datasets), or with `figure` a study."""

    methods: tuple[MethodEntry, ...] = ()
    datasets: tuple[DatasetEntry, ...] = ()
    backbones: tuple[str, ...] = ("tiny",)
    seeds: tuple[int, ...] = (PAPER_SEED,)  # of trained methods
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # of the image tower
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
            if self.methods or self.datasets or self.claims:
                raise ValueError(
                    "a study of cost has no methods, datasets or claims beside [complexity]"
                )
            return
        check_fields(self, [*self._table_faults(), *self._list_faults(), *self._label_faults()])

    def _table_faults(self) -> Iterator[str]:
        if self.evaluation.by_defect:
            yield "by_defect is for `faprompt evaluate`; the groups here are classes"
        if PRO in (m for pair in self.table.metrics for m in pair) and not self.evaluation.pro_200:
            yield f"a table of {PRO} wants {PRO} = true under [evaluation]"
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
        raise ConfigError(f"No study {name!r}; known: {listed}. A path to a TOML file does too.")
    study = read_experiment(path)
    if not study.figure:
        raise ConfigError(
            f"{path} has no `figure`: run it with `faprompt benchmark`, or name one of lines, "
            "dots, seeds, costs, spread, gallery."
        )
    return study


def list_studies() -> dict[str, Path]:
    """Return name -> file of every study; a file in the working folder goes first."""
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
    datasets: Sequence[str] = (),
    train_on: str = "",
    seeds: Sequence[int] = (),
    epochs: int | None = None,
    classes: Sequence[str] = (),
) -> Experiment:
    """Return the experiment with what a caller asks for otherwise; empty means as it is.

    Args:
        config: what the file says.
        backbones: names, in place of the file's.
        datasets: ids or folders, in place of the file's.
        train_on: id or folder that every method is trained on, except full-shot ones.
        seeds: in place of the file's.
        epochs: of every training.
        classes: the only ones of every dataset.

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
    """Tables, or for short the bare name of a method or id of a dataset."""
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise ConfigError(f"{what} should be a list, got {given!r}.")
    tables = [{short: item} if isinstance(item, str) else item for item in given]
    return tuple(from_mapping(record, _table(item, what), what=what) for item in tables)


def _table(given: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{what} should be a table of options, got {given!r}.")
    return given


def _check_training(given: Mapping[str, Any], methods: Sequence[MethodEntry], what: str) -> None:
    """Refuse options that are unknown, or do not go with the recipe of a method."""
    if any("seed" in table for table in (given, *(method.training for method in methods))):
        raise ConfigError(f"{what}: seed is set by `seeds` above.")
    learning = [method for method in methods if method.learns]
    if not learning:
        from_mapping(TrainingConfig, given, what=what)
    for method in learning:
        asked = {**given, **method.training}
        recipe_config(method.name, method.preset, asked, what=f"{what} of {method.title}")
