"""The multiplication floor."""

import pytest

from benchmarks import peak
from benchmarks.inference import SMALL, measure_rounds
from faprompt.clip.spec import BackboneSpec, TextSpec, VisionSpec


def test_operations_of_the_papers_tower():
    """1.18e12 for ViT-L/14@336 at 518 px, counted by hand."""
    vision = VisionSpec(image_size=336, patch_size=14, width=1024, layers=24, heads=16)
    text = TextSpec(width=768, layers=12, heads=12)
    spec = BackboneSpec(embed_dim=768, quick_gelu=True, vision=vision, text=text)
    assert peak.image_operations(spec, 37 * 37) == pytest.approx(1.18e12, rel=0.005)


def test_operations_of_one_block_are_those_of_its_products():
    """One block with the V-V path: keys and values, v v' v and its projection, no MLP."""
    vision = VisionSpec(image_size=28, patch_size=14, width=64, layers=1, heads=1)
    spec = BackboneSpec(embed_dim=64, quick_gelu=True, vision=vision, text=SMALL.text)
    tokens, width = 5, 64
    products = 2 * tokens * width * (2 * width) + 2 * 2 * tokens**2 * width + 2 * tokens * width**2
    assert peak.image_operations(spec, 4) == products


def test_calls_take_turns(monkeypatch):
    made = []
    found = iter([{"fp32": 1.0}, {"fp32": 3.0}])
    monkeypatch.setattr("benchmarks.inference.multiply_rates", lambda clock: next(found))
    calls = {name: (lambda name=name: made.append(name)) for name in "ab"}
    seconds, rates = measure_rounds(calls, 2)
    assert made == ["a", "b", "a", "b"]
    assert set(seconds) == {"a", "b"} and rates == {"fp32": 3.0}


def test_rates_of_every_precision(monkeypatch):
    monkeypatch.setattr(peak, "SIDES", (64,))
    rates = peak.multiply_rates()
    assert set(rates) == {"fp32", "bf16", "int8"} and min(rates.values()) > 1e6
