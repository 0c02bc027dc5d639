"""Write `report.html`: a run as one page that needs no network."""

from __future__ import annotations

import base64
import heapq
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from faprompt.files import write_atomically
from faprompt.imaging.overlay import ramp_css
from faprompt.pages import render_page
from faprompt.prediction.result_pictures import Artifacts
from faprompt.prediction.result_rows import ResultRow

GALLERY_SIZE = 500  # pictures shown; 10 to 40 kB each
LIST_SIZE = 5_000  # rows in all, shown or listed
ERROR_LIST_SIZE = 1_000
BINS = 50

_VERDICTS = ("NG", "REVIEW", "OK", "none")
_CHART_WIDTH, _CHART_HEIGHT = 700, 130


@dataclass(slots=True)
class _Digest:
    """Summary of all rows, collected in one pass and bounded memory."""

    verdicts: Counter[str] = field(default_factory=Counter)
    bins: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))
    errors: list[ResultRow] = field(default_factory=list)
    n_errors: int = 0
    ranked: list[ResultRow] = field(default_factory=list)

    @property
    def n_ok(self) -> int:
        return int(self.bins.sum())


def write_report(
    path: str | os.PathLike[str],
    rows: Iterable[ResultRow],
    *,
    model: str,
    threshold: float | None,
    title: str = "Anomaly report",
    model_card: str = "",
    gallery_size: int = GALLERY_SIZE,
) -> None:
    """Write the report of a run: counts, score histogram, gallery, list and errors.

    Thumbnails in the folder `thumbs` beside the report are embedded. The `gallery_size`
    highest scores are shown, the next ones are listed (5,000 in all), the rest is counted.

    Args:
        path: of the HTML file, in the folder of `results.jsonl`; written atomically.
        rows: in any order; read once.
        model: name of the detector.
        threshold: drawn into the histogram; None draws nothing.
        title: heading and window title.
        model_card: one line on the model, such as what it was trained on.
        gallery_size: most pictures shown.
    """
    target = Path(path)
    digest = _digest(rows)
    shown, listed = digest.ranked[:gallery_size], digest.ranked[gallery_size:]
    page = render_page(
        "report.html",
        title=title,
        created=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        model=model,
        model_card=model_card,
        threshold=threshold,
        verdicts=[(name, digest.verdicts[name]) for name in _VERDICTS if digest.verdicts[name]],
        chart=_histogram(digest.bins, threshold),
        aspect=f"{_usual_aspect(shown):.3f}",
        ramp=ramp_css(),
        shown=shown,
        cards=(_card(row, target.parent) for row in shown),
        listed=listed,
        n_ok=digest.n_ok,
        errors=digest.errors,
        n_errors=digest.n_errors,
    )
    write_atomically(target, page.encode("utf-8", errors="replace"))


def _digest(rows: Iterable[ResultRow]) -> _Digest:
    digest = _Digest()

    def scored() -> Iterator[ResultRow]:
        for row in rows:
            if row.score is None:
                digest.n_errors += 1
                if len(digest.errors) < ERROR_LIST_SIZE:
                    digest.errors.append(row)
                continue
            digest.verdicts[row.verdict or "none"] += 1
            digest.bins[score_bin(row.score)] += 1
            yield row

    digest.ranked = heapq.nlargest(LIST_SIZE, scored(), key=lambda row: row.score or 0.0)
    return digest


def score_bin(score: float) -> int:
    """Return which of the `BINS` equal parts of [0, 1] holds a score; 1 is in the last."""
    return min(BINS - 1, max(0, int(score * BINS)))


def _histogram(bins: np.ndarray, threshold: float | None) -> dict[str, Any]:
    """Return the bars and the threshold of the chart, in units of its viewBox."""
    most, width = int(bins.max()), _CHART_WIDTH / BINS
    bars = []
    for i, count in enumerate(bins.tolist()):
        if count:
            tall = max(2.0, count / most * _CHART_HEIGHT)
            bars.append(
                {
                    "x": f"{i * width + 0.5:.1f}",
                    "y": f"{_CHART_HEIGHT - tall:.1f}",
                    "width": f"{width - 1:.1f}",
                    "height": f"{tall:.1f}",
                    "label": f"{i / BINS:.2f} to {(i + 1) / BINS:.2f}: {count:,}",
                }
            )
    cut = None
    if threshold is not None:
        x = min(1.0, max(0.0, threshold)) * _CHART_WIDTH
        anchor, shift = ("end", -6) if threshold > 0.8 else ("start", 6)
        label = f"threshold {threshold:.4g}"
        text_x = f"{x + shift:.1f}"
        cut = {"x": f"{x:.1f}", "text_x": text_x, "anchor": anchor, "label": label}
    size = {"width": _CHART_WIDTH, "height": _CHART_HEIGHT}
    return {**size, "bars": bars, "cut": cut, "most": most}


def _usual_aspect(rows: list[ResultRow]) -> float:
    """Return the median width over height of pictures, bounded to 0.75..2."""
    aspects = [row.width / row.height for row in rows if row.width and row.height]
    return float(np.clip(np.median(aspects), 0.75, 2.0)) if aspects else 1.0


def _card(row: ResultRow, folder: Path) -> dict[str, Any]:
    head, tail = os.path.split(row.path)
    plain, marked = (_embed(folder / name) for name in Artifacts(folder).thumbnail_names(row.path))
    return {
        "row": row,
        "verdict": row.verdict or "none",
        "plain": plain,
        "marked": marked,
        "overlay": quote(row.overlay) if row.overlay else None,
        "folder": os.path.join(head, ""),
        "name": tail,
    }


def _embed(path: Path) -> str:
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError:
        return ""
