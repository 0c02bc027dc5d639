"""Draw the histograms of a drift measurement, for a terminal and as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.calibration import Calibration
from faprompt.errors import ConfigError
from faprompt.files import write_atomically
from faprompt.inspection.score_drift import Drift, ProductDrift
from faprompt.work import load_extra

_GOOD, _TODAY = "#999999", "#0072B2"
_LINES = (("threshold", "#D55E00", "NG above"), ("review_threshold", "#E69F00", "REVIEW above"))
_COLUMNS = 3  # panels side by side
_BINS = 40
_BAR = 40  # characters of a whole histogram


def text_histogram(drift: ProductDrift) -> list[str]:
    """Return one line for each decile of the good scores, with the shares of both.

    A bar of today's shares is as long as its share; "|" marks the share of the good pictures.
    """
    ends = [f"<= {edge:.4f}" for edge in drift.edges] + [f"> {drift.edges[-1]:.4f}"]
    rows = zip(ends, drift.shares_good, drift.shares_today, strict=True)
    return [f"{end:>12} {good:7.1%} {today:7.1%} {_bar(good, today)}" for end, good, today in rows]


def _bar(good: float, today: float) -> str:
    mark = round(good * _BAR)
    bar = ("#" * round(today * _BAR)).ljust(mark + 1)
    return (bar[:mark] + "|" + bar[mark + 1 :]).rstrip()


def check_figure_path(path: Path) -> None:
    """Refuse what no figure can be written to.

    Raises:
        ConfigError: the name ends neither in .png nor in .svg, or its folder does not exist.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix not in (".png", ".svg"):
        raise ConfigError(f"{path}: a figure is a .png or an .svg file; change the name.")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder; create it, or choose another --out.")
    load_extra("figures", "matplotlib.figure")


def write_drift_figure(
    path: Path,
    drift: Drift,
    scores_by_product: Mapping[str, np.ndarray],
    calibration: Calibration,
) -> None:
    """Write a histogram of good and of today's scores for each product, as .png or .svg.

    Raises:
        ConfigError, MissingExtraError: as `check_figure_path`.
    """
    check_figure_path(path)
    columns = min(_COLUMNS, len(drift.products))
    rows = -(-len(drift.products) // columns)
    size = (0.8 + 3.6 * columns, 0.5 + 2.7 * rows)  # inches
    figure = load_extra("figures", "matplotlib.figure").Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, one in zip(panels, drift.products, strict=False):
        _draw(axes, one, np.asarray(scores_by_product[one.product]), calibration)
    for axes in panels[len(drift.products) :]:
        axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    file = io.BytesIO()
    figure.savefig(file, format=path.suffix[1:], dpi=150)
    write_atomically(path, file.getvalue())


def _draw(axes: Any, drift: ProductDrift, today: np.ndarray, calibration: Calibration) -> None:
    good, limits = calibration.products[drift.product].scores, calibration.limits(drift.product)
    bins = np.histogram_bin_edges(np.concatenate([good, today]), bins=_BINS)
    style = {"bins": bins, "histtype": "stepfilled"}
    for scores, colour, name in ((good, _GOOD, "calibration"), (today, _TODAY, "today")):
        weights = np.full(len(scores), 100 / len(scores))
        axes.hist(scores, weights=weights, color=colour, alpha=0.5, label=name, **style)
    for field, colour, name in _LINES:
        axes.axvline(getattr(limits, field), color=colour, linewidth=1.2, label=name)
    title = f"{drift.product}: drift {drift.level}" if drift.product else f"drift: {drift.level}"
    axes.set_title(
        f"{title}, PSI {drift.psi:.2f}, n = {drift.n_today}", fontsize=9, parse_math=False
    )
    axes.set_xlabel("score")
    axes.set_ylabel("% of the pictures")
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
