"""Limits, tokens, addresses, headers, logs and metrics of the service."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from faprompt.errors import ConfigError
from faprompt.serving.service_limits import (
    ServiceLimits,
    check_exposure,
    is_authorized,
    is_local,
    read_token,
)
from tests.helpers import exported
from tests.helpers.exported import HandMade
from tests.helpers.service import Gated, calibrated, png, running
from tests.helpers.systems import needs_posix

TOKEN = "0123456789abcdef-token"
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from faprompt.cli.main import run; run()"


def metrics_of(client, **headers) -> dict[tuple, float]:
    """(name, value of each label ...) -> value, read by Prometheus' own parser."""
    from prometheus_client.parser import text_string_to_metric_families

    text = client.get("/metrics", **headers).body.decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# --- bodies -----------------------------------------------------------------------------------
def test_bodies_are_counted_as_they_arrive():
    mib = b"x" * 2**20
    with running(HandMade(), limits={"body_mib": 1}) as client:
        assert client.post("/v1/predict", mib).problem == "unreadable-picture"  # it fits
        assert client.post("/v1/predict", mib + b"x").problem == "body-too-long"  # announced
        sent = 0

        def giant():
            nonlocal sent
            while True:
                sent += 2**16
                yield b"x" * 2**16

        begin = time.perf_counter()
        with suppress(OSError):  # chunked, without an end: answered, or cut off
            assert client.post("/v1/predict", giant()).status == 413
        assert time.perf_counter() - begin < 15
        raw = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        with socket.create_connection(("127.0.0.1", client.port), 20) as end:
            end.sendall(raw + b"200000\r\n" + b"x" * 0x200000)  # 2 MiB, and no more
            answer = end.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 413 ") and b"connection: close" in answer
        waits = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        with socket.create_connection(("127.0.0.1", client.port), 20) as end:
            end.sendall(waits + b"Content-Length: 99999999\r\n\r\n")
            begin = time.perf_counter()
            assert end.makefile("rb").read().startswith(b"HTTP/1.1 413 ")
            assert time.perf_counter() - begin < 1.5  # before any of it was sent
        values = metrics_of(client)
        assert values["faprompt_requests_total", "/v1/predict", "413"] >= 3
        assert client.get("/readyz").status == 200


def test_all_bodies_together_have_a_limit():
    gated = Gated()
    with running(gated, limits={"memory_mib": 1}) as client, ThreadPoolExecutor(1) as pool:
        held = pool.submit(client.post, "/v1/predict", png() + b"x" * 700_000)
        assert gated.begun.wait(20)
        answer = client.post("/v1/predict", png() + b"x" * 700_000)
        assert (answer.status, answer.problem) == (503, "memory-full")
        assert answer.headers["retry-after"] == "1"
        gated.allowed.set()
        assert held.result().status == 200
        assert client.post("/v1/predict", png() + b"x" * 700_000).status == 200


def test_pixels_are_counted_before_they_are_decoded():
    with running(HandMade(), limits={"max_pixels": 100 * 100}) as client:
        assert client.post("/v1/predict", png(100, 100)).status == 200
        answer = client.post("/v1/predict", png(100, 101))
        assert answer.problem == "unreadable-picture" and "pixels" in answer.json["detail"]


