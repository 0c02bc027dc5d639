"""What the methods of handcrafted sentences share: the class of each picture."""

import pytest
import torch

from faprompt.errors import ConfigError
from tests.helpers import small

NAMES = ["metal_nut", "pill", "metal_nut"]


@pytest.fixture(params=["winclip", "april-gan", "anovl"])
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
