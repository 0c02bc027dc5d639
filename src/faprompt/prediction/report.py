"""`report.html`: a run to look at, one file that needs no network and no server."""

from __future__ import annotations

import base64
import heapq
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from urllib.parse import quote

import numpy as np

from faprompt.files import write_atomically
from faprompt.imaging.overlay import RAMP
from faprompt.prediction.artifacts import Artifacts
from faprompt.prediction.rows import ResultRow

GALLERY_SIZE = 500  # pictures shown; 10 to 40 kB each
LIST_SIZE = 5_000  # rows in all, shown or listed
ERROR_LIST_SIZE = 1_000
BINS = 50

_VERDICTS = ("NG", "REVIEW", "OK", "none")
_VERDICT_WORDS = {"none": "no verdict"}
_CHART_WIDTH, _CHART_HEIGHT = 700, 130


@dataclass(slots=True)
class _Digest:
    """What the report needs of all rows, gathered in one pass and bounded memory."""

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

    Pictures come from the thumbnails that the run left in the `thumbs` folder beside the
    report, and are embedded. The `gallery_size` highest scores are shown, the next ones
    listed, 5,000 in all; the rest is counted.

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
    template = Template(
        resources.files("faprompt.prediction").joinpath("report.html").read_text("utf-8")
    )
    page = template.substitute(
        title=escape(title),
        created=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        model=escape(model),
        about=f"<dt>About</dt><dd>{escape(model_card)}</dd>" if model_card else "",
        threshold="none" if threshold is None else f"{threshold:.4g}",
        filters=_filters(digest),
        most=f"{int(digest.bins.max()):,}",
        histogram=_histogram(digest.bins, threshold),
        aspect=f"{_usual_aspect(shown):.3f}",
        ramp=", ".join(f"rgb({r} {g} {b})" for r, g, b in RAMP),
        gallery="\n".join(_card(row, target.parent) for row in shown) or _EMPTY_GALLERY,
        listing=_listing(listed, len(shown), digest.n_ok),
        errors=_errors(digest),
        note=_gallery_note(len(shown), digest.n_ok),
    )
    write_atomically(target, page.encode("utf-8", errors="replace"))


_EMPTY_GALLERY = '<p class="empty">No picture could be scored.</p>'


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
    """Which of the `BINS` equal parts of [0, 1] a score falls into; 1 belongs to the last."""
    return min(BINS - 1, max(0, int(score * BINS)))


def _filters(digest: _Digest) -> str:
    buttons = [_filter_button("all", "All", digest.n_ok + digest.n_errors, pressed=True)]
    for name in _VERDICTS:
        if digest.verdicts[name]:
            word = _VERDICT_WORDS.get(name, name)
            buttons.append(_filter_button(name, word, digest.verdicts[name]))
    if digest.n_errors:
        buttons.append(_filter_button("error", "Errors", digest.n_errors))
    return "\n".join(buttons)


def _filter_button(name: str, word: str, count: int, *, pressed: bool = False) -> str:
    return (
        f'<button type="button" class="filter {name.lower()}" data-filter="{name}" '
        f'aria-pressed="{str(pressed).lower()}">{word} <span>{count:,}</span></button>'
    )


def _histogram(bins: np.ndarray, threshold: float | None) -> str:
    """Bars on the fixed 0..1 scale, as SVG; every bar tells its range and count on hover."""
    most, bar = max(1, int(bins.max())), _CHART_WIDTH / BINS
    shapes = []
    for i, count in enumerate(bins.tolist()):
        if count:
            tall = max(2.0, count / most * _CHART_HEIGHT)
            shapes.append(
                f'<rect x="{i * bar + 0.5:.1f}" y="{_CHART_HEIGHT - tall:.1f}" '
                f'width="{bar - 1:.1f}" height="{tall:.1f}" rx="1.5">'
                f"<title>{i / BINS:.2f} to {(i + 1) / BINS:.2f}: {count:,}</title></rect>"
            )
    label = f"Histogram of {int(bins.sum()):,} scores from 0 to 1"
    if threshold is not None:
        x = min(1.0, max(0.0, threshold)) * _CHART_WIDTH
        anchor, shift = ("end", -6) if threshold > 0.8 else ("start", 6)
        shapes.append(
            f'<line class="cut" x1="{x:.1f}" x2="{x:.1f}" y1="-14" y2="{_CHART_HEIGHT}"/>'
            f'<text class="cut" x="{x + shift:.1f}" y="-5" text-anchor="{anchor}">'
            f"threshold {threshold:.4g}</text>"
        )
        label += f", threshold {threshold:.4g}"
    return (
        f'<svg viewBox="0 -18 {_CHART_WIDTH} {_CHART_HEIGHT + 18}" role="img" '
        f'aria-label="{label}">{"".join(shapes)}</svg>'
    )


