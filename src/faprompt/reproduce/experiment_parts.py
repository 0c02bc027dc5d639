"""Check the parts of an experiment: methods, datasets, axes, claims and options of figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from faprompt.config import Count, Natural, check_fields, from_mapping
from faprompt.data import list_datasets
from faprompt.errors import ConfigError
from faprompt.methods.registry import METHODS, method_class, preset_options
from faprompt.metrics import METRIC_NAMES
from faprompt.reproduce.protocol import (
    PAPER_TITLES,
    PRO,
    dataset_ids,
    group_of,
    paper_has,
    published_methods,
)

_EACH_ALONE = (("image_auroc",), ("image_ap",), ("pixel_auroc",), ("aupro",))


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
        known = dict.fromkeys((*METHODS, *published_methods()))
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
            record, what = method_class(self.name).config_class, f"{self.name} options"
            try:
                from_mapping(record, self.all_options, what=what)
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
            raise ValueError("a dataset should have an id, or a folder with a label")
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

    metrics: tuple[tuple[str, ...], ...] = _EACH_ALONE  # one table each
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
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"  # of the image tower
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
