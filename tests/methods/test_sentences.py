"""What the methods of handcrafted sentences share: the class of each picture."""

import pytest
import torch

from faprompt.errors import ConfigError
from faprompt.methods.registry import build_method
from faprompt.prompts.prompt_parts import SentenceEncoder
from tests.helpers import small

NAMES = ["metal_nut", "pill", "metal_nut"]
NAMES_IN_WORDS = ["metal nut", "industrial part", "textured surface"]


@pytest.fixture(params=["clip", "clip-ac", "winclip", "april-gan", "anovl"])
def method(request):
    return small.method(request.param)


def run(method, class_names=None):
    with torch.no_grad():
        features = method.encode_image(small.backbone(), small.pixels())
        return method(features, small.backbone().text, class_names=class_names)


def test_each_picture_is_read_with_its_own_class(method):
    assert method.uses_class_names
    mixed, word = run(method, NAMES), run(method)
    for name in ("metal_nut", "pill"):
        whole = run(small.method(method.name, class_word=name))
        rows = [place for place, given in enumerate(NAMES) if given == name]
        torch.testing.assert_close(mixed.score[rows], whole.score[rows])
        torch.testing.assert_close(mixed.patch_map[rows], whole.patch_map[rows])
    assert (mixed.score - word.score).abs().max() > 1e-5


def test_nobody_knowing_is_the_class_word(method):
    word, unnamed = run(method), run(method, ["", " ", "object"])
    torch.testing.assert_close(word.score, unnamed.score)
    torch.testing.assert_close(word.patch_map, unnamed.patch_map)


@pytest.mark.parametrize(
    ("name", "preset", "raw"),
    [("clip", "paper", True), ("clip-ac", "paper", True), ("clip", "common", False),
     ("clip-ac", "common", False), ("winclip", "paper", False), ("winclip", "common", False),
     ("winclip", "code", True), ("april-gan", "paper", True), ("april-gan", "common", False),
     ("anovl", "paper", True), ("anovl", "adapted", True), ("anovl", "common", False)],
)  # fmt: skip
def test_what_public_code_says_of_a_class(name, preset, raw, monkeypatch):
    """It inserts the names of folders as they are; a preset that copies it does too."""
    method = build_method(name, small.backbone(), {"image_size": 112}, preset=preset)
    said = []
    speak = SentenceEncoder.encode_texts
    monkeypatch.setattr(
        SentenceEncoder,
        "encode_texts",
        lambda self, texts: said.append(texts) or speak(self, texts),
    )
    method.text_pairs(small.backbone().text, ["metal_nut", "01", "Class1", "macaroni2"])
    words = ["metal_nut", "01", "Class1"] if raw else NAMES_IN_WORDS
    words = [*words, "macaroni" if name == "anovl" else "macaroni2"]
    assert len(said) == 2 * len(words)
    for sentences, word in zip(said[::2], words, strict=True):
        assert all(word in sentence for sentence in sentences), word
    if name == "clip":
        assert said[0] == [f"a photo of a normal {words[0]}."]
        assert said[1] == [f"a photo of an anomalous {words[0]}."]
    if name == "april-gan":
        assert f"a photo of the {words[0]} with flaw." in said[1]


def test_raw_names_are_other_sentences():
    method, readable = (
        small.method("clip-ac", raw_class_names=raw, class_word="metal_nut")
        for raw in (True, False)
    )
    assert (method.text_pair - readable.text_pair).abs().max() > 1e-4
    assert torch.equal(
        readable.text_pair, small.method("clip-ac", class_word="metal nut").text_pair
    )


def test_class_names_can_be_switched_off(method):
    deaf = small.method(method.name, use_class_names=False)
    assert not deaf.uses_class_names
    assert torch.equal(run(deaf, NAMES).score, run(deaf).score)


def test_a_class_is_encoded_once_and_serves_training_too(method, monkeypatch):
    with torch.inference_mode():
        first = method.class_pair(small.backbone().text, "screw")
    monkeypatch.setattr(type(small.backbone().text), "encode_tokens", None)
    again = method.class_pair(small.backbone().text, "screw")
    assert torch.equal(first, again) and not again.is_inference()


def test_a_class_without_tokens_is_refused_with_a_way_out(method, monkeypatch):
    def refuse(self, texts):
        raise ValueError("no token for 'x'.")

    monkeypatch.setattr(type(method._tokenizer), "__call__", refuse)
    with pytest.raises(ConfigError, match=rf"{method.name}: no token for 'x'.*use_class_names"):
        run(method, ["x"] * 3)
