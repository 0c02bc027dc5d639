"""What a user sees of the package: names, help, completion, and docstrings that say it all."""

import copy
import dataclasses
import inspect
import pydoc
import re
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import faprompt
from faprompt.evaluation.saved_progress import ImageScore
from faprompt.exporting.equality_gate import Difference
from faprompt.metrics import MetricResult
from faprompt.records import Region, Sample
from tests.helpers import small

CLASSES = [name for name in faprompt.__all__ if inspect.isclass(getattr(faprompt, name))]
RECORDS = [name for name in CLASSES if dataclasses.is_dataclass(getattr(faprompt, name))]
FUNCTIONS = [name for name in faprompt.__all__ if inspect.isfunction(getattr(faprompt, name))]
DETECTOR = ["predict", "stream", "predict_batch", "__call__", "to", "to_pixels", "save_pretrained"]
METRICS = MetricResult({"image_auroc": 0.9}, {"aupro": "no masks"}, 3, 2)
EXAMPLES = {
    "Region": Region((0, 0, 2, 1), 2, 0.9, 0.8),
    "PredictionSummary": faprompt.PredictionSummary(1, 0, 0, {"OK": 1}, 0.5, Path("results.jsonl")),
    "CalibrationReport": faprompt.CalibrationReport(
        folder=Path("m"), detector=None, products={}, unreadable={"a.png": "empty"}, copies=(),
    ),
    "ExportReport": faprompt.ExportReport(
        folder=Path("m"), format="onnx", precision="fp32", files={"model.onnx": 1},
        difference=Difference(pictures=2), calibration="none", seconds=1.0,
    ),
    "TrainingReport": faprompt.TrainingReport(
        epochs=1, steps=2, resumed_at=0, pictures=4, normal=2, anomalous=2, features="cached",
        encoded=4, image_seconds=1.0, step_seconds=1.0, epoch_means=({"total": 0.5},),
        loss_csv=Path("a"), loss_png=Path("b"), checkpoint=Path("c"),
    ),
    "Evaluation": faprompt.Evaluation(
        dataset="parts", model="m", method="clip", backbone="tiny",
        config=faprompt.EvaluationConfig(), classes={"cup": METRICS}, curves={},
        images=(ImageScore(Sample(Path("a.png"), 1, "cup"), 0.9),), environment={"torch": "2"},
        replicates={"cup": {"image_auroc": np.arange(3.0)}},
    ),
    **{name: getattr(faprompt, name)() for name in RECORDS if name.endswith(("Options", "Config"))},
}  # fmt: skip


class TestRecords:
    def test_every_record_has_an_example(self):
        assert {*EXAMPLES} == {*RECORDS} - {"AnomalyResult"}  # see test_results.py

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_copies_are_equal_and_share_a_hash(self, name):
        first = EXAMPLES[name]
        other = copy.deepcopy(first)
        assert other == first and hash(other) == hash(first) and first != 1

    @pytest.mark.parametrize("name", EXAMPLES)
    def test_the_text_names_the_record_and_prints_no_array(self, name):
        text = repr(EXAMPLES[name])
        assert name in text and "array(" not in text and "\n" not in text and len(text) < 600

    def test_other_values_differ(self):
        found = EXAMPLES["Evaluation"]
        assert dataclasses.replace(found, model="n") != found
        assert dataclasses.replace(found, classes={}) != found
        summary = EXAMPLES["PredictionSummary"]
        assert dataclasses.replace(summary, verdicts={"NG": 1}) != summary

    def test_an_evaluation_shows_its_means(self):
        assert repr(EXAMPLES["Evaluation"]) == (
            "<Evaluation of 'm' on 'parts', 1 pictures in 1 classes: image_auroc=0.9000>"
        )


class TestDocstrings:
    @pytest.mark.parametrize("name", RECORDS)
    def test_of_a_record_describe_every_field(self, name):
        described = _entries(getattr(faprompt, name).__doc__)
        fields = {field.name for field in dataclasses.fields(getattr(faprompt, name))}
        assert fields == described

    @pytest.mark.parametrize("name", ["Detector", *FUNCTIONS])
    def test_of_a_function_describe_every_argument(self, name):
        wanted = {*inspect.signature(getattr(faprompt, name)).parameters}
        assert wanted <= _entries(getattr(faprompt, name).__doc__)

    @pytest.mark.parametrize("name", DETECTOR)
    def test_of_a_detector_describe_its_methods(self, name):
        assert inspect.getdoc(getattr(faprompt.Detector, name)).splitlines()[0].endswith(".")

    @pytest.mark.parametrize("name", [*CLASSES, *FUNCTIONS])
    def test_begin_with_one_sentence(self, name):
        first = inspect.getdoc(getattr(faprompt, name)).splitlines()[0]
        assert first.endswith(".") or first.endswith(":"), first
        assert not first.startswith(f"{name}("), "a dataclass without a docstring of its own"


def _entries(docstring: str) -> set[str]:
    """Return the names described under "Args:" or "Attributes:"."""
    body = re.search(r"(?:Args|Attributes):\n(.*?)(?:\n\n|\Z)", inspect.cleandoc(docstring), re.S)
    heads = re.findall(r"^    (\w[\w, ]*):", body[1], re.M) if body else []
    return {name.strip() for head in heads for name in head.split(",")}


class TestHelp:
    def test_of_the_package_shows_public_names_alone(self):
        text = _help(faprompt)
        for name in faprompt.__all__:
            assert re.search(rf"\b{name}\b", text)
        assert "Methods inherited from torch" not in text and "nn.modules" not in text
        assert text.count("\n") < 1800  # 2450 while a detector was a torch module

    def test_of_a_detector_shows_ours_alone(self):
        text = _help(faprompt.Detector)
        assert "predict(self, image" in text and "register_forward_hook" not in text
        assert text.count("\n") < 300  # 1277 before

    def test_completion_of_the_package(self):
        assert {name for name in dir(faprompt) if not name.startswith("_")} == {*faprompt.__all__}
        assert "__version__" in dir(faprompt)

    def test_completion_of_a_detector(self):
        shown = {name for name in dir(small.detector()) if not name.startswith("_")}
        assert {"predict", "stream", "setup", "method", "backbone", "threshold"} <= shown
        assert not (shown - {"to"}) & {*dir(nn.Module)} and len(shown) < 45

    def test_text_of_a_detector(self):
        assert repr(small.detector()) == "<Detector 'small-faprompt' at 56x56 px, not calibrated>"


def _help(thing) -> str:
    return pydoc.render_doc(thing, renderer=pydoc.plaintext)
