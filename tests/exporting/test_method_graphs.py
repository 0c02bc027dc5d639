"""Every method as a graph: equal to torch at any batch size, or refused with the reason.

A trace costs seconds, so that most are slow tests.
"""

from __future__ import annotations

import pytest
import torch

from faprompt.detector import Detector
from faprompt.errors import ConfigError
from faprompt.exporting.detector_graph import DetectorGraph, fold_constants
from faprompt.methods.registry import list_methods
from tests.exporting.exported_graphs import assert_equals_torch, save_graph
from tests.helpers import small
from tests.methods import test_relations as relations

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


def build(name: str, **options) -> Detector:
    """A detector of a method on the smallest backbone it has."""
    method, _, variant = name.partition(" ")
    if method == "rd4ad":
        rd4ad = pytest.importorskip("tests.methods.test_rd4ad")
        return Detector(rd4ad.backbone(), rd4ad.TestSuite.build(), name=name)
    if method == "patchcore":
        learned = pytest.importorskip("tests.methods.test_patchcore").learned
        return Detector(small.backbone(), learned(**options), name=name)
    if method == "relations" and variant != "on CLIP":
        text = relations.TEXT if variant == "with text" else {}
        return Detector(relations.trunk(), relations.build(**text, **options), name=name)
    if variant == "on CLIP":
        given = {"image_size": 98, "text_method": "faprompt"}
        return Detector(small.backbone(), relations.build(on=small.backbone(), **given), name=name)
    return small.detector(name, **options)


# "relations with text" is the shape of the bundled model `small`: FAPrompt on a second backbone
FAST = ("patchcore",)  # FAPrompt's own is in `test_export_run`
NAMES = [*list_methods(), "relations with text", "relations on CLIP"]


@pytest.mark.parametrize(
    "name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_a_graph_gives_the_numbers_of_torch(name, tmp_path):
    detector = build(name)
    detector.method.eval()
    assert_equals_torch(detector, save_graph(tmp_path, detector))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "coop", "cocoop", "tcp-v1", "filo"])
def test_a_class_name_is_fixed_and_its_text_tower_left_out(name, tmp_path):
    plain = small.detector(name)
    detector = Detector(small.backbone(), plain.method.eval(), name=name, class_name="pill")
    path = save_graph(tmp_path, detector)
    assert_equals_torch(detector, path)
    table = small.backbone().text.token_embedding.weight.nbytes
    assert path.stat().st_size < table, "the table of words is a constant of a few rows"
    pixels = small.pixels(2)
    with torch.no_grad():
        assert not torch.allclose(detector(pixels)[1], plain(pixels)[1], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("anovl", {"adapt_steps": 1}, "trains an adapter on every picture.*--set adapt_steps=0"),
        ("anovl", {"squares": True}, "keeps the aspect ratio.*--set squares=false"),
        ("filo", {"grounding": "self"}, "grounding=self.*set grounding=none"),
    ],
)
def test_a_method_without_a_graph_says_why(name, options, reason):
    with pytest.raises(ConfigError, match=reason):
        DetectorGraph(build(name, **options))


def test_several_classes_need_a_name():
    pytest.importorskip("anomalib")
    from tests.methods.test_patchcore import learned

    method = learned(("part", "lid"))
    with pytest.raises(ConfigError, match="say it by --class-name"):
        DetectorGraph(Detector(small.backbone(), method, name="both"))
    graph = DetectorGraph(Detector(small.backbone(), method, name="lid", class_name="lid"))
    with torch.no_grad():
        wanted = graph.detector(small.pixels(2), class_names=["lid"])[0]
        pixels, *kept = graph.example_inputs(2)
        torch.testing.assert_close(graph(small.pixels(2), *kept)[0], wanted, rtol=0, atol=1e-6)


def test_a_rounded_detector_is_refused():
    rounded = small.detector("clip")
    copy = Detector(small.load_backbone("test-tiny"), rounded.method, name="rounded")
    copy.backbone.set_precision("bf16")
    with pytest.raises(ConfigError, match="at fp32 on the CPU, and rounded is at bf16"):
        DetectorGraph(copy)


class Sums(torch.nn.Module):
    """Half of it depends on no input."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(torch.arange(12.0).view(4, 3))
        self.unused = torch.nn.Parameter(torch.ones(1000))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        rows = self.table[torch.tensor([1, 3])].exp().mean(dim=0) + self.unused.sum()
        return (2 * pixels).relu_() + rows


def test_what_depends_on_no_input_is_computed_once():
    pixels = torch.rand(2, 3)
    program = torch.export.export(Sums(), (pixels,))
    with torch.no_grad():
        folded = fold_constants(program.module(check_guards=False))
        torch.testing.assert_close(folded(pixels), Sums()(pixels), rtol=0, atol=0)
        steps = [node for node in folded.graph.nodes if node.op == "call_function"]
        assert len(steps) == 3, steps
    (constant,) = [node for node in folded.graph.nodes if node.op == "get_attr"]
    assert folded.get_buffer(constant.target).shape == (3,)


class WritesInPlace(torch.nn.Module):
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(3)
        total += 1
        return pixels + total


def test_a_graph_that_writes_over_a_constant_stays_as_it_is():
    pixels = torch.rand(2, 3)
    module = torch.export.export(WritesInPlace(), (pixels,)).module(check_guards=False)
    before = len(module.graph.nodes)
    folded = fold_constants(module)
    assert len(folded.graph.nodes) == before
    for _ in range(2):
        assert torch.equal(folded(pixels), pixels + 1)
