"""`faprompt.runtime` where torch and all other packages are missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from faprompt.exported_detector import ExportedDetector
from faprompt.inspection import CalibrateOptions, calibrate
from faprompt.runtime import main
from tests.helpers import exported, small

pytest.importorskip("onnx", reason="the graph is written by onnx")
pytest.importorskip("onnxruntime", reason="the graph is run by onnxruntime")

# Refuses every package but the three, as an environment without the others does.
ALONE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        known = {"faprompt", "numpy", "PIL", "onnxruntime"} | sys.stdlib_module_names
        if top not in known and not top.startswith("_"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


def run_alone(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ALONE + code, *map(str, arguments)],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


COMMAND = "from faprompt.runtime import main\nsys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A calibrated folder with references."""
    home = tmp_path_factory.mktemp("runtime")
    plain = ExportedDetector(exported.write_folder(home / "plain"))
    good = [str(small.picture_file(home / "good" / f"{n}.png", seed=n)) for n in range(14)]
    options = CalibrateOptions(references=2, target_fpr=0.2, review_fpr=0.3)
    calibrate(plain, good, home / "model", options)
    return home / "model"


def test_the_command_gives_the_rows_of_predict(model, tmp_path):
    for seed in (20, 21):
        small.picture_file(tmp_path / "in" / f"{seed}.png", seed=seed)
    (tmp_path / "in" / "broken.png").write_bytes(b"nothing")
    run = run_alone(COMMAND, model, tmp_path / "in", "--batch-size", 2)
    assert run.returncode == 3, run.stderr
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert [row["status"] for row in rows] == ["ok", "ok", "error"]
    detector = ExportedDetector(model)
    for row in rows[:2]:
        wanted = detector.predict(row["path"]).to_dict()
        same = set(wanted) & set(row) - {"score", "regions", "notes"}
        assert {key: row[key] for key in same} == {key: wanted[key] for key in same}
        assert row["score"] == pytest.approx(wanted["score"], abs=1e-6)
        assert [r["bbox"] for r in row["regions"]] == [r["bbox"] for r in wanted["regions"]]


def test_python_has_masks_tiles_and_rates_too(model, tmp_path):
    path = small.picture_file(tmp_path / "a.png", seed=30)
    code = """
import numpy as np
import faprompt.runtime
detector = faprompt.runtime.load(sys.argv[1])
looser = detector.setup.calibration.with_rates(target_fpr=0.4)
detector.with_setup(calibration=looser).save_pretrained(sys.argv[3])
result = faprompt.runtime.load(sys.argv[3]).predict(sys.argv[2])
bare = detector.with_setup(calibration=None, tiles=2, mask=np.eye(60, 80) > 0)
(other,) = bare.stream([sys.argv[2]])
assert "torch" not in sys.modules and "scipy" not in sys.modules
print(result.score, result.threshold, other.score, other.score_map.sum())
"""
    run = run_alone(code, model, path, tmp_path / "looser")
    assert run.returncode == 0, run.stderr
    detector = ExportedDetector(model)
    bare = detector.with_setup(calibration=None, tiles=2, mask=np.eye(60, 80) > 0).predict(path)
    looser = detector.setup.calibration.with_rates(target_fpr=0.4)
    wanted = [
        detector.predict(path).score, looser.limits().threshold, bare.score, bare.score_map.sum()
    ]  # fmt: skip
    np.testing.assert_allclose([float(n) for n in run.stdout.split()], wanted, rtol=1e-5)


def test_windows_are_read_and_dicom_names_its_extra(tmp_path):
    detector = ExportedDetector(exported.write_folder(tmp_path / "plain"))
    deep = small.picture(40, 48)[..., 0].astype(np.uint16) * 20
    Image.fromarray(deep).save(tmp_path / "deep.png")
    (tmp_path / "scan.dcm").write_bytes(bytes(128) + b"DICM" + bytes(90))
    run = run_alone(COMMAND, tmp_path / "plain", tmp_path / "deep.png", tmp_path / "scan.dcm",
                    "--window=2000,900")  # fmt: skip
    assert run.returncode == 3, run.stderr
    deep_row, scan_row = map(json.loads, run.stdout.splitlines())
    wanted = detector.predict(tmp_path / "deep.png", window=(2000, 900))
    assert deep_row["score"] == pytest.approx(wanted.score, abs=1e-6)
    assert wanted.score != pytest.approx(detector.predict(tmp_path / "deep.png").score, abs=1e-6)
    assert tuple(deep_row["notes"]) == wanted.notes and "window center 2000" in wanted.notes[0]
    assert "pip install 'faprompt[dicom]'" in scan_row["error"]


def test_files_are_written_and_what_needs_torch_says_so(model, tmp_path):
    small.picture_file(tmp_path / "a.png")
    code = """
import faprompt
import faprompt.runtime
model, picture, out = sys.argv[1:]
options = faprompt.PredictOptions(report=False, maps="npy")
done = faprompt.predict_files(
    faprompt.runtime.load(model), [picture], out, options, lock=False
)
try:
    faprompt.load_detector
except ModuleNotFoundError as error:
    print(done.n_ok, error.name, error)
"""
    run = run_alone(code, model, tmp_path / "a.png", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("1 torch faprompt.load_detector needs the package torch")
    written = {path.suffix for path in (tmp_path / "out").rglob("*.*")}
    assert {".jsonl", ".npy", ".jpg"} <= written


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{home}", "a.png"], "is not an exported folder"),
        (["{model}", "a.png", "--tiles", "some"], "tiles should be"),
        (["{model}", "a.png", "--threshold", "2"], "threshold should be from 0 to 1"),
        (["{model}", "a.png", "--product", "nut"], "got product 'nut'"),
        (["{model}", "a.png", "--window", "40"], "a window should be CENTER,WIDTH"),
        (["{model}", "a.png", "--window", "auto"], "calibrated with a bit depth of the file, got"),
    ],
)
def test_faults_are_one_line(model, tmp_path, arguments, told, capsys, caplog):
    caplog.set_level("WARNING", "faprompt")  # another test may have left it lower
    small.picture_file(tmp_path / "a.png")
    filled = [text.format(home=tmp_path, model=model) for text in arguments]
    filled[1] = str(tmp_path / "a.png")
    assert main(filled) == 1
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and told in err and len(err.splitlines()) == 1
    assert not out
