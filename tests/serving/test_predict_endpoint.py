"""The service answers what `predict` writes, however a picture comes."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from faprompt.prediction import PredictOptions, predict_files
from tests.helpers import small
from tests.helpers.dicom_files import dicom_file
from tests.helpers.exported import HandMade
from tests.helpers.service import Gated, calibrated, png, running

KINDS = {"a.png": "PNG", "b.jpg": "JPEG", "c.tif": "TIFF", "d.webp": "WEBP", "e.bmp": "BMP"}


@pytest.fixture(scope="module")
def detector():
    return calibrated()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pictures of every kind, one of 16 bits, one with alpha, and a broken one."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, (name, kind) in enumerate(KINDS.items()):
        Image.fromarray(small.picture(50, 70, seed=number)).save(folder / name, kind)
    deep = small.picture(40, 40)[..., 0].astype(np.uint16) * 15
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(small.picture(30, 30)).convert("RGBA").save(folder / "alpha.png")
    (folder / "broken.png").write_bytes(png()[:200])
    return folder


@pytest.fixture(scope="module")
def rows(detector, files, tmp_path_factory):
    """The lines of `predict --batch-size 1` without latency, by file name."""
    out = tmp_path_factory.mktemp("out")
    options = PredictOptions(batch_size=1, overlays=True, maps="npy", report=False)
    predict_files(detector, sorted(files.iterdir()), out, options)
    lines = (out / "results.jsonl").read_text().splitlines()
    found = {}
    for values in map(json.loads, lines):
        name = values["path"].rpartition("/")[2]
        pictures = [out / values[kind] if values[kind] else None for kind in ("map", "overlay")]
        found[name] = (values | {"path": name, "map": None, "overlay": None}, *pictures)
    return found


@pytest.fixture(scope="module")
def client(detector):
    with running(detector) as client:
        yield client


def comparable(line: bytes | str) -> str:
    """A row as text without its latency: the order and the spelling of all values stay."""
    values = json.loads(line)
    del values["latency_ms"]
    return json.dumps(values)


def test_answers_are_the_lines_of_predict_byte_for_byte(client, files, rows):
    for name, (row, *_) in rows.items():
        answer = client.post(f"/v1/predict?name={name}", (files / name).read_bytes())
        if row["status"] == "ok":
            assert answer.status == 200 and answer.body.endswith(b"\n")
            assert comparable(answer.body) == comparable(json.dumps(row))
            assert answer.body.decode().count("\n") == 1 and answer.json["latency_ms"] > 0
        else:
            assert answer.problem == "unreadable-picture" and answer.status == 422
            assert answer.json["detail"] == row["error"].replace(f"{files}/", "")


def test_raw_json_and_forms_give_the_same_answer(client):
    content = png(seed=3)
    encoded = base64.b64encode(content).decode()
    answers = [
        client.post("/v1/predict?name=a.png", content, content_type="image/png"),
        client.post_json("/v1/predict", {"image": encoded, "name": "a.png"}),
        client.post_form("/v1/predict", [("a.png", content)]),
        client.post(
            "/v1/predict?name=a.png", content, content_type="application/x-www-form-urlencoded"
        ),  # curl's default
        client.post("/v1/predict?name=a.png", iter([content[:99], content[99:]])),  # chunked
    ]
    assert [answer.status for answer in answers] == [200] * 5
    assert len({comparable(answer.body) for answer in answers}) == 1


def test_maps_and_overlays_are_those_of_predict(client, files, rows):
    row, map_file, overlay_file = rows["a.png"]
    content = (files / "a.png").read_bytes()
    answer = client.post("/v1/predict?name=a.png&map=npy&overlay=true", content)
    decoded = {
        name: base64.b64decode(value) for name, value in answer.json.items() if "base64" in name
    }
    assert set(decoded) == {"map_base64", "overlay_base64"}
    score_map = np.load(io.BytesIO(decoded["map_base64"]))
    np.testing.assert_array_equal(score_map, np.load(map_file))
    assert decoded["overlay_base64"] == overlay_file.read_bytes()
    grey = client.post_form("/v1/predict", [("a.png", content)], map="png").json
    image = Image.open(io.BytesIO(base64.b64decode(grey["map_base64"])))
    np.testing.assert_allclose(np.asarray(image) / 65535, score_map, atol=1 / 65535)


def test_a_batch_has_a_row_for_every_picture_and_errors_beside_them(client, files, rows):
    names = sorted(rows)
    contents = [(name, (files / name).read_bytes()) for name in names]
    by_form = client.post_form("/v1/predict/batch", contents)
    items = [{"name": n, "image": base64.b64encode(c).decode()} for n, c in contents]
    by_json = client.post_json("/v1/predict/batch", {"images": items})
    for answer in (by_form, by_json):
        assert answer.status == 200
        found = answer.json["results"]
        assert [row["path"] for row in found] == names
        for row, (wanted, *_) in zip(found, (rows[name] for name in names), strict=True):
            assert row["status"] == wanted["status"] and row["verdict"] == wanted["verdict"]
            if row["status"] == "ok":
                assert row["score"] == pytest.approx(wanted["score"], rel=1e-6)
            else:
                assert row["error"] == wanted["error"].replace(f"{files}/", "")


def test_what_waits_is_scored_together_and_scores_agree():
    detector, contents = Gated(), [png(seed=i) for i in range(6)]
    alone = [detector.__class__.__base__.predict(calibrated(), c).score for c in contents]
    with running(detector, limits={"batch_size": 4}) as client, ThreadPoolExecutor(6) as pool:
        first = pool.submit(client.post, "/v1/predict", contents[0])
        assert detector.begun.wait(20)
        rest = [pool.submit(client.post, "/v1/predict", c) for c in contents[1:]]
        while client.get("/v1/models").json["models"][0]["waiting"] < 5:
            pass
        detector.allowed.set()
        scores = [answer.result().json["score"] for answer in (first, *rest)]
    assert detector.batches == [1, 4, 1]
    np.testing.assert_allclose(scores, alone, rtol=1e-6)


def test_products_have_their_thresholds_and_must_be_known(client):
    content = png()
    with running(calibrated(nut=100, bolt=130)) as lines:
        for product in ("nut", "bolt"):
            row = lines.post(f"/v1/predict?product={product}", content).json
            assert row["product"] == product and row["threshold"] > row["review_threshold"]
        for query in ("", "?product=screw"):
            answer = lines.post(f"/v1/predict{query}", content)
            assert answer.problem == "product" and "bolt, nut" in answer.json["detail"]
        (facts,) = lines.get("/v1/models").json["models"]
        assert facts["products"] == ["bolt", "nut"] and len(facts["thresholds"]) == 2
    assert client.post("/v1/predict?product=nut", content).problem == "product"


def test_dicom_is_read_through_the_window_of_the_service():
    pytest.importorskip("pydicom", reason="needs the extra dicom")
    values = small.picture(40, 48)[..., 0].astype(np.int16) * 8
    scan, detector = dicom_file(values, WindowCenter=1, WindowWidth=2), HandMade()
    with running(detector, window=(900, 1200)) as client:
        answer = client.post("/v1/predict", scan, content_type="application/dicom").json
    wanted = detector.predict(scan, window=(900, 1200))
    assert answer["score"] == pytest.approx(wanted.score, abs=1e-6)
    assert wanted.score != pytest.approx(detector.predict(scan).score, abs=1e-6)
    assert tuple(answer["notes"]) == wanted.notes


def test_requests_choose_a_model_by_its_id():
    detector = calibrated()
    plain = detector.with_setup(calibration=None)
    with running(named={"left": detector, "right": plain}) as client:
        facts = client.get("/v1/models").json["models"]
        assert [(each["id"], each["calibrated"]) for each in facts] == [
            ("left", True),
            ("right", False),
        ]
        assert [each["fingerprint"] for each in facts] == [plain.fingerprint()] * 2
        assert facts[0]["target_fpr"] == 0.01 and "rarer than 1 %" in facts[0]["rules"][0]
        by_id = {name: client.post(f"/v1/predict?model={name}", png()).json for name in
                 ("left", "right")}  # fmt: skip
        assert by_id["left"]["p_value"] is not None and by_id["right"]["p_value"] is None
        assert client.post("/v1/predict", png()).json["p_value"] is not None  # the first one
        assert client.post("/v1/predict?model=up", png()).problem == "unknown-model"


@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "code"),
    [
        ("/v1/predict", b"", "image/png", 422, "no-picture"),
        ("/v1/predict?colour=red", png(), "image/png", 422, "options"),
        ("/v1/predict?map=tiff", png(), "image/png", 422, "options"),
        ("/v1/predict?name=a%0Ab", png(), "image/png", 422, "name"),
        ("/v1/predict?name=" + "x" * 256, png(), "image/png", 422, "name"),
        ("/v1/predict", b"<html>", "text/html", 415, "content-type"),
        ("/v1/predict", b"{", "application/json", 400, "json"),
        ("/v1/predict", b"[1]", "application/json", 422, "json"),
        ("/v1/predict", b'{"image": "%%"}', "application/json", 422, "base64"),
        ("/v1/predict", b'{"image": 3}', "application/json", 422, "base64"),
        ("/v1/predict", b'{"url": "http://a/b.png"}', "application/json", 422, "no-picture"),
        ("/v1/predict", b'{"image": "aaaa", "path": "/etc/passwd"}', "application/json", 422,
         "options"),
        ("/v1/predict?map=png", b'{"image": "aaaa", "map": "npy"}', "application/json", 422,
         "options"),
        ("/v1/predict/batch", b'{"images": 3}', "application/json", 422, "json"),
        ("/v1/predict/batch", b'{"images": [{}]}', "application/json", 422, "json"),
        ("/v1/predict", b"--xx", "multipart/form-data", 400, "form"),
        ("/v1/nothing", b"", "image/png", 404, "http-404"),
        ("/healthz", b"", "image/png", 405, "http-405"),
        ("/static/../../etc/passwd", b"", "image/png", 404, "http-404"),
        ("/v1/predict/", b"", "image/png", 404, "http-404"),
    ],
)  # fmt: skip
def test_wrong_requests_are_problems(client, path, body, kind, status, code):
    answer = client.post(path, body, content_type=kind)
    assert (answer.status, answer.problem) == (status, code)


def test_two_pictures_are_too_many_for_one(client):
    answer = client.post_form("/v1/predict", [("a", png()), ("b", png())])
    assert (answer.status, answer.problem) == (413, "too-many-pictures")


def test_openapi_describes_every_route(client):
    described = client.get("/openapi.json").json
    assert set(described["paths"]) == {
        "/v1/predict", "/v1/predict/batch", "/v1/report", "/v1/models", "/healthz", "/readyz",
        "/metrics",
    }  # fmt: skip
    bodies = described["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    assert {"application/json", "multipart/form-data", "image/*"} < set(bodies)
