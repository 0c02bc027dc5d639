"""Draw what a rehearsal found: kinds and sizes, and the share of each that is NG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.files import write_atomically
from faprompt.inspection.rehearsal import Rehearsal
from faprompt.inspection.rehearsal_report import cell_text
from faprompt.work import load_extra

FIGURE = "rehearsal.png"
_COLOURS = "Blues"
_DARK = 0.55  # shares from which the number is written in white
_NOTHING = "#e6e6e6"  # could not be drawn


def write_rehearsal_figure(path: Path, rehearsals: Sequence[Rehearsal]) -> None:
    """Write a heat map of kinds and sizes for each product and strength, as .png.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    columns, rows = len(rehearsals[0].strengths), len(rehearsals)
    wide = 1.2 + columns * (0.9 + 0.55 * len(rehearsals[0].sizes_px))  # inches
    high = 0.6 + rows * (0.9 + 0.26 * len(rehearsals[0].kinds))
    figure = load_extra("figures", "matplotlib.figure").Figure(
        figsize=(max(wide, 5), high), layout="constrained"
    )
    panels = figure.subplots(rows, columns, squeeze=False, sharey="row")
    for line, rehearsal in zip(panels, rehearsals, strict=True):
        for axes, strength in zip(line, rehearsal.strengths, strict=True):
            _draw(axes, rehearsal, strength)
    rates = [f"{100 * rate:.3g} %" for rate in (rehearsals[0].target_fpr, rehearsals[0].review_fpr)]
    figure.suptitle(
        f"drawn defects that are NG at a false-alarm rate of {rates[0]} / NG or REVIEW at "
        f"{rates[1]}, in %",
        fontsize=9,
    )
    figure.supxlabel(
        "longest extent in pixels of the picture. Drawn defects are not real ones.", fontsize=8
    )
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    write_atomically(path, file.getvalue())


def _draw(axes: Any, rehearsal: Rehearsal, strength: float) -> None:
    kinds, sizes = rehearsal.kinds, rehearsal.sizes_px
    outcomes = [[rehearsal.outcome(kind, size, strength) for size in sizes] for kind in kinds]
    shares = np.array([[one.ng.share if one else np.nan for one in line] for line in outcomes])
    axes.set_facecolor(_NOTHING)
    axes.imshow(shares, cmap=_COLOURS, vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share >= _DARK else "black"
        text = cell_text(outcomes[row][column])
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(sizes)), [f"{size:g}" for size in sizes], fontsize=8)
    axes.set_yticks(range(len(kinds)), kinds, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    name = f"{rehearsal.product}, " if rehearsal.product else ""
    axes.set_title(f"{name}strength {strength:g}", fontsize=9, parse_math=False)
