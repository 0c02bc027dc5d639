"""The scripts in examples/ do what they say; a camera and a line stand in for real ones."""

import importlib.util
import queue
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest

from faprompt.bulk import BulkScorer
from faprompt.prediction import PredictOptions, predict_files
from tests.helpers import small
from tests.helpers.service import calibrated, running

FOLDER = Path(__file__).parents[2] / "examples"
SCRIPTS = sorted(FOLDER.glob("*.py"))
WOOD = FOLDER / "lot" / "wood"


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_is_short_and_says_how_to_run_it(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    assert text.startswith('"""') and ("__main__" not in text or f"examples/{path.name}" in text)


def test_there_are_no_others():
    """A new script needs a test here."""
    assert [path.stem for path in SCRIPTS] == [
        "camera_loop", "line_queue", "ray_data", "results_in_pandas", "service_client",
        "shared_threads",
    ]  # fmt: skip


class Camera:
    """Gives pictures as OpenCV does: blue, green, red; then nothing."""

    def __init__(self, rgb):
        self.frames, self.released = [np.ascontiguousarray(each[..., ::-1]) for each in rgb], False

    def read(self):
        return (True, self.frames.pop(0)) if self.frames else (False, None)

    def release(self):
        self.released = True


class TestCamera:
    def test_frames_are_judged_in_rgb(self):
        pictures = [small.picture(seed=seed) for seed in range(3)]
        detector = calibrated()
        judged = list(load("camera_loop").judge_frames(Camera(pictures), detector))
        assert len(judged) == 3
        for (rgb, result), picture in zip(judged, pictures, strict=True):
            assert np.array_equal(rgb, picture)
            assert result == detector.predict(picture)
            assert result.score != detector.predict(picture[..., ::-1].copy()).score

    def test_bad_frames_are_saved_in_bgr(self, monkeypatch, capsys):
        script, saved = load("camera_loop"), {}
        camera = Camera([small.picture(seed=seed) for seed in range(4)])
        cv2 = types.SimpleNamespace(
            VideoCapture=lambda number: camera, imwrite=lambda name, bgr: saved.update({name: bgr})
        )
        monkeypatch.setitem(sys.modules, "cv2", cv2)
        detector = calibrated().with_setup(calibration=None)
        results = [detector.predict(small.picture(seed=seed)) for seed in range(4)]
        worst = max(range(4), key=lambda frame: results[frame].score)
        detector.threshold = results[worst].score
        monkeypatch.setattr(script.faprompt, "load_detector", lambda name: detector, raising=False)
        script.main("my-model", "0")
        verdicts = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
        assert verdicts == ["NG" if frame == worst else "OK" for frame in range(4)]
        assert list(saved) == [f"ng-{worst}.png"] and camera.released
        picture = small.picture(seed=worst)
        marked = detector.predict(picture).overlay(picture)
        assert np.array_equal(saved[f"ng-{worst}.png"][..., ::-1], marked)


class TestThreads:
    def test_the_scores_are_those_of_one_thread(self, capsys, monkeypatch):
        script, detector = load("shared_threads"), calibrated()
        monkeypatch.setattr(script.faprompt, "load_detector", lambda name: detector, raising=False)
        script.main(WOOD, "small", "3")
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        wanted = {path.name: f"{detector.predict(path).score:.3f}" for path in WOOD.iterdir()}
        assert dict(lines) == wanted and [name for name, _ in lines] == sorted(wanted)

    def test_a_broken_picture_is_one_line(self, tmp_path, capsys, monkeypatch):
        script, detector = load("shared_threads"), calibrated()
        monkeypatch.setattr(script.faprompt, "load_detector", lambda name: detector, raising=False)
        (tmp_path / "a.jpg").write_bytes(b"")
        small.picture_file(tmp_path / "b.png")
        script.main(tmp_path)
        broken, good = capsys.readouterr().out.splitlines()
        assert broken.startswith("a.jpg") and "empty" in broken
        assert float(good.split()[1]) == pytest.approx(detector.predict(tmp_path / "b.png").score,
                                                       abs=6e-4)  # fmt: skip


class TestLine:
    def test_verdicts_come_in_order_and_none_is_lost(self):
        detector, decided = calibrated(), []
        parts = {f"part {seed}": small.picture(seed=seed) for seed in range(12)}
        with load("line_queue").Line(
            detector, lambda *each: decided.append(each), waiting=2
        ) as line:
            for part, image in parts.items():
                line.put(part, image)
            line.put("broken", b"no picture")
        wanted = [(part, detector.predict(image).verdict) for part, image in parts.items()]
        assert decided == [*wanted, ("broken", "REVIEW")]

    def test_a_full_queue_is_said(self):
        begun, allowed = threading.Event(), threading.Event()

        class Slow:
            def predict(self, image):
                begun.set()
                assert allowed.wait(20)
                return calibrated().predict(image)

        with load("line_queue").Line(Slow(), lambda *_: None, waiting=1) as line:
            try:
                line.put(0, small.picture())
                assert begun.wait(20)
                line.put(1, small.picture())  # waits in the queue
                with pytest.raises(queue.Full):
                    line.put(2, small.picture(), timeout=0.01)
            finally:
                allowed.set()


class TestPandas:
    @pytest.fixture
    def script(self):
        pytest.importorskip("pandas", reason="reads results with pandas")
        return load("results_in_pandas")

    @pytest.fixture
    def run(self, tmp_path):
        paths = [tmp_path / "lot" / kind / f"{i}.png" for kind in ("cup", "nut") for i in range(3)]
        for seed, path in enumerate(paths):
            small.picture_file(path, seed=seed)
        broken = tmp_path / "lot" / "cup" / "broken.png"
        broken.write_bytes(b"")
        detector = calibrated(cup=120, nut=120)
        options = PredictOptions(threshold=0.0, report=False, overlays=False)
        predict_files(detector, [*paths, broken], tmp_path / "out", options)
        return tmp_path / "out", detector, paths

    def test_scores_and_errors(self, script, run):
        folder, detector, paths = run
        results = script.read_results(folder)
        assert list(results["status"]) == ["ok"] * 6 + ["error"]
        for path, score, product in zip(
            paths, results["score"][:6], results["product"][:6], strict=True
        ):
            assert score == pytest.approx(detector.predict(path).score, abs=1e-6)
            assert product == path.parent.name

    def test_regions_have_boxes(self, script, run):
        folder, detector, paths = run
        found = script.regions_of(script.read_results(folder))
        rows = [(str(path), region) for path in paths
                for region in detector.predict(path, threshold=0.0).regions]  # fmt: skip
        assert list(found["path"]) == [path for path, _ in rows]
        assert found[["x0", "y0", "x1", "y1"]].values.tolist() == [list(r.bbox) for _, r in rows]
        assert list(found["area_px"]) == [region.area_px for _, region in rows]

    def test_what_is_printed(self, script, run, capsys):
        script.main(run[0])
        text = capsys.readouterr().out
        assert "cup" in text and "nut" in text and "area_px" in text
        assert "not read:" in text and "broken.png" in text

    def test_a_run_without_products_regions_and_errors(self, script, tmp_path, capsys):
        path = small.picture_file(tmp_path / "a.png")
        detector = calibrated().with_setup(calibration=None)
        detector.threshold = None
        predict_files(detector, [path], tmp_path / "out")
        script.main(tmp_path / "out")
        text = capsys.readouterr().out
        assert "none" in text and "area_px" not in text and "not read" not in text


class TestRay:
    @pytest.fixture
    def two_processors(self):
        ray = pytest.importorskip("ray", reason="needs the extra ray")
        pytest.importorskip("ray.data", reason="needs the extra ray")
        ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=2**27,
                 log_to_driver=False, logging_level="ERROR")  # fmt: skip
        yield
        ray.shutdown()

    def test_the_rows_are_those_of_one_process(self, two_processors, tmp_path, capsys):
        script = load("ray_data")
        paths = [small.picture_file(tmp_path / f"{seed}.png", seed=seed) for seed in range(3)]
        (tmp_path / "broken.png").write_bytes(b"no picture")
        script.main(str(tmp_path / "*.png"), "tiny")
        wanted = [(row.score, row.path) for row in BulkScorer("tiny").rows(paths)]
        printed = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
        for (score, path), (told, named) in zip(sorted(wanted)[::-1], printed, strict=True):
            assert float(told) == pytest.approx(score, abs=6e-4) and named == path


