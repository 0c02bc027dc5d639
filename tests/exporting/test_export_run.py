"""A whole export: folder, report, refusals, calibration; FAPrompt's graph is traced once."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import faprompt
from faprompt.cli.main import app
from faprompt.detector import Detector
from faprompt.errors import ConfigError, MissingExtraError, ModelError
from faprompt.exported_detector import ExportedDetector
from faprompt.exporting import ExportOptions, export, export_run, graph_files
from faprompt.exporting.check_pictures import draw_pictures
from faprompt.inspection import CalibrateOptions, calibrate, change_rates
from faprompt.methods.registry import build_method
from faprompt.models import load_detector
from tests.exporting.exported_graphs import SavedProgram, assert_equals_torch, detector, save_graph
from tests.helpers import small

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory):
    """FAPrompt's graph as a file."""
    return save_graph(tmp_path_factory.mktemp("graph"), detector())


@pytest.fixture
def traced(graph_file, monkeypatch):
    """Exports of FAPrompt read this file and trace nothing."""
    monkeypatch.setattr(graph_files, "to_onnx", lambda graph: SavedProgram(graph_file))
    return graph_file


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """Paths of three pictures to compare on."""
    folder = tmp_path_factory.mktemp("check")
    return tuple(
        small.picture_file(folder / f"{n}.png", height=50 + 9 * n, seed=n) for n in range(3)
    )


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    return [small.picture_file(folder / f"{n}.png", seed=100 + n) for n in range(12)]


@pytest.fixture(scope="module")
def calibrated(good, tmp_path_factory):
    """FAPrompt with a reference and thresholds from 9 pictures or more."""
    options = CalibrateOptions(target_fpr=0.15, review_fpr=0.3, references=1, tiles=2)
    return calibrate(detector(), good, tmp_path_factory.mktemp("calibrated"), options).detector


def test_the_graph_gives_the_numbers_of_torch(graph_file):
    assert_equals_torch(detector(), graph_file)


def test_the_file_names_no_place_of_this_machine(graph_file):
    content = graph_file.read_bytes()
    assert b"site-packages" not in content and b".py" not in content


def test_an_exported_folder_is_taken_like_a_model_folder(traced, check, tmp_path):
    report = export(detector(), tmp_path / "out", ExportOptions(check=check))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model.onnx", "config.json", "README.md", ".faprompt.lock",
    }  # fmt: skip
    found = report.difference
    assert found.pictures == 3 and found.within and 0 < found.largest < 1e-5
    assert report.calibration == "none" and report.files["model.onnx"] > 1e5
    printed = str(report)
    assert "onnx fp32" in printed and "3 pictures in batches of 1 and 4" in printed
    loaded = load_detector(tmp_path / "out")
    assert isinstance(loaded, ExportedDetector) and loaded.name == detector().name
    recorded = json.loads((tmp_path / "out" / "config.json").read_text())["export"]
    assert recorded["difference"] == found.to_dict() == report.to_dict()["difference"]
    assert recorded["torch"] == torch.__version__ and recorded["class_names"] is None
    for picture in draw_pictures()[:3]:
        one, other = detector().predict(picture), loaded.predict(picture, with_prompt_scores=True)
        assert one.score == pytest.approx(other.score, abs=1e-5)
        np.testing.assert_allclose(one.score_map, other.score_map, rtol=0, atol=1e-5)
        assert len(other.prompt_scores) == 10
    again = export(detector(), tmp_path / "out")  # in place of the first, on drawn pictures
    assert again.difference.pictures == 9 and again.difference.within


class Disturbed(SavedProgram):
    """Weights one percent larger."""

    def save(self, path, *, external_data=False):
        import onnx_ir as ir

        for value in self.model.graph.initializers.values():
            weights = value.const_value.numpy()
            if weights.dtype == np.float32 and weights.size > 1000:
                value.const_value = ir.tensor(weights * np.float32(1.01), name=value.name)
        super().save(path, external_data=external_data)


def test_a_graph_with_disturbed_weights_is_refused_and_nothing_is_written(
    traced, check, tmp_path, monkeypatch
):
    monkeypatch.setattr(graph_files, "to_onnx", lambda graph: Disturbed(traced))
    told = r"onnx fp32 gives other results than torch.*\(tolerance 0.0001\).*Nothing was written"
    with pytest.raises(ModelError, match=told):
        export(detector(), tmp_path / "out", ExportOptions(check=check))
    assert not (tmp_path / "out").exists()


