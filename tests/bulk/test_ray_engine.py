"""Ray Data as the engine: rows of a plain run, lost processes, refusals. One local Ray for all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("ray", reason="needs the extra ray")
pytest.importorskip("ray.data", reason="needs the extra ray")

from faprompt.bulk import ray_engine, ray_rows
from faprompt.errors import ConfigError, FapromptError
from faprompt.prediction import ResultRow
from faprompt.storage import StoredFile
from tests.bulk.poisoned import ENDS, RAISES, PoisonedBulkScorer, lot
from tests.helpers import small

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def local_ray():
    """Ray on this machine, which the tests share."""
    import ray

    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=2**27,
             log_to_driver=False, logging_level="ERROR")  # fmt: skip
    yield ray
    ray.shutdown()


def score(scorer, paths):
    with ray_rows(scorer) as rows:
        return {row.path: row for row in rows([StoredFile(path, "") for path in paths])}


def test_rows_are_those_of_one_process_and_a_crash_is_a_row(local_ray, tmp_path):
    paths = lot(tmp_path / "in", 90, {7: RAISES, 70: ENDS})
    (tmp_path / "in" / "00003.png").write_bytes(b"no picture")
    scorer = PoisonedBulkScorer("red-ray", threshold=0.5)
    found = score(scorer, paths)
    assert sorted(found) == paths
    crash = found[paths[70]]
    assert crash.status == "error" and "the process that scored it ended 3 times" in crash.error
    calm = [path for path in paths if path != paths[70]]
    for row in scorer.rows(calm):
        assert replace(found[row.path], latency_ms=row.latency_ms) == row
    assert found[paths[7]].status == found[paths[3]].status == "error"


def test_a_model_that_cannot_be_loaded_stops_the_run(local_ray, tmp_path):
    with pytest.raises((ConfigError, FapromptError), match="missing"):
        score(PoisonedBulkScorer("missing"), lot(tmp_path / "in", 2))


def test_relative_paths_begin_where_this_process_is(local_ray, tmp_path, monkeypatch):
    lot(tmp_path / "in", 1)
    monkeypatch.chdir(tmp_path)
    found = score(PoisonedBulkScorer("red-relative"), ["in/00000.png"])
    assert found["in/00000.png"].status == "ok"


@pytest.mark.parametrize(
    ("before", "hopeful"), [([], False), ([], True), ([b"null"] * 9 + [b"{}"], False)]
)
def test_processes_that_end_before_any_row_stop_the_run(monkeypatch, before, hopeful):
    """Without a row in any round, ten blocks that end their process are enough to say so."""
    rows = [ResultRow("a.png", "red", score=0.5).to_line() if line == b"{}" else line
            for line in [*before, *[b"null"] * 10]]  # fmt: skip
    column = SimpleNamespace(to_pylist=lambda: rows)
    data = SimpleNamespace(iter_batches=lambda **_: iter([{"row": column}]))
    ray = SimpleNamespace(data=SimpleNamespace(from_items=lambda *_, **__: None))
    monkeypatch.setattr(ray_engine._Pool, "_scored", lambda *_: data)
    pool = ray_engine._Pool(ray, PoisonedBulkScorer("red"), 1, 0, None, quiet=True)
    found = pool._pass(["a.png"], ray_engine._ROUNDS[0], hopeful=hopeful)
    if before or hopeful:
        assert [row.score for row in found] == [0.5] * (b"{}" in before)
    else:
        with pytest.raises(FapromptError, match="end before there is one row"):
            next(found)


def test_a_device_with_a_number_is_refused():
    with (
        pytest.raises(ConfigError, match="Ray hands out GPUs; device should be cuda, got 'cuda:1'"),
        ray_rows(PoisonedBulkScorer("red", device="cuda:1")),
    ):
        raise AssertionError


def test_an_actor_larger_than_every_node_is_refused(local_ray):
    with (
        pytest.raises(ConfigError, match="wants 64 CPUs, the largest node has 2"),
        ray_rows(PoisonedBulkScorer("red"), cpus=64),
    ):
        raise AssertionError


def test_the_command_writes_what_a_plain_run_writes(local_ray, tmp_path):
    for number in range(4):
        small.picture_file(tmp_path / "in" / f"{number}.png", seed=number)
    (tmp_path / "in" / "broken.png").write_bytes(b"no picture")
    address = local_ray.get_runtime_context().gcs_address  # starting another one takes long
    found = {}
    for name, more in (("plain", []), ("ray", ["--engine", "ray"])):
        words = [
            "predict",
            str(tmp_path / "in"),
            "--method",
            "clip",
            "--backbone",
            "test-tiny",
            "--threshold",
            "0.4",
            "--device",
            "cpu",
            "--out",
            str(tmp_path / name),
            *more,
        ]
        done = subprocess.run(
            [sys.executable, "-m", "faprompt", *words], capture_output=True, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "RAY_ADDRESS": address},
        )  # fmt: skip
        assert done.returncode == 3, done.stderr
        lines = (tmp_path / name / "results.jsonl").read_text().splitlines()
        rows = [json.loads(line) | {"latency_ms": None} for line in lines]
        found[name] = sorted(rows, key=lambda row: row["path"])
        assert (tmp_path / name / "report.html").is_file()
        pictures = {path.name for path in (tmp_path / name / "overlays").iterdir()}
        assert pictures == {Path(row["overlay"]).name for row in rows if row["overlay"]}
    for ours, plain in zip(found["ray"], found["plain"], strict=True):
        assert ours["score"] == pytest.approx(plain["score"], abs=1e-6)
        for row in (ours, plain):
            del row["score"]
            for region in row["regions"]:
                region["peak"], region["mean"] = round(region["peak"], 5), round(region["mean"], 5)
        assert ours == plain


@pytest.mark.parametrize(
    ("more", "told"),
    [(["--address", "auto"], "add --engine ray"),
     (["--engine", "ray", "--address", "127.0.0.1:1"], "no Ray cluster at '127.0.0.1:1'")],
)  # fmt: skip
def test_addresses_that_are_refused(tmp_path, more, told):
    small.picture_file(tmp_path / "in" / "0.png")
    words = ["predict", str(tmp_path / "in"), "--model", "tiny", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "faprompt", *words, *more], capture_output=True, text=True
    )
    assert done.returncode == 2 and told in done.stderr
