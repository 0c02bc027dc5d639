"""Write the files of a gallery: sheets, the list of their pictures, and the study's page."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.data import Dataset
from faprompt.evaluation.contact_sheet import Entry, Panel, as_unicode, draw_sheet, outlined
from faprompt.evaluation.gallery import GALLERY_FOLDER, TABLE_NAME, TITLES
from faprompt.evaluation.saved_progress import picture_key, region_text
from faprompt.files import csv_table, csv_text, write_atomically
from faprompt.imaging import encode_jpeg
from faprompt.reproduce.cells import Source, slug
from faprompt.reproduce.experiment import Experiment
from faprompt.reproduce.experiment_parts import GalleryOptions
from faprompt.reproduce.gallery_choice import Chosen

LIST_NAME = "pictures.csv"
SHEETS = {"pictures": "pictures by class", "several": "several defects in one picture"}
ABOUT = (
    "White line: the marked defect. Colours: the score map of each method on the fixed scale from "
    "0 to 1. Bold: the score of the picture; scores of different methods have no common scale. "
    "Overlap: the share of the map's highest pixels, as many as the defect has, that lie inside it."
)


@dataclass(frozen=True, slots=True)
class View:
    """The result of one method on one picture."""

    score: float
    overlap: float | None  # 0..1; None without a mask
    panel: np.ndarray  # (h, w, 3) uint8: the map over the picture, the defect outlined


@dataclass(slots=True)
class Shown:
    """A chosen picture; one that cannot be read has no image, and `error` says why."""

    chosen: Chosen
    name: str
    image: np.ndarray | None = None  # (h, w, 3) uint8 from `fit_panel`
    mask: np.ndarray | None = None  # (h, w) bool of the same size
    views: dict[str, View] = field(default_factory=dict)  # method -> its result
    error: str = ""


@dataclass(slots=True)
class Gallery:
    """The pictures of one dataset and what every method makes of them."""

    source: Source
    dataset: Dataset
    pictures: tuple[Shown, ...]
    methods: list[str] = field(default_factory=list)  # in the order of the columns
    sheets: list[Path] = field(default_factory=list)
    failures: dict[str, Path] = field(default_factory=dict)  # method -> folder

    @property
    def key(self) -> str:
        """Return the dataset's name in plans and folders."""
        return self.source.entry.key

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of `pictures.csv` as plain data."""
        for shown in self.pictures:
            sample = shown.chosen.sample
            line: dict[str, Any] = {
                "group": shown.chosen.group,
                "path": as_unicode(picture_key(sample.image_path, self.dataset.root)),
                "region": region_text(sample), "class": sample.class_name,
                "defect_type": sample.defect_type, "label": sample.label,
                "parts": shown.chosen.parts, "why": shown.chosen.why, "error": shown.error,
            }  # fmt: skip
            for name in self.methods:
                view = shown.views.get(name)
                line[f"score: {name}"] = view.score if view else None
                line[f"overlap: {name}"] = view.overlap if view else None
            yield line


def write_sheets(gallery: Gallery, options: GalleryOptions, out: Path) -> None:
    """Write sheets and list of a dataset; sheets of an earlier, longer run are removed."""
    folder = out / slug(gallery.key)
    folder.mkdir(parents=True, exist_ok=True)
    for group, about in SHEETS.items():
        for former in folder.glob(f"{group}-*.jpg"):
            former.unlink()
        pictures = [shown for shown in gallery.pictures if shown.chosen.group == group]
        parts = even_parts(pictures, options.rows)
        for number, part in enumerate(parts, start=1):
            count = f" ({number} of {len(parts)})" if len(parts) > 1 else ""
            title = f"{gallery.source.entry.title}: {about}{count}"
            sheet = draw_gallery(title, gallery.methods, part)
            gallery.sheets.append(folder / f"{group}-{number}.jpg")
            write_atomically(gallery.sheets[-1], encode_jpeg(sheet))
    lines = list(gallery.lines())
    head = list(lines[0]) if lines else ["group", "path", "region"]
    table = csv_table([head, *(map(_cell, line.values()) for line in lines)])
    write_atomically(folder / LIST_NAME, table.encode("utf-8", errors="replace"))


def draw_gallery(title: str, methods: Sequence[str], pictures: Sequence[Shown]) -> np.ndarray:
    """Draw a row for each picture, ground truth and maps: (H, W, 3) uint8."""
    columns = ("picture", "ground truth", *methods)
    return draw_sheet(title, ABOUT, columns, [_entry(shown, methods) for shown in pictures])


def even_parts(rows: Sequence[Any], most: int) -> list[Sequence[Any]]:
    """Split rows into as few parts as possible of at most `most`, nearly equal in length."""
    count = -(-len(rows) // most)
    edges = [len(rows) * number // count for number in range(count + 1)] if count else []
    return [rows[start:end] for start, end in zip(edges[:-1], edges[1:], strict=True)]


def gallery_page(
    config: Experiment, galleries: Sequence[Gallery], lacking: Sequence[str], out: Path
) -> Iterator[str]:
    """Yield the paragraphs of `study.md` in `out`; `lacking` says what is not shown, and why."""
    yield f"# {config.title}"
    if config.paper:
        yield f"The paper: {config.paper}"
    yield (
        "The pictures were drawn from a seed before any method scored them. Causes of failures "
        "are likely ones, found by rule; the measures are in each gallery.csv."
    )
    for gallery in galleries:
        yield f"## {gallery.source.entry.title}"
        place = f"{slug(gallery.key)}/{LIST_NAME}"
        yield f"{len(gallery.pictures)} pictures, {len(gallery.methods)} methods: [list]({place})"
        if gallery.sheets:
            links = (f"- [{p.name}]({p.relative_to(out).as_posix()})" for p in gallery.sheets)
            yield "\n".join(links)
        for name, folder in gallery.failures.items():
            table = folder / GALLERY_FOLDER / TABLE_NAME
            if table.is_file():
                link = table.relative_to(out).as_posix()
                yield f"Failures of [{name}]({link}): {_count_causes(folder)}."
    yield from (f"{method.title}: {method.note}." for method in config.methods if method.note)
    if lacking:
        yield "Not shown:\n\n" + "\n".join(f"- {line}" for line in lacking)


def _entry(shown: Shown, methods: Sequence[str]) -> Entry:
    caption = (shown.name, shown.chosen.why)
    if shown.image is None:
        return Entry((Panel(words=f"cannot be read: {shown.error}"),), caption)
    nothing = "anomalous, without a mask" if shown.chosen.sample.label else "normal"
    marked = shown.mask is not None
    truth = Panel(outlined(shown.image, shown.mask)) if marked else Panel(words=nothing)
    views = [_panel(shown.views.get(name)) for name in methods]
    return Entry((Panel(shown.image), truth, *views), caption)


def _panel(view: View | None) -> Panel:
    if view is None:
        return Panel(words="no result")
    overlap = () if view.overlap is None else (f"overlap {100 * view.overlap:.0f} %",)
    return Panel(view.panel, caption=(f"{view.score:.3f}", *overlap))


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    return csv_text(value) if isinstance(value, str) else value


def _count_causes(folder: Path) -> str:
    """Return the kinds of mistakes shown below a folder and their likely causes, in a line."""
    path = folder / GALLERY_FOLDER / TABLE_NAME
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    kinds = []
    for kind, (title, _) in TITLES.items():
        causes = Counter(row["cause"] or "not read" for row in rows if row["kind"] == kind)
        counts = ", ".join(f"{name} {number}" for name, number in causes.most_common())
        kinds.append(f"{title.lower()}: {counts or 'none'}")
    return "; ".join(kinds)
