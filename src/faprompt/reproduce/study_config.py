"""What a study's TOML file says, checked as a whole before anything runs.

title = "K and M"                    [benchmark]        what `faprompt benchmark` reads, but
figure = "lines"                     datasets = [...]   without methods: those are the points
paper = "what the paper finds"

[[axes]]                             [[claims]]
name = "K"                           text = "ten prompts are better than one"
title = "Number of prompts K"        better = "K = 10"
points = [{label = "K = 1", x = 1, options = {prompts = 1}}]    than = ["K = 1"]

A study of cost has one table `[complexity]` instead of all these tables. A study of how far
the prompts' maps spread has a table `[spread]` beside them, one that shows pictures `[gallery]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from faprompt.config import from_mapping, parse_toml
from faprompt.errors import ConfigError
from faprompt.methods.registry import list_methods

Form = Literal["lines", "dots", "seeds", "costs", "spread", "gallery"]
PREFIX = "study-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One setting of a method. Equal settings of several axes are one run."""

    label: str
    x: float | None = None  # its place on a line; default: its number in the axis
    method: str = "faprompt"
    preset: str = "paper"
    options: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""  # a trained model instead, as in `faprompt benchmark`
    published_as: str = ""  # the method in the published tables; "" where nothing is printed
    setting: str = ""  # its setting there
    note: str = ""  # what has to be known of it

    def __post_init__(self) -> None:
        if not self.label:
            raise ValueError("a point wants a label")
        if not isinstance(self.options, Mapping):
            raise ValueError(f"options should be a table, got {self.options!r}")
        if self.setting and not self.published_as:
            raise ValueError(f"{self.label}: a setting belongs to published_as")


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What is varied, and its settings in order."""

    name: str
    title: str
    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        labels = [point.label for point in self.points]
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f"axis {self.name}: points should be there and differ in their labels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A finding of the paper that figures can bear out: one setting is better than others."""

    text: str
    better: str  # labels of points
    than: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostOptions:
    """What a study of cost measures, and how often."""

    methods: tuple[str, ...] = ()  # default: all
    backbone: str = "ViT-L-14-336"
    preset: str = "common"  # of methods that have it, so that all see pictures alike
    batch_size: int = 8  # of a training step; 1 picture at inference (Table 3)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # of the image tower
    warmup: int = 2  # calls that are not counted
    repeats: int = 10  # calls that are
    normal_pictures: int = 200  # that PatchCore remembers; MVTec AD has 60 to 391 a class

    def __post_init__(self) -> None:
        wrong = [name for name in self.methods if name not in list_methods()]
        if wrong:
            raise ValueError(f"no methods {', '.join(wrong)}; known: {', '.join(list_methods())}")
        if self.batch_size < 1 or self.repeats < 2 or self.warmup < 0:
            raise ValueError(
                "batch_size should be at least 1, repeats at least 2 and warmup at least 0, got "
                f"{self.batch_size}, {self.repeats} and {self.warmup}"
            )
        if self.normal_pictures < 1:
            raise ValueError(f"normal_pictures should be at least 1, got {self.normal_pictures}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpreadOptions:
    """Whose prompts' maps are compared, and on how many pictures."""

    wide: str  # label of the point whose prompts are said to lie apart
    narrow: str  # and of the one whose are said to cluster
    per_label: int = 20  # normal pictures of a dataset that are mapped, and anomalous ones
    embedded: int = 1  # models of each point, by seed, whose maps are drawn as a t-SNE

    def __post_init__(self) -> None:
        if self.wide == self.narrow:
            raise ValueError(f"wide and narrow should differ, got {self.wide!r} twice")
        if self.per_label < 2 or self.embedded < 1:
            raise ValueError(
                "per_label should be at least 2 and embedded at least 1, got "
                f"{self.per_label} and {self.embedded}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class GalleryOptions:
    """Which pictures are shown side by side, and on how many sheets."""

    anomalous: int = 3  # of each class, kinds of defect in turn
    normal: int = 1  # of each class
    several: int = 8  # of each dataset: several defects in one picture
    rows: int = 8  # most pictures on a sheet; more go on the next
    seed: int = 111  # of the draw; not that of a training
    failures: int = 0  # most pictures per kind of mistake; 0 measures nothing and shows none
    failures_of: tuple[str, ...] = ()  # labels of points

    def __post_init__(self) -> None:
        counts = (self.anomalous, self.normal, self.several, self.failures)
        if min(counts) < 0 or self.rows < 1 or not any(counts[:3]):
            raise ValueError(
                "anomalous, normal, several and failures should be 0 or more, rows at least 1, and "
                f"some pictures be shown; got {counts} and {self.rows}"
            )
        if bool(self.failures) != bool(self.failures_of):
            raise ValueError("failures and failures_of belong together")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig:
    """A whole study: settings of methods under one benchmark, or a study of cost."""

    title: str
    figure: Form
    name: str = "study"
    paper: str = ""  # what the paper finds, in a sentence
    axes: tuple[Axis, ...] = ()
    claims: tuple[Claim, ...] = ()
    benchmark: Mapping[str, Any] = field(default_factory=dict)
    complexity: CostOptions | None = None
    spread: SpreadOptions | None = None
    gallery: GalleryOptions | None = None
    base: Path = Path(".")  # the file's folder; what relative paths start from

    def __post_init__(self) -> None:
        if (self.figure == "costs") != (self.complexity is not None):
            raise ValueError("figure = 'costs' and [complexity] belong together")
        if self.complexity is not None and (self.axes or self.claims or self.benchmark):
            raise ValueError("a study of cost has no axes, claims or [benchmark]")
        if self.complexity is None and not self.axes:
            raise ValueError("axes should name at least one thing to vary")
        if "methods" in self.benchmark:
            raise ValueError("[benchmark] has no methods here: the points of the axes are them")
        labels = [point.label for axis in self.axes for point in axis.points]
        if len(set(labels)) < len(labels):
            raise ValueError("labels of points should differ between axes too")
        wrong = [n for claim in self.claims for n in (claim.better, *claim.than) if n not in labels]
        if wrong:
            raise ValueError(f"claims about points that are not there: {', '.join(wrong)}")
        self._check_spread(labels)
        self._check_gallery(labels)

    def _check_spread(self, labels: Sequence[str]) -> None:
        if (self.figure == "spread") != (self.spread is not None):
            raise ValueError("figure = 'spread' and [spread] belong together")
        named = (self.spread.wide, self.spread.narrow) if self.spread else ()
        wrong = [label for label in named if label not in labels]
        if wrong:
            raise ValueError(f"[spread] of points that are not there: {', '.join(wrong)}")

    def _check_gallery(self, labels: Sequence[str]) -> None:
        if (self.figure == "gallery") != (self.gallery is not None):
            raise ValueError("figure = 'gallery' and [gallery] belong together")
        if self.gallery is not None and self.claims:
            raise ValueError("a gallery has no figures that could bear out claims")
        named = self.gallery.failures_of if self.gallery else ()
        wrong = [label for label in named if label not in labels]
        if wrong:
            raise ValueError(f"failures of points that are not there: {', '.join(wrong)}")

    @property
    def points(self) -> tuple[Point, ...]:
        """Of all axes, in order."""
        return tuple(point for axis in self.axes for point in axis.points)


def study_folders() -> tuple[Path, ...]:
    """Where studies are looked for: here, and beside the package."""
    package = Path(__file__).resolve().parents[1]
    places = (Path("configs/paper"), package / "bundled" / "paper", package.parents[1] / "configs")
    return (*places[:2], places[2] / "paper")


def list_studies() -> dict[str, Path]:
    """Name -> file of every study there is; a file in the working folder goes first."""
    found: dict[str, Path] = {}
    for folder in study_folders():
        for path in sorted(folder.glob(f"{PREFIX}*.toml")):
            found.setdefault(path.stem.removeprefix(PREFIX), path)
    return found


def read_study(name: str) -> StudyConfig:
    """A study by its name, or by the path of a TOML file.

    Raises:
        ConfigError: no such study or file, no TOML, unknown keys or unfit values.
    """
    known = list_studies()
    path = Path(name) if name.endswith(".toml") else known.get(name)
    if path is None:
        listed = ", ".join(known) or f"none; they are files {PREFIX}NAME.toml of configs/paper"
        raise ConfigError(f"No study {name!r}; known: {listed}. A path to a TOML file does too.")
    try:
        values = parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    name = path.stem.removeprefix(PREFIX)
    return parse_study({"name": name, **values}, base=path.parent, what=str(path))


def parse_study(
    values: Mapping[str, Any], *, base: Path = Path("."), what: str = "study"
) -> StudyConfig:
    """The study that plain data describes; see `read_study`."""
    if "base" in values:
        raise ConfigError(f"{what}: base is the file's own folder and cannot be set.")
    plain = dict(values)
    axes = []
    for axis in _tables(plain.pop("axes", ()), f"{what} axes"):
        points = _records(axis.get("points", ()), Point, f"{what} points")
        axes.append(from_mapping(Axis, {**axis, "points": points}, what=f"{what} axes"))
    plain["claims"] = _records(plain.pop("claims", ()), Claim, f"{what} claims")
    for name, record in (
        ("complexity", CostOptions), ("spread", SpreadOptions), ("gallery", GalleryOptions),
    ):  # fmt: skip
        if name in plain:
            given = _table(plain.pop(name), f"{what} [{name}]")
            plain[name] = from_mapping(record, given, what=f"{what} [{name}]")
    plain["benchmark"] = _table(plain.pop("benchmark", {}), f"{what} [benchmark]")
    return from_mapping(StudyConfig, {**plain, "axes": tuple(axes), "base": base}, what=what)


def _records(given: Any, record: type, what: str) -> tuple[Any, ...]:
    return tuple(from_mapping(record, table, what=what) for table in _tables(given, what))


def _tables(given: Any, what: str) -> list[Mapping[str, Any]]:
    if isinstance(given, (str, Mapping)) or not isinstance(given, Sequence):
        raise ConfigError(f"{what} should be a list of tables, got {given!r}.")
    return [_table(item, what) for item in given]


def _table(given: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigError(f"{what} should be a table of options, got {given!r}.")
    return given