def test_another_resize_is_refused_and_the_folder_stays(traced, check, tmp_path, monkeypatch):
    options = ExportOptions(check=check)
    export(detector(), tmp_path / "out", options)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    write = export_run._write_config

    def write_other(folder, original, record):
        write(folder, original, record)
        path = folder / "config.json"
        path.write_text(path.read_text().replace('"bicubic"', '"bilinear"'))

    monkeypatch.setattr(export_run, "_write_config", write_other)
    with pytest.raises(ModelError, match="gives other results than torch"):
        export(detector(), tmp_path / "out", options)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def test_openvino_computes_in_float32_because_it_is_told_to(traced, check, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    options = ExportOptions(format="openvino", check=check)
    try:
        report = export(detector(), tmp_path / "out", options)
    except ModelError as error:
        if "bad combination" not in str(error):
            raise
        pytest.skip("OpenVINO does not start where it is held to the oldest instructions")
    assert report.difference.largest < 1e-4 and set(report.files) == {"model.xml", "model.bin"}
    recorded = json.loads((tmp_path / "out" / "config.json").read_text())["export"]
    assert recorded["runtime"]["hints"] == {"INFERENCE_PRECISION_HINT": "f32"}
    loaded = load_detector(tmp_path / "out")
    assert loaded.identity.runtime[0] == "openvino"
    hints = {"onnx": {}, "openvino": {}}
    monkeypatch.setattr(export_run, "HINTS", hints)
    try:
        export(detector(), tmp_path / "other", options)
    except ModelError as error:
        assert "openvino fp32 gives other results than torch" in str(error)
    else:
        pytest.skip("this processor has no bf16 units, so OpenVINO computes in float32 anyway")


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.62), ("int8", 0.75)])
def test_smaller_precisions(traced, check, tmp_path, precision, share):
    report = export(detector(), tmp_path / "out", ExportOptions(precision=precision, check=check))
    assert report.files["model.onnx"] < share * traced.stat().st_size
    found = report.difference
    assert 1e-7 < found.score <= found.tolerance == {"fp16": 5e-3, "int8": 5e-2}[precision]
    assert load_detector(tmp_path / "out").identity.precision == precision
    strict = ExportOptions(precision=precision, check=check, tolerance=1e-7)
    with pytest.raises(ModelError, match="Take fp32, or a larger --tolerance"):
        export(detector(), tmp_path / "strict", strict)


def test_weights_of_a_large_model_lie_in_a_file_of_their_own(traced, check, tmp_path, monkeypatch):
    monkeypatch.setattr(graph_files, "EXTERNAL_BYTES", 100_000)
    for precision in ("fp32", "int8"):
        folder = tmp_path / precision
        report = export(detector(), folder, ExportOptions(precision=precision, check=check))
        assert set(report.files) == {"model.onnx", "model.onnx.data"}
        assert report.files["model.onnx"] < 0.5 * report.files["model.onnx.data"]
        assert load_detector(folder).predict(check[0]).score > 0


class TestCalibrated:
    def test_verdicts_thresholds_and_references_are_carried_over(
        self, traced, calibrated, good, tmp_path
    ):
        report = export(calibrated, tmp_path / "out", ExportOptions(check=tuple(good)))
        assert report.calibration == "carried over" and report.difference.verdicts == 0
        loaded = load_detector(tmp_path / "out")
        assert loaded.setup.tiles == 2 and loaded.setup.references is not None
        ours, theirs = calibrated.setup.calibration, loaded.setup.calibration
        assert ours.decided_by["weights"] and theirs.decided_by["runtime"] == "onnx fp32"
        assert theirs.fingerprint == loaded.fingerprint() != ours.fingerprint
        assert theirs.limits("") == ours.limits("")
        for picture in draw_pictures()[:3]:
            one, other = calibrated.predict(picture), loaded.predict(picture)
            assert (one.verdict, one.threshold) == (other.verdict, other.threshold)
            assert one.p_value == pytest.approx(other.p_value, abs=0.1)
            np.testing.assert_allclose(one.score_map, other.score_map, rtol=0, atol=1e-5)
        change_rates(tmp_path / "out", target_fpr=0.25)
        assert load_detector(tmp_path / "out").setup.calibration.target_fpr == 0.25

    def test_scores_that_moved_leave_it_out_and_say_so(
        self, traced, calibrated, good, tmp_path, caplog
    ):
        options = ExportOptions(precision="int8", check=tuple(good), tolerance=0.5)
        with caplog.at_level(logging.WARNING, "faprompt"):
            report = export(calibrated, tmp_path / "out", options)
        assert "run `faprompt calibrate` with the exported folder" in report.calibration
        assert "the calibration was left out" in caplog.text
        loaded = load_detector(tmp_path / "out")
        assert loaded.setup.calibration is None and loaded.setup.references is None
        again = calibrate(
            loaded, good, tmp_path / "again", CalibrateOptions(target_fpr=0.15, review_fpr=0.3)
        )
        found = load_detector(tmp_path / "again")
        assert found.setup.calibration.decided_by["runtime"] == "onnx int8"
        assert found.predict(good[0]).verdict == again.detector.predict(good[0]).verdict

    def test_a_mask_is_carried_over(self, traced, good, tmp_path):
        mask = np.zeros((60, 80), np.bool_)
        mask[:20] = True
        masked = detector().with_setup(mask=mask)
        with pytest.raises(ConfigError, match="only with a calibration"):
            export(masked, tmp_path / "out")
        with pytest.raises(ConfigError, match="only with a calibration"):
            export(detector().with_setup(tiles="auto"), tmp_path / "out")


