"""Draw an explanation: panels of one size, a PNG sheet of them, and an HTML page."""

from __future__ import annotations

import base64
import io
import textwrap
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from faprompt.explanation.picture_explanation import Explanation, Patch
from faprompt.files import printable
from faprompt.imaging import colour_table, encode_jpeg, overlay
from faprompt.imaging.overlay import ramp_css
from faprompt.pages import render_page
from faprompt.records import Region

SIDE = 336  # pixels of the longer side of a panel
COLUMNS = 5
_LEAST_NUMBERED = 10  # pixels; smaller patches have no number
_CELL, _GAP, _MARGIN = 2.5, 0.15, 0.2  # inches: width of a panel, between panels, at the edges
_HEAD, _TITLE, _WORDS, _FOOT = 0.45, 0.3, 0.45, 1.6  # inches of height
_GREY, _INK, _FAINT = "#B8B8B8", "#202020", "#606060"
_TERMS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00")  # Okabe and Ito's; one for each term


@dataclass(frozen=True, slots=True, eq=False)
class Panels:
    """Pictures of an explanation, (h, w, 3) uint8 each."""

    picture: np.ndarray
    fused: np.ndarray
    stages: dict[str, np.ndarray]  # empty without a prior
    prompts: tuple[np.ndarray, ...]
    patches: np.ndarray | None  # patches that the method names, numbered; None without any
    patches_title: str


def draw_panels(explanation: Explanation, image: np.ndarray) -> Panels:
    """Draw every map over the picture, with the fixed colour scale of all overlays.

    Args:
        explanation: explanation of the picture.
        image: (H, W, 3) uint8; it is resized to `SIDE` pixels at its longer side.
    """
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))

    def over(grid: np.ndarray, regions: tuple[Region, ...] = ()) -> np.ndarray:
        return overlay(small, explanation.render(grid, small.shape[:2]), regions=regions)

    boxes = tuple(_scaled(region.bbox, scale) for region in explanation.result.regions)
    return Panels(
        picture=small,
        fused=over(explanation.fused, boxes),
        stages={name: over(grid) for name, grid in explanation.stages.items()},
        prompts=tuple(over(prompt.grid) for prompt in explanation.prompts),
        patches=_numbered(small, explanation.patches, scale) if explanation.patches else None,
        patches_title=explanation.patches_title,
    )


def _scaled(box: tuple[int, int, int, int], scale: float) -> Region:
    x0, y0, x1, y1 = (round(edge * scale) for edge in box)
    return Region((x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)), 1, 0.0, 0.0)


def _numbered(picture: np.ndarray, patches: tuple[Patch, ...], scale: float) -> np.ndarray:
    """Return the picture with a frame around each patch, and its rank where there is space."""
    boxes = [_scaled(patch.box, scale) for patch in patches]
    framed = Image.fromarray(
        overlay(picture, np.zeros(picture.shape[:2], np.float32), regions=boxes)
    )
    draw = ImageDraw.Draw(framed)
    for patch, region in zip(patches, boxes, strict=True):
        x0, y0, x1, y1 = region.bbox
        side = min(x1 - x0, y1 - y0)
        if side >= _LEAST_NUMBERED:
            draw.text(
                ((x0 + x1) / 2, (y0 + y1) / 2), str(patch.rank), "white", anchor="mm",
                font=ImageFont.load_default(min(18, 0.75 * side)), stroke_width=2,
                stroke_fill="black",
            )  # fmt: skip
    return np.asarray(framed)


def draw_page(explanation: Explanation, panels: Panels, *, name: str) -> str:
    """Return an HTML page with embedded pictures that needs no network.

    Args:
        explanation: explanation of one picture.
        panels: panels of this explanation.
        name: name of the picture, for the heading.
    """
    maps = [("Picture", panels.picture), ("Fused map", panels.fused)]
    maps += [(f"Map {stage}", panel) for stage, panel in panels.stages.items()]
    if panels.patches is not None:
        maps.append((explanation.patches_title, panels.patches))
    prompts = zip(explanation.prompts, map(_embed, panels.prompts), strict=True)
    return render_page(
        "explain.html",
        title=f"{name}, explained",
        name=name,
        result=explanation.result,
        explanation=explanation,
        maps=[(title, _embed(panel)) for title, panel in maps],
        prompts=list(prompts),
        chance=explanation.vocabulary.chance,
        caution=explanation.vocabulary.caution(),
        ramp=ramp_css(),
    )


