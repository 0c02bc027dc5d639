"""The comparison of two detectors, on a model written by hand: what it sees, what it lets pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from faprompt.errors import ConfigError
from faprompt.exported_detector import ExportedDetector
from faprompt.exporting import graph_files
from faprompt.exporting.check_pictures import MOST_PICTURES, draw_pictures, spread
from faprompt.exporting.equality_gate import (
    Difference,
    measure_difference,
    same_regions,
    token_difference,
)
from faprompt.picture_detector import PictureDetector
from faprompt.records import Region
from tests.helpers import exported as hand
from tests.helpers import small

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def pictures():
    return [small.picture(40 + 10 * n, 70, seed=n) for n in range(5)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return hand.write_folder(tmp_path_factory.mktemp("hand") / "model")


def disturb(folder, by: float):
    """The same folder with the weights of the patches made larger by a share."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(folder / "model.onnx")
    for weights in model.graph.initializer:
        if weights.name == "patches":
            values = numpy_helper.to_array(weights) * np.float32(1 + by)
            weights.CopyFrom(numpy_helper.from_array(values, "patches"))
    return model.SerializeToString()


def changed(tmp_path, content: bytes) -> ExportedDetector:
    import json

    folder = hand.write_folder(tmp_path / "changed")
    (folder / "model.onnx").write_bytes(content)
    config = hand.config({"model.onnx": content})
    (folder / "config.json").write_text(json.dumps(config))
    return ExportedDetector(folder)


def test_a_faithful_export_differs_by_rounding_only(folder, pictures):
    steps = []
    found = measure_difference(
        hand.HandMade(), ExportedDetector(folder), pictures, tolerance=1e-4,
        progress=lambda *step: steps.append(step),
    )  # fmt: skip
    assert found.pictures == 5 and found.batches == (1, 4) and found.within
    assert 0 < found.largest < 1e-5 and (found.verdicts, found.regions) == (0, 0)
    assert steps[-1] == ("compare", 10, 10) and found.machine
    assert set(found.to_dict()) == {
        "pictures", "batches", "score", "map", "tokens", "verdicts", "regions", "tolerance",
        "machine",
    }  # fmt: skip


def test_weights_disturbed_by_one_percent_are_seen(folder, pictures, tmp_path):
    broken = changed(tmp_path, disturb(folder, 0.01))
    found = measure_difference(hand.HandMade(), broken, pictures, tolerance=1e-4)
    assert not found.within and found.score > 1e-3 and found.map > 1e-3
    assert found.worst.startswith(("drawn picture", "picture"))
    rival = hand.HandMade()
    scores = [abs(rival.predict(one).score - broken.predict(one).score) for one in pictures]
    assert found.score >= max(scores) > 0.5 * found.score


def test_another_resize_is_seen(folder, pictures):
    other = ExportedDetector(folder)
    transform = replace(other.geometry.transform, interpolation="bilinear")
    other._geometry = replace(other.geometry, transform=transform)
    assert not measure_difference(hand.HandMade(), other, pictures, tolerance=1e-4).within


def test_another_smoothing_is_seen_on_the_map_alone(folder, pictures):
    other = ExportedDetector(folder)
    other._geometry = replace(other.geometry, sigma_px=2.5)
    found = measure_difference(hand.HandMade(), other, pictures, tolerance=1e-4)
    assert found.score < 1e-6 < 1e-3 < found.map and not found.within


class Changed(hand.HandMade):
    """The rival with one fault that pictures without a mask do not show."""

    fault = ""

    def run_model(self, pixels, *, masks, **options):
        masks = [None] * len(masks) if self.fault == "masks" else masks
        return super().run_model(pixels, masks=masks, **options)

    def encode_picture(self, pixels):
        found = super().encode_picture(pixels)
        if self.fault != "tokens":
            return found
        return replace(found, patch_tokens={k: t[::-1] for k, t in found.patch_tokens.items()})


@pytest.mark.parametrize(("fault", "seen"), [("masks", "map"), ("tokens", "tokens")])
def test_masks_and_tokens_are_compared_too(pictures, monkeypatch, fault, seen):
    monkeypatch.setattr(Changed, "fault", fault)
    found = measure_difference(hand.HandMade(), Changed(), pictures, tolerance=1e-4)
    assert getattr(found, seen) > 1e-2 and not found.within


class Louder(hand.HandMade):
    by = 0.0

    def run_model(self, pixels, **options):
        found = super().run_model(pixels, **options)
        return replace(found, score=found.score + self.by, patch_map=found.patch_map + self.by)


def test_verdicts_and_regions_that_change_are_counted(pictures, monkeypatch):
    rival = hand.HandMade()
    scores = sorted(rival.predict(one).score for one in pictures)
    monkeypatch.setattr(hand.HandMade, "threshold", (scores[1] + scores[2]) / 2)
    monkeypatch.setattr(Louder, "by", scores[2] - scores[1])
    found = measure_difference(hand.HandMade(), Louder(), pictures, tolerance=1.0)
    wanted = sum(
        hand.HandMade().predict(one).verdict != Louder().predict(one).verdict for one in pictures
    )
    assert found.within and found.verdicts >= wanted >= 1 and found.regions >= 1


def test_a_score_at_the_threshold_has_no_certain_verdict(pictures, monkeypatch):
    monkeypatch.setattr(hand.HandMade, "threshold", hand.HandMade().predict(pictures[0]).score)
    monkeypatch.setattr(Louder, "by", -1e-7)
    found = measure_difference(hand.HandMade(), Louder(), pictures[:1], tolerance=1e-4)
    assert found.verdicts == 0


