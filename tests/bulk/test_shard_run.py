"""Shards of a run: each picture once, whatever happened before."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
import signal

import pytest

from faprompt.bulk import ScoringPlan, Shard, merge_shards, plan_shards, run_shard, shard_of
from faprompt.bulk.device_pool import DeviceError
from faprompt.bulk.shard_parts import decode_part
from faprompt.errors import ConfigError, FolderInUseError, ShardError
from faprompt.prediction import PredictOptions, ResultRow, read_rows
from faprompt.storage import LocalFolder, StoredFile, open_folder
from tests.bulk.runs import (
    RedDetector,
    listed,
    load_nothing,
    load_red,
    merged,
    parts_of,
    run,
    run_all,
)  # fmt: skip
from tests.helpers.log import logged_notes
from tests.prediction.fakes import part, parts, predict


def pictures_of(paths, shard: str):
    index, count = map(int, shard.split("/"))
    return [path for path in paths if shard_of(str(path), count) == index]


class Counting:
    """Loads detectors and counts what they score."""

    def __init__(self, **keywords) -> None:
        self.detector = RedDetector(**keywords)

    def __call__(self, device: str) -> RedDetector:
        return self.detector

    @property
    def count(self) -> int:
        return sum(self.detector.seen)


@pytest.fixture
def paths(tmp_path):
    return parts(tmp_path / "in", 9)


def test_shards_and_merge_equal_a_plain_run(paths, tmp_path):
    paths[4].write_bytes(b"no picture")
    plain, out = tmp_path / "plain", tmp_path / "out"
    predict(RedDetector(), paths, out_dir=plain, batch_size=2, threshold=0.5, maps="npy")
    run_all(paths, out, 3, maps="npy")
    found = merge_shards(out)
    wanted = merged(plain)
    assert merged(out) == wanted and len(wanted) == 9
    assert (found.n_ok, found.n_error, found.shards) == (8, 1, 3)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["pictures"] == 9 and summary["errors"] == 1 and summary["shards"] == 3
    assert summary["verdicts"] == dict(sorted(found.verdicts.items()))
    for row in read_rows(out / "results.jsonl"):
        if row.status == "ok":
            folder = Shard(shard_of(row.path, 3), 3).folder
            assert row.overlay.startswith(folder) and row.map.startswith(folder)
            assert (out / row.overlay).is_file() and (out / row.map).is_file()
    report, other = ((each / "report.html").read_text() for each in (out, plain))
    assert report.count("base64,") == other.count("base64,")
    assert report.count('"small"') == other.count('"small"') == 8


def test_a_finished_shard_loads_no_model(paths, tmp_path):
    out = tmp_path / "out"
    run_all(paths, out, 2)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for shard in ("1/2", "2/2"):
        again = run(paths, out, shard, load=load_nothing)
        assert again.n_kept == len(pictures_of(paths, shard)) and again.n_dropped == 0
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_an_interrupted_shard_goes_on_after_its_last_part(paths, tmp_path):
    out, first = tmp_path / "out", Counting(stop_at=3)

    with pytest.raises(KeyboardInterrupt):
        run_in_parts(paths, out, first.detector, most=2)
    kept = sum(len(read_part_paths(path)) for path in parts_of(out))
    assert 0 < kept < 9 and not (out / "shards/00001-of-00001/done.json").exists()
    second = Counting()
    told = run(paths, out, "1/1", load=second)
    assert second.count == 9 - kept and told.n_kept == kept and told.n_ok == 9
    merge_shards(out)
    assert [row.path for row in merged(out)] == sorted(map(str, paths))


def run_in_parts(paths, out, detector, *, most: int):
    """A shard whose parts have few rows."""
    shard, folder = Shard(1, 1), LocalFolder(out)
    options = PredictOptions(batch_size=2, threshold=0.5)
    plan = ScoringPlan(lambda device: detector, folder, shard, options, ("auto",))
    return run_shard(
        plan.rows, listed(paths), folder, shard, settings=plan.settings,
        asked={"threshold": 0.5}, part_rows=most,
    )  # fmt: skip


def read_part_paths(path):
    return [each.row.path for each in decode_part(path.name, path.read_bytes())]


def test_parts_are_bounded_by_rows_and_by_time(paths, tmp_path):
    run_in_parts(paths, tmp_path / "out", RedDetector(), most=4)
    assert [len(read_part_paths(path)) for path in parts_of(tmp_path / "out")] == [4, 4, 1]
    folder = LocalFolder(tmp_path / "quick")
    run_shard(rows_of_red, listed(paths), folder, Shard(1, 1), settings=dict, part_seconds=0.0)
    assert len(parts_of(tmp_path / "quick")) == 9


def rows_of_red(files):
    return iter([ResultRow(file.path, "red", score=0.5, width=1, height=1) for file in files])


def test_adding_files_scores_them_alone(paths, tmp_path):
    out = tmp_path / "out"
    run_all(paths, out, 2)
    more = [part(tmp_path / "in" / f"new_{i}.png", 99) for i in range(4)]
    counting = Counting()
    run_all([*more, *paths], out, 2, load=counting)
    assert counting.count == 4
    merge_shards(out)
    assert [row.path for row in merged(out)] == sorted(map(str, [*paths, *more]))


def test_changed_and_removed_files_replace_and_lose_their_rows(paths, tmp_path):
    out = tmp_path / "out"
    run_all(paths, out, 2)
    merge_shards(out)
    before = {row.path: row for row in merged(out)}
    part(paths[3], 250, size=(14, 20))
    paths[6].unlink()
    counting = Counting()
    left = [path for path in paths if path != paths[6]]
    dropped = [run(left, out, f"{i}/2", load=counting).n_dropped for i in (1, 2)]
    assert counting.count == 1 and sum(dropped) == 2
    merge_shards(out)
    now = {row.path: row for row in merged(out)}
    assert set(now) == set(before) - {str(paths[6])}
    changed = {path for path in now if now[path] != before[path]}
    assert changed == {str(paths[3])} and now[str(paths[3])].score == pytest.approx(250 / 255)


def test_errors_are_kept_unless_they_are_to_be_tried_again(paths, tmp_path):
    out, good = tmp_path / "out", paths[2].read_bytes()
    stamp = "of the storage"
    files = [StoredFile(str(path), stamp) for path in paths]
    paths[2].write_bytes(b"")
    folder, counting = LocalFolder(out), Counting()

    def once(retry: bool):
        plan = ScoringPlan(counting, folder, Shard(1, 1), PredictOptions(), ("cpu",))
        return run_shard(
            plan.rows, files, folder, Shard(1, 1), settings=plan.settings, retry_errors=retry
        )

    assert once(False).n_error == 1
    paths[2].write_bytes(good)
    assert once(False).n_error == 1 and counting.count == 8
    told = once(True)
    assert (told.n_ok, told.n_error, told.n_kept) == (9, 0, 8) and counting.count == 9


@pytest.mark.parametrize("damage", [lambda c: c[:-5], lambda c: b"", lambda c: c[5:]])
def test_a_damaged_part_is_made_again(paths, tmp_path, damage):
    out = tmp_path / "out"
    run_all(paths, out, 2)
    merge_shards(out)
    before = merged(out)
    hurt = parts_of(out)[0]
    lost = len(read_part_paths(hurt))
    hurt.write_bytes(damage(hurt.read_bytes()))
    with pytest.raises(ShardError, match=r"shard 1/2: part-00000.* run --shard 1/2 again"):
        merge_shards(out)
    counting = Counting()
    with logged_notes() as notes:
        run_all(paths, out, 2, load=counting)
    assert counting.count == lost and any("made again" in note for note in notes)
    merge_shards(out)
    assert merged(out) == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"parts": 1}'])
def test_a_damaged_done_file_is_written_again(paths, tmp_path, content):
    out = tmp_path / "out"
    run_all(paths, out, 2)
    done = out / "shards/00002-of-00002/done.json"
    done.write_bytes(content)
    with pytest.raises(ShardError, match=r"not finished: shard 2 of 2"):
        merge_shards(out)
    run(paths, out, "2/2", load=load_nothing)
    assert merge_shards(out).n_ok == 9


def test_two_processes_on_one_shard(paths, tmp_path):
    out = tmp_path / "out"
    with LocalFolder(out).lock("shards/00001-of-00002/"):
        with pytest.raises(FolderInUseError, match="another run"):
            run(paths, out, "1/2")
        run(paths, out, "2/2")
    run(paths, out, "1/2")
    assert merge_shards(out).n_ok == 9


def test_two_runs_of_a_shard_without_locks_leave_each_row_once(paths):
    """An object storage has no locks: what one run wrote meanwhile does not count twice."""
    out = "memory://twice"

    def meddling(device: str) -> RedDetector:
        if not open_folder(out).exists("shards/00001-of-00001/done.json"):
            run(paths, out, "1/1")
        return RedDetector()

    told = run(paths, out, "1/1", load=meddling)
    assert told.n_ok == 9 and len(open_folder(out).names("shards/00001-of-00001/parts")) == 2
    assert merge_shards(out).n_ok == 9
    assert run(paths, out, "1/1", load=load_nothing).n_dropped == 9
    assert merge_shards(out).n_ok == 9 and len(merged(out)) == 9


@pytest.mark.parametrize("location", ["memory://bucket/out", "file://{}/out"])
def test_other_places_hold_the_same(paths, tmp_path, location):
    pytest.importorskip("fsspec", reason="URLs are read by fsspec")
    out = location.format(tmp_path)
    run_all(paths, out, 2, maps="png")
    told = merge_shards(out, tables=("jsonl", "csv"), title="Lot 7")
    predict(RedDetector(), paths, out_dir=tmp_path / "plain", batch_size=2, threshold=0.5)
    assert merged(out) == merged(tmp_path / "plain")
    folder = open_folder(out)
    assert all(folder.exists(name) for name in told.files)
    assert b"<h1>Lot 7</h1>" in folder.read("report.html")
    for line in folder.read("results.jsonl").splitlines():
        row = json.loads(line)
        assert folder.exists(row["overlay"]) and folder.exists(row["map"])


@pytest.mark.parametrize("kinds", [("parquet", "jsonl"), ("jsonl", "jsonl")])
def test_parts_of_both_kinds_make_one_table(paths, tmp_path, kinds):
    pytest.importorskip("pyarrow", reason="Parquet is written by pyarrow")
    tables = []
    for place, (one, two) in (("a", kinds), ("b", ("parquet", "parquet"))):
        out = tmp_path / place
        for index, kind in ((1, one), (2, two)):
            run_shard(
                rows_of_red, listed(paths), LocalFolder(out), Shard(index, 2),
                settings=lambda: {"model": "red", "threshold": None}, kind=kind,
            )  # fmt: skip
        merge_shards(out, tables=("jsonl", "csv", "parquet"))
        tables.append([(out / f"results.{e}").read_bytes() for e in ("jsonl", "csv", "parquet")])
    assert tables[0] == tables[1]


def test_another_run_in_the_folder_is_refused_by_name(paths, tmp_path):
    out = tmp_path / "out"
    run(paths, out, "1/2")
    with pytest.raises(ConfigError, match="threshold was 0.5 and is 0.25"):
        run(paths, out, "1/2", load=load_nothing, asked={"threshold": 0.25})
    with pytest.raises(ConfigError, match="shards was 2 and is 3"):
        run(paths, out, "1/3", load=load_nothing)

    class Other(RedDetector):
        weights = "other weights"

    with pytest.raises(ConfigError, match="the detector's weights was 'red weights' and is 'other"):
        run(paths, out, "2/2", load=lambda device: Other())
    (out / "run.json").write_text("{")
    with pytest.raises(ConfigError, match="missing or broken"):
        run(paths, out, "1/2")
    (out / "run.json").unlink()
    with pytest.raises(ConfigError, match="missing or broken"):
        run(paths, out, "1/2")


def test_a_source_that_skips_or_repeats_is_found(paths, tmp_path):
    folder = LocalFolder(tmp_path / "out")

    def skipping(files):
        return rows_of_red(files[1:])

    def repeating(files):
        return rows_of_red([*files, files[0]])

    for source, said in ((skipping, "1 pictures got no row"), (repeating, "the second one")):
        with pytest.raises(ValueError, match=said):
            run_shard(source, listed(paths), folder, Shard(1, 1), settings=dict)
    shuffled = run_shard(
        lambda files: rows_of_red(files[::-1]), listed(paths), folder, Shard(1, 1), settings=dict
    )
    assert shuffled.n_ok == 9


def test_options_of_the_merge_are_refused(paths, tmp_path):
    for option in ({"strict": True}, {"title": "Lot"}, {"table": "csv"}):
        with pytest.raises(ConfigError, match="merge_shards"):
            run(paths, tmp_path / "out", "1/2", **option)


def test_a_run_as_a_whole_replaces_or_resumes(paths, tmp_path):
    out = tmp_path / "out"
    run(paths, out)
    merge_shards(out)
    first = merged(out)
    assert [row.path for row in first] == sorted(map(str, paths))
    assert not (out / "shards").exists()
    run(paths, out, load=load_nothing, resume=True)
    counting = Counting()
    run(paths[:5], out, load=counting)
    assert counting.count == 5
    assert len(list((out / "overlays").iterdir())) == 5, "those of the earlier run are removed"
    merge_shards(out)
    assert merged(out) == sorted(first, key=lambda row: row.path)[:5]


def test_a_plan_lists_the_inputs_once(paths, tmp_path):
    out = tmp_path / "out"
    folder = LocalFolder(out)
    plan = plan_shards(listed([*paths, paths[0]]), folder, 3, inputs=["in"])
    assert plan.listing.files == 9

    def unread():
        raise AssertionError("the inputs were listed again")
        yield

    for index in (1, 2, 3):
        shard = Shard(index, 3)
        lines = gzip.decompress((out / shard.folder / "manifest.jsonl.gz").read_bytes())
        wanted = [[str(path), ""] for path in pictures_of(paths, f"{index}/3")]
        assert [json.loads(line) for line in lines.splitlines()] == wanted
        run_shard(
            rows_of_red, unread(), folder, shard,
            settings=lambda: {"model": "red", "threshold": None},
        )  # fmt: skip
    assert merge_shards(out).n_ok == 9


def test_a_plan_and_its_shards(paths, tmp_path, monkeypatch):
    monkeypatch.setattr("faprompt.bulk.shard_plan._MOST_WAITING", 4)  # some pictures are spilled
    out = tmp_path / "out"
    plan_shards(listed(paths), LocalFolder(out), 3)
    run_all([], out, 3)
    assert merge_shards(out).n_ok == 9
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "plan.json").write_bytes((out / "plan.json").read_bytes())
    with pytest.raises(ConfigError, match="planned for 3 shards"):
        run(paths, tmp_path / "new", "1/4")
    (out / "shards/00002-of-00003/manifest.jsonl.gz").write_bytes(b"no")
    with pytest.raises(ShardError, match="run --shard plan/3 again"):
        run([], out, "2/3")
    more = part(tmp_path / "in" / "more.png", 77)
    plan_shards(listed([*paths, more]), LocalFolder(out), 3)
    with pytest.raises(ShardError, match=r"saw other inputs than plan.json says"):
        merge_shards(out)
    counting = Counting()
    run_all([], out, 3, load=counting)
    assert counting.count == 1 and merge_shards(out).n_ok == 10
    (out / "plan.json").write_text("{")
    with pytest.raises(ShardError, match="plan.json is damaged"):
        run([], out, "2/3")
    with pytest.raises(ConfigError, match="I/N"):
        plan_shards(listed(paths), LocalFolder(out), 0)


def test_several_devices_give_the_rows_of_one_in_order(paths, tmp_path):
    paths[1].write_bytes(b"no picture")
    seen = []
    run(
        paths, tmp_path / "two", "1/1", devices=("one", "two"),
        on_row=lambda row, done, total: seen.append((row.path, done, total)),
    )  # fmt: skip
    run(paths, tmp_path / "one", "1/1")
    for place in ("one", "two"):
        merge_shards(tmp_path / place)
    assert merged(tmp_path / "two") == merged(tmp_path / "one")
    assert seen == [(str(path), i, 9) for i, path in enumerate(paths, 1)]


def load_broken(device: str) -> RedDetector:
    if multiprocessing.parent_process():
        raise ConfigError("this device is broken")
    return load_red(device)


def load_killed(device: str) -> RedDetector:
    if multiprocessing.parent_process():
        os.kill(os.getpid(), signal.SIGKILL)
    return load_red(device)


@pytest.mark.parametrize(
    ("load", "said"), [(load_broken, "this device is broken"), (load_killed, "ended with -9")]
)
def test_a_device_that_fails_ends_the_run(paths, tmp_path, load, said):
    with pytest.raises(DeviceError, match=said):
        run(paths, tmp_path / "out", "1/1", load=load, devices=("one", "two"))