def _embed(panel: np.ndarray) -> str:
    return base64.b64encode(encode_jpeg(panel, quality=88)).decode()


class _Page:
    """A figure whose places are given in inches from its upper left corner."""

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
    """Return a PNG sheet: maps, then a panel for each prompt, then the terms of the score.

    Args:
        explanation: explanation of one picture.
        panels: panels of this explanation.
        name: name of the picture, for the heading.
    """
    height, width = panels.picture.shape[:2]
    tall = _CELL * height / width
    words = _WORDS if any(prompt.words for prompt in explanation.prompts) else 0.0
    maps = _maps(panels)
    upper = _MARGIN + _HEAD - _GAP  # top of the maps
    map_step = _GAP + _TITLE + tall
    lower = upper + -(-len(maps) // COLUMNS) * map_step  # top of the prompts
    step = map_step + words
    foot = lower + -(-len(panels.prompts) // COLUMNS) * step + 2 * _GAP
    page = _Page(2 * _MARGIN + COLUMNS * (_CELL + _GAP) - _GAP, foot + _FOOT + _MARGIN)
    page.text(_MARGIN, _MARGIN, _heading(explanation, name), fontsize=14, color=_INK)
    for place, (title, panel) in enumerate(maps):
        row, column = divmod(place, COLUMNS)
        axes = page.axes(_left(column), upper + row * map_step + _GAP + _TITLE, _CELL, tall)
        _draw_panel(axes, panel, title)
    for place, (prompt, panel) in enumerate(zip(explanation.prompts, panels.prompts, strict=True)):
        row, column = divmod(place, COLUMNS)
        axes = page.axes(_left(column), lower + row * step + _GAP + _TITLE, _CELL, tall)
        title = f"prompt {prompt.number}: {prompt.score:.3f} alone"
        _draw_panel(axes, panel, title, explanation.vocabulary.brief(prompt.words))
    _draw_score(page, explanation, foot)
    page.text(_left(2), foot, _notes(explanation), fontsize=9, color=_FAINT, linespacing=1.35)
    file = io.BytesIO()
    page.figure.savefig(file, format="png", dpi=120)
    return file.getvalue()


def _left(column: int) -> float:
    return _MARGIN + column * (_CELL + _GAP)


def _maps(panels: Panels) -> list[tuple[str, np.ndarray]]:
    """Return titles and panels of the picture, its maps and the patches."""
    maps = [("picture", panels.picture), ("fused map", panels.fused)]
    maps += [(f"map {name}", panel) for name, panel in panels.stages.items()]
    if panels.patches is not None:
        maps.append((panels.patches_title.lower(), panels.patches))
    return maps


def _heading(explanation: Explanation, name: str) -> str:
    result, name = explanation.result, printable(name)
    verdict = f" · {result.verdict} at {result.threshold:.4g}" if result.verdict else ""
    shown = name if len(name) <= 60 else f"…{name[-59:]}"
    return f"{shown}   score {result.score:.4f}{verdict}   {result.model}".replace("$", r"\$")


def _draw_panel(axes: Any, panel: np.ndarray, title: str, words: str = "") -> None:
    axes.imshow(panel, interpolation="lanczos")
    axes.set_title(title, fontsize=10, color=_INK, pad=4)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    lines = textwrap.wrap(words, 36, max_lines=2, placeholder=" …")
    axes.set_xlabel("\n".join(lines).replace("$", r"\$"), fontsize=9, color=_FAINT)


def _draw_score(page: _Page, explanation: Explanation, top: float) -> None:
    """Draw the terms as one bar from 0 to 1, and the colours of the maps on the same scale."""
    handles = _draw_bar(page.axes(_left(0), top + 0.85, 2 * _CELL, 0.2), explanation)
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


def _draw_bar(axes: Any, explanation: Explanation) -> list[Any]:
    handles, left = [], 0.0
    for place, term in enumerate(explanation.terms):
        part, colour = term.weight * term.value, _TERMS[place % len(_TERMS)]
        label = f"{term.weight:.3g} x {term.value:.4f}  {term.name}"
        if not term.weight:
            label, colour = f"{term.value:.4f}  {term.name}, not added", _GREY
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