def test_a_difference_that_is_no_number_is_no_pass():
    assert not Difference(pictures=1, score=float("nan"), tolerance=1.0).within
    assert Difference(pictures=1, score=1e-4, map=1e-4, tokens=1e-4, tolerance=1e-4).within
    assert not Difference(pictures=1, map=1.01e-4, tolerance=1e-4).within


def test_boxes_may_shift_by_two_pixels():
    one = Region(bbox=(10, 10, 30, 30), area_px=300, peak=0.9, mean=0.8)
    near, far = replace(one, bbox=(11, 9, 32, 30)), replace(one, bbox=(13, 10, 30, 30))
    other = replace(one, bbox=(50, 50, 60, 60))
    assert same_regions([], []) and same_regions([one, other], [other, near])
    assert not same_regions([one], [far]) and not same_regions([one], [])


def test_tokens_that_point_elsewhere_have_half_their_cosine_distance():
    image = small.picture()
    assert token_difference(hand.HandMade(), hand.HandMade(), image) < 1e-6

    class Turned(hand.HandMade):
        def encode_picture(self, pixels):
            found = super().encode_picture(pixels)
            return replace(found, patch_tokens={k: -t for k, t in found.patch_tokens.items()})

    assert token_difference(hand.HandMade(), Turned(), image) == pytest.approx(1.0, abs=1e-6)


def test_drawn_pictures_are_always_the_same_and_of_several_shapes():
    first = draw_pictures()
    assert len({each.shape for each in first}) >= 4 and all(each.std() > 5 for each in first)
    assert all(np.array_equal(*pair) for pair in zip(first, draw_pictures(), strict=True))


def test_a_large_folder_is_compared_on_pictures_evenly_spread():
    few = [f"{n}.png" for n in range(3)]
    assert spread(few) == [Path(name) for name in few]
    many = spread([f"{n}.png" for n in range(1000)])
    steps = np.diff([int(path.stem) for path in many])
    assert len(many) == MOST_PICTURES and many[0].name == "0.png" and set(steps) <= {15, 16}
    with pytest.raises(ConfigError, match="There is no picture to compare"):
        spread([])


class TestFiles:
    """fp16, int8 and OpenVINO from the graph written by hand."""

    def test_half_weights_are_half_the_size_and_compute_in_single(self, pictures, tmp_path):
        import onnx_ir as ir

        source = tmp_path / "source.onnx"
        source.write_bytes(hand.graph())
        model = ir.load(source)
        names = set(model.graph.initializers)
        graph_files.store_half(model)
        ir.save(model, tmp_path / "half.onnx")
        stored = {v.const_value.dtype for v in model.graph.initializers.values()}
        assert ir.DataType.FLOAT16 in stored and "patches_half" in set(model.graph.initializers)
        assert {"abnormal", "grid"} <= names & set(model.graph.initializers), "small ones stay"
        found = changed(tmp_path, (tmp_path / "half.onnx").read_bytes())
        difference = measure_difference(hand.HandMade(), found, pictures, tolerance=5e-3)
        assert 1e-6 < difference.map < 1e-3

    def test_values_that_float16_does_not_hold_stay(self, tmp_path):
        import onnx_ir as ir

        source = tmp_path / "source.onnx"
        source.write_bytes(hand.graph())
        model = ir.load(source)
        value = model.graph.initializers["patches"]
        value.const_value = ir.tensor(np.full(value.shape.numpy(), 1e5, np.float32))
        graph_files.store_half(model)
        assert "patches" in model.graph.initializers

    def test_int8_multiplies_small_numbers(self, pictures, tmp_path):
        source = tmp_path / "source.onnx"
        source.write_bytes(hand.graph())
        graph_files.quantize(source, tmp_path / "small.onnx")
        found = changed(tmp_path, (tmp_path / "small.onnx").read_bytes())
        difference = measure_difference(hand.HandMade(), found, pictures, tolerance=0.05)
        assert 1e-5 < difference.score < 0.02

    def test_int8_without_a_matrix_product_is_refused(self, tmp_path):
        import onnx

        model = onnx.load_from_string(hand.graph())
        rows = [node for node in model.graph.node if node.op_type == "MatMul"]
        for node in rows:
            node.op_type = "Add"
        onnx.save(model, tmp_path / "source.onnx")
        with pytest.raises(ConfigError, match="int8 has nothing to quantise here"):
            graph_files.quantize(tmp_path / "source.onnx", tmp_path / "small.onnx")

    @pytest.mark.parametrize("half", [False, True])
    def test_openvino_reads_it(self, pictures, tmp_path, half):
        pytest.importorskip("openvino")
        import json

        source = tmp_path / "source.onnx"
        source.write_bytes(hand.graph())
        folder = tmp_path / "open"
        folder.mkdir()
        graph_files._write_openvino(source, folder / "model.xml", half=half)
        files = {name: (folder / name).read_bytes() for name in ("model.xml", "model.bin")}
        config = hand.config(
            files, format="openvino", precision="fp16" if half else "fp32",
            runtime={"name": "openvino", "version": "0", "hints": graph_files.HINTS["openvino"]},
        )  # fmt: skip
        (folder / "config.json").write_text(json.dumps(config))
        found = measure_difference(
            hand.HandMade(), ExportedDetector(folder), pictures, tolerance=1e-4
        )
        assert found.largest < (1e-3 if half else 1e-5)


def test_the_rival_is_a_picture_detector():
    assert isinstance(hand.HandMade(), PictureDetector)
