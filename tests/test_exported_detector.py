"""Exported folders against the same model in numpy: results, setups, files and refusals."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from faprompt.data.known_readers import read_dataset
from faprompt.errors import ConfigError, ModelError
from faprompt.evaluation import EvaluationConfig, evaluate
from faprompt.exported_detector import ExportedDetector, load_exported, read_export
from faprompt.inspection import CalibrateOptions, calibrate
from faprompt.models import load_detector, require_torch
from faprompt.prediction import PredictOptions, predict_files, read_rows
from faprompt.references import ReferenceBank, References
from tests.helpers import exported, small

pytest.importorskip("onnx", reason="the graph is written by onnx")
pytest.importorskip("onnxruntime", reason="the graph is run by onnxruntime")

MASK = np.zeros((60, 80), np.bool_)
MASK[:35, 30:] = True


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return exported.write_folder(tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture(scope="module")
def detector(folder):
    return ExportedDetector(folder)


@pytest.fixture(scope="module")
def rival():
    return exported.HandMade()


def assert_close(found, wanted):
    assert found.score == pytest.approx(wanted.score, abs=1e-6)
    np.testing.assert_allclose(found.score_map, wanted.score_map, rtol=0, atol=2e-6)
    assert (found.verdict, found.image_size) == (wanted.verdict, wanted.image_size)
    assert [r.bbox for r in found.regions] == [r.bbox for r in wanted.regions]
    if wanted.prompt_scores is not None:
        np.testing.assert_allclose(found.prompt_scores, wanted.prompt_scores, atol=1e-6)


def memory(detector, **options):
    kept = {str(n): detector.reference_tokens(small.picture(seed=n), **options) for n in (5, 6)}
    return References({"": ReferenceBank.of(kept)})


class TestResults:
    @pytest.mark.parametrize(
        "setup",
        [{}, {"mask": MASK}, {"tiles": 2}, {"tiles": 2, "mask": MASK}],
        ids=["plain", "mask", "tiles", "tiles and mask"],
    )
    @pytest.mark.parametrize("with_references", [False, True])
    def test_they_are_the_rivals(self, detector, rival, setup, with_references):
        ours, theirs = detector.with_setup(**setup), rival.with_setup(**setup)
        if with_references:
            ours = ours.with_setup(references=memory(detector))
            theirs = theirs.with_setup(references=memory(rival))
        for seed in range(3):
            image = small.picture(seed=seed)
            assert_close(*(d.predict(image, with_prompt_scores=True) for d in (ours, theirs)))

    def test_alone_equals_in_a_batch_and_many_threads_may_ask(self, detector):
        images = [small.picture(seed=seed) for seed in range(6)]
        alone = [detector.predict(image) for image in images]
        for found, wanted in zip(detector.stream(images, batch_size=4), alone, strict=True):
            assert_close(found, wanted)
        with ThreadPoolExecutor(4) as pool:
            for found, wanted in zip(pool.map(detector.predict, images), alone, strict=True):
                assert_close(found, wanted)

    def test_masked_pixels_change_nothing_to_the_bit(self, detector):
        image = small.picture()
        changed = image.copy()
        changed[MASK] = 255 - image[MASK]
        first, second = (detector.with_setup(mask=MASK).predict(each) for each in (image, changed))
        assert first.score == second.score
        np.testing.assert_array_equal(first.score_map, second.score_map)
        assert not first.score_map[MASK].any()

    def test_without_prompt_scores_the_score_is_the_only_one(self, tmp_path):
        outputs = ["score", "patch_map"]
        made = ExportedDetector(exported.write_folder(tmp_path, outputs=outputs))
        found = made.predict(small.picture(), with_prompt_scores=True)
        assert found.prompt_scores == (found.score,)
        with pytest.raises(ConfigError, match="exported without its tokens"):
            made.image_feature(small.picture())

    def test_openvino_gives_the_same(self, folder, tmp_path, rival):
        openvino = pytest.importorskip("openvino")
        target = tmp_path / "openvino"
        target.mkdir()
        model = openvino.convert_model(folder / "model.onnx")
        openvino.save_model(model, target / "model.xml", compress_to_fp16=False)
        files = {name: (target / name).read_bytes() for name in ("model.xml", "model.bin")}
        hints = {"INFERENCE_PRECISION_HINT": "f32"}
        runtime = {"name": "openvino", "version": openvino.__version__, "hints": hints}
        values = exported.config(files, format="openvino", runtime=runtime)
        (target / "config.json").write_text(json.dumps(values))
        made = load_detector(target)
        assert made.decided_by()["runtime"] == "openvino fp32"
        images = [small.picture(seed=seed) for seed in range(3)]
        with ThreadPoolExecutor(3) as pool:
            for found, image in zip(pool.map(made.predict, images), images, strict=True):
                assert_close(found, rival.predict(image))


def write_pictures(folder, count=24):
    return [str(small.picture_file(folder / f"{n}.png", seed=n)) for n in range(count)]


class TestCalibration:
    RATES = {"target_fpr": 0.1, "review_fpr": 0.2}

    def test_it_is_calibrated_saved_and_loaded_like_any_detector(
        self, detector, rival, folder, tmp_path
    ):
        paths = write_pictures(tmp_path / "good")
        options = CalibrateOptions(references=2, **self.RATES)
        report = calibrate(detector, paths, tmp_path / "calibrated", options)
        found = load_detector(tmp_path / "calibrated")
        kept, wanted = found.setup.calibration, report.detector.setup.calibration
        assert kept.fingerprint == wanted.fingerprint == detector_fingerprint(found)
        assert len(found.setup.references.bank("").names) == 2
        theirs = rival.with_setup(references=found.setup.references)
        for seed in (40, 41):
            image = small.picture(seed=seed)
            ours = found.predict(image)
            assert ours.score == pytest.approx(theirs.predict(image).score, abs=1e-6)
            assert ours.p_value == pytest.approx(
                (1 + (kept.products[""].scores >= ours.score).sum()) / (len(kept.products[""]) + 1)
            )
        for name in ("model.onnx", "README.md"):
            assert (tmp_path / "calibrated" / name).read_bytes() == (folder / name).read_bytes()

    def test_rates_and_threshold_can_be_changed_and_saved_in_place(self, detector, tmp_path):
        paths = write_pictures(tmp_path / "good")
        model = tmp_path / "model"
        made = calibrate(detector, paths, model, CalibrateOptions(**self.RATES)).detector
        looser = made.setup.calibration.with_rates(target_fpr=0.4)
        loaded = load_detector(model).with_setup(calibration=looser)
        loaded.threshold = 0.25
        loaded.save_pretrained(model)
        again = load_detector(model)
        assert (again.threshold, again.setup.calibration.target_fpr) == (0.25, 0.4)
        assert again.predict(paths[0]).threshold == looser.limits().threshold

    def test_another_file_or_setting_does_not_keep_the_calibration(self, detector, tmp_path):
        paths = write_pictures(tmp_path / "good")
        made = calibrate(detector, paths, tmp_path / "model", CalibrateOptions(**self.RATES))
        with pytest.raises(ModelError, match="tiles was off and is 2"):
            made.detector.with_setup(tiles=2)
        values = json.loads((tmp_path / "model" / "config.json").read_text())
        values["export"]["sigma_px"] = 3.0
        (tmp_path / "model" / "config.json").write_text(json.dumps(values))
        with pytest.raises(ModelError, match="maps was .* and is .*calibrate again"):
            load_detector(tmp_path / "model")

    def test_settings_without_a_calibration_are_not_saved(self, detector, tmp_path):
        with pytest.raises(ConfigError, match="only with a calibration"):
            detector.with_setup(tiles=2).save_pretrained(tmp_path / "model")


def detector_fingerprint(detector):
    return detector.fingerprint()


class TestWorkflows:
    def test_evaluation_measures_what_predict_gives(self, detector, tmp_path):
        for kind, seeds in (("good", (0, 1, 2)), ("bad", (3, 4, 5))):
            for seed in seeds:
                small.picture_file(tmp_path / "set" / kind / f"{seed}.png", seed=seed)
        dataset = read_dataset(tmp_path / "set")
        found = evaluate(detector, dataset, EvaluationConfig())
        wanted = [detector.predict(str(i.sample.image_path)).score for i in found.images]
        np.testing.assert_allclose([i.score for i in found.images], wanted, atol=1e-6)
        assert (found.method, found.backbone) == ("hand", "none")
        assert found.environment["precision"] == "fp32" and "onnxruntime" in found.environment

    def test_maps_at_the_models_size_are_those_of_square_pictures(self, detector):
        image = np.asarray(Image.fromarray(small.picture()).resize((28, 28)))
        ((score, score_map),) = detector.model_maps([image])
        result = detector.predict(image)
        assert score == result.score
        np.testing.assert_array_equal(score_map, result.score_map)

    def test_bulk_prediction_writes_the_same_files(self, detector, rival, tmp_path):
        paths = write_pictures(tmp_path / "in", 5)
        for name, one in (("ours", detector), ("theirs", rival)):
            predict_files(one, paths, tmp_path / name, PredictOptions(maps="npy"))
        rows = zip(*(read_rows(tmp_path / n / "results.jsonl") for n in ("ours", "theirs")),
                   strict=True)  # fmt: skip
        for ours, theirs in rows:
            assert ours.score == pytest.approx(theirs.score, abs=1e-6)
            assert (ours.verdict, ours.map, ours.overlay) == (
                theirs.verdict, theirs.map, theirs.overlay,
            )  # fmt: skip
        assert (tmp_path / "ours" / "report.html").is_file()


class TestRefusals:
    def test_what_torch_alone_can_do_says_so(self, detector):
        for ask, told in (
            (lambda: detector.explain(small.picture()), "cannot be taken apart"),
            (lambda: detector.to("cuda"), "cannot move to another device"),
            (lambda: detector(small.pixels()), "takes pictures, no tensors"),
            (lambda: require_torch(detector), "one that torch runs"),
        ):
            with pytest.raises(ConfigError, match=f"{told}.*model folder"):
                ask()

    @pytest.mark.parametrize(
        "options", [{"device": "cuda"}, {"precision": "bf16"}, {"class_name": "nut"}]
    )
    def test_options_can_only_confirm(self, folder, options):
        load_exported(folder, device="cpu", precision="fp32")
        (name,) = options
        with pytest.raises(ConfigError, match=f"exported model .* got {name}="):
            load_detector(folder, **options)

    def test_a_backbone_is_refused(self, folder):
        with pytest.raises(ConfigError, match="leave the backbone out"):
            load_detector(folder, backbone="tiny")

    def test_another_class_than_the_exported_one_is_refused(self, tmp_path):
        made = ExportedDetector(exported.write_folder(tmp_path, class_names=["nut"]))
        assert made.class_name == "nut"
        made.predict_batch([small.picture()], class_names=["nut"])
        with pytest.raises(ConfigError, match="exported for the class nut, got cap"):
            made.predict_batch([small.picture()], class_names=["cap"])

    def test_a_picture_that_the_graph_does_not_fit_is_refused(self, tmp_path):
        made = ExportedDetector(exported.write_folder(tmp_path, keeps_aspect=True))
        made.predict(small.picture(50, 50))
        with pytest.raises(ConfigError, match=r"sees at 28x28 .* got 28x37: it keeps the aspect"):
            made.predict(small.picture(60, 80))

    def test_references_need_tokens(self, tmp_path):
        outputs = ["score", "patch_map", "class_token"]
        made = ExportedDetector(exported.write_folder(tmp_path, outputs=outputs))
        with pytest.raises(ConfigError, match="no patch tokens"):
            made.reference_tokens(small.picture())

    @pytest.mark.parametrize("name", ["model.onnx", "config.json"])
    def test_a_missing_file_is_told(self, folder, tmp_path, name):
        shutil.copytree(folder, tmp_path / "copy")
        (tmp_path / "copy" / name).unlink()
        with pytest.raises(ModelError, match="is not an exported folder"):
            ExportedDetector(tmp_path / "copy")

    def test_a_changed_file_is_refused(self, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "copy")
        content = bytearray((folder / "model.onnx").read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "copy" / "model.onnx").write_bytes(content)
        with pytest.raises(ModelError, match="changed after the export"):
            ExportedDetector(tmp_path / "copy")

    def test_a_graph_that_cannot_be_loaded_is_told(self, folder, tmp_path):
        (tmp_path / "model.onnx").write_bytes(b"no graph")
        values = exported.config({"model.onnx": b"no graph"})
        (tmp_path / "config.json").write_text(json.dumps(values))
        with pytest.raises(ModelError, match="cannot be loaded by onnxruntime"):
            ExportedDetector(tmp_path)

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"format": "tensorrt"}, "format: 'tensorrt' is none of onnx, openvino"),
            ({"precision": "bf16"}, "precision"),
            ({"files": {"../x": "0" * 64}}, "files should be model.onnx"),
            ({"files": {"model.onnx": "0"}}, "SHA-256"),
            ({"files": 3}, "files should be"),
            ({"inputs": ["kept"]}, "inputs should be pixels"),
            ({"inputs": ["pixels", "text"]}, "inputs should be pixels"),
            ({"outputs": ["score"]}, "outputs lack patch_map"),
            ({"grid": [4]}, "grid should be rows and columns"),
            ({"grid": [4, 0]}, "grid should be rows and columns"),
            ({"runtime": {}}, "runtime should have"),
            ({"sigma_px": "wide"}, "sigma_px"),
            ({"new": 1}, "unknown option 'new'"),
        ],
    )
    def test_a_damaged_record_is_told(self, folder, tmp_path, changes, told):
        shutil.copytree(folder, tmp_path / "copy")
        values = json.loads((folder / "config.json").read_text())
        values["export"] |= changes
        (tmp_path / "copy" / "config.json").write_text(json.dumps(values))
        with pytest.raises(ModelError, match=told):
            read_export(tmp_path / "copy")

    def test_a_model_folder_without_its_record_is_told(self, folder, tmp_path):
        shutil.copytree(folder, tmp_path / "copy")
        values = json.loads((folder / "config.json").read_text())
        del values["export"]
        (tmp_path / "copy" / "config.json").write_text(json.dumps(values))
        with pytest.raises(ModelError, match="has no entry 'export'"):
            ExportedDetector(tmp_path / "copy")
