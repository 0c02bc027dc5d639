"""Write an explanation as one HTML page that needs no network."""

from __future__ import annotations

import base64

import numpy as np

from faprompt.explanation.explanation_panels import Panels
from faprompt.explanation.picture_explanation import Explanation
from faprompt.imaging import encode_jpeg
from faprompt.imaging.overlay import ramp_css
from faprompt.pages import render_page


def draw_page(explanation: Explanation, panels: Panels, *, name: str) -> str:
    """Return the page as HTML with its pictures embedded.

    Args:
        explanation: of one picture.
        panels: of this explanation, by `draw_panels`.
        name: of the picture, for the heading.
    """
    maps = [("Picture", panels.picture), ("Fused map", panels.fused)]
    maps += [(f"Map {stage}", panel) for stage, panel in panels.stages.items()]
    if panels.patches is not None:
        maps.append(("Patches used for the prior, in its order", panels.patches))
    prompts = zip(explanation.prompts, map(_embed, panels.prompts), strict=True)
    return render_page(
        "explain.html",
        title=f"{name}, explained",
        name=name,
        result=explanation.result,
        explanation=explanation,
        maps=[(title, _embed(panel)) for title, panel in maps],
        prompts=list(prompts) if explanation.prompts else [],
        chance=explanation.vocabulary.chance,
        caution=explanation.vocabulary.caution(),
        ramp=ramp_css(),
    )


def _embed(panel: np.ndarray) -> str:
    return base64.b64encode(encode_jpeg(panel, quality=88)).decode()
