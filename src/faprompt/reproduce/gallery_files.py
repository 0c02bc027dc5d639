"""The files of a gallery: sheets, the list of their pictures, and the page of the study."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faprompt.data import Dataset
from faprompt.evaluation.drawing import as_unicode
from faprompt.evaluation.gallery import GALLERY_FOLDER
from faprompt.evaluation.saved_progress import picture_key, region_text
from faprompt.files import csv_text, write_atomically
from faprompt.imaging import encode_jpeg
from faprompt.reproduce.benchmark_plan import Source, slug
from faprompt.reproduce.failures import describe_failures
from faprompt.reproduce.gallery_choice import Chosen
from faprompt.reproduce.gallery_sheet import Row, draw_gallery
from faprompt.reproduce.study_config import GalleryOptions, StudyConfig

CSV_NAME = "pictures.csv"
TITLES = {"pictures": "pictures by class", "several": "several defects in one picture"}


@dataclass(slots=True)
class Gallery:
    """What is shown of one dataset."""

    source: Source
    dataset: Dataset
    chosen: tuple[Chosen, ...]
    rows: tuple[Row, ...]  # beside `chosen`
    methods: list[str] = field(default_factory=list)  # in order of the columns
    sheets: list[Path] = field(default_factory=list)
    failures: dict[str, Path] = field(default_factory=dict)  # method -> folder

    @property
    def key(self) -> str:
        """The dataset, as plans and folders call it."""
        return self.source.entry.key


def write_sheets(gallery: Gallery, options: GalleryOptions, out: Path) -> None:
    """Sheets and list; sheets of a former run that was longer go."""
    folder = out / slug(gallery.key)
    folder.mkdir(parents=True, exist_ok=True)
    for former in (path for group in TITLES for path in folder.glob(f"{group}-*.jpg")):
        former.unlink()
    for group, about in TITLES.items():
        pairs = zip(gallery.chosen, gallery.rows, strict=True)
        rows = [row for chosen, row in pairs if chosen.group == group]
        parts = list(even_parts(rows, options.rows))
        for number, part in enumerate(parts, start=1):
            count = f" ({number} of {len(parts)})" if len(parts) > 1 else ""
            title = f"{gallery.source.entry.title}: {about}{count}"
            path = folder / f"{group}-{number}.jpg"
            write_atomically(path, encode_jpeg(draw_gallery(title, gallery.methods, part)))
            gallery.sheets.append(path)
    write_atomically(folder / CSV_NAME, _csv(gallery).encode("utf-8", errors="replace"))


def even_parts(rows: Sequence[Row], most: int) -> Iterator[Sequence[Row]]:
    """As few parts as can be, of at most so many rows, none more than one row longer."""
    count = -(-len(rows) // most)
    edges = [len(rows) * number // count for number in range(count + 1)] if count else []
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        yield rows[start:end]


def gallery_lines(gallery: Gallery) -> Iterator[dict[str, Any]]:
    """A line of `pictures.csv` each, as plain data."""
    for chosen, row in zip(gallery.chosen, gallery.rows, strict=True):
        sample = chosen.sample
        line: dict[str, Any] = {
            "group": chosen.group,
            "path": as_unicode(picture_key(sample.image_path, gallery.dataset.root)),
            "region": region_text(sample), "class": sample.class_name,
            "defect_type": sample.defect_type, "label": sample.label, "parts": chosen.parts,
            "why": chosen.why, "error": row.error,
        }  # fmt: skip
        for name in gallery.methods:
            view = row.views.get(name)
            line[f"score: {name}"] = view.score if view else None
            line[f"overlap: {name}"] = view.overlap if view else None
        yield line


def _csv(gallery: Gallery) -> str:
    out, lines = io.StringIO(), list(gallery_lines(gallery))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(lines[0] if lines else ["group", "path", "region"])
    for line in lines:
        writer.writerow([_cell(value) for value in line.values()])
    return out.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return csv_text(value)
    return "" if value is None else str(value)


def gallery_page(
    config: StudyConfig, galleries: Sequence[Gallery], lacking: Sequence[str], out: Path
) -> Iterator[str]:
    """The paragraphs of `study.md`.

    Args:
        lacking: what is not shown, and why. out: what links start from.
    """
    yield f"# {config.title}"
    if config.paper:
        yield f"The paper: {config.paper}"
    yield (
        "Pictures are drawn from a seed, before any method has seen them. Causes of failures are "
        "likely ones, by rules whose measures stand in each gallery.csv; no person looked."
    )
    for gallery in galleries:
        yield f"## {gallery.source.entry.title}"
        sheets = "\n".join(f"- [{p.name}]({p.relative_to(out).as_posix()})" for p in gallery.sheets)
        place = f"{slug(gallery.key)}/{CSV_NAME}"
        yield f"{len(gallery.chosen)} pictures, {len(gallery.methods)} methods: [list]({place})"
        if sheets:
            yield sheets
        for name, folder in gallery.failures.items():
            if (folder / GALLERY_FOLDER / "gallery.csv").is_file():
                link = (folder / GALLERY_FOLDER).relative_to(out).as_posix()
                yield f"Failures of [{name}]({link}): {describe_failures(folder)}."
    notes = [f"{point.label}: {point.note}." for point in config.points if point.note]
    yield from notes
    if lacking:
        yield "Not shown:\n\n" + "\n".join(f"- {line}" for line in lacking)