def _usual_aspect(rows: list[ResultRow]) -> float:
    """Width over height of the frames in the gallery: the median picture, within reason."""
    aspects = [row.width / row.height for row in rows if row.width and row.height]
    return float(np.clip(np.median(aspects), 0.75, 2.0)) if aspects else 1.0


def _card(row: ResultRow, folder: Path) -> str:
    shown = row.verdict or "none"
    return (
        f'<article class="card" data-verdict="{shown}" data-path="{_search_text(row.path)}">'
        f"{_pair(row, folder)}"
        f'<p class="line">{_chip(shown)}<b class="score">{row.score:.4f}</b></p>'
        f'<p class="name" title="{escape(row.path)}">{_name(row.path)}</p>'
        f'<p class="facts">{escape(_facts(row))}</p></article>'
    )


def _pair(row: ResultRow, folder: Path) -> str:
    names = Artifacts(folder).thumbnail_names(row.path)
    words = (f"{row.path}, the picture", f"{row.path}, score {row.score:.4f}, anomaly map over it")
    views = [
        _picture(folder / name, escape(text), kind)
        for name, text, kind in zip(names, words, ("plain", "marked"), strict=True)
    ]
    inner = "".join(views)
    if row.overlay is None:
        return f'<div class="pair">{inner}</div>'
    href, title = escape(quote(row.overlay)), escape(f"Open the overlay of {row.path}")
    return f'<a class="pair" href="{href}" title="{title}">{inner}</a>'


def _picture(path: Path, text: str, kind: str) -> str:
    try:
        data = base64.b64encode(path.read_bytes()).decode()
    except OSError:
        return f'<span class="{kind} missing">no preview</span>'
    return (
        f'<img class="{kind}" alt="{text}" loading="lazy" decoding="async" '
        f'src="data:image/jpeg;base64,{data}">'
    )


def _chip(shown: str) -> str:
    return f'<span class="chip {shown.lower()}">{_VERDICT_WORDS.get(shown, shown)}</span>'


def _name(path: str) -> str:
    head, tail = os.path.split(path)
    return f"<bdi>{escape(os.path.join(head, ''))}<b>{escape(tail)}</b></bdi>"


def _facts(row: ResultRow) -> str:
    facts = [f"{row.width} × {row.height} px"]
    if row.regions:
        facts.append(f"{len(row.regions)} region{'s' if len(row.regions) > 1 else ''}")
    return " · ".join([*facts, *row.notes])


def _listing(rows: list[ResultRow], n_shown: int, n_ok: int) -> str:
    if not rows:
        return ""
    lines = "\n".join(_list_line(rank, row) for rank, row in enumerate(rows, n_shown + 1))
    more = n_ok - n_shown - len(rows)
    rest = f"<p>And {more:,} lower scores, see results.jsonl.</p>" if more else ""
    return (
        "<section><h2>Lower scores</h2><table><thead><tr><th>Rank<th>Score<th>Verdict"
        f"<th>Picture</tr></thead><tbody>{lines}</tbody></table>{rest}</section>"
    )


def _list_line(rank: int, row: ResultRow) -> str:
    shown, name = row.verdict or "none", escape(row.path)
    if row.overlay is not None:
        name = f'<a href="{escape(quote(row.overlay))}">{name}</a>'
    return (
        f'<tr data-verdict="{shown}" data-path="{_search_text(row.path)}"><td>{rank:,}'
        f"<td>{row.score:.4f}<td>{_chip(shown)}<td>{name}</tr>"
    )


def _errors(digest: _Digest) -> str:
    if not digest.n_errors:
        return ""
    lines = "\n".join(
        f'<li data-verdict="error" data-path="{_search_text(row.path)}">{escape(row.error or "")}'
        for row in digest.errors
    )
    more = digest.n_errors - len(digest.errors)
    rest = f"<p>And {more:,} more, see results.jsonl.</p>" if more else ""
    return (
        f'<section class="errors"><h2>Could not be read ({digest.n_errors:,})</h2>'
        f"<ul>{lines}</ul>{rest}</section>"
    )


def _gallery_note(n_shown: int, n_ok: int) -> str:
    if n_shown == n_ok:
        return "Highest score first." if n_ok else ""
    return f"The {n_shown:,} highest of {n_ok:,} scores with pictures; the others are listed below."


def _search_text(path: str) -> str:
    return escape(path.lower())