def test_slow_clients_are_cut_off():
    with running(HandMade(), limits={"receive_s": 1}) as client:
        for start in (b"", b"POST /v1/pre", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGE"):
            with socket.create_connection(("127.0.0.1", client.port), 10) as end:
                end.sendall(start)
                begin = time.perf_counter()
                with end.makefile("rb") as stream, suppress(ConnectionResetError):
                    stream.read()  # to the end of the connection
                assert time.perf_counter() - begin < 6
        head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc"
        with socket.create_connection(("127.0.0.1", client.port), 10) as end:
            end.sendall(head)
            answer = end.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 408 ") and b"too-slow" in answer
        with socket.create_connection(("127.0.0.1", client.port), 10) as end:
            end.sendall(b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000)
            with suppress(ConnectionResetError):
                assert end.makefile("rb").read().startswith(b"HTTP/1.1 400 ")


# --- queue, time, connections -----------------------------------------------------------------
def test_a_full_queue_refuses_and_everything_accepted_is_answered():
    gated, content = Gated(), png()
    limits = {"queue": 3, "max_batch": 3}
    with running(gated, limits=limits) as client, ThreadPoolExecutor(8) as pool:
        running_one = pool.submit(client.post, "/v1/predict", content)
        assert gated.begun.wait(20)
        waiting = [pool.submit(client.post, "/v1/predict", content) for _ in range(2)]
        while client.get("/v1/models").json["models"][0]["waiting"] < 2:
            pass
        batch = client.post_form("/v1/predict/batch", [("a", content), ("b", content)])
        assert (batch.status, batch.problem) == (503, "queue-full")  # all of it, or nothing
        assert 1 <= int(batch.headers["retry-after"]) <= 30
        last = pool.submit(client.post, "/v1/predict", content)
        while client.get("/v1/models").json["models"][0]["waiting"] < 3:
            pass
        assert client.post("/v1/predict", content).problem == "queue-full"
        gated.allowed.set()
        answers = [each.result() for each in (running_one, *waiting, last)]
        assert [answer.status for answer in answers] == [200] * 4
        values = metrics_of(client)
        assert values["faprompt_requests_total", "/v1/predict", "200"] == 4
        assert values["faprompt_requests_total", "/v1/predict", "503"] == 1
        assert values["faprompt_waiting_pictures", gated.name] == 0
        too_many = client.post_form("/v1/predict/batch", [("a", content)] * 4)
        assert (too_many.status, too_many.problem) == (413, "too-many-pictures")


def test_a_late_answer_is_504_and_what_waited_is_not_scored():
    gated = Gated()
    with running(gated, limits={"timeout_s": 1}) as client, ThreadPoolExecutor(2) as pool:
        both = [pool.submit(client.post, "/v1/predict", png())]
        assert gated.begun.wait(20)
        both.append(pool.submit(client.post, "/v1/predict", png()))
        assert [(each.result().status, each.result().problem) for each in both] == [
            (504, "timeout")
        ] * 2
        gated.allowed.set()
        assert client.post("/v1/predict", png()).status == 200
    assert sum(gated.batches) == 2  # the first, and the one after


def test_too_many_connections_are_refused_but_probes_are_answered():
    with running(HandMade(), limits={"connections": 2}) as client:
        idle = [socket.create_connection(("127.0.0.1", client.port)) for _ in range(2)]
        time.sleep(0.2)
        answer = client.get("/v1/models")
        assert (answer.status, answer.problem) == (503, "too-many-connections")
        assert answer.headers["retry-after"] == "1"
        assert client.get("/healthz").status == 200
        for end in idle:
            end.close()
        time.sleep(0.2)
        assert client.get("/v1/models").status == 200


@pytest.mark.parametrize(
    "wrong", [{"queue": 0}, {"timeout_s": 0.5}, {"max_batch": 9, "queue": 8}, {"body_mib": True}]
)
def test_limits_are_whole_numbers_from_1(wrong):
    with pytest.raises((ValueError, TypeError)):
        ServiceLimits(**wrong)


# --- who may ask ------------------------------------------------------------------------------
def test_tokens():
    with running(calibrated(), token=TOKEN) as client:
        for path in ("/v1/models", "/metrics", "/openapi.json", "/v1/nothing"):
            for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": TOKEN},
                            {"authorization": f"Basic {TOKEN}"},
                            {"authorization": f"Bearer {TOKEN}x"}):  # fmt: skip
                answer = client.get(path, **headers)
                assert (answer.status, answer.problem) == (401, "token")
                assert answer.headers["www-authenticate"].startswith("Bearer")
        right = {"authorization": f"Bearer {TOKEN}"}
        assert client.post("/v1/predict", png()).status == 401
        assert client.post("/v1/predict", png(), **right).status == 200
        assert client.get("/v1/models", **right).status == 200
        for path in ("/", "/healthz", "/readyz"):
            assert client.get(path).status == 200
        assert metrics_of(client, **right)["faprompt_requests_total", "/v1/predict", "401"] == 1


def test_addresses_that_others_reach_need_a_token():
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert is_local(host)
        check_exposure(host, None, no_token=False)
    for host in ("0.0.0.0", "::", "192.168.1.5", "plant.example"):
        assert not is_local(host)
        with pytest.raises(ConfigError, match="--token-file"):
            check_exposure(host, None, no_token=False)
        check_exposure(host, None, no_token=True)
        check_exposure(host, TOKEN, no_token=False)
    with pytest.raises(ConfigError, match="both"):
        check_exposure("localhost", TOKEN, no_token=True)


