"""Handcrafted prompts: sentence templates and state phrases, exactly as published.

`{}` in a template stands for a state phrase, `{}` in a state phrase for the class name.
Sources: WinCLIP's 22 templates and states (CVPR 2023, lists in mala-lab/WinCLIP main.py);
APRIL-GAN's 35 (ByChelsea/VAND-APRIL-GAN prompt_ensemble.py) and AnoVL's 66 (hq-deng/AnoVL
prompt_ensemble.py); the 80 ImageNet templates of OpenAI (open_clip/zero_shot_metadata.py);
CLIP's pair from the AnomalyCLIP paper (ICLR 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from faprompt.prompts.prompt_parts import SentenceEncoder

CLIP_TEMPLATES = ("a photo of {}.",)
CLIP_STATES = (("a normal {}",), ("an anomalous {}",))
CLIP_AC_STATES = (("normal {}",), ("anomalous {}",))  # the templates have "a", before vowels too

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
# in public re-implementations two lines are missing, and one occurs twice
WINCLIP_TEMPLATES_OF_CODE = tuple(
    "a jpeg corrupted photo of the {}." if line == "a jpeg corrupted photo of a {}." else line
    for line in WINCLIP_TEMPLATES
    if line != "a cropped photo of a {}."
)
APRIL_TEMPLATES = (
    *_photos((
        "bad", "low resolution", "cropped", "bright", "dark", "close-up", "black and white",
        "jpeg corrupted", "blurry", "good",
    )),
    *_of(("a photo",), ("", "cool ", "large ", "small ")),
    "a photo of my {}.",
    "a photo of one {}.",
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)  # fmt: skip
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
    """Return AnoVL's 66 templates of a domain: 22 patterns for each of its three nouns."""
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
    """Fill every template with every state of one class.

    Underscores in the class name become blanks, unless `raw`.

    Example:
        >>> sentences(["a photo of a {}."], ["damaged {}"], "metal_nut")
        ['a photo of a damaged metal nut.']
        >>> sentences(["a photo of a {}."], ["damaged {}"], "metal_nut", raw=True)
        ['a photo of a damaged metal_nut.']
    """
    name = class_name if raw else class_name.replace("_", " ")
    return [template.format(state.format(name)) for state in states for template in templates]


def mean_direction(features: Tensor, average: Average = "norm-mean-norm") -> Tensor:
    """Average the features of many sentences to one direction.

    Args:
        features: (..., m, D), of the text tower, not normalised.
        average: "norm-mean-norm" is the mean of unit features, "mean-norm" of the features
            without normalisation.

    Returns:
        (..., D), unit length.
    """
    if average == "norm-mean-norm":
        features = F.normalize(features, dim=-1)
    return F.normalize(features.mean(dim=-2), dim=-1)


class StateTexts:
    """Cache the text features of every template filled with every state of a class.

    Nothing is cached during an export or a compilation: those tensors have no values.

    Args:
        states: phrases of the normal states, then of the abnormal ones.
        templates: class name -> the sentences around them.
        raw: class names keep their underscores.
    """

    def __init__(
        self,
        states: Sequence[Sequence[str]],
        templates: Callable[[str], Sequence[str]],
        *,
        raw: bool = False,
    ) -> None:
        self._states, self._templates, self._raw = states, templates, raw
        self._encoded: dict[tuple[str, str], list[Tensor]] = {}

    def features(self, encoder: SentenceEncoder, class_name: str) -> list[Tensor]:
        """Return features of the normal, then the abnormal sentences: (m, D), not normalised.

        Raises:
            ValueError: a word has no token in this backbone.
        """
        key = (class_name, str(encoder.text.positional_embedding.device))
        if key in self._encoded:
            return self._encoded[key]
        lines = self._templates(class_name)
        with torch.inference_mode(False), torch.no_grad():  # training may use the cached tensors
            found = [
                encoder.encode_texts(sentences(lines, phrases, class_name, raw=self._raw))
                for phrases in self._states
            ]
        if not torch.compiler.is_compiling():
            self._encoded[key] = found
        return found

    def pair(
        self, encoder: SentenceEncoder, class_name: str, average: Average = "norm-mean-norm"
    ) -> Tensor:
        """Return the normal and the abnormal direction, (2, D), unit length."""
        features = self.features(encoder, class_name)
        return torch.stack([mean_direction(rows, average) for rows in features])
