"""The grammar: its words, its shares, and what a caption may say."""

import random

import pytest

from faprompt.synthetic import DEFECT_KINDS, OBJECT_KINDS
from scripts.caption_grammar import (
    ABNORMAL_STATES,
    NORMAL_STATES,
    PLACES,
    Finding,
    vocabulary_texts,
    write_caption,
)


def words_of(texts):
    return {word.strip(".,") for text in texts for word in text.split()}


def captions_of(finding, count=400):
    host = random.Random(0)
    return [write_caption("leather", finding, host) for _ in range(count)]


SOUND = captions_of(None)
BROKEN = captions_of(Finding("crack", 0.1, 0.9, 0.01))


def test_the_word_list_is_modest_and_complete():
    vocabulary = vocabulary_texts()
    assert len(words_of(vocabulary)) <= 350
    assert len(vocabulary) == len(set(vocabulary))
    known = {word for text in vocabulary for word in text.split()}
    host = random.Random(1)
    for _ in range(3000):
        thing, defect = host.choice(OBJECT_KINDS).name, host.choice(DEFECT_KINDS).name
        finding = Finding(defect, host.random(), host.random(), host.random() ** 6)
        caption = write_caption(thing, host.choice((None, finding)), host)
        assert set(caption.split()) <= known, caption


@pytest.mark.parametrize(
    "text",
    ["object.", "damaged object.", "normal object.", "anomalous object.", "broken object."],
)
def test_plain_prompts_are_in_the_vocabulary(text):
    assert text in vocabulary_texts()


def test_state_words_of_the_handcrafted_methods_are_known():
    wanted = "normal flawless perfect unblemished damaged abnormal imperfect blemished anomalous"
    assert set(f"{wanted} broken without with flaw defect damage".split()) <= words_of(
        vocabulary_texts()
    )
    templates = "cropped close-up bright dark jpeg corrupted blurry visual inspection anomaly"
    assert set(f"{templates} detection industrial manufacturing textural surface".split()) <= (
        words_of(vocabulary_texts())
    )


def test_normal_captions_name_no_defect_and_no_bad_state():
    bad = words_of(ABNORMAL_STATES) - words_of(NORMAL_STATES) - {"{}"}
    bad |= {word for kind in DEFECT_KINDS for word in kind.name.split()} - {"with"}
    assert not words_of(SOUND) & bad


def test_captions_of_damaged_things_always_say_so():
    good = {"flawless", "perfect", "unblemished", "normal", "good", "intact", "without"}
    for caption in BROKEN:
        words = words_of([caption])
        assert not words & good
        assert words & ((words_of(ABNORMAL_STATES) - {"{}", "with"}) | {"crack"})


def test_the_thing_is_named_or_called_an_object():
    for captions in (SOUND, BROKEN):
        assert all(("object" in words_of([c])) != ("leather" in words_of([c])) for c in captions)
        assert sum("object" in words_of([c]) for c in captions) >= 0.4 * len(captions)


def test_place_and_size_come_from_the_finding():
    placed = [caption for caption in BROKEN if " at the " in caption or " on the " in caption]
    assert placed and all("at the top right" in caption for caption in placed)
    sized = [caption for caption in BROKEN if words_of([caption]) & {"tiny", "small", "large"}]
    assert sized and all("small" in words_of([caption]) for caption in sized)


@pytest.mark.parametrize(
    ("row", "column", "place"),
    [(0.0, 0.0, (-1, -1)), (0.5, 0.5, (0, 0)), (1.0, 0.5, (1, 0)), (0.34, 0.99, (0, 1))],
)
def test_nine_places(row, column, place):
    assert Finding("hole", row, column, 0.01).place == PLACES[place]


@pytest.mark.parametrize(("share", "size"), [(0.0005, "tiny"), (0.01, "small"), (0.2, "large")])
def test_three_sizes(share, size):
    assert Finding("hole", 0.5, 0.5, share).size == size
