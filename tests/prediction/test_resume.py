"""Going on with a run: equal to one that was never cut off, or refused."""

from __future__ import annotations

import pytest

from faprompt.errors import ConfigError
from faprompt.prediction import predict_files
from tests.prediction.fakes import RedScorer, parts, rows_of, timeless


def files_of(out_dir) -> dict[str, bytes]:
    """Every picture and map that a run left, by name."""
    folders = ("maps", "overlays", "thumbs")
    found = (path for name in folders for path in (out_dir / name).glob("*"))
    return {path.relative_to(out_dir).as_posix(): path.read_bytes() for path in found}


OPTIONS = {"batch_size": 2, "threshold": 0.5, "maps": "npy"}


def test_resumed_equals_uninterrupted(tmp_path):
    paths = parts(tmp_path / "in")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    predict_files(RedScorer(), paths, out_dir=whole, **OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        predict_files(RedScorer(stop_at=2), paths, out_dir=cut, **OPTIONS)
    done = rows_of(cut)
    assert 0 < len(done) < 7 and all(row.status == "ok" for row in done)

    scorer, seen = RedScorer(), []
    summary = predict_files(
        scorer, paths, out_dir=cut, resume=True, on_result=seen.append, **OPTIONS
    )
    assert sum(scorer.seen) == 7 - len(done)
    assert summary.n_resumed == len(done) and summary.n_ok == 7
    assert timeless(cut) == timeless(whole)
    assert [row.path for row in seen] == [str(path) for path in paths]
    assert files_of(cut) == files_of(whole)


def test_a_torn_last_line_is_done_again(tmp_path):
    paths, out = parts(tmp_path / "in", 4), tmp_path / "out"
    predict_files(RedScorer(), paths, out_dir=out, **OPTIONS)
    before = timeless(out)
    lines = (out / "results.jsonl").read_bytes().splitlines(keepends=True)
    (out / "results.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:40])
    scorer = RedScorer()
    summary = predict_files(scorer, paths, out_dir=out, resume=True, **OPTIONS)
    assert scorer.seen == [2] and summary.n_resumed == 2
    assert timeless(out) == before


def test_failed_files_are_tried_again_and_take_their_place(tmp_path):
    paths, out = parts(tmp_path / "in", 4), tmp_path / "out"
    mended = paths[1].read_bytes()
    paths[1].write_bytes(b"")
    predict_files(RedScorer(), paths, out_dir=out, **OPTIONS)
    paths[1].write_bytes(mended)
    scorer = RedScorer()
    summary = predict_files(scorer, paths, out_dir=out, resume=True, **OPTIONS)
    assert scorer.seen == [1]
    assert (summary.n_ok, summary.n_error, summary.n_resumed) == (4, 0, 3)
    assert [row.path for row in rows_of(out)] == [str(path) for path in paths]


def test_a_row_whose_files_are_gone_or_were_not_asked_for_is_done_again(tmp_path):
    paths, out = parts(tmp_path / "in", 3), tmp_path / "out"
    predict_files(RedScorer(), paths, out_dir=out, threshold=0.5)
    (out / rows_of(out)[1].overlay).unlink()
    scorer = RedScorer()
    predict_files(scorer, paths, out_dir=out, threshold=0.5, resume=True)
    assert sum(scorer.seen) == 1
    scorer = RedScorer()
    predict_files(scorer, paths, out_dir=out, threshold=0.5, resume=True, maps="png")
    assert sum(scorer.seen) == 3
    scorer = RedScorer()
    predict_files(scorer, paths, out_dir=out, threshold=0.5, resume=True)
    assert sum(scorer.seen) == 0


def test_nothing_to_resume_is_a_fresh_run(tmp_path):
    summary = predict_files(
        RedScorer(), parts(tmp_path / "in", 2), out_dir=tmp_path / "out", resume=True
    )
    assert (summary.n_ok, summary.n_resumed) == (2, 0)


def test_rows_of_other_files_stay_when_resuming(tmp_path):
    first, second = parts(tmp_path / "a", 2), parts(tmp_path / "b", 2)
    predict_files(RedScorer(), first, out_dir=tmp_path / "out")
    summary = predict_files(RedScorer(), second, out_dir=tmp_path / "out", resume=True)
    assert summary.n_ok == 2
    assert [row.path for row in rows_of(tmp_path / "out")] == [str(p) for p in first + second]


def test_without_resume_the_earlier_rows_are_gone(tmp_path):
    first, second = parts(tmp_path / "a", 2), parts(tmp_path / "b", 1)
    predict_files(RedScorer(), first, out_dir=tmp_path / "out")
    predict_files(RedScorer(), second, out_dir=tmp_path / "out")
    assert [row.path for row in rows_of(tmp_path / "out")] == [str(second[0])]


def test_another_model_or_setting_cannot_resume(tmp_path):
    paths, out = parts(tmp_path / "in", 2), tmp_path / "out"
    predict_files(RedScorer(), paths, out_dir=out, threshold=0.5, settings={"tiles": "off"})
    before = (out / "results.jsonl").read_bytes()
    changes = "model was 'red' and is 'blue'; threshold was 0.5 and is 0.6; tiles was 'off'"
    with pytest.raises(ConfigError, match=changes):
        predict_files(RedScorer("blue"), paths, out_dir=out, threshold=0.6, resume=True)
    with pytest.raises(ConfigError, match="bit_depth was None and is 12"):
        predict_files(
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
        predict_files(RedScorer(), paths, out_dir=out, threshold=0.5, resume=True)


class Calibrated(RedScorer):
    """Brings a threshold of its own."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def predict_batch(self, images, *, threshold):
        return super().predict_batch(images, threshold=self.threshold)


@pytest.mark.parametrize("order", [1, -1])
def test_a_model_calibrated_anew_cannot_resume(order, tmp_path):
    paths = parts(tmp_path / "in", 2)
    predict_files(Calibrated(0.5), paths[:1], out_dir=tmp_path / "out")
    with pytest.raises(ConfigError, match="threshold 0.[56].*now uses 0.[56].*without resume"):
        predict_files(Calibrated(0.6), paths[::order], out_dir=tmp_path / "out", resume=True)
