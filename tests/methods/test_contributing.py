"""CONTRIBUTING's example is a method: it passes the suite."""

import re
from pathlib import Path

import pytest
import torch

from faprompt.methods import registry
from tests.helpers import small
from tests.methods.suite import TrainingFreeSuite

PAGE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


def example():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = {"__name__": "example"}
    exec(compile(code, str(PAGE), "exec"), names)
    return names["OddOneOut"]


class TestSuite(TrainingFreeSuite):
    name = "odd-one-out"
    out_of_range = {}  # no option of its own

    @pytest.fixture(autouse=True)
    def registered(self, monkeypatch):
        monkeypatch.setitem(registry.METHODS, self.name, example())


def test_the_odd_patch_stands_out(monkeypatch):
    monkeypatch.setitem(registry.METHODS, "odd-one-out", example())
    method = small.method("odd-one-out")
    features = method.encode_image(small.backbone(), small.pixels(1, 56, 56))
    tokens = features.patch_tokens[max(features.patch_tokens)]
    tokens[:] = tokens[:, :1]
    tokens[:, 6] = -tokens[:, 6]
    out = method(features, small.backbone().text)
    assert out.patch_map.flatten().argmax() == 6
    assert out.score == pytest.approx(1.0) and torch.all(out.patch_map >= -1e-6)
