"""The bulk run: what it writes, what it survives, and what it refuses."""

from __future__ import annotations

import json
import math
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faprompt.errors import FolderInUseError, ImageReadError, MissingExtraError
from faprompt.imaging.picture_windows import ArrayWindows
from faprompt.prediction import ResultRow, expand_inputs
from faprompt.results import AnomalyResult
from faprompt.work import lock_folder
from tests.helpers.systems import needs_posix
from tests.prediction.fakes import RedScorer, part, parts, predict, rows_of, timeless


def test_one_row_per_file_in_order(tmp_path):
    paths = parts(tmp_path / "in")
    seen: list[ResultRow] = []
    summary = predict(
        RedScorer(),
        paths,
        out_dir=tmp_path / "out",
        batch_size=3,
        threshold=0.5,
        maps="npy",
        table="csv",
        on_result=seen.append,
    )
    rows = rows_of(tmp_path / "out")
    assert rows == seen
    assert [row.path for row in rows] == [str(path) for path in paths]
    assert [row.score for row in rows] == pytest.approx(
        [20 / 255, *(i * 30 / 255 for i in range(1, 7))]
    )
    assert [row.verdict for row in rows] == ["OK"] * 4 + ["REVIEW", "NG", "NG"]
    assert all((row.width, row.height, row.threshold) == (20, 12, 0.5) for row in rows)
    assert all(row.latency_ms is not None and row.latency_ms > 0 for row in rows)
    assert rows[6].regions[0].bbox == (10, 6, 20, 12)
    assert (summary.n_ok, summary.n_error, summary.n_resumed) == (7, 0, 0)
    assert summary.verdicts == {"OK": 4, "REVIEW": 1, "NG": 2}
    assert summary.results == tmp_path / "out" / "results.jsonl"
    assert summary.report is not None and summary.report.is_file()
    assert summary.table is not None and summary.table.name == "results.csv"
    assert not [path for path in (tmp_path / "out").rglob("*.tmp")]


def test_without_threshold_there_is_no_verdict(tmp_path):
    summary = predict(RedScorer(), parts(tmp_path / "in", 2), out_dir=tmp_path / "out")
    assert summary.verdicts == {"none": 2}
    assert {row.verdict for row in rows_of(tmp_path / "out")} == {None}
    raw = (tmp_path / "out" / "results.jsonl").read_text()
    assert '"verdict": null' in raw and "NaN" not in raw


