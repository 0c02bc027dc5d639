"""A small run of `scripts/kill_shards.py`, with the cheapest model."""

from __future__ import annotations

import importlib.util
import multiprocessing
import time
from pathlib import Path

from faprompt.bulk import Shard, predict_shard
from faprompt.prediction import PredictOptions, expand_inputs, predict_files
from faprompt.storage import StoredFile
from tests.bulk.runs import RedDetector

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "kill_shards.py"
PROCESSES = multiprocessing.get_context("forkserver")  # imports once, then starts at once
PROCESSES.set_forkserver_preload(["tests.scripts.test_kill_shards"])


class SlowDetector(RedDetector):
    """Takes a millisecond for a picture, so that a kill meets every step."""

    def predict_batch(self, images, **keywords):
        time.sleep(0.001 * len(images))
        return super().predict_batch(images, **keywords)


def do_shard(home: Path, out: str, shard: str) -> None:
    files = (StoredFile(str(path), "") for path in expand_inputs([home / "in"]))
    options = PredictOptions(report=False, overlays=False)
    predict_shard(
        lambda device: SlowDetector(), files, home / out, Shard.parse(shard), options, part_rows=10
    )


class Running:
    """A shard in a process of its own, with the methods of `subprocess.Popen`."""

    def __init__(self, home: Path, out: str, shard: str, more: list[str]) -> None:
        self._process = PROCESSES.Process(target=do_shard, args=(home, out, shard))
        self._process.start()
        self.kill = self._process.kill

    def poll(self) -> int | None:
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def communicate(self) -> tuple[bytes, bytes]:
        self._process.join()
        return b"", b""


def script():
    spec = importlib.util.spec_from_file_location("kill_shards", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain_run(home: Path, more: list[str]) -> None:
    options = PredictOptions(report=False, overlays=False)
    predict_files(RedDetector(), expand_inputs([home / "in"]), home / "calm", options)


def test_no_row_is_lost_or_doubled(tmp_path, monkeypatch):
    kill_shards = script()
    monkeypatch.setattr(kill_shards, "start", Running)
    monkeypatch.setattr(kill_shards, "calm_run", plain_run)
    found = kill_shards.run(tmp_path, 400, 4, 8, 0.1, 0, [])
    assert found["faults"] == [] and found["kills"] >= 5, found
    assert found["pictures"] == 400 and found["error rows"] == 4
    assert found["rows equal to the bit"] == 400


def test_faults_are_found(tmp_path, monkeypatch):
    kill_shards = script()
    rows = [{"path": str(tmp_path / f"in/000/{n:06}.png"), "status": "ok", "score": 0.5}
            for n in range(3)]  # fmt: skip
    tables = iter([[rows[0], rows[0]], rows])
    monkeypatch.setattr(kill_shards, "killed_run", lambda *_: {})
    for step in ("calm_run", "merge"):
        monkeypatch.setattr(kill_shards, step, lambda *_: None)
    monkeypatch.setattr(kill_shards, "rows_in", lambda *_: next(tables))
    faults = kill_shards.run(tmp_path, 3, 1, 0, 1.0, 0, [])["faults"]
    assert any("two rows" in fault for fault in faults)
    assert any("2 pictures have no row" in fault for fault in faults)
    assert any("1 of 2 rows differ from the 3" in fault for fault in faults)
    near = rows[0] | {"score": 0.5 + 1e-7}
    assert kill_shards.same(rows[0], near) and not kill_shards.same(rows[0], rows[1])
    assert not kill_shards.same(rows[0], rows[0] | {"score": 0.5001})
