"""Byte pairs against open_clip's tokenizer."""

import random

import pytest

from faprompt.clip.byte_pairs import START, bpe_ids, bpe_text
from faprompt.clip.spec import open_clip_module

TEXTS = [
    "", "a photo of a damaged object.", "A cropped photo of the Flawless CABLE, for inspection!",
    "it's we'll DON'T banana bananaaaa aaaaaaa mississippi", "x1y22 12.5mm under_score __",
    "AT&T &amp;amp; &lt;b&gt; <end_of_text> <START_of_text>", "\x1b[3mbad\t\n x",
    "Zahnräder — “gefährlich” ½ ² ſtraße Ⅷ", "漢字かな 🙂", "sÃ©rie",
]  # fmt: skip


@pytest.fixture(scope="module")
def rival():
    return open_clip_module().tokenizer.SimpleTokenizer()


@pytest.mark.parametrize("text", TEXTS)
def test_ids_of_chosen_texts(rival, text):
    assert bpe_ids(text) == rival.encode(text)


def test_ids_of_drawn_texts(rival):
    stream = random.Random(0)
    for _ in range(500):
        text = "".join(
            stream.choices("abcdeee  ttnnss.,'-_09&;<>éßÉ½漢\t", k=stream.randint(0, 30))
        )
        assert bpe_ids(text) == rival.encode(text), text


def test_text_of_every_id(rival):
    assert [bpe_text(i) for i in range(START)] == [rival.decode([i]) for i in range(START)]
