"""`faprompt predict --shard`, `--devices`, a URL as --out, and `faprompt merge`."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from tests.helpers import small

TINY = ["--model", "tiny", "--device", "cpu"]


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        small.picture_file(tmp_path / "in" / f"part_{number}.png", seed=number)
    return tmp_path / "in"


def rows_of(path):
    """The rows of a table by path, without what differs between runs, and their scores."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows = sorted(rows, key=lambda row: row["path"])
    left_out = dict.fromkeys(("latency_ms", "overlay", "map", "score"))
    plain = [
        row | left_out | {"regions": [[r["bbox"], r["area_px"]] for r in row["regions"]]}
        for row in rows
    ]
    return plain, [row["score"] or 0.0 for row in rows]


def assert_alike(one, other):
    """Rows are equal; scores up to the rounding of another batch."""
    (rows, scores), (wanted, wanted_scores) = rows_of(one), rows_of(other)
    assert rows == wanted
    assert scores == pytest.approx(wanted_scores, rel=1e-5)


def test_shards_merge_into_what_a_plain_run_writes(faprompt, pictures, tmp_path):
    (pictures / "part_3.png").write_bytes(b"no picture")
    assert faprompt("predict", "in", *TINY, "--out", "plain", "--threshold", "0.5").code == 3
    told = faprompt("predict", "in", *TINY, "--out", "out", "--threshold", "0.5", "--shard", "1/2")
    assert told.code in (0, 3) and "shard 1/2: " in told.err and told.lines
    early = faprompt("merge", "out")
    assert early.code == 1
    assert "missing or not finished: shard 2 of 2; run again: faprompt predict in " in early.err
    assert early.err.rstrip().endswith("--out out --threshold 0.5 --shard 2/2")
    also = faprompt("predict", "in", *TINY, "--out", "out", "--threshold", "0.5", "--shard=2/2")
    assert sorted([told.code, also.code]) == [0, 3]
    assert len(told.lines) + len(also.lines) == 6
    merged = faprompt("merge", "out", "--json", "--title", "Lot <8>")
    assert merged.code == 3 and "5 scored, 1 unreadable, in 2 shards" in merged.err
    summary = json.loads(merged.out)
    assert (summary["ok"], summary["errors"], summary["shards"]) == (5, 1, 2)
    assert_alike(tmp_path / "out/results.jsonl", tmp_path / "plain/results.jsonl")
    assert "Lot &lt;8&gt;" in (tmp_path / "out/report.html").read_text()
    again = faprompt(
        "predict", "in", *TINY, "--out", "out", "--threshold", "0.5", "--shard", "2/2", "--resume"
    )
    assert again.lines == [] and f"{len(also.lines)} kept, 0 dropped" in again.err
    assert again.code == also.code


def test_merge_writes_the_table_that_was_asked_for(faprompt, pictures, tmp_path):
    assert faprompt("predict", "in", *TINY, "--out", "out", "--shard", "1/1").code == 0
    for kind, name in (("csv", "results.csv"), ("none", None), ("jsonl", "results.jsonl")):
        told = faprompt("merge", "out", "--table", kind, "--no-report")
        assert told.code == 0
        tables = {path.name for path in (tmp_path / "out").glob("results.*")}
        assert tables == ({name} if name else set())
        assert not (tmp_path / "out/report.html").exists()


def test_a_plan_needs_inputs_once(faprompt, pictures, tmp_path):
    told = faprompt("predict", "in", "--out", "out", "--shard", "plan/2")
    assert told.code == 0 and "planned 6 pictures in 2 shards" in told.err
    lines = faprompt("predict", *TINY, "--out", "out", "--shard", "1/2").lines
    lines += faprompt("predict", "in", *TINY, "--out", "out", "--shard", "2/2").lines
    assert len(lines) == 6 and faprompt("merge", "out").code == 0
    other = faprompt("predict", "elsewhere", *TINY, "--out", "out", "--shard", "2/2")
    assert other.code == 2 and "is planned for in, got elsewhere" in other.err
    assert faprompt("predict", *TINY, "--out", "out", "--shard", "1/3").code == 2
    small.picture_file(pictures / "new.png", seed=9)
    assert faprompt("predict", "in", "--out", "out", "--shard", "plan/2").code == 0
    told = [faprompt("predict", *TINY, "--out", "out", "--shard", f"{i}/2") for i in (1, 2)]
    assert sum(len(each.lines) for each in told) == 1
    assert faprompt("merge", "out").code == 0


