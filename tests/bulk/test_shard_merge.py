"""What a merge refuses, and what it leaves behind."""

from __future__ import annotations

import json
import shutil

import pytest

from faprompt.bulk import Shard, merge_shards, shard_of
from faprompt.bulk.shard_files import PartFact, ShardFiles
from faprompt.errors import ConfigError, FolderInUseError, MissingExtraError, ShardError
from faprompt.prediction.report_digest import LIST_SIZE
from faprompt.storage import LocalFolder, StoredFile
from tests.bulk.runs import RedDetector, merged, parts_of, run, run_all
from tests.prediction.fakes import part, parts, predict


@pytest.fixture
def paths(tmp_path):
    return parts(tmp_path / "in", 9)


@pytest.fixture
def out(paths, tmp_path):
    run_all(paths, tmp_path / "out", 3, command="faprompt predict in --shard I/N --out out")
    return tmp_path / "out"


def refused(out, said: str, error=ShardError) -> None:
    with pytest.raises(error, match=said):
        merge_shards(out)
    assert not [name for name in ("results.jsonl", "report.html", "summary.json")
                if (out / name).exists()]  # fmt: skip


def change_done(out, index: int, change) -> None:
    """Let a shard say something else of itself."""
    done = out / f"shards/{index:05}-of-00003/done.json"
    values = json.loads(done.read_text())
    change(values)
    done.write_text(json.dumps(values))


def test_missing_shards_are_named_with_the_command(out):
    (out / "shards/00002-of-00003/done.json").unlink()
    refused(out, r"shard 2 of 3; run again: faprompt predict in --shard 2/3 --out out$")
    shutil.rmtree(out / "shards/00003-of-00003")
    refused(out, "shards 2, 3 of 3; run again")
    shutil.rmtree(out / "shards")
    refused(out, "shards 1, 2, 3 of 3")


def test_many_missing_shards_are_counted(paths, tmp_path):
    run(paths, tmp_path / "many", Shard(4, 30))
    refused(tmp_path / "many", r"shards 1, 2, 3, 5, 6, 7, 8, 9 and 21 more of 30")


def test_other_settings(out):
    change_done(out, 2, lambda done: done.update(fingerprint="0" * 64))
    refused(out, "shard 2: made with other settings than run.json says.*--shard 2/3")


def test_other_inputs_in_some_shards(out, paths, tmp_path):
    run([*paths, part(tmp_path / "in" / "new.png", 5)], out, "3/3")
    change_done(out, 3, lambda done: done.update(finished="2999-01-01T00:00:00+00:00"))
    refused(out, r"shards 1, 2: saw other inputs than the shard that was done last \(9 files .*10")


def test_inputs_that_changed_while_they_were_listed(out):
    change_done(out, 2, lambda done: done["listed"].update(files=done["listed"]["files"] + 1))
    refused(out, "the pictures of all shards together are not those of the inputs")


def test_a_part_that_is_missing_or_other_than_it_was(out):
    name = parts_of(out)[1]
    content = name.read_bytes()
    name.unlink()
    refused(out, r"shard 2/3: part-00000-.* is missing; run --shard 2/3 again")
    name.write_bytes(parts_of(out)[0].read_bytes())
    refused(out, r"shard 2/3: part-00000-.* is damaged; run --shard 2/3 again")
    name.write_bytes(content)
    assert merge_shards(out).n_ok == 9


def stored_rows(out, index: int):
    """Rows and stamps of a shard that has one part."""
    place = ShardFiles(LocalFolder(out), Shard(index, 3))
    (name,) = place.part_names()
    content = place.read_content(name)
    found = place.read_part(name, content, PartFact.of(0, content))
    return place, name, [each.row for each in found], {e.row.path: e.stamp for e in found}


def replace_part(out, index: int, rows, stamps) -> None:
    place, name, *_ = stored_rows(out, index)
    place.remove_part(name)
    new, fact = place.write_part(0, "0" * 64, rows, stamps, "jsonl")
    parts = {new: {"rows": fact.rows, "digest": fact.digest}}
    change_done(out, index, lambda done: done.update(parts=parts))


