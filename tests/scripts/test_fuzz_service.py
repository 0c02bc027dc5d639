"""The fuzzer of the service, on a small number of requests."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from scripts.fuzz_service import fault, fuzz
from tests.helpers.service import calibrated, running


def test_no_request_is_answered_by_an_unstated_error():
    with running(calibrated()) as client:
        statuses, faults = fuzz(f"http://127.0.0.1:{client.port}", 150, seed=5)
    assert faults == [] and sum(statuses.values()) == 150
    assert statuses[200] and statuses[422] and statuses[400]


def test_faults_are_seen():
    assert fault(500, b"") == "status 500" and fault(503, b"") == "" and fault(200, b"x") == ""
    assert "no problem" in fault(404, b"<html>")
    assert "none" in fault(404, b'{"status": 404, "detail": ""}')
