"""Handcrafted prompts: sentence templates and state words, exactly as published.

`{}` in a template takes a state phrase; `{}` in a state phrase takes the class name.
Sources: WinCLIP's 22 templates and states (CVPR 2023, lists in mala-lab/WinCLIP main.py);
the 80 ImageNet templates of OpenAI (open_clip/zero_shot_metadata.py); CLIP's pair as the
AnomalyCLIP paper (ICLR 2024) uses it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from faprompt.clip.backbone import Backbone

CLIP_TEMPLATES = ("a photo of {}.",)
CLIP_STATES = (("a normal {}",), ("an anomalous {}",))
CLIP_AC_STATES = (("normal {}",), ("anomalous {}",))  # the templates bring "a", before vowels too

WINCLIP_STATES = (
    (
        "{}", "flawless {}", "perfect {}", "unblemished {}", "{} without flaw",
        "{} without defect", "{} without damage",
    ),
    ("damaged {}", "{} with flaw", "{} with defect", "{} with damage"),
)  # fmt: skip


def _photos(kinds: Sequence[str], articles: Sequence[str] = ("a", "the")) -> tuple[str, ...]:
    return tuple(f"a {kind} photo of {article} {{}}." for kind in kinds for article in articles)


def _of(subjects: Sequence[str], words: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{s} of {a} {w}{{}}." for s in subjects for w in words for a in ("a", "the"))


WINCLIP_TEMPLATES = (
    *_photos(("cropped", "close-up", "bright", "dark", "jpeg corrupted", "blurry")),
    *_of(("a photo",), ("", "small ", "large ")),
    "a photo of a {} for visual inspection.",
    "a photo of the {} for visual inspection.",
    "a photo of a {} for anomaly detection.",
    "a photo of the {} for anomaly detection.",
)
IMAGENET_TEMPLATES = (
    *_photos((
        "bad", "low resolution", "cropped", "bright", "dark", "close-up", "black and white",
        "pixelated", "jpeg corrupted", "blurry", "good",
    )),
    *_of(
        ("a photo",),
        ("", "hard to see ", "clean ", "dirty ", "cool ", "large ", "nice ", "weird ", "small "),
    ),
    *_of(
        ("a sculpture", "a rendering", "a tattoo", "a drawing", "a painting", "a doodle",
         "a sketch", "a rendition", "graffiti", "art", "itap"),
        ("",),
    ),
    *(
        f"{article} {kind} {{}}."
        for kind in ("embroidered", "plastic", "origami", "toy", "plushie", "cartoon")
        for article in ("a", "the")
    ),
    "a {} in a video game.",
    "the {} in a video game.",
    "a photo of many {}.",
    "a photo of my {}.",
    "a photo of one {}.",
    "itap of my {}.",
)  # fmt: skip


def sentences(templates: Sequence[str], states: Sequence[str], class_name: str) -> list[str]:
    """Every template filled with every state of one class; underscores become blanks."""
    name = class_name.replace("_", " ")
    return [template.format(state.format(name)) for state in states for template in templates]


def ensemble(backbone: Backbone, texts: Sequence[str]) -> Tensor:
    """One direction for many sentences: mean of unit features, unit again ("norm-mean-norm").

    Returns:
        (D,), unit length.
    """
    with torch.no_grad():
        features = F.normalize(backbone.encode_texts(texts), dim=-1)
    return F.normalize(features.mean(dim=0), dim=0)