def test_bad_files_are_one_error_row_each(tmp_path):
    folder = tmp_path / "in"
    good = parts(folder, 2)
    (folder / "a_empty.png").write_bytes(b"")
    (folder / "b_text.png").write_text("not a picture")
    whole = good[1].read_bytes()
    (folder / "part_0b_cut.png").write_bytes(whole[: len(whole) // 2])
    part(folder / "z_large.png", 10, size=(50, 60))
    paths = [*expand_inputs([folder]), folder / "missing.png", folder]
    summary = predict(RedScorer(), paths, out_dir=tmp_path / "out", batch_size=2, max_pixels=2999)
    rows = rows_of(tmp_path / "out")
    assert [row.path for row in rows] == [str(path) for path in paths]
    reasons = {row.path.rsplit("/", 1)[1]: row.error for row in rows if row.status == "error"}
    assert "0 bytes" in reasons["a_empty.png"]
    assert "text file" in reasons["b_text.png"]
    assert "truncated or corrupt" in reasons["part_0b_cut.png"]
    assert "above the limit of 2,999" in reasons["z_large.png"]
    assert "no such file" in reasons["missing.png"]
    assert "folder" in reasons["in"]
    assert (summary.n_ok, summary.n_error) == (2, 6)
    for row in rows:
        assert (row.score is None) == (row.status == "error") == (row.error is not None)


def test_only_bad_files(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    summary = predict(RedScorer(), [tmp_path / "a.png"], out_dir=tmp_path / "out")
    assert (summary.n_ok, summary.n_error, dict(summary.verdicts)) == (0, 1, {})


def test_no_files_at_all(tmp_path):
    summary = predict(RedScorer(), [], out_dir=tmp_path / "deep" / "out", table="csv")
    assert (summary.n_ok, summary.n_error) == (0, 0)
    assert rows_of(tmp_path / "deep" / "out") == []


def test_strict_stops_at_the_first_bad_file(tmp_path):
    paths = parts(tmp_path / "in", 5)
    paths[2].write_bytes(b"")
    with pytest.raises(ImageReadError, match="part_2.png: the file is empty"):
        predict(RedScorer(), paths, out_dir=tmp_path / "out", batch_size=1, strict=True)
    assert [row.status for row in rows_of(tmp_path / "out")] == ["ok", "ok", "error"]


def test_maps_hold_the_scores_at_the_size_of_the_picture(tmp_path):
    path = part(tmp_path / "p.png", 200, size=(9, 31))
    for kind in ("npy", "png"):
        out = tmp_path / kind
        predict(RedScorer(), [path], out_dir=out, maps=kind)
        (row,) = rows_of(out)
        assert row.map is not None and row.map.endswith(kind)
        stored = (
            np.load(out / row.map)
            if kind == "npy"
            else np.asarray(Image.open(out / row.map)) / 65535
        )
        expected = np.asarray(Image.open(path))[..., 0] / 255
        np.testing.assert_allclose(stored, expected, atol=1e-5)
    assert np.load(tmp_path / "npy" / rows_of(tmp_path / "npy")[0].map).dtype == np.float32


def test_map_and_overlay_are_aligned_with_the_turned_picture(tmp_path):
    stored = np.full((40, 80, 3), 30, np.uint8)
    stored[:8, :16, 0] = 255  # top left as stored; a quarter turn clockwise puts it top right
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "phone.jpg"
    Image.fromarray(stored).save(path, exif=exif, quality=95, subsampling=0)
    out = tmp_path / "out"
    predict(RedScorer(), [path], out_dir=out, maps="npy", threshold=0.8)
    (row,) = rows_of(out)
    assert (row.width, row.height) == (40, 80)
    score_map, marked = np.load(out / row.map), np.asarray(Image.open(out / row.overlay))
    assert score_map.shape == marked.shape[:2] == (80, 40)
    assert score_map[:15, 33:].min() > 0.8 and score_map[20:].max() < 0.3
    assert marked[2:14, 31, 1].min() > 150 > 100 > marked[25:, :25].max()  # a yellow outline
    assert marked[2:14, 34:38, 1].max() < 60  # the defect itself stays visible
    x0, y0, x1, y1 = row.regions[0].bbox
    assert abs(x0 - 32) <= 1 and y0 == 0 and x1 == 40 and abs(y1 - 16) <= 1


def test_same_names_in_two_folders_do_not_collide(tmp_path):
    paths = [part(tmp_path / name / "p.png", red) for name, red in (("a", 90), ("b", 180))]
    out = tmp_path / "out"
    predict(RedScorer(), paths, out_dir=out, maps="npy")
    first, second = rows_of(out)
    assert first.map != second.map and first.overlay != second.overlay
    assert np.load(out / second.map).max() == pytest.approx(180 / 255)
    assert np.load(out / first.map).max() == pytest.approx(90 / 255)


@pytest.mark.parametrize(
    "name", ["<script>.png", "Prüfteil 検査.png", "a b%20&?#.png", "x" * 200 + ".png"]
)
def test_any_file_name(name, tmp_path):
    path = part(tmp_path / "in" / name, 90)
    predict(RedScorer(), [path], out_dir=tmp_path / "out", maps="png", table="csv")
    (row,) = rows_of(tmp_path / "out")
    assert row.path == str(path)
    assert (tmp_path / "out" / row.map).is_file() and (tmp_path / "out" / row.overlay).is_file()


def test_what_is_not_asked_for_is_not_written(tmp_path):
    paths = parts(tmp_path / "in", 1)
    summary = predict(RedScorer(), paths, out_dir=tmp_path / "out", overlays=False, report=False)
    shown = [path.name for path in (tmp_path / "out").iterdir() if path.name[0] != "."]
    assert sorted(shown) == ["results.jsonl", "run.json"]
    (row,) = rows_of(tmp_path / "out")
    assert row.map is None and row.overlay is None and summary.report is None


def test_large_overlays_are_scaled_down_with_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr("faprompt.prediction.result_pictures.OVERLAY_MAX_SIDE", 40)
    path = part(tmp_path / "p.png", 200, size=(30, 80))
    predict(RedScorer(), [path], out_dir=tmp_path / "out", threshold=0.5)
    (row,) = rows_of(tmp_path / "out")
    assert Image.open(tmp_path / "out" / row.overlay).size == (40, 15)
    assert row.notes == ("overlay scaled down to 40x15",)
    assert (row.width, row.height, row.regions[0].bbox) == (80, 30, (40, 15, 80, 30))


def test_notes_of_reading_reach_the_row(tmp_path):
    path = tmp_path / "p.tif"
    frames = [Image.new("L", (8, 8), shade) for shade in (10, 20)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    predict(RedScorer(), [path], out_dir=tmp_path / "out")
    assert rows_of(tmp_path / "out")[0].notes == ("frame 0 of 2",)


def test_bit_depth_is_passed_on(tmp_path):
    path = tmp_path / "p.png"
    Image.fromarray(np.full((4, 4), 4095, np.uint16)).save(path)
    predict(RedScorer(), [path], out_dir=tmp_path / "out", bit_depth=12)
    assert rows_of(tmp_path / "out")[0].score == 1.0


def test_repeated_files_count_once(tmp_path):
    (path,) = parts(tmp_path / "in", 1)
    summary = predict(RedScorer(), [path, str(path)], out_dir=tmp_path / "out")
    assert summary.n_ok == 1 and len(rows_of(tmp_path / "out")) == 1


def test_large_pictures_make_small_batches(tmp_path):
    paths = parts(tmp_path / "in", 6)  # 240 pixels each
    scorer = RedScorer()
    predict(scorer, paths, out_dir=tmp_path / "a", batch_size=4, pixel_budget=4 * 500)
    assert scorer.seen == [2, 2, 2]
    scorer = RedScorer()
    predict(scorer, paths, out_dir=tmp_path / "b", batch_size=4, pixel_budget=1)
    assert scorer.seen == [1] * 6
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b")


# --- detectors that misbehave -------------------------------------------------------------


class Faulty(RedScorer):
    """Return the given value as the score of pictures that hold red."""

    def __init__(self, score: float) -> None:
        super().__init__()
        self.score = score

    def _predict(self, image, threshold):
        result = super()._predict(image, threshold)
        return replace(result, score=self.score) if image.max() > 200 else result


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_an_error_row(score, tmp_path):
    paths = [part(tmp_path / "a.png", 90), part(tmp_path / "b.png", 255)]
    summary = predict(Faulty(score), paths, out_dir=tmp_path / "out")
    first, second = rows_of(tmp_path / "out")
    assert first.status == "ok" and second.status == "error"
    assert "score or the map is not finite" in second.error and second.score is None
    assert summary.n_error == 1


def test_a_map_with_nan_is_an_error_row(tmp_path):
    class Holes(RedScorer):
        def _predict(self, image, threshold):
            result = super()._predict(image, threshold)
            result.score_map[0, 0] = np.nan
            return result

    predict(Holes(), parts(tmp_path / "in", 1), out_dir=tmp_path / "out")
    assert rows_of(tmp_path / "out")[0].status == "error"


def test_a_picture_that_the_detector_refuses_spoils_no_other(tmp_path):
    class Picky(RedScorer):
        def predict_batch(self, images, *, threshold, **facts):
            if any(image.image_size[0] < 5 for image in images):
                raise ImageReadError("too thin for this model")
            return super().predict_batch(images, threshold=threshold, **facts)

    paths = [*parts(tmp_path / "in", 2), part(tmp_path / "thin.png", 90, size=(2, 40))]
    predict(Picky(), paths, out_dir=tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [row.status for row in rows] == ["ok", "ok", "error"]
    assert rows[2].error == "too thin for this model"


def test_other_failures_end_the_run_and_leave_valid_rows(tmp_path):
    class Breaks(RedScorer):
        def predict_batch(self, images, *, threshold, **facts):
            if len(self.seen) == 2:
                raise RuntimeError("out of memory")
            return super().predict_batch(images, threshold=threshold, **facts)

    paths, out = parts(tmp_path / "in"), tmp_path / "out"
    with pytest.raises(RuntimeError, match="out of memory"):
        predict(Breaks(), paths, out_dir=out, batch_size=2)
    rows = rows_of(out)
    assert rows and [row.path for row in rows] == [str(path) for path in paths[: len(rows)]]


def test_results_that_do_not_fit_the_pictures(tmp_path):
    class Short(RedScorer):
        def predict_batch(self, images, *, threshold, **facts):
            return super().predict_batch(images[:-1], threshold=threshold, **facts)

    class Turned(RedScorer):
        def _predict(self, image, threshold):
            turned = image.transpose(1, 0, 2)
            return super()._predict(turned, threshold)

    for scorer in (Short(), Turned()):
        with pytest.raises(ValueError, match="one result per picture, in order and of its size"):
            predict(scorer, parts(tmp_path / "in", 2), out_dir=tmp_path / "out")


def test_options_out_of_range_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    def run(**options):
        predict(RedScorer(), [], out_dir=tmp_path / "out", **options)

    with pytest.raises(ValueError, match="batch_size should be at least 1, got 0"):
        run(batch_size=0)
    with pytest.raises(ValueError, match="maps should be 'npy', 'png' or None, got 'jpg'"):
        run(maps="jpg")
    with pytest.raises(ValueError, match="table should be 'csv' or 'parquet', got 'xls'"):
        run(table="xls")
    with pytest.raises(ValueError, match="pixel_budget"):
        run(pixel_budget=0)
    with pytest.raises(TypeError, match="batch_size should be a whole number, got 2.5"):
        run(batch_size=2.5)
    for threshold in (5, -1, math.nan):
        with pytest.raises(ValueError, match="threshold should be from 0 to 1, got"):
            run(threshold=threshold)
    with pytest.raises(ValueError, match="bit_depth should be 1 to 32, got 99"):
        run(bit_depth=99)
    with pytest.raises(TypeError, match="bit_depth should be a whole number, got '12'"):
        run(bit_depth="12")
    with pytest.raises(ValueError, match="max_pixels should be at least 1, got 0"):
        run(max_pixels=0)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match="parquet"):
        run(table="parquet")
    assert not (tmp_path / "out").exists()


def test_run_settings_are_written_beside_the_results(tmp_path):
    predict(
        RedScorer(), [], out_dir=tmp_path, threshold=0.5, settings={"tiles": 2, "sizes": (1, 2)}
    )
    assert json.loads((tmp_path / "run.json").read_text()) == {
        "tiles": 2,
        "sizes": [1, 2],
        "model": "red",
        "threshold": 0.5,
        "bit_depth": None,
    }


def test_detectors_need_no_base_class():
    result = RedScorer().predict_batch(
        [ArrayWindows(np.zeros((2, 2, 3), np.uint8))], threshold=None
    )[0]
    assert isinstance(result, AnomalyResult)


# --- special files and folders -------------------------------------------------------------


@needs_posix
def test_what_is_no_file_is_one_error_row_each(tmp_path):
    folder = tmp_path / "in"
    parts(folder, 2)
    os.mkfifo(folder / "pipe.png")  # opening it would wait for a writer for ever
    (folder / "broken.png").symlink_to("nowhere")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "good.png").symlink_to("part_1.png")
    server = socket.socket(socket.AF_UNIX)
    with server:
        server.bind(os.path.relpath(folder / "socket.png"))
        summary = predict(RedScorer(), expand_inputs([folder]), out_dir=tmp_path / "out")
    told = {Path(row.path).name: row.error for row in rows_of(tmp_path / "out")}
    assert (summary.n_ok, summary.n_error) == (3, 5)
    assert "this link points to nothing" in told["broken.png"]
    assert "Too many levels of symbolic links" in told["loop.png"]
    for name in ("pipe.png", "socket.png", "zero.png"):
        assert told[name] == f"{folder / name}: this is a pipe, a socket or a device, not a file."
    assert told["good.png"] is None


def test_a_folder_that_cannot_be_listed_is_one_error_row(tmp_path, monkeypatch):
    parts(tmp_path / "in", 2)
    parts(tmp_path / "in" / "locked", 2)
    parts(tmp_path / "in" / "open", 1)
    listed = os.scandir

    def scandir(path="."):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    for named in (tmp_path / "in", tmp_path / "in" / "**" / "*.png"):
        paths = expand_inputs([named])
        summary = predict(RedScorer(), paths, out_dir=tmp_path / "out")
        assert (summary.n_ok, summary.n_error) == (3, 1)
        (row,) = [row for row in rows_of(tmp_path / "out") if row.status == "error"]
        locked = tmp_path / "in" / "locked"
        assert row.path == str(locked) and row.error.startswith(
            f"{locked}: this folder cannot be listed (Permission denied)"
        )
    assert expand_inputs([tmp_path / "in" / "locked"]) == [tmp_path / "in" / "locked"]


def test_a_file_that_may_not_be_opened_is_one_error_row(tmp_path, monkeypatch):
    paths = parts(tmp_path / "in", 3)
    opened = Path.open

    def refuse(self, *args, **options):
        if self.name == "part_1.png":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    predict(RedScorer(), paths, out_dir=tmp_path / "out", batch_size=1)
    rows = rows_of(tmp_path / "out")
    assert [row.status for row in rows] == ["ok", "error", "ok"]
    assert "cannot be opened" in rows[1].error and "Permission denied" in rows[1].error


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "nul\0byte.png"])
def test_a_name_that_no_file_can_have_is_one_error_row(name, tmp_path):
    paths = parts(tmp_path / "in", 1)
    paths = expand_inputs([paths[0], tmp_path / "in" / name])
    summary = predict(RedScorer(), paths, out_dir=tmp_path / "out")
    assert (summary.n_ok, summary.n_error) == (1, 1)
    assert "cannot be opened" in rows_of(tmp_path / "out")[1].error


def test_the_longest_name_a_file_can_have(tmp_path):
    paths = [part(tmp_path / (letter * 250)[:250 // size] / "p.png", 90) for letter, size in
             (("x", 1), ("検", 3), ("\U0001f600", 4))]  # fmt: skip
    paths += [part(tmp_path / ((letter * 250)[: 250 // size] + ".png"), 90) for letter, size in
              (("x", 1), ("検", 3), ("\U0001f600", 4))]  # fmt: skip
    summary = predict(RedScorer(), paths, out_dir=tmp_path / "out", maps="png", table="csv")
    assert (summary.n_ok, summary.n_error) == (6, 0)


def test_one_file_under_two_names_counts_once(tmp_path, monkeypatch):
    (path,) = parts(tmp_path / "in", 1)
    monkeypatch.chdir(tmp_path)
    summary = predict(RedScorer(), ["in/part_0.png", path], out_dir=tmp_path / "out")
    assert summary.n_ok == 1 and rows_of(tmp_path / "out")[0].path == "in/part_0.png"


def test_a_second_run_into_the_folder_is_refused(tmp_path):
    paths, out = parts(tmp_path / "in", 2), tmp_path / "out"
    predict(RedScorer(), paths, out_dir=out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with lock_folder(out):
        with pytest.raises(FolderInUseError, match="being written by another run"):
            predict(RedScorer(), paths[:1], out_dir=out)
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
        predict(RedScorer(), paths[:1], out_dir=out, lock=False)  # the holder may write
    assert len(rows_of(out)) == 1