def test_a_row_that_is_there_twice(out):
    _, _, rows, stamps = stored_rows(out, 1)
    replace_part(out, 1, [*rows, rows[0]], stamps)
    refused(out, "shard 1/3: two rows of .*run --shard 1/3 again")


def test_a_row_in_the_wrong_shard(out):
    _, _, rows, stamps = stored_rows(out, 1)
    _, _, others, more = stored_rows(out, 2)
    replace_part(out, 1, [*rows, others[0]], stamps | more)
    refused(out, "shard 1/3: a row of .*, which belongs to shard 2; run --shard 1/3 again")


def test_a_row_too_few_and_another_stamp(out):
    _, _, rows, stamps = stored_rows(out, 1)
    replace_part(out, 1, rows[1:], stamps)
    refused(out, rf"shard 1/3: {len(rows) - 1} rows, and {len(rows)} pictures")
    replace_part(out, 1, rows, stamps | {rows[0].path: "another"})
    refused(out, rf"shard 1/3: {len(rows)} rows, and {len(rows)} pictures or other ones")


def test_folders_of_other_runs(paths, tmp_path):
    refused(tmp_path / "nothing", "run.json is missing or broken", ConfigError)
    predict(RedDetector(), paths, out_dir=tmp_path / "plain")
    with pytest.raises(ShardError, match="holds no shards"):
        merge_shards(tmp_path / "plain")
    run(paths, tmp_path / "whole")
    (tmp_path / "whole/done.json").unlink()
    refused(tmp_path / "whole", "the run is not finished .*run it again")


def test_a_merge_that_runs_already(out):
    with LocalFolder(out).lock(), pytest.raises(FolderInUseError):
        merge_shards(out)


def test_a_later_merge_replaces_an_earlier_one(out):
    assert merge_shards(out, tables=("csv",)).files == (
        "results.csv", "report.html", "summary.json",
    )  # fmt: skip
    assert merge_shards(out, tables=(), report=False).files == ("summary.json",)
    assert not (out / "results.csv").exists() and not (out / "report.html").exists()
    assert merge_shards(out).n_ok == 9 and len(merged(out)) == 9


def test_shards_without_a_report(paths, tmp_path):
    out = tmp_path / "out"
    run_all(paths, out, 2, report=False, asked={"report": False})
    assert not list(out.glob("shards/*/thumbs"))
    assert "report.html" not in merge_shards(out).files
    assert "report.html" in merge_shards(out, report=True).files


def test_parquet_parts_need_pyarrow(out, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="pyarrow"):
        merge_shards(out)


def test_the_report_names_pictures_of_all_shards(out, paths):
    merge_shards(out, title="Lot <9>")
    page = (out / "report.html").read_text()
    assert "Lot &lt;9&gt;" in page and LIST_SIZE > 9
    for path in paths:
        folder = Shard(shard_of(str(path), 3), 3).folder
        assert f"{folder}overlays/{path.stem}-" in page


def test_progress_counts_shards(out):
    seen = []
    merge_shards(out, progress=lambda *values: seen.append(values))
    assert seen == [("merge", 1, 3), ("merge", 2, 3), ("merge", 3, 3)]


def test_a_listing_with_stamps_is_compared_with_stamps(paths, tmp_path):
    from faprompt.bulk import run_shard
    from tests.bulk.test_shard_run import rows_of_red

    out, settings = LocalFolder(tmp_path / "out"), {"model": "red", "threshold": None}
    for index, stamp in ((1, "old"), (2, "new")):
        files = [StoredFile(str(path), stamp) for path in paths]
        run_shard(rows_of_red, files, out, Shard(index, 2), settings=lambda: settings)
    change = out.path / "shards/00002-of-00002/done.json"
    change.write_text(change.read_text().replace('"finished": "2', '"finished": "9'))
    with pytest.raises(ShardError, match="shard 1: saw other inputs .*other stamps"):
        merge_shards(out.path)
