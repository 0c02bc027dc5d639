"""Handcrafted prompts: sentence templates and state words, exactly as published.

`{}` in a template takes a state phrase; `{}` in a state phrase takes the class name.
Sources: WinCLIP's 22 templates and states (CVPR 2023, lists in mala-lab/WinCLIP main.py);
APRIL-GAN's 35 (ByChelsea/VAND-APRIL-GAN prompt_ensemble.py) and AnoVL's 66 (hq-deng/AnoVL
prompt_ensemble.py);
the 80 ImageNet templates of OpenAI (open_clip/zero_shot_metadata.py); CLIP's pair as the
AnomalyCLIP paper (ICLR 2024) uses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

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
APRIL_STATES = (
    WINCLIP_STATES[0],
    ("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage"),
)
ANOVL_STATES = (
    ("normal {}", *WINCLIP_STATES[0][1:]),
    (
        "damaged {}", "abnormal {}", "imperfect {}", "blemished {}", "{} with flaw",
        "{} with defect", "{} with damage",
    ),
)  # fmt: skip
ANOVL_TEXTURES = ("carpet", "leather", "grid", "tile", "wood")
ANOVL_NOUNS = {  # article and noun of each domain
    "object": (
        ("an", "industrial photo"), ("an", "industrial image"), ("a", "manufacturing image"),
    ),
    "texture": (("an", "industrial photo"), ("a", "textural photo"), ("a", "surface picture")),
}  # fmt: skip
Average = Literal["norm-mean-norm", "mean-norm"]


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
# what public re-implementations run: two lines lost, one doubled
WINCLIP_TEMPLATES_OF_CODE = tuple(
    "a jpeg corrupted photo of the {}." if line == "a jpeg corrupted photo of a {}." else line
    for line in WINCLIP_TEMPLATES
    if line != "a cropped photo of a {}."
)
APRIL_TEMPLATES = (
    *_photos(
        (
            "bad",
            "low resolution",
            "cropped",
            "bright",
            "dark",
            "close-up",
            "black and white",
            "jpeg corrupted",
            "blurry",
            "good",
        )
    ),
    *_of(("a photo",), ("", "cool ", "large ", "small ")),
    "a photo of my {}.",
    "a photo of one {}.",
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
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


def anovl_templates(domain: Literal["object", "texture"]) -> tuple[str, ...]:
    """AnoVL's 22 patterns around each of a domain's three nouns: 66, without a full stop."""
    kinds = ("cropped", "close-up", "bright", "dark", "jpeg corrupted", "blurry")
    found = []
    for article, noun in ANOVL_NOUNS[domain]:
        for place in ("a", "the"):
            found += [f"a {kind} {noun} of {place} {{}}" for kind in kinds]
            whole = f"{article} {noun} of {place}"
            found += [f"{whole} {{}}", f"{whole} small {{}}", f"{whole} large {{}}"]
            found += [
                f"{whole} {{}} for {aim}" for aim in ("visual inspection", "anomaly detection")
            ]
    return tuple(found)


def sentences(
    templates: Sequence[str], states: Sequence[str], class_name: str, *, raw: bool = False
) -> list[str]:
    """Every template filled with every state of one class.

    Underscores become blanks, unless the class should be left `raw`.

    Example:
        >>> sentences(["a photo of a {}."], ["damaged {}"], "metal_nut")
        ['a photo of a damaged metal nut.']
        >>> sentences(["a photo of a {}."], ["damaged {}"], "metal_nut", raw=True)
        ['a photo of a damaged metal_nut.']
    """
    name = class_name if raw else class_name.replace("_", " ")
    return [template.format(state.format(name)) for state in states for template in templates]


def mean_direction(features: Tensor, average: Average = "norm-mean-norm") -> Tensor:
    """One direction for many sentences.

    Args:
        features: (m, D), of the text tower, not normalised.
        average: "norm-mean-norm" is the mean of unit features, "mean-norm" that of the
            features as they are; the result is unit again.

    Returns:
        (D,), unit length.
    """
    if average == "norm-mean-norm":
        features = F.normalize(features, dim=-1)
    return F.normalize(features.mean(dim=0), dim=0)