class TestRefusals:
    def test_openvino_has_no_int8(self, tmp_path):
        with pytest.raises(ConfigError, match="int8 is not offered for openvino.*NNCF"):
            export(detector(), tmp_path / "a", ExportOptions(format="openvino", precision="int8"))

    def test_openvino_does_not_take_windows(self, tmp_path):
        method = build_method("winclip", small.backbone(), {"image_size": small.SIDE})
        windows = Detector(small.backbone(), method.eval(), name="windows")
        with pytest.raises(ConfigError, match="openvino is not offered for windows.*format onnx"):
            export(windows, tmp_path / "a", ExportOptions(format="openvino"))

    def test_a_folder_with_other_files_is_left_alone(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(ConfigError, match="holds notes.txt and is no exported folder"):
            export(detector(), tmp_path)
        assert (tmp_path / "notes.txt").read_text() == "mine"

    def test_the_draft_of_a_broken_run_is_removed(self, traced, check, tmp_path):
        (tmp_path / "out" / ".export-abc").mkdir(parents=True)
        (tmp_path / "out" / ".export-abc" / "model.onnx").write_bytes(b"half")
        export(detector(), tmp_path / "out", ExportOptions(check=check))
        assert not (tmp_path / "out" / ".export-abc").exists()

    def test_an_exported_detector_is_not_exported_again(self, traced, check, tmp_path):
        export(detector(), tmp_path / "out", ExportOptions(check=check))
        with pytest.raises(ConfigError, match="needs one that torch runs"):
            export(load_detector(tmp_path / "out"), tmp_path / "again")

    def test_options_out_of_range(self):
        for wrong in ({"format": "tflite"}, {"precision": "bf16"}, {"tolerance": 0.0}):
            with pytest.raises(ValueError, match=f"{next(iter(wrong))} should be"):
                ExportOptions(**wrong)
        assert ExportOptions().allowed == 1e-4 and ExportOptions(tolerance=0.01).allowed == 0.01

    def test_a_missing_package_is_named(self, tmp_path, monkeypatch):
        import sys

        monkeypatch.setitem(sys.modules, "onnxscript", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'faprompt\[onnx\]'"):
            export(detector(), tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestCommand:
    def test_it_prints_the_comparison(self, traced, check, tmp_path, monkeypatch):
        detector().save_pretrained(tmp_path / "model")
        out = tmp_path / "out"
        names = [str(tmp_path / "model"), "--out", str(out), "--check", str(check[0].parent)]
        done = CliRunner().invoke(app, ["export", *names])
        assert done.exit_code == 0, done.output
        assert "compared with torch on 3 pictures" in done.output and (out / "model.onnx").is_file()
        done = CliRunner().invoke(app, ["export", *names, "--json"])
        assert json.loads(done.stdout)["difference"]["pictures"] == 3

    def test_a_tolerance_out_of_range_is_named(self, tmp_path):
        done = CliRunner().invoke(app, ["export", "tiny", "--tolerance", "0"])
        assert isinstance(done.exception, ConfigError)
        assert "tolerance should be" in str(done.exception)

    def test_it_is_public(self):
        assert faprompt.export is export and faprompt.ExportOptions is ExportOptions