def test_devices_write_what_one_process_writes(faprompt, pictures, tmp_path):
    faprompt("predict", "in", *TINY, "--out", "plain", "--table", "csv")
    run = "from faprompt.cli.main import run; run()"
    command = [sys.executable, "-c", run, "predict", "in", "--model", "tiny", "--devices"]
    command += ["cpu,cpu", "--out", "out", "--table", "csv", "--title", "Two"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split("\t")[2] for line in done.stdout.splitlines()] == [
        f"in/part_{number}.png" for number in range(6)
    ]
    plain, out = tmp_path / "plain", tmp_path / "out"
    assert_alike(out / "results.jsonl", plain / "results.jsonl")
    assert (
        "wrote out/report.html" in done.stderr
        and "<h1>Two</h1>" in (out / "report.html").read_text()
    )
    assert (out / "results.csv").read_text().count("\n") == 7
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 0 and again.stdout == "" and "6 kept" in again.stderr


@pytest.mark.skipif(not importlib.util.find_spec("fsspec"), reason="URLs are read by fsspec")
def test_a_url_as_out_holds_the_same_files(faprompt, pictures, tmp_path):
    from faprompt.storage import open_folder

    out = "memory://cli-shards/out"
    faprompt("predict", "in", *TINY, "--out", "plain")
    told = faprompt("predict", "in", *TINY, "--out", out)
    assert told.code == 0 and len(told.lines) == 6, told.err
    folder = open_folder(out)
    (tmp_path / "fetched.jsonl").write_bytes(folder.read("results.jsonl"))
    assert_alike(tmp_path / "fetched.jsonl", tmp_path / "plain/results.jsonl")
    assert len(folder.names("overlays")) == 6 and folder.exists("report.html")
    faprompt("predict", "in/part_0.png", *TINY, "--out", out)
    assert len(folder.read("results.jsonl").splitlines()) == 1
    assert len(folder.names("overlays")) == 1


def test_a_run_does_not_score_its_own_pictures(faprompt, pictures):
    for shard in ("1/2", "2/2", "1/2", "2/2"):
        told = faprompt("predict", "in", *TINY, "--out", "in/results", "--shard", shard)
        assert told.code == 0, told.err
    assert "6 scored" in faprompt("merge", "in/results").err
    plain = faprompt("predict", "in", *TINY, "--out", "elsewhere")
    assert len(plain.lines) == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shard", "0/4"], "1 <= I <= N"),
        (["--shard", "4"], "should be I/N, such as 7/40, or plan/N"),
        (["--shard", "plan/x"], "or plan/N; got 'plan/x'"),
        (["--shard", "plan/0"], "1 <= I <= N"),
        (["--shard", "1/2", "--strict"], "--strict does not go with"),
        (["--shard", "1/2", "--title", "Lot"], "belong to `faprompt merge`"),
        (["--shard", "1/2", "--table", "csv"], "belong to `faprompt merge`"),
        (["--devices", "0,"], "devices separated by commas"),
        (["--devices", "cpu,cpu", "--device", "cpu"], "in place of --device"),
        (["--address", "auto"], "add --engine ray"),
        (["--engine", "ray", "--devices", "0,1"], "Ray knows its own"),
        (["--retry-errors"], "belongs to --shard"),
    ],
)
def test_what_does_not_go_together_is_refused(faprompt, pictures, tmp_path, words, said):
    told = faprompt("predict", "in", "--model", "tiny", "--out", "out", *words)
    assert told.code == 2 and said in told.err
    assert not (tmp_path / "out").exists()


def test_folders_that_do_not_fit(faprompt, pictures):
    assert faprompt("predict", "in", *TINY, "--out", "out", "--shard", "1/2").code == 0
    told = faprompt("predict", "in", *TINY, "--out", "out")
    assert told.code == 2 and "holds the shards of a run" in told.err
    told = faprompt("predict", "in", *TINY, "--out", "out", "--shard", "1/2", "--threshold", "0.3")
    assert told.code == 2 and "threshold was None and is 0.3" in told.err
    assert faprompt("predict", "--model", "tiny").code == 2
    assert faprompt("predict", "--model", "tiny", "--out", "new", "--shard", "1/2").code == 2
    assert faprompt("merge", "nowhere").code == 2
