"""Write `report.html`: a run as one page that needs no network and no other file."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from faprompt.calibration import Calibration, false_alarm_bound
from faprompt.files import write_atomically
from faprompt.imaging.overlay import ramp_css
from faprompt.prediction.report_digest import SCORE_BINS, ProductTally, RunDigest, digest_rows
from faprompt.prediction.result_pictures import Artifacts, wants_overlay
from faprompt.prediction.result_rows import ResultRow
from faprompt.storage import LocalFolder

SMALL_BYTES = 24_000_000  # embedded thumbnails with their overlays, as base64
LARGE_BYTES = 6_000_000  # embedded pictures that are larger than a thumbnail, as base64

_HIGHEST_RATE = 0.5  # at the right end of the slider
_MOST_STEPS = 60  # of the slider over the rate
_SCORE_STEPS = 200  # of the slider over the score
_MOST_REGIONS = 10  # described with each picture


def write_report(
    path: str | os.PathLike[str],
    rows: Iterable[ResultRow],
    *,
    model: str,
    threshold: float | None,
    title: str = "",
    model_card: str = "",
    calibration: Calibration | None = None,
) -> None:
    """Write the report of a run: counts, rule, histogram, pictures, list and errors.

    Pictures in the folder `thumbs` beside the report are embedded, up to `SMALL_BYTES` and
    `LARGE_BYTES`: the highest above their threshold and the nearest to it on either side come
    first. Other pictures are listed (5,000 in all); all are counted. A slider in the page shows
    what another threshold would do. It moves the rate if the rows were judged by `calibration`,
    else the score.

    Args:
        path: of the HTML file, in the folder of `results.jsonl`; written atomically.
        rows: in any order; read once.
        model: name of the detector.
        threshold: score from which pictures are NG; None where none is known, or where the
            thresholds of `calibration` were used. A value that is none of its thresholds is
            shown as set by hand.
        title: heading and window title; default: the name of the folder.
        model_card: one line on the model, such as what it was trained on.
        calibration: good scores, for the rates, the histogram and the p-values.
    """
    target = Path(path)
    page = report_page(
        rows,
        lambda name: _read_base64(target.parent / name),
        model=model,
        threshold=threshold,
        title=title or target.resolve().parent.name or "Results",
        model_card=model_card,
        calibration=calibration,
    )
    write_atomically(target, page.encode("utf-8", errors="replace"))


def report_page(
    rows: Iterable[ResultRow],
    embed: Callable[[str], str],
    *,
    model: str,
    threshold: float | None,
    title: str,
    model_card: str = "",
    calibration: Calibration | None = None,
    thumbnail_names: Callable[[str], tuple[str, str, str]] | None = None,
) -> str:
    """Return the HTML of a report; arguments as for `write_report`.

    `embed` returns a picture as base64, or "" where there is none. It gets the names that
    `thumbnail_names` gives for a path; default: those of `Artifacts`.
    """
    digest = digest_rows(rows)
    by_rate = calibration is not None and threshold in (None, *_thresholds(calibration))
    judge = calibration if by_rate else None
    steps = _score_steps(threshold) if judge is None else _rate_steps(judge)
    start = next(step for step in steps if step["start"])
    verdicts = sum((tally.verdicts for tally in digest.products.values()), Counter[str]())
    names = thumbnail_names or Artifacts(LocalFolder(Path())).thumbnail_names
    pictures = _pictures(digest.listed, embed, names)
    data = {
        "byRate": by_rate,
        "reviewRate": judge.review_fpr if judge else None,
        "steps": steps,
        "bins": SCORE_BINS,
        "products": _products(digest, calibration),
        "rows": pictures,
        "total": digest.n_ok,
        "aspect": _usual_aspect([row for row in pictures if "small" in row]),
    }
    from faprompt.pages import render_page  # jinja2, which a runtime without torch lacks

    return render_page(
        "report.html",
        title=title,
        created=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        model=model,
        model_card=model_card,
        rules=verdict_rules(threshold, judge, start.get("bound"), calibration),
        counts=[(name, verdicts[name]) for name in ("NG", "REVIEW", "OK", "none")],
        ramp=ramp_css(),
        data=data,
        n_ok=digest.n_ok,
        errors=[row.error or row.path for row in digest.errors],
        n_errors=digest.n_errors,
    )


def _thresholds(calibration: Calibration) -> list[float]:
    return [calibration.limits(name).threshold for name in calibration.products]


def verdict_rules(
    threshold: float | None,
    judge: Calibration | None,
    bound: float | None,
    calibration: Calibration | None,
) -> list[str]:
    """Return the verdict rule in words, one sentence or two each.

    Args:
        threshold: score from which pictures are NG, where no calibration judges.
        judge: the calibration that gives the verdicts.
        bound: upper bound of its false-alarm rate (95 % confidence).
        calibration: of the model, also where a threshold overrides it.
    """
    if judge is not None:
        counts = [len(good) for good in judge.products.values()]
        good = f"your {counts[0]:,} good parts"
        if judge.has_products:
            good = f"the good parts of the same product ({min(counts):,} or more)"
        rules = [f"NG: rarer than {_percent(judge.target_fpr)} of {good}."]
        if judge.review_fpr > judge.target_fpr:
            rules.append(f"REVIEW: rarer than {_percent(judge.review_fpr)}.")
        said = f"at most {_percent(bound or 1.0)} of good parts are NG, with 95 % confidence."
        return [*rules, f"False alarms: {said}"]
    if threshold is None:
        return [
            "No verdicts: this model has no threshold. Run `faprompt calibrate` on pictures of "
            "good parts to get one with a known false-alarm rate."
        ]
    rule = f"NG: score {_decimals(threshold)} or more"
    if calibration is not None:
        return [f"{rule}; this threshold was set by hand and overrides the calibration."]
    return [
        f"{rule}; this threshold was not calibrated, so its false-alarm rate is unknown; "
        "run `faprompt calibrate`."
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.3g} %"


def _decimals(score: float) -> str:
    """Return a score with two decimals, or more where it needs them."""
    return max(f"{score:.2f}", f"{score:.4g}", key=len)


def _rate_steps(calibration: Calibration) -> list[dict[str, Any]]:
    """Return the rates of the slider, rising, with the 95 % bound of the false-alarm rate.

    They are evenly spaced in their logarithm, and each is a rate that the good pictures state
    exactly, the target rate excepted.
    """
    counts = {len(good) for good in calibration.products.values()}
    ranks = max(counts) + 1
    spaced = np.geomspace(1 / (min(counts) + 1), _HIGHEST_RATE, _MOST_STEPS)
    rates = {max(1, round(rate * ranks)) / ranks for rate in spaced}
    lowest = 1 / (min(counts) + 1)
    rates = {rate for rate in rates if rate >= lowest} | {calibration.target_fpr}
    return [
        {
            "value": rate,
            "bound": max(false_alarm_bound(count, rate) for count in counts),
            "start": rate == calibration.target_fpr,
        }
        for rate in sorted(rates)
    ]


def _score_steps(threshold: float | None) -> list[dict[str, Any]]:
    """Return the scores of the slider, rising; the last is None where no threshold is known."""
    values = sorted({i / _SCORE_STEPS for i in range(_SCORE_STEPS + 1)} | {threshold or 0.0})
    steps: list[float | None] = [*values, None] if threshold is None else [*values]
    return [{"value": value, "start": value == threshold} for value in steps]


def _products(digest: RunDigest, calibration: Calibration | None) -> list[dict[str, Any]]:
    """Return counts of all pictures of each product, and the good scores behind them."""
    known = calibration.products if calibration else {}
    good = {name: scores.scores.tolist() for name, scores in known.items()}
    only: list[float] = next(iter(good.values())) if len(good) == 1 else []
    tallies = digest.products or {"": ProductTally()}
    return [
        {
            "name": name,
            "verdicts": tally.verdicts,
            "bins": sorted(tally.bins.items()),
            "p": sorted(tally.p_values.items()),
            "good": good.get(name, only),
        }
        for name, tally in sorted(tallies.items())
    ]


def _pictures(
    rows: list[ResultRow],
    embed: Callable[[str], str],
    thumbnail_names: Callable[[str], tuple[str, str, str]],
) -> list[dict[str, Any]]:
    """Return the facts on each picture, with embedded pictures as far as the budgets reach."""
    names = [thumbnail_names(row.path) for row in rows]
    found = [_facts(row) for row in rows]
    left = SMALL_BYTES
    for facts, row, (small, layer, _) in zip(found, rows, names, strict=True):
        embedded = {"small": embed(small)}
        if wants_overlay(row):
            embedded["layer"] = embed(layer)
        left -= sum(map(len, embedded.values()))
        if left < 0:
            break
        facts |= {name: text for name, text in embedded.items() if text}
    left = LARGE_BYTES
    for facts, row, (_, _, large) in zip(found, rows, names, strict=True):
        text = embed(large) if row.verdict != "OK" and "small" in facts else ""
        left -= len(text)
        if left < 0:
            break
        facts |= {"large": text} if text else {}
    return found


def _facts(row: ResultRow) -> dict[str, Any]:
    return {
        "path": row.path,
        "score": row.score,
        "p": row.p_value,
        "verdict": row.verdict or "none",
        "product": row.product or "",
        "size": [row.width or 1, row.height or 1],
        "regions": [[*r.bbox, r.peak] for r in row.regions[:_MOST_REGIONS]],
        "nRegions": len(row.regions),
        "notes": row.notes,
        "overlay": quote(row.overlay) if row.overlay else None,
    }


def _usual_aspect(pictures: list[dict[str, Any]]) -> float:
    """Return the median width over height of pictures, bounded to 0.75..2."""
    aspects = [width / height for width, height in (row["size"] for row in pictures)]
    return float(np.clip(np.median(aspects), 0.75, 2.0)) if aspects else 1.0


def _read_base64(path: Path) -> str:
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError:
        return ""
