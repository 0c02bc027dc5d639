"""Sentences about drawn pictures, from a small grammar with a small vocabulary.

A caption names the thing (half of the time just "object"), its state, and of a defect sometimes
the kind, the size and the place. The state words are those of WinCLIP, APRIL-GAN and AnoVL, so
that a model trained on these captions knows the words of their prompts.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from faprompt.synthetic.kinds import DEFECT_KINDS, OBJECT_KINDS

GENERIC = "object"
GENERIC_SHARE = 0.5  # captions that say "object" and not the kind
NAMED_SHARE = 0.45  # captions of damaged things that name the defect
BARE_SHARE = 0.35  # captions that are the bare state, "damaged object."

NORMAL_STATES = (
    "{}",
    "normal {}",
    "flawless {}",
    "perfect {}",
    "unblemished {}",
    "good {}",
    "intact {}",
    "{} without flaw",
    "{} without defect",
    "{} without damage",
)
ABNORMAL_STATES = (
    "damaged {}",
    "abnormal {}",
    "imperfect {}",
    "blemished {}",
    "anomalous {}",
    "broken {}",
    "defective {}",
    "{} with flaw",
    "{} with defect",
    "{} with damage",
)
NAMED_STATES = (
    "{thing} with {defect}",
    "{thing} with a {defect}",
    "{thing} with a {size} {defect}",
    "{thing} with a {defect} {place}",
    "{thing} with a {size} {defect} {place}",
    "damaged {thing} with a {defect}",
    "damaged {thing}, {defect} {place}",
    "abnormal {thing} with a {size} {defect}",
)
TEMPLATES = (
    "a photo of a {}.",
    "a photo of the {}.",
    "a close-up photo of a {}.",
    "a close-up photo of the {}.",
    "a cropped photo of a {}.",
    "a cropped photo of the {}.",
    "a photo of one {}.",
    "a photo of my {}.",
    "a photo of a {} for visual inspection.",
    "a photo of the {} for visual inspection.",
    "a photo of a {} for anomaly detection.",
    "a photo of the {} for anomaly detection.",
    "this is a {}.",
    "there is a {} in the scene.",
    "an image of a {}.",
    "an industrial photo of a {}.",
    "the {}.",
)
HANDCRAFTED_TEMPLATES = (  # words of the published prompt lists that the grammar does not use
    "a bright photo of a {}.",
    "a dark photo of a {}.",
    "a jpeg corrupted photo of a {}.",
    "a blurry photo of a {}.",
    "a bad photo of a {}.",
    "a good photo of a {}.",
    "a low resolution photo of a {}.",
    "a black and white photo of a {}.",
    "a photo of a cool {}.",
    "a photo of the large {}.",
    "a photo of the small {}.",
    "a photo of many {}.",
    "there is the {} in the scene.",
    "this is one {} in the scene.",
    "an industrial image of a {}",
    "a manufacturing image of a {}",
    "a textural photo of a {}",
    "a surface picture of a {}",
    "a surface photo of a {}",
)
SIZES = ("tiny", "small", "large")
TINY, LARGE = 0.002, 0.04  # shares of the picture: upper ends of tiny and small
PLACES = {
    (-1, -1): "at the top left",
    (-1, 0): "at the top",
    (-1, 1): "at the top right",
    (0, -1): "on the left",
    (0, 0): "in the middle",
    (0, 1): "on the right",
    (1, -1): "at the bottom left",
    (1, 0): "at the bottom",
    (1, 1): "at the bottom right",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Facts about a defect that a caption may name."""

    kind: str
    row: float  # 0 top, 1 bottom
    column: float  # 0 left, 1 right
    share: float  # of the picture

    @property
    def place(self) -> str:
        """One of nine places, in words."""
        row, column = (min(int(value * 3), 2) - 1 for value in (self.row, self.column))
        return PLACES[row, column]

    @property
    def size(self) -> str:
        """One of three sizes, in words."""
        return SIZES[(self.share > TINY) + (self.share > LARGE)]


def write_caption(thing: str, finding: Finding | None, host: random.Random) -> str:
    """Write one sentence about a thing; no finding means that it is normal.

    Example:
        >>> write_caption("nut", None, random.Random(3))
        'object without defect.'
    """
    noun = GENERIC if host.random() < GENERIC_SHARE else thing
    if finding is None:
        state = host.choice(NORMAL_STATES).format(noun)
    elif host.random() < NAMED_SHARE:
        words = {"defect": finding.kind, "size": finding.size, "place": finding.place}
        state = host.choice(NAMED_STATES).format(thing=noun, **words)
    else:
        state = host.choice(ABNORMAL_STATES).format(noun)
    if host.random() < BARE_SHARE:
        return host.choice((state, f"{state}."))
    return host.choice(TEMPLATES).format(state)


def vocabulary_texts() -> list[str]:
    """List texts that together hold every word of the grammar and of the handcrafted prompts.

    The bundled model keeps only the token rows that these texts need. They are not all sentences
    of the grammar, but every word of it occurs, with each mark that may follow it.

    Returns:
        Distinct texts, sorted.

    Example:
        >>> {"object.", "damaged object."} <= set(vocabulary_texts())
        True
    """
    nouns = [GENERIC, *(kind.name for kind in OBJECT_KINDS)]
    states = [state.format(noun) for state in (*NORMAL_STATES, *ABNORMAL_STATES) for noun in nouns]
    defects = [kind.name for kind in DEFECT_KINDS]
    states += [
        state.format(thing=GENERIC, defect=defect, size=size, place=place)
        for state in NAMED_STATES
        for defect in defects
        for size in SIZES
        for place in PLACES.values()
    ]
    states += [f"{noun}, {defects[0]}" for noun in nouns]
    ends = [part for state in states for part in (state, f"{state}.")]
    frames = (*TEMPLATES, *HANDCRAFTED_TEMPLATES)
    return sorted({*ends, *(frame.format(noun) for frame in frames for noun in nouns)})
