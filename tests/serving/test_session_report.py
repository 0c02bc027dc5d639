"""The session of the inspection page as a report."""

from __future__ import annotations

import base64

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from faprompt.prediction import PredictOptions, predict_files
from tests.helpers.service import calibrated, png, running
from tests.prediction.report_data import Page

VIEW = ("small_base64", "layer_base64", "large_base64")


@pytest.fixture(scope="module")
def client():
    with running(calibrated()) as client:
        yield client


@pytest.fixture(scope="module")
def session(client):
    """Pictures as the page keeps them; one could not be read."""
    kept = []
    for seed in range(3):
        answer = client.post(f"/v1/predict?view=true&name=p{seed}.png", png(seed=seed)).json
        assert base64.b64decode(answer.pop("heat_base64")).startswith(b"\x89PNG")
        pictures = {name: answer.pop(name) for name in VIEW if name in answer}
        assert {"small_base64", "large_base64"} <= set(pictures)
        kept.append({"row": answer, **pictures})
    error = {"path": "b.png", "model": "hand-made", "status": "error", "error": "b.png: broken"}
    return [*kept, {"row": error | {"regions": [], "notes": []}}]


def test_it_is_the_report_of_predict(client, session, tmp_path):
    files = [tmp_path / f"p{seed}.png" for seed in range(3)]
    for seed, file in enumerate(files):
        file.write_bytes(png(seed=seed))
    predict_files(calibrated(), files, tmp_path / "out", PredictOptions(batch_size=1))
    wanted = Page((tmp_path / "out" / "report.html").read_text()).data
    answer = client.post_json("/v1/report", {"title": "Lot 7", "pictures": session})
    assert answer.status == 200 and "attachment" in answer.headers["content-disposition"]
    page = Page(answer.body.decode())
    assert "Lot 7" in page.text and "b.png: broken" in page.text
    assert page.data["products"] == wanted["products"] and page.data["steps"] == wanted["steps"]
    for found, known in zip(page.data["rows"], wanted["rows"], strict=True):
        name = known["path"].rpartition("/")[2]
        assert found | {"large": None} == known | {"path": name, "overlay": None, "large": None}


def test_only_sessions_are_taken(client, session):
    row = session[0]["row"]

    def asked(**changes):
        return client.post_json("/v1/report", {"pictures": [{"row": row | changes}]})

    assert asked().status == 200
    for wrong in (
        {"score": "high"}, {"score": 1e9}, {"verdict": "<b>"}, {"path": 3}, {"width": -1},
        {"more": 1}, {"regions": [{"bbox": [1]}]}, {"status": "maybe"}, {"notes": [3]},
    ):  # fmt: skip
        answer = asked(**wrong)
        assert (answer.status, answer.problem) == (422, "session"), wrong
    for values in (
        {}, {"pictures": 3}, {"pictures": [3]}, {"pictures": [], "file": "/etc/passwd"},
        {"pictures": [{"row": row, "small_base64": "PHN2Zz4="}]},  # SVG
        {"pictures": [{"row": row, "picture": ""}]},
    ):  # fmt: skip
        assert client.post_json("/v1/report", values).problem == "session", values
    named = {"row": row | {"path": "<script>alert(1)</script>"}}
    page = client.post_json("/v1/report", {"pictures": [named]}).body.decode()
    assert "<script>alert" not in page
    assert client.post_json("/v1/report", {"pictures": [], "title": "a\nb"}).problem == "name"
    assert client.post_json("/v1/report", {"model": "up", "pictures": []}).status == 422
