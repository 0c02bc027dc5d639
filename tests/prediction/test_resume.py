"""Going on with a run: equal to one that was never cut off, or refused."""

from __future__ import annotations

import csv
import os

import numpy as np
import pytest

from faprompt.errors import ConfigError
from faprompt.prediction import expand_inputs
from faprompt.prediction.earlier_run import RECORD_NAME
from tests.helpers.systems import needs_posix
from tests.prediction.fakes import RedScorer, part, parts, predict, rows_of, timeless


def files_of(out_dir) -> dict[str, bytes]:
    """Every picture and map that a run left, by name."""
    folders = ("maps", "overlays", "thumbs")
    found = (path for name in folders for path in (out_dir / name).glob("*"))
    return {path.relative_to(out_dir).as_posix(): path.read_bytes() for path in found}


OPTIONS = {"batch_size": 2, "threshold": 0.5, "maps": "npy"}


def test_resumed_equals_uninterrupted(tmp_path):
    paths = parts(tmp_path / "in")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    predict(RedScorer(), paths, out_dir=whole, **OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        predict(RedScorer(stop_at=2), paths, out_dir=cut, **OPTIONS)
    done = rows_of(cut)
    assert 0 < len(done) < 7 and all(row.status == "ok" for row in done)

    scorer, seen = RedScorer(), []
    summary = predict(scorer, paths, out_dir=cut, resume=True, on_result=seen.append, **OPTIONS)
    assert sum(scorer.seen) == 7 - len(done)
    assert summary.n_resumed == len(done) and summary.n_ok == 7
    assert timeless(cut) == timeless(whole)
    assert [row.path for row in seen] == [str(path) for path in paths]
    assert files_of(cut) == files_of(whole)


def test_a_torn_last_line_is_done_again(tmp_path):
    paths, out = parts(tmp_path / "in", 4), tmp_path / "out"
    predict(RedScorer(), paths, out_dir=out, **OPTIONS)
    before = timeless(out)
    lines = (out / "results.jsonl").read_bytes().splitlines(keepends=True)
    (out / "results.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:40])
    scorer = RedScorer()
    summary = predict(scorer, paths, out_dir=out, resume=True, **OPTIONS)
    assert scorer.seen == [2] and summary.n_resumed == 2
    assert timeless(out) == before


def test_failed_files_are_tried_again_and_take_their_place(tmp_path):
    paths, out = parts(tmp_path / "in", 4), tmp_path / "out"
    mended = paths[1].read_bytes()
    paths[1].write_bytes(b"")
    predict(RedScorer(), paths, out_dir=out, **OPTIONS)
    paths[1].write_bytes(mended)
    scorer = RedScorer()
    summary = predict(scorer, paths, out_dir=out, resume=True, **OPTIONS)
    assert scorer.seen == [1]
    assert (summary.n_ok, summary.n_error, summary.n_resumed) == (4, 0, 3)
    assert [row.path for row in rows_of(out)] == [str(path) for path in paths]


def test_a_row_whose_files_are_gone_or_were_not_asked_for_is_done_again(tmp_path):
    paths, out = parts(tmp_path / "in", 3), tmp_path / "out"
    predict(RedScorer(), paths, out_dir=out, threshold=0.5)
    (out / rows_of(out)[1].overlay).unlink()
    scorer = RedScorer()
    predict(scorer, paths, out_dir=out, threshold=0.5, resume=True)
    assert sum(scorer.seen) == 1
    scorer = RedScorer()
    predict(scorer, paths, out_dir=out, threshold=0.5, resume=True, maps="png")
    assert sum(scorer.seen) == 3
    scorer = RedScorer()
    predict(scorer, paths, out_dir=out, threshold=0.5, resume=True)
    assert sum(scorer.seen) == 0


def test_nothing_to_resume_is_a_fresh_run(tmp_path):
    summary = predict(RedScorer(), parts(tmp_path / "in", 2), out_dir=tmp_path / "out", resume=True)
    assert (summary.n_ok, summary.n_resumed) == (2, 0)


def test_rows_of_other_files_stay_when_resuming(tmp_path):
    first, second = parts(tmp_path / "a", 2), parts(tmp_path / "b", 2)
    predict(RedScorer(), first, out_dir=tmp_path / "out")
    summary = predict(RedScorer(), second, out_dir=tmp_path / "out", resume=True)
    assert summary.n_ok == 2
    assert [row.path for row in rows_of(tmp_path / "out")] == [str(p) for p in first + second]


def test_without_resume_the_earlier_rows_are_gone(tmp_path):
    first, second = parts(tmp_path / "a", 2), parts(tmp_path / "b", 1)
    predict(RedScorer(), first, out_dir=tmp_path / "out")
    predict(RedScorer(), second, out_dir=tmp_path / "out")
    assert [row.path for row in rows_of(tmp_path / "out")] == [str(second[0])]


def test_another_model_or_setting_cannot_resume(tmp_path):
    paths, out = parts(tmp_path / "in", 2), tmp_path / "out"
    predict(RedScorer(), paths, out_dir=out, threshold=0.5, settings={"tiles": "off"})
    before = (out / "results.jsonl").read_bytes()
    changes = "model was 'red' and is 'blue'; threshold was 0.5 and is 0.6; tiles was 'off'"
    with pytest.raises(ConfigError, match=changes):
        predict(RedScorer("blue"), paths, out_dir=out, threshold=0.6, resume=True)
    with pytest.raises(ConfigError, match="bit_depth was None and is 12"):
        predict(
            RedScorer(),
            paths,
            out_dir=out,
            threshold=0.5,
            settings={"tiles": "off"},
            bit_depth=12,
            resume=True,
        )
    assert (out / "results.jsonl").read_bytes() == before
    (out / "run.json").unlink()
    with pytest.raises(ConfigError, match="run.json is missing or broken"):
        predict(RedScorer(), paths, out_dir=out, threshold=0.5, resume=True)


class Calibrated(RedScorer):
    """Brings a threshold of its own."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def predict_batch(self, images, *, threshold, **facts):
        return super().predict_batch(images, threshold=self.threshold, **facts)


@pytest.mark.parametrize("order", [1, -1])
def test_a_model_calibrated_anew_cannot_resume(order, tmp_path):
    paths = parts(tmp_path / "in", 2)
    predict(Calibrated(0.5), paths[:1], out_dir=tmp_path / "out")
    with pytest.raises(ConfigError, match="threshold 0.[56].*now uses 0.[56].*without resume"):
        predict(Calibrated(0.6), paths[::order], out_dir=tmp_path / "out", resume=True)


# --- which file a row is of ---------------------------------------------------------------


def scores(out_dir) -> dict[str, float]:
    return {row.path: round(255 * row.score) for row in rows_of(out_dir)}


def test_the_same_name_in_another_working_directory_is_another_file(tmp_path, monkeypatch):
    out = tmp_path / "out"
    first, second = part(tmp_path / "a" / "part.png", 90), part(tmp_path / "b" / "part.png", 180)
    os.utime(second, ns=(first.stat().st_mtime_ns,) * 2)
    monkeypatch.chdir(tmp_path / "a")
    predict(RedScorer(), ["part.png"], out_dir=out, maps="npy")
    monkeypatch.chdir(tmp_path / "b")
    summary = predict(RedScorer(), ["part.png"], out_dir=out, maps="npy", resume=True)
    assert (summary.n_ok, summary.n_resumed, summary.n_others, summary.n_dropped) == (1, 0, 1, 0)
    assert scores(out) == {str(first): 90, "part.png": 180}
    for row in rows_of(out):
        assert np.load(out / row.map).max() == pytest.approx(row.score)
    again = predict(RedScorer(), ["part.png"], out_dir=out, maps="npy", resume=True)
    assert (again.n_resumed, again.n_others) == (1, 1)
    monkeypatch.chdir(tmp_path / "a")
    back = predict(RedScorer(), ["part.png"], out_dir=out, maps="npy", resume=True)
    assert (back.n_resumed, back.n_others) == (1, 1)
    assert scores(out) == {str(second): 180, "part.png": 90}


def test_the_same_file_under_another_name_is_resumed(tmp_path, monkeypatch):
    path, out = part(tmp_path / "a" / "part.png", 90), tmp_path / "out"
    monkeypatch.chdir(tmp_path / "a")
    predict(RedScorer(), ["part.png"], out_dir=out)
    monkeypatch.chdir(tmp_path)
    for named in ("a/part.png", str(path), "./a/../a/part.png"):
        summary = predict(RedScorer(), [named], out_dir=out, resume=True)
        assert (summary.n_resumed, summary.n_others) == (1, 0)
        assert scores(out) == {named: 90}


def test_a_file_that_was_overwritten_is_scored_again(tmp_path):
    paths, out = parts(tmp_path / "in", 3), tmp_path / "out"
    for path in paths:
        os.utime(path, ns=(10**18, 10**18))
    predict(RedScorer(), paths, out_dir=out)
    size = paths[1].stat().st_size
    part(paths[1], 200)
    with paths[1].open("ab") as file:
        file.write(bytes(size))  # another size, the same time
    os.utime(paths[1], ns=(10**18, 10**18))
    before = paths[2].read_bytes()
    part(paths[2], 220)
    paths[2].write_bytes(paths[2].read_bytes()[: len(before)].ljust(len(before), b"\0"))
    os.utime(paths[2], ns=(10**18, 10**18 + 1))  # the same size, another time
    scorer = RedScorer()
    predict(scorer, paths, out_dir=out, resume=True)
    assert sum(scorer.seen) == 2
    assert list(scores(out).values())[0:2] == [20, 200]


@needs_posix
def test_a_link_that_points_elsewhere_is_another_file(tmp_path):
    first, second = part(tmp_path / "a.png", 90), part(tmp_path / "b.png", 91)
    assert first.stat().st_size == second.stat().st_size
    os.utime(second, ns=(first.stat().st_mtime_ns,) * 2)
    link, out = tmp_path / "link.png", tmp_path / "out"
    link.symlink_to(first)
    predict(RedScorer(), [link], out_dir=out)
    assert predict(RedScorer(), [link], out_dir=out, resume=True).n_resumed == 1
    link.unlink()
    link.symlink_to(second)
    predict(RedScorer(), [link], out_dir=out, resume=True)
    assert scores(out) == {str(link): 91}


def test_a_file_that_changes_while_it_is_scored_is_scored_again(tmp_path):
    class Slow(RedScorer):
        def predict_batch(self, images, *, threshold, **facts):
            part(path, 200)
            os.utime(path, ns=(10**18, 10**18))
            return super().predict_batch(images, threshold=threshold, **facts)

    path, out = part(tmp_path / "p.png", 90), tmp_path / "out"
    predict(Slow(), [path], out_dir=out)
    predict(RedScorer(), [path], out_dir=out, resume=True)
    assert scores(out) == {str(path): 200}


def test_without_the_record_of_its_inputs_nothing_is_resumed(tmp_path):
    paths, out = parts(tmp_path / "in", 2), tmp_path / "out"
    predict(RedScorer(), paths, out_dir=out)
    record = out / RECORD_NAME
    record.write_bytes(record.read_bytes()[:-20] + b"\nnull\n[]\n")  # torn within the last line
    scorer = RedScorer()
    predict(scorer, paths, out_dir=out, resume=True)
    assert scorer.seen == [1]
    record.unlink()
    scorer = RedScorer()
    predict(scorer, paths, out_dir=out, resume=True)
    assert scorer.seen == [2]


# --- rows of files that were not asked for ------------------------------------------------


def test_rows_of_deleted_and_changed_files_are_dropped_and_counted(tmp_path):
    paths, out = parts(tmp_path / "in", 5), tmp_path / "out"
    options = {"out_dir": out, "table": "csv", "maps": "png"}
    predict(RedScorer(), paths, **options)
    paths[0].unlink()
    part(paths[1], 250, size=(13, 20))
    summary = predict(RedScorer(), paths[3:], resume=True, **options)
    assert (summary.n_ok, summary.n_resumed, summary.n_others, summary.n_dropped) == (2, 2, 1, 2)
    left = [str(path) for path in paths[2:]]
    assert [row.path for row in rows_of(out)] == left
    with (out / "results.csv").open(newline="") as table:
        assert [row["path"] for row in csv.DictReader(table)] == left
    page = (out / "report.html").read_text()
    assert page.count('"small": ') == 3
    assert not any(str(path) in page for path in paths[:2])
    assert all(len(os.listdir(out / name)) == 3 for name in ("maps", "overlays"))
    assert len(os.listdir(out / "thumbs")) == 6


def test_a_failed_row_of_another_file_stays_while_the_file_does(tmp_path):
    bad, good = tmp_path / "bad.png", part(tmp_path / "good.png", 90)
    bad.write_bytes(b"")
    predict(RedScorer(), [bad, good], out_dir=tmp_path / "out")
    summary = predict(RedScorer(), [good], out_dir=tmp_path / "out", resume=True)
    assert (summary.n_ok, summary.n_error, summary.n_others) == (1, 0, 1)
    bad.unlink()
    summary = predict(RedScorer(), [good], out_dir=tmp_path / "out", resume=True)
    assert (summary.n_others, summary.n_dropped) == (0, 1)
    assert [row.status for row in rows_of(tmp_path / "out")] == ["ok"]


# --- what an earlier run left -------------------------------------------------------------


def shown_files(out_dir) -> set[str]:
    found = (path for path in out_dir.rglob("*") if path.is_file() and path.name[0] != ".")
    return {path.relative_to(out_dir).as_posix() for path in found}


def test_files_of_an_earlier_run_are_removed_where_this_one_does_not_write_them(tmp_path):
    first, second, out = parts(tmp_path / "a", 3), parts(tmp_path / "b", 2), tmp_path / "out"
    predict(RedScorer(), first, out_dir=out, table="csv", maps="npy")
    predict(RedScorer(), second, out_dir=out, report=False)
    overlays = {row.overlay for row in rows_of(out)}
    assert shown_files(out) == {"results.jsonl", "run.json", *overlays}
    assert not (out / "maps").exists() and not (out / "thumbs").exists()
    predict(RedScorer(), second, out_dir=out, overlays=False, maps="png")
    assert {path.split("/")[0] for path in shown_files(out)} == {
        "results.jsonl", "run.json", "report.html", "maps", "thumbs",
    }  # fmt: skip
    predict(RedScorer(), [], out_dir=out, report=False, overlays=False)
    assert shown_files(out) == {"results.jsonl", "run.json"}


def test_files_of_others_stay(tmp_path):
    paths, out = parts(tmp_path / "in", 2), tmp_path / "out"
    theirs = ["maps/plan.png", "overlays/notes.txt", "results.csv", "report.html", "thumbs/a.jpg"]
    for name in theirs:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    for _ in range(2):  # neither the first run nor a later one removes them
        predict(RedScorer(), paths, out_dir=out, report=False, overlays=False)
        assert shown_files(out) == {"results.jsonl", "run.json", *theirs}
        assert {(out / name).read_text() for name in theirs} == {"mine"}


def test_resuming_removes_a_report_that_it_does_not_write(tmp_path):
    paths, out = parts(tmp_path / "in", 3), tmp_path / "out"
    predict(RedScorer(), paths[:2], out_dir=out, table="csv", maps="npy")
    predict(RedScorer(), paths, out_dir=out, maps="npy", report=False, resume=True)
    assert not (out / "report.html").exists() and not (out / "results.csv").exists()
    assert all((out / row.map).is_file() for row in rows_of(out)) and len(rows_of(out)) == 3


def test_an_interrupted_run_leaves_no_report_of_the_one_before(tmp_path):
    paths, out = parts(tmp_path / "in", 3), tmp_path / "out"
    predict(RedScorer(), paths, out_dir=out, table="csv")
    with pytest.raises(KeyboardInterrupt):
        predict(RedScorer(stop_at=0), paths, out_dir=out, table="csv")
    assert shown_files(out) == {"results.jsonl", "run.json"}
    assert not [path for path in out.iterdir() if path.name.endswith(".tmp")]


def test_an_overlay_that_is_an_input_is_not_removed(tmp_path):
    paths, out = parts(tmp_path / "in", 2), tmp_path / "out"
    predict(RedScorer(), paths, out_dir=out)
    overlays = expand_inputs([out / "overlays"])
    summary = predict(RedScorer(), overlays, out_dir=out, overlays=False)
    assert (summary.n_ok, summary.n_error) == (2, 0)