def test_a_token_file_holds_one_long_token(tmp_path):
    file = tmp_path / "token"
    for content in ("", "short", "two words that are long", "ü" * 20, "a" * 20 + "\nsecond line"):
        file.write_text(content)
        with pytest.raises(ConfigError, match="token"):
            read_token(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(tmp_path / "missing")
    file.write_text(f"{TOKEN}\n")
    assert read_token(file) == TOKEN
    assert is_authorized(b"bearer " + TOKEN.encode(), TOKEN) and is_authorized(None, None)
    assert not is_authorized(None, TOKEN) and not is_authorized(b"", TOKEN)


def test_pages_of_other_sites_cannot_use_it():
    with running(HandMade()) as client:
        assert client.get("/v1/models", Host="evil.example").problem == "unknown-host"
        assert client.get("/v1/models", Host="localhost:99").status == 200
        answer = client.get("/v1/models", Sec_Fetch_Site="cross-site")
        assert (answer.status, answer.problem) == (403, "cross-site")
    with running(HandMade(), token=TOKEN) as client:
        right = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/v1/models", Host="line-3.example", **right).status == 200


def test_headers_and_request_ids():
    with running(HandMade()) as client:
        for answer in (client.get("/"), client.get("/nothing"), client.post("/v1/predict", png())):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["cache-control"] == "no-store"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "server" not in answer.headers
        assert "unsafe" not in client.get("/").headers["content-security-policy"].split(";")[1]
        assert (
            client.get("/healthz", X_Request_ID="line-3.77").headers["x-request-id"] == "line-3.77"
        )
        made = {client.get("/healthz", X_Request_ID=given).headers["x-request-id"]
                for given in ("", "a b", "x" * 65)}  # fmt: skip
        assert len(made) == 3 and all(len(name) == 32 for name in made)


def test_logs_say_nothing_of_the_content(caplog):
    caplog.set_level(logging.INFO, "faprompt")
    with running(HandMade()) as client:
        client.post("/v1/predict?name=secret-lot.png", png(), X_Request_ID="r1")
        client.post("/v1/secret-path?secret=1", b"secret", X_Request_ID="r2")
        client.post("/v1/predict", b"secret text", X_Request_ID="r3")
    lines = [r.getMessage() for r in caplog.records if r.name == "faprompt.access"]
    assert [line.split()[1:5] for line in lines] == [
        ["r1", "POST", "/v1/predict", "200"],
        ["r2", "POST", "other", "404"],
        ["r3", "POST", "/v1/predict", "422"],
    ]
    assert "secret" not in caplog.text


def test_a_fault_is_500_without_its_reason(caplog):
    class Broken(HandMade):
        def predict_batch(self, images, **options):
            raise RuntimeError("a private path")

    with running(Broken()) as client:
        answer = client.post("/v1/predict", png())
        assert (answer.status, answer.problem) == (500, "fault")
        assert "private" not in answer.body.decode() and "private" in caplog.text
        assert client.post("/v1/predict", png()).status == 500  # and it still answers
        assert client.get("/readyz").status == 200


def test_counters_add_up():
    with running(calibrated()) as client:
        verdicts: dict[str, int] = {}
        for seed in range(5):
            row = client.post("/v1/predict", png(seed=seed)).json
            verdicts[row["verdict"]] = verdicts.get(row["verdict"], 0) + 1
        client.post_form("/v1/predict/batch", [("a", png()), ("b", b"broken")])
        row = client.post("/v1/predict", b"nothing")
        values = metrics_of(client)
    name = "hand-made"
    total = {k[3]: v for k, v in values.items() if k[0] == "faprompt_pictures_total"}
    assert total.pop("error") == 2 and sum(total.values()) == 6
    assert all(total[verdict] >= count for verdict, count in verdicts.items())
    assert values["faprompt_score_count", name, ""] == 6
    assert values["faprompt_p_value_count", name, ""] == 6
    assert values["faprompt_batch_pictures_sum", name] == 8
    assert values["faprompt_requests_total", "/v1/predict", "200"] == 5
    assert values["faprompt_requests_total", "/v1/predict", "422"] == 1
    assert values["faprompt_request_seconds_count", "/v1/predict"] == 6
    assert values["faprompt_open_requests",] == 1  # this one


# --- the command ------------------------------------------------------------------------------
@needs_posix
def test_sigterm_answers_what_was_accepted(tmp_path):
    """A process without torch: requests under way when the signal comes are all answered."""
    pytest.importorskip("onnxruntime")
    folder = exported.write_folder(tmp_path / "model")
    command = [sys.executable, "-c", WITHOUT_TORCH, "serve", str(folder), "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith("serving model at http"))
        from tests.helpers.service import Client

        client, content = Client(int(line.rsplit(":", 1)[1])), png(1200, 1600)
        assert client.get("/readyz").status == 200
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(client.post, "/v1/predict", content) for _ in range(8)]
            while metrics_of(client)["faprompt_open_requests",] < 9:  # they and this one
                if any(each.done() for each in asked):
                    break
            process.send_signal(signal.SIGTERM)
            assert [each.result().status for each in asked] == [200] * 8
        assert process.wait(30) == 0
        assert "every accepted request was answered" in process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
