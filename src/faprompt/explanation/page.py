"""An explanation as one HTML file that needs no network and no server."""

from __future__ import annotations

import base64
from html import escape
from importlib import resources
from string import Template

import numpy as np

from faprompt.explanation.explain import Explanation, Prompt
from faprompt.explanation.panels import Panels
from faprompt.explanation.words import NearWord, Vocabulary
from faprompt.imaging import encode_jpeg
from faprompt.imaging.overlay import RAMP

Tokens = tuple[tuple[NearWord, ...], ...]


def draw_page(explanation: Explanation, panels: Panels, *, name: str) -> str:
    """The page; pictures are embedded.

    Args:
        panels: of this explanation, by `draw_panels`.
        name: of the picture, for the heading.
    """
    result = explanation.result
    height, width = result.image_size
    verdict = ""
    if result.verdict is not None:
        verdict = f"<dt>Verdict</dt><dd>{result.verdict} at {result.threshold:.4g}</dd>"
    template = resources.files("faprompt.explanation").joinpath("page.html").read_text("utf-8")
    return Template(template).substitute(
        name=escape(name, quote=True),
        model=escape(result.model),
        method=escape(explanation.method),
        size=f"{width} × {height} px",
        score=f"{result.score:.4f}",
        verdict=verdict,
        terms=_terms(explanation),
        maps=_maps(panels),
        prompts=_prompts(explanation, panels),
        patches=_patches(explanation),
        context=_context(explanation),
        notes="".join(f"<p>{escape(line)}</p>" for line in explanation.notes()),
        ramp=", ".join(f"rgb({r} {g} {b})" for r, g, b in RAMP),
    )


def _terms(explanation: Explanation) -> str:
    if not explanation.terms:
        return ""
    rows = []
    for term in explanation.terms:
        part = term.weight * term.value
        told = f"{part:.4f}" if term.weight else "takes no part"
        rows.append(
            f"<tr><td>{escape(term.name)}<td>{term.value:.4f}<td>{term.weight:.4g}<td>{told}"
            f'<td class="bar"><i style="width:{100 * min(1, max(0, part)):.2f}%"></i></tr>'
        )
    return (
        '<table class="terms"><thead><tr><th>Part<th>Value<th>Weight<th>Adds<th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
        f'<p class="sum">{escape(explanation.joined()).replace(" x ", " × ")}</p>'
    )


def _maps(panels: Panels) -> str:
    shown = [("Picture", panels.picture), ("Fused map", panels.fused)]
    shown += [(f"Map {name}", panel) for name, panel in panels.stages.items()]
    if panels.patches is not None:
        shown.append(("Patches that fed the prior, in its order", panels.patches))
    return "".join(
        f"<figure>{_image(panel, title)}<figcaption>{escape(title)}</figcaption></figure>"
        for title, panel in shown
    )


def _prompts(explanation: Explanation, panels: Panels) -> str:
    if not explanation.prompts:
        return ""
    cards = "".join(
        _card(prompt, panel, explanation.vocabulary)
        for prompt, panel in zip(explanation.prompts, panels.prompts, strict=True)
    )
    caution = ""
    if explanation.has_words:
        caution = f'<p class="caution">{escape(explanation.vocabulary.caution())}</p>'
    return f'<section><h2>Abnormality prompts</h2>{caution}<div class="row">{cards}</div></section>'


def _card(prompt: Prompt, panel: np.ndarray, vocabulary: Vocabulary) -> str:
    title = f"Prompt {prompt.number}"
    words = _words("Nearest words", prompt.words, vocabulary)
    if prompt.shifted_words:
        words += _words("With this picture's prior", prompt.shifted_words, vocabulary)
    return (
        f"<figure>{_image(panel, f'{title} alone')}<figcaption><b>{title}</b> "
        f"<span>alone {prompt.score:.4f} · peak {prompt.grid.max():.4f}</span>{words}"
        "</figcaption></figure>"
    )


def _words(title: str, tokens: Tokens, vocabulary: Vocabulary) -> str:
    """One line per learned vector: its nearest words with their cosines."""
    if not tokens:
        return ""
    lines = "".join(f"<li>{_near(found, vocabulary)}" for found in tokens)
    return f"<h3>{escape(title)}</h3><ol>{lines}</ol>"


def _near(found: tuple[NearWord, ...], vocabulary: Vocabulary) -> str:
    told = []
    for near in found:
        word = f"{escape(near.word)} <small>{near.cosine:.2f}</small>"
        told.append(word if near.cosine > vocabulary.chance else f"({word})")
    return ", ".join(told)


def _patches(explanation: Explanation) -> str:
    if not explanation.patches:
        return ""
    rows = "".join(
        f"<tr><td>{p.rank}<td>{p.row}<td>{p.column}<td>{p.chance:.4f}"
        f"<td>{p.box[0]}, {p.box[1]} to {p.box[2]}, {p.box[3]}</tr>"
        for p in explanation.patches
    )
    return (
        "<section><h2>Patches that fed the prior</h2><table><thead><tr><th>Rank<th>Row"
        "<th>Column<th>Abnormal before the prior<th>Pixels x, y</tr></thead>"
        f"<tbody>{rows}</tbody></table></section>"
    )


def _context(explanation: Explanation) -> str:
    if not explanation.context_words:
        return ""
    words = _words("Nearest words", explanation.context_words, explanation.vocabulary)
    caution = f'<p class="caution">{escape(explanation.vocabulary.caution())}</p>'
    return f"<section><h2>Vectors of the normal prompt</h2>{caution}{words}</section>"


def _image(panel: np.ndarray, text: str) -> str:
    data = base64.b64encode(encode_jpeg(panel, quality=88)).decode()
    return f'<img alt="{escape(text)}" src="data:image/jpeg;base64,{data}">'
