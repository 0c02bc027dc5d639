"""The models that ship: size, licence, and that they do their job on the demo pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch

import faprompt
from faprompt.metrics import auroc
from faprompt.model_folder import read_config
from faprompt.models import bundled_folder, list_models
from tests.helpers import export
from tests.helpers.shared import shared_data

PICTURES = sorted((Path(__file__).resolve().parents[1] / "examples" / "pictures").glob("*.jpg"))
LIMIT_BYTES = 16 * 2**20


@pytest.fixture(scope="module")
def detector():
    return faprompt.load_detector("tiny")


def damaged(path):
    return "-good-" not in path.name


def test_the_package_stays_small():
    files = [path for path in bundled_folder("tiny").parent.rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) <= LIMIT_BYTES


@pytest.mark.parametrize(
    ("name", "method", "backbone"),
    [("small", "relations", "efficientnet-lite0"), ("tiny", "faprompt", "tiny")],
)
def test_its_card_says_what_it_is(name, method, backbone):
    config = read_config(bundled_folder(name))
    assert (config["name"], config["method"], config["license"]) == (name, method, "apache-2.0")
    assert config["backbone"]["name"] == config["backbone"]["source"] == backbone
    assert config["training"]["pictures"] > 0


def test_small_is_listed_first_and_the_default():
    assert [row["name"] for row in list_models()] == ["small", "tiny"]
    default = faprompt.load_detector()
    assert default.name == "small" and default.method.config.text_backbone == "tiny"
    assert default.fingerprint() == faprompt.load_detector("small").fingerprint()


@pytest.mark.parametrize("name", ["small", "tiny"])
def test_the_most_anomalous_demo_picture_is_damaged(name):
    detector = faprompt.load_detector(name)
    results = list(detector.stream(PICTURES))
    scores = np.array([result.score for result in results])
    labels = np.array([damaged(path) for path in PICTURES])
    assert labels.any() and not labels.all()
    assert damaged(PICTURES[int(scores.argmax())])
    assert auroc(scores, labels) > 0.8


def test_wide_and_tall_pictures_get_maps_of_their_own_size(detector):
    for height, width in ((40, 300), (300, 40), (1, 1)):
        result = detector.predict(np.full((height, width, 3), 127, np.uint8))
        assert result.score_map.shape == (height, width)
        assert 0 <= result.score_map.min() <= result.score_map.max() <= 1


def test_the_tensor_door_takes_any_size_the_patch_divides(detector):
    with torch.no_grad():
        scores, score_maps = detector(torch.zeros(2, 3, 128, 192))
    assert scores.shape == (2,) and score_maps.shape == (2, 128, 192)


def test_it_exports_in_a_fresh_process_for_any_number_of_pictures(detector):
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randn(3, 3, 128, 128, generator=draw)
    cold = faprompt.load_detector("tiny")
    program = export.export_cold(cold, pixels[:2])
    export.assert_equal_after_export(program, cold, detector, pixels)
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    ours, wanted = cold.predict(picture), detector.predict(picture)
    assert ours.score == pytest.approx(wanted.score, abs=1e-6)
    np.testing.assert_allclose(ours.score_map, wanted.score_map, rtol=0, atol=1e-6)


def test_bf16_ranks_real_pictures_as_fp32_does(detector):
    folder = shared_data() / "magnetic_tile"
    if not folder.exists():
        pytest.skip("the real pictures are not here")
    paths = sorted(folder.rglob("*.jpg"))[::24]
    rough = faprompt.load_detector("tiny", precision="bf16")
    exact = np.array([result.score for result in detector.stream(paths)])
    close = np.array([result.score for result in rough.stream(paths)])
    assert np.abs(exact - close).max() < 0.01
    clear = np.abs(exact[:, None] - exact[None]) > 0.01  # pairs further apart than the tolerance
    assert (((exact[:, None] > exact[None]) == (close[:, None] > close[None])) | ~clear).all()


def test_by_default_the_device_is_picked_as_on_the_command_line(monkeypatch):
    asked = []
    monkeypatch.setattr("faprompt.models.pick_device", lambda device: asked.append(device) or "cpu")
    assert faprompt.load_detector("tiny").backbone.precision == "fp32"
    faprompt.load_detector("tiny", device="cpu", precision="bf16")
    assert asked == ["auto", "cpu"]


def test_the_verdicts_of_the_demo_hold(tmp_path):
    good = sorted(map(str, (PICTURES[0].parents[1] / "good").glob("*/*.jpg")))
    lot = sorted((PICTURES[0].parents[1] / "lot").glob("*/*.jpg"))
    options = faprompt.CalibrateOptions(target_fpr=0.05, review_fpr=0.1, by_folder=True)
    small = faprompt.load_detector()
    calibrated = faprompt.calibrate(small, good, tmp_path / "model", options).detector
    results = list(calibrated.stream(lot))
    assert {result.product for result in results} == {"basket", "gear", "tile-floor", "wood"}
    assert not any(r.verdict == "NG" for p, r in zip(lot, results, strict=True) if not damaged(p))
    found = [r.verdict == "NG" for p, r in zip(lot, results, strict=True) if damaged(p)]
    assert len(found) == 16 and sum(found) >= 14  # 15 when the pictures were drawn
