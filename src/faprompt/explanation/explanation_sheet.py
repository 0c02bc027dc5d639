"""An explanation as one PNG: maps on top, a panel per prompt below, the score at the foot."""

from __future__ import annotations

import io
import textwrap
from typing import Any

import numpy as np

from faprompt.explanation.explanation_panels import Panels
from faprompt.explanation.picture_explanation import Explanation
from faprompt.imaging import colour_table

COLUMNS = 5
_CELL, _GAP, _MARGIN = 2.5, 0.15, 0.2  # inches: a panel's width, between panels, round all
_HEAD, _TITLE, _WORDS, _FOOT = 0.45, 0.3, 0.45, 1.6  # inches of height
_DPI = 120
_GREY, _INK, _FAINT = "#B8B8B8", "#202020", "#606060"
_STEPS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00")  # Okabe and Ito's; one per term


class _Page:
    """A figure in which places are told in inches from its upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure

        self.size = (width, height)
        self.figure = Figure(figsize=self.size)

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        across, down = self.size
        return self.figure.add_axes(
            (left / across, 1 - (top + height) / down, width / across, height / down)
        )

    def text(self, left: float, top: float, text: str, **look: Any) -> None:
        across, down = self.size
        self.figure.text(left / across, 1 - top / down, text, va="top", **look)


def draw_sheet(explanation: Explanation, panels: Panels, *, name: str) -> bytes:
    """A PNG file.

    Args:
        panels: of this explanation, by `draw_panels`.
        name: of the picture, for the heading.
    """
    height, width = panels.picture.shape[:2]
    tall = _CELL * height / width
    rows = -(-len(panels.prompts) // COLUMNS)
    words = _WORDS if any(prompt.words for prompt in explanation.prompts) else 0.0
    lower = _MARGIN + _HEAD + _TITLE + tall  # where the prompts begin
    step = _GAP + _TITLE + tall + words
    foot = lower + rows * step + 2 * _GAP
    page = _Page(2 * _MARGIN + COLUMNS * (_CELL + _GAP) - _GAP, foot + _FOOT + _MARGIN)
    page.text(_MARGIN, _MARGIN, _heading(explanation, name), fontsize=14, color=_INK)
    for place, (title, panel) in enumerate(_first_row(panels)):
        _panel(page.axes(_left(place), lower - tall, _CELL, tall), panel, title)
    for place, (prompt, panel) in enumerate(zip(explanation.prompts, panels.prompts, strict=True)):
        row, column = divmod(place, COLUMNS)
        axes = page.axes(_left(column), lower + row * step + _GAP + _TITLE, _CELL, tall)
        title = f"prompt {prompt.number}: {prompt.score:.3f} alone"
        _panel(axes, panel, title, explanation.vocabulary.brief(prompt.words))
    _score(page, explanation, foot)
    page.text(_left(2), foot, _notes(explanation), fontsize=9, color=_FAINT, linespacing=1.35)
    file = io.BytesIO()
    page.figure.savefig(file, format="png", dpi=_DPI)
    return file.getvalue()


def _left(column: int) -> float:
    return _MARGIN + column * (_CELL + _GAP)


def _first_row(panels: Panels) -> list[tuple[str, np.ndarray]]:
    """At most five: of many layers' maps, as many as there is room for."""
    row = [("picture", panels.picture), ("fused map", panels.fused)]
    room = COLUMNS - 2 - (panels.patches is not None)
    row += [(f"map {name}", panel) for name, panel in panels.stages.items()][:room]
    if panels.patches is not None:
        row.append(("patches that fed the prior", panels.patches))
    return row


def _heading(explanation: Explanation, name: str) -> str:
    result = explanation.result
    verdict = f" · {result.verdict} at {result.threshold:.4g}" if result.verdict else ""
    shown = name if len(name) <= 60 else f"…{name[-59:]}"
    return f"{shown}   score {result.score:.4f}{verdict}   {result.model}".replace("$", r"\$")


def _panel(axes: Any, panel: np.ndarray, title: str, words: str = "") -> None:
    axes.imshow(panel, interpolation="lanczos")
    axes.set_title(title, fontsize=10, color=_INK, pad=4)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    lines = textwrap.wrap(words, 36, max_lines=2, placeholder=" …")
    axes.set_xlabel("\n".join(lines).replace("$", r"\$"), fontsize=9, color=_FAINT)


def _score(page: _Page, explanation: Explanation, top: float) -> None:
    """What is added, a bar of it from 0 to 1, and the colours of the maps on the same scale."""
    handles = _bar(page.axes(_left(0), top + 0.85, 2 * _CELL, 0.2), explanation)
    corner = _left(0) / page.size[0], 1 - top / page.size[1]
    page.figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=corner,
        fontsize=9, frameon=False, borderpad=0, borderaxespad=0, handlelength=1.2,
    )  # fmt: skip
    scale = page.axes(_left(0), top + 1.1, 2 * _CELL, 0.14)
    scale.imshow(colour_table()[None], extent=(0, 1, 0, 1), aspect="auto")
    scale.set(yticks=[])
    scale.spines[:].set_visible(False)
    scale.tick_params(labelsize=9)
    scale.set_xlabel("score, and the colours of the maps", fontsize=9, color=_FAINT)


def _bar(axes: Any, explanation: Explanation) -> list[Any]:
    handles, left = [], 0.0
    for place, term in enumerate(explanation.terms):
        part, colour = term.weight * term.value, _STEPS[place % len(_STEPS)]
        label = f"{term.weight:.3g} x {term.value:.4f}  {term.name}"
        if not term.weight:
            label, colour = f"{term.value:.4f}  {term.name}, takes no part", _GREY
        handles.append(axes.barh(0, part, left=left, height=1, color=colour, label=label))
        left += part
    if not explanation.terms:
        score = explanation.result.score
        handles.append(axes.barh(0, score, height=1, color=_GREY, label=f"{score:.4f}  score"))
    axes.set(xlim=(0, 1), ylim=(-0.5, 0.5))
    axes.set_axis_off()
    return handles


def _notes(explanation: Explanation) -> str:
    lines = list(explanation.notes())
    if explanation.has_words:
        lines.append(explanation.vocabulary.caution())
    return "\n".join(textwrap.fill(line, 108) for line in lines)
