"""The one style of figures that are drawn from a CSV: here and in the studies.

The colours are Okabe and Ito's, which colour-blind people can tell apart, and each has a
marker of its own, so that a print in grey loses nothing.

Source: Okabe and Ito, "Color Universal Design", 2008; the order is ours.
"""

from __future__ import annotations

import io
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # of the colour in the same place
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 8.0, "axes.titlesize": 9.0, "axes.linewidth": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3,
    "grid.linewidth": 0.5, "lines.linewidth": 1.3, "lines.markersize": 4.5,
    "legend.frameon": False, "svg.hashsalt": "faprompt", "svg.fonttype": "none",
}  # fmt: skip


def picture_bytes(figure: Any, form: str) -> bytes:
    """A matplotlib figure as "svg" or "png"; the same figure gives the same bytes."""
    file = io.BytesIO()
    options: dict[str, Any] = {"metadata": {"Date": None}} if form == "svg" else {"dpi": 200}
    figure.savefig(file, format=form, **options)
    return file.getvalue()
