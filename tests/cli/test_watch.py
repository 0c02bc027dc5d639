"""`faprompt watch` as a user starts and ends it."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path

import pytest

from faprompt.cli.watch_command import _stop_on_signals
from faprompt.watching import Webhook
from tests.helpers import exported, small
from tests.helpers.systems import needs_posix
from tests.watching.receiver import Receiver
from tests.watching.test_delivery_queue import wait_for

pytest.importorskip("onnx", reason="the graph is written by onnx")
pytest.importorskip("onnxruntime", reason="the graph is run by onnxruntime")

RUN = "from faprompt.cli.main import run; run()"
DOCS = Path(__file__).resolve().parents[2] / "docs" / "watch.md"


@pytest.fixture
def home(tmp_path):
    exported.write_folder(tmp_path / "model")
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_text("a secret of some length\n")
    return tmp_path


def start(home, *more):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, "watch", "in", "--model", "model", "--out", "out"]
        + ["--interval", "0.1", *map(str, more)],
        cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@needs_posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(home, number):
    path = small.picture_file(home / "in" / "a.png", seed=1)
    with Receiver().serving() as receiver:
        running = start(home, "--post", receiver.url, "--secret-file", "secret", "--move")
        line = running.stdout.readline()
        wait_for(lambda: receiver.got, 30)
        running.send_signal(number)
        out, err = running.communicate(timeout=30)
    assert running.returncode == 0 and out == "", err
    verdict, score, shown = line.rstrip("\n").split("\t")
    assert "watching in" in err and "ended; 1 judged; results are in out" in err
    assert "a secret" not in err + line
    (row,) = [json.loads(text) for text in (home / "out" / "results.jsonl").open()]
    assert (row["path"], shown) == ("in/a.png", "in/a.png")
    assert row["verdict"] == verdict and f"{row['score']:.4f}" == score
    assert (home / "out" / row["overlay"]).is_file()
    assert (home / "out" / verdict / "a.png").is_file() and not path.exists()
    ((headers, body),) = receiver.got
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(b"a secret of some length", signed, hashlib.sha256).digest()
    wanted = "v1," + b64encode(digest).decode()
    assert hmac.compare_digest(headers["webhook-signature"], wanted)
    assert json.loads(body)["result"] == row


@needs_posix
def test_ctrl_break_ends_it_where_there_is_one(monkeypatch):
    """Windows sends it between programs; another signal stands for it here."""
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    before = signal.getsignal(signal.SIGUSR1)
    with _stop_on_signals() as stop:
        assert not stop.is_set()
        signal.raise_signal(signal.SIGUSR1)
        assert stop.is_set()
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL  # the second one ends it
    assert signal.getsignal(signal.SIGUSR1) is before


def test_a_second_watch_of_one_folder_is_refused(home, faprompt, monkeypatch):
    monkeypatch.chdir(home)
    running = start(home)
    wait_for(lambda: (home / "out" / "run.json").exists(), 30)
    told = faprompt("watch", "in", "--model", "model", "--out", "out")
    running.terminate()
    running.communicate(timeout=30)
    assert told.code == 1 and "being written by another run" in told.err
    assert running.returncode == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--post", "http://127.0.0.1:9/"], "belong together"),
        (["--secret-file", "secret"], "belong together"),
        (["--post", "file:///etc/passwd", "--secret-file", "secret"], "--post should be an http"),
        (["--post", "http://127.0.0.1:9/", "--secret-file", "none"], "cannot be read"),
        (["--interval", "0"], "--interval"),
    ],
)
def test_faults_of_the_command_line(home, faprompt, monkeypatch, more, told):
    monkeypatch.chdir(home)
    outcome = faprompt("watch", "in", "--model", "model", "--out", "out", *more)
    assert outcome.code == 2 and told in outcome.err
    assert not (home / "out").exists()


def test_the_receiver_of_the_documentation_works(tmp_path):
    """It takes what is signed, and refuses what is not, old, or changed."""
    code = re.search(r"```python .*?\n(.*?)```", DOCS.read_text(), re.DOTALL)[1]
    (tmp_path / "receiver.py").write_text(code)
    (tmp_path / "secret").write_text("a secret of some length\n")
    running = subprocess.Popen([sys.executable, "-u", "receiver.py", "0"], cwd=tmp_path,
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    try:
        port = int(running.stdout.readline().rsplit(" ", 1)[1])
        webhook = Webhook(f"http://127.0.0.1:{port}/", b"a secret of some length")
        body = json.dumps({"id": "k", "result": {"path": "a.png", "verdict": "NG"}}).encode()
        webhook.post("k", body)
        webhook.post("k", body)
        assert running.stdout.readline().split() == ["NG", "a.png"]
        for forged in (
            lambda: Webhook(webhook.url, b"another secret of it").post("k", body),
            lambda: _post_at(webhook, time.time() - 3600, body),
        ):
            with pytest.raises(Exception, match="answered 401"):
                forged()
    finally:
        running.terminate()
        rest, _ = running.communicate(timeout=10)
    assert rest == ""  # the second delivery was known


def _post_at(webhook: Webhook, now: float, body: bytes) -> None:
    from unittest.mock import patch

    with patch("faprompt.watching.webhook.time.time", return_value=now):
        webhook.post("k2", body)


def test_an_exported_folder_needs_no_torch_and_another_model_says_so(home):
    code = """
import sys
for name in ("torch", "scipy", "safetensors", "huggingface_hub"):
    sys.modules[name] = None
from faprompt.cli.terminal import load_model
from faprompt.errors import MissingExtraError
print(load_model("model", device="auto", precision="auto", class_name=None).name)
try:
    load_model("small")
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert first == exported.NAME
    assert second.startswith("small needs the package") and "faprompt export" in second


def test_onnxruntime_reports_nothing_to_its_makers(home):
    """By default it writes a device id below HOME and sends events over the network."""
    code = "from faprompt.exported_detector import load_exported; load_exported('model')"
    elsewhere = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    clean = {name: value for name, value in os.environ.items() if name not in elsewhere}
    subprocess.run([sys.executable, "-c", code], cwd=home, check=True,
                   env=clean | {"HOME": str(home / "person")})  # fmt: skip
    assert not (home / "person").exists()
