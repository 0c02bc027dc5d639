"""What a benchmark's TOML file says, checked as a whole before anything runs.

title = "Parts"                      [[methods]]
seeds = [111, 7]                     name = "faprompt"
backbones = ["ViT-L-14-336"]         preset = "official"
precision = "fp32"                   options = {prompts = 5}
published = [7]                      train_on = "visa"
datasets = ["mvtec", {folder = "bottles", label = "Bottles"}, {id = "btad", classes = ["01"]}]

[data]                               [evaluation]  [training]  [table]
root = "sets"                        options of the workshops, and how the table looks

A method is trained by its own recipe. [training] overrides every recipe, and a method's own
table `training` overrides both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from faprompt.config import from_mapping, parse_toml
from faprompt.data import list_datasets
from faprompt.errors import ConfigError
from faprompt.evaluation import EvaluationConfig
from faprompt.methods.registry import (
    describe_methods,
    list_methods,
    method_class,
    preset_options,
)
from faprompt.metrics import METRIC_NAMES
from faprompt.reproduce.protocol import (
    PAPER_TITLES,
    PRO,
    RESULT_TABLES,
    group_of,
    paper_has,
    published_methods,
)
from faprompt.training.training_config import TrainingConfig, recipe_config

PAPER_SEED = 111
PROTOCOL = "protocol"
LEARNED, TRAINING_FREE, FULL_SHOT = "learned", "training-free", "full-shot"
_DEFAULT_METRICS = (("image_auroc",), ("image_ap",), ("pixel_auroc",), ("aupro",))


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodEntry:
    """One method, and where its prompts come from."""

    name: str  # as in `faprompt models list`, or one of the paper's that we have not yet
    label: str = ""  # the table's column; default: the name
    preset: str = "paper"
    options: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""  # a trained model: bundled name, folder or hub id; it brings its backbone
    train_on: str = ""  # "protocol" (the default), a dataset's id, or a folder
    published_as: str = ""  # the method in the published tables; default: the name
    setting: str = ""  # its setting there, such as "deep_length=2" in Table 6
    published: bool = True  # False: no number of the paper stands beside this column
    training: Mapping[str, Any] = field(default_factory=dict)  # goes before [training]

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
            raise ValueError(f"{self.label}: a model has its options and its training fixed")
        if self.full_shot and self.train_on:
            raise ValueError(
                f"{self.title}: a full-shot method learns from each tested set's own train split; "
                "leave train_on out"
            )
        if self.available and not self.model:
            _check_options(self)

    @property
    def available(self) -> bool:
        """Whether this version has the method."""
        return self.name in list_methods()

    @property
    def learns(self) -> bool:
        """Whether the benchmark trains it."""
        return not self.model and method_kind(self.name) in (LEARNED, FULL_SHOT)

    @property
    def full_shot(self) -> bool:
        """Whether it is trained on each tested set's own train split."""
        return not self.model and method_kind(self.name) == FULL_SHOT

    @property
    def title(self) -> str:
        """The column's name."""
        return self.label or self.name

    @property
    def all_options(self) -> dict[str, Any]:
        """The preset's options, then its own."""
        return {**preset_options(self.name, self.preset), **self.options}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetEntry:
    """One labelled set: a known id, or any folder with a label."""

    id: str = ""
    folder: str = ""  # default: the id, below the data root
    label: str = ""
    reader: str = "auto"  # of a folder without an id
    group: str = ""  # whose mean counts it; known sets have theirs
    classes: tuple[str, ...] = ()  # the only ones that are tested; default: all

    def __post_init__(self) -> None:
        if bool(self.id) == bool(self.label and self.folder):
            raise ValueError("a dataset wants an id, or a folder with a label")
        if self.id and self.id not in known_datasets():
            raise ValueError(f"no dataset {self.id!r}; known: {', '.join(known_datasets())}")
        if self.reader not in ("auto", *list_datasets()):
            raise ValueError(
                f"no reader {self.reader!r}; known: auto, {', '.join(list_datasets())}"
            )
        if len(set(self.classes)) < len(self.classes) or not all(self.classes):
            raise ValueError(f"classes should be names that differ, got {list(self.classes)}")

    @property
    def key(self) -> str:
        """Return the name that cells and published tables use, such as "visa" or "btad (01)"."""
        return self._with_classes(self.id or self.label)

    @property
    def title(self) -> str:
        """Return the row's name, spelled as in the paper."""
        return self._with_classes(self.label or PAPER_TITLES.get(self.id, self.id))

    def _with_classes(self, name: str) -> str:
        return f"{name} ({', '.join(self.classes)})" if self.classes else name

    @property
    def group_name(self) -> str:
        """The group whose mean counts it, or ""."""
        return self.group or group_of(self.id)

    def has(self, metric: str) -> bool:
        """Whether a table of this metric has a row for it."""
        return paper_has(self.id, metric)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """How results are put together. A pair such as ["image_auroc", "image_ap"] shares a cell."""

    metrics: tuple[tuple[str, ...], ...] = _DEFAULT_METRICS  # one table each
    rows: Literal["datasets", "classes", "groups"] = "datasets"
    group_means: bool = True  # below the datasets

    def __post_init__(self) -> None:
        known = tuple(dict.fromkeys((*METRIC_NAMES, PRO)))
        wrong = [name for pair in self.metrics for name in pair if name not in known]
        if wrong or not all(self.metrics) or not self.metrics:
            raise ValueError(f"metrics should be lists of {', '.join(known)}; got {self.metrics}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataOptions:
    """Where datasets lie. Relative folders are below `root`, and that below the file's."""

    root: str = ""
    folders: Mapping[str, str] = field(default_factory=dict)  # dataset id -> folder

    def __post_init__(self) -> None:
        if not isinstance(self.folders, Mapping):
            raise ValueError(f"folders should be a table of id = folder, got {self.folders!r}")
        wrong = [name for name in self.folders if name not in known_datasets()]
        if wrong:
            raise ValueError(f"folders of unknown datasets: {', '.join(wrong)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig:
    """A whole benchmark: methods x backbones x seeds x datasets."""

    methods: tuple[MethodEntry, ...]
    datasets: tuple[DatasetEntry, ...]
    backbones: tuple[str, ...] = ("tiny",)
    seeds: tuple[int, ...] = (PAPER_SEED,)  # of trained methods
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # of the image tower
    title: str = "Benchmark"
    published: tuple[int, ...] = ()  # numbers of the paper's tables to print beside
    data: DataOptions = DataOptions()
    evaluation: EvaluationConfig = EvaluationConfig()
    training: Mapping[str, Any] = field(default_factory=dict)  # given; see `training_of`
    table: TableOptions = TableOptions()
    base: Path = Path(".")  # the file's folder; what relative paths start from

    def training_of(self, method: MethodEntry, **fixed: Any) -> TrainingConfig:
        """How a method is trained: its recipe, then what was given; see `recipe_config`."""
        what, given = f"[training] of {method.title}", {**self.training, **method.training}
        return recipe_config(method.name, method.preset, given, what=what, **fixed)

    def __post_init__(self) -> None:
        if self.evaluation.by_defect:
            raise ValueError("by_defect is for `faprompt evaluate`; the groups here are classes")
        if PRO in (m for pair in self.table.metrics for m in pair) and not self.evaluation.pro_200:
            raise ValueError(f"a table of {PRO} wants {PRO} = true under [evaluation]")
        wrong = [number for number in self.published if number not in RESULT_TABLES]
        if wrong:
            raise ValueError(f"published should be tables 4 to 16 of the paper, got {wrong}")
        for what, names in (
            ("methods", [entry.title for entry in self.methods]),
            ("datasets", [entry.key for entry in self.datasets]),
            ("backbones", self.backbones),
            ("seeds", self.seeds),
        ):
            if not names:
                raise ValueError(f"{what} should name at least one")
            if len(set(names)) < len(names):
                raise ValueError(f"{what} should differ, got {', '.join(map(str, names))}")


def read_benchmark(path: Path) -> BenchmarkConfig:
    """The benchmark a TOML file describes.

    Raises:
        ConfigError: no such file, no TOML, unknown keys or unfit values.
    """
    try:
        values = parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    return parse_benchmark(values, base=path.parent, what=str(path))


def parse_benchmark(
    values: Mapping[str, Any], *, base: Path = Path("."), what: str = "benchmark"
) -> BenchmarkConfig:
    """The benchmark that plain data describes; see `read_benchmark`."""
    if "base" in values:
        raise ConfigError(f"{what}: base is the file's own folder and cannot be set.")
    plain = dict(values)
    parts: dict[str, Any] = {}
    for name, record in (
        ("data", DataOptions),
        ("evaluation", EvaluationConfig),
        ("table", TableOptions),
    ):
        if name in plain:
            given = _table(plain.pop(name), f"{what} [{name}]")
            parts[name] = from_mapping(record, given, what=f"{what} [{name}]")
    parts["training"] = _table(plain.pop("training", {}), f"{what} [training]")
    parts["methods"] = _entries(plain.pop("methods", ()), MethodEntry, f"{what} methods")
    parts["datasets"] = _entries(plain.pop("datasets", ()), DatasetEntry, f"{what} datasets")
    _check_training(parts["training"], parts["methods"], f"{what} [training]")
    return from_mapping(BenchmarkConfig, {**plain, **parts, "base": base}, what=what)


def restrict_classes(config: BenchmarkConfig, classes: Sequence[str]) -> BenchmarkConfig:
    """Return the benchmark with these classes alone of every dataset; unchanged for no classes.

    Raises:
        ConfigError: a name is empty or given twice.
    """
    if not classes:
        return config
    try:
        entries = tuple(replace(entry, classes=tuple(classes)) for entry in config.datasets)
    except ValueError as error:
        raise ConfigError(f"{config.title}: {error}.") from error
    return replace(config, datasets=entries)


def method_kind(name: str) -> str:
    """ "learned", "training-free", or another word of `describe_methods`; "" if not there.

    Example:
        >>> method_kind("clip"), method_kind("faprompt"), method_kind("not yet")
        ('training-free', 'learned', '')
    """
    return next((row["kind"] for row in describe_methods() if row["name"] == name), "")


def known_datasets() -> tuple[str, ...]:
    """The paper's ids, then what else this version reads by name."""
    return tuple(dict.fromkeys((*PAPER_TITLES, *list_datasets())))


def _entries(given: Any, record: type, what: str) -> tuple[Any, ...]:
    """Tables, or for short the bare name of a method or id of a dataset."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ConfigError(f"{what} should be a list, got {given!r}.")
    short = "name" if record is MethodEntry else "id"
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


def _check_options(method: MethodEntry) -> None:
    record = method_class(method.name).config_class
    try:
        from_mapping(record, method.all_options, what=f"{method.name} options")
    except ConfigError as error:
        raise ValueError(str(error).rstrip(".")) from error