class TestClient:
    @pytest.fixture(autouse=True)
    def service_is_installed(self):
        pytest.importorskip("fastapi", reason="the service needs the extra `serve`")
        pytest.importorskip("uvicorn", reason="the service needs the extra `serve`")

    def test_the_answer_is_that_of_predict(self, tmp_path, capsys):
        script, detector = load("service_client"), calibrated()
        path = small.picture_file(tmp_path / "part one.png")
        with running(detector) as client:
            address = f"http://127.0.0.1:{client.port}"
            row = script.ask(address, path, overlay="true")
            script.main(f"{address}/", path)
        result = detector.predict(path)
        assert (row["path"], row["verdict"]) == ("part one.png", result.verdict)
        assert row["score"] == pytest.approx(result.score, abs=1e-6) and row["overlay_base64"]
        assert capsys.readouterr().out == f"{result.verdict} {result.score:.3f} part one.png\n"

    def test_a_refusal_has_the_services_words(self, tmp_path):
        script = load("service_client")
        (tmp_path / "empty.png").write_bytes(b"no picture")
        with running(calibrated(cup=120)) as client:
            address = f"http://127.0.0.1:{client.port}"
            with pytest.raises(RuntimeError, match="^422: .*empty.png"):
                script.ask(address, tmp_path / "empty.png", product="cup")
            with pytest.raises(RuntimeError, match="^422: .*nut"):
                script.ask(address, WOOD / "wood-good-1.jpg", product="nut")

    def test_a_token_is_sent(self, monkeypatch, capsys):
        script, token = load("service_client"), "0123456789abcdef-token"
        with running(calibrated(), token=token) as client:
            address = f"http://127.0.0.1:{client.port}"
            with pytest.raises(RuntimeError, match="^401: "):
                script.main(address, WOOD / "wood-good-1.jpg")
            monkeypatch.setenv("FAPROMPT_TOKEN", token)
            script.main(address, WOOD / "wood-good-1.jpg")
        assert capsys.readouterr().out.endswith("wood-good-1.jpg\n")
