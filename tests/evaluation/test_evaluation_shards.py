"""Shards of an evaluation: the merge writes the files of one process, or says what is missing."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from faprompt.calibration import Calibration, GoodScores
from faprompt.data import Dataset
from faprompt.errors import ConfigError, DatasetError, FolderInUseError, ShardError
from faprompt.evaluation import (
    SHARDS_FOLDER,
    EvaluationConfig,
    EvaluationShard,
    evaluate,
    evaluate_shard,
    holds_evaluation,
    merge_evaluation,
    write_evaluation,
)
from faprompt.metrics import AnomalyMetrics
from faprompt.records import DrawnMask
from faprompt.references import ReferenceBank, References
from faprompt.work import LOCK_NAME, lock_folder
from tests.evaluation import toys
from tests.helpers.log import logged_notes

CONFIG = EvaluationConfig(batch_size=3, pro_200=True, replicates=40, gallery=0)


@pytest.fixture(scope="module")
def detector():
    return toys.detector()


@pytest.fixture(autouse=True)
def chunks_of_four(monkeypatch):
    """A class of nine pictures has three chunks; a batch of three does not fill one."""
    monkeypatch.setattr("faprompt.evaluation.metric_groups.CHUNK_PICTURES", 4)
    monkeypatch.setattr("faprompt.evaluation.metric_files._plot", lambda *_, **__: None)


@pytest.fixture
def own(tmp_path):
    """Two classes, one picture unreadable."""
    dataset = toys.dataset(tmp_path / "toy")
    dataset.samples[2].image_path.write_bytes(b"no picture")
    return dataset


def measure(detector, dataset, out, count, *, config=CONFIG, indexes=None, **options):
    """Run shards, the last one first."""
    indexes = range(count, 0, -1) if indexes is None else indexes
    return [
        evaluate_shard(
            detector, dataset, config, out, EvaluationShard(index, count), **options
        )
        for index in indexes
    ]  # fmt: skip


def files(folder):
    """Name -> content of the written files."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and SHARDS_FOLDER not in path.parts and path.name != LOCK_NAME
    }


def assert_merged(detector, dataset, out, *, config=CONFIG):
    """Compare the merge with one process: the record, and every file to the byte."""
    whole = evaluate(detector, dataset, config)
    write_evaluation(whole, out.with_name("whole"))
    (merged,) = merge_evaluation(out)
    assert merged == whole
    assert files(out) == files(out.with_name("whole"))
    assert {"metrics.json", "metrics.md", "metrics.csv", "scores.csv"} <= files(out).keys()
    assert list(merged.classes) == list(whole.classes)
    for name, drawn in whole.replicates.items():
        for metric, values in drawn.items():
            np.testing.assert_array_equal(merged.replicates[name][metric], values)
        for kind, curve in whole.curves[name].items():
            for part in ("x", "y", "thresholds"):
                found = getattr(merged.curves[name][kind], part)
                np.testing.assert_array_equal(found, getattr(curve, part))
    return merged


class TestEquality:
    @pytest.mark.parametrize("by_defect", [False, True])
    @pytest.mark.parametrize("count", [1, 2, 3, 7])
    def test_files_are_those_of_one_process(self, detector, own, tmp_path, count, by_defect):
        config = replace(CONFIG, by_defect=by_defect)
        results = measure(detector, own, tmp_path / "out", count, config=config)
        assert sum(result.pictures for result in results) == 18
        assert sum(result.chunks for result in results) == 6
        assert [result.unreadable for result in results].count(1) == 1
        merged = assert_merged(detector, own, tmp_path / "out", config=config)
        assert [image.sample for image in merged.unreadable] == [own.samples[2]]
        assert {"replicates.csv", "curves/mug.csv", "curves/nut.csv"} <= files(
            tmp_path / "out"
        ).keys() or by_defect

    def test_at_the_pictures_size(self, detector, own, tmp_path):
        config = replace(CONFIG, resolution="picture", replicates=0)
        measure(detector, own, tmp_path / "out", 2, config=config)
        assert_merged(detector, own, tmp_path / "out", config=config)

    def test_classes_that_take_turns(self, detector, own, tmp_path):
        mixed = replace(own, samples=tuple(own.samples[(5 * n) % 18] for n in range(18)))
        assert len({sample.class_name for sample in mixed.samples[:3]}) == 2
        measure(detector, mixed, tmp_path / "out", 3)
        merged = assert_merged(detector, mixed, tmp_path / "out")
        assert [image.sample for image in merged.images] == list(mixed.samples)

    def test_many_pixels_are_joined_in_bins(self, detector, own, tmp_path, monkeypatch):
        """Every chunk has more pixels than are kept one by one."""
        monkeypatch.setattr("faprompt.metrics.score_histogram.BinnedPixels.__init__.__kwdefaults__",
                            {"keep": 5000})  # fmt: skip
        config = replace(CONFIG, replicates=0)
        measure(detector, own, tmp_path / "out", 3, config=config)
        state = AnomalyMetrics().state()
        assert state["pixels/keep"] == 5000
        assert_merged(detector, own, tmp_path / "out", config=config)

    def test_a_calibrated_model_has_its_rates(self, detector, own, tmp_path):
        """Parts lie in several chunks; good pictures and a reference of the model are warned of."""
        measured = evaluate(detector, own, replace(CONFIG, replicates=0)).images
        good = np.array([0.5, *(i.score for i in measured if i.score and not i.sample.label)] * 4)
        tokens = detector.reference_tokens(np.full((56, 56, 3), 99, np.uint8))
        path = str(own.samples[1].image_path)
        with_bank = detector.with_setup(
            references=References({"": ReferenceBank.of({path: [*tokens]})})
        )
        known = Calibration(
            products={"": GoodScores(good, good)}, decided_by=with_bank.decided_by(),
            target_fpr=0.1, review_fpr=0.3, group="([0-9])[.]png",
            pictures={"": {"gone.png": measured[0].digests[0]}},
        )  # fmt: skip
        calibrated = with_bank.with_setup(calibration=known)
        measure(calibrated, own, tmp_path / "out", 3)
        merged = assert_merged(calibrated, own, tmp_path / "out")
        assert merged.verdicts.counted == "parts" and merged.verdicts.own_pictures == 2
        other = calibrated.with_setup(calibration=known.with_rates(target_fpr=0.2))
        with pytest.raises(ShardError, match="another run: other thresholds"):
            measure(other, own, tmp_path / "out", 3)

    def test_facts_of_samples_and_sets_are_kept(self, detector, own, tmp_path):
        drawn = DrawnMask((47, 90), polygons=((10, 10, 30, 10, 30, 30, 10, 30),))
        odd = replace(own.samples[6], drawn_mask=drawn, extra={"lot": "7"}, dataset="toy")
        region = replace(own.samples[0], region=(2, 3, 40, 50), split="all")
        outside = replace(own.samples[1], image_path=tmp_path / "els\udce9where.png")
        shutil.copy(own.samples[1].image_path, outside.image_path)
        samples = (region, outside, *own.samples[2:6], odd, *own.samples[7:])
        dataset = Dataset("toy", own.root, samples, warnings=("careful",), left_out_classes=("z",))
        measure(detector, dataset, tmp_path / "out", 2)
        whole = evaluate(detector, dataset, CONFIG)
        write_evaluation(whole, tmp_path / "whole")
        (merged,) = merge_evaluation(tmp_path / "out")
        assert files(tmp_path / "out") == files(tmp_path / "whole")
        kept = [replace(sample, drawn_mask=None) for sample in samples]
        assert [image.sample for image in merged.images] == kept

    def test_neither_model_nor_pictures_are_needed(self, detector, own, tmp_path):
        measure(detector, own, tmp_path / "out", 2, config=replace(CONFIG, gallery=3))
        shutil.rmtree(own.root)
        with logged_notes() as notes:
            (merged,) = merge_evaluation(tmp_path / "out")
        assert len(merged.images) == 18
        assert notes == ["contact sheets of mistakes are not drawn: they need the model."]

    def test_the_set_may_lie_elsewhere_on_each_machine(self, detector, own, tmp_path):
        shutil.copytree(own.root, tmp_path / "copy")
        moved = replace(
            own,
            root=tmp_path / "copy",
            samples=tuple(
                replace(
                    sample,
                    image_path=tmp_path / "copy" / sample.image_path.relative_to(own.root),
                    mask_paths=tuple(
                        tmp_path / "copy" / p.relative_to(own.root) for p in sample.mask_paths
                    ),
                )
                for sample in own.samples
            ),
        )
        measure(detector, own, tmp_path / "out", 2, indexes=[2])
        measure(detector, moved, tmp_path / "out", 2, indexes=[1])
        merged = merge_evaluation(tmp_path / "out")[0]
        assert merged == replace(
            evaluate(detector, own, CONFIG),
            images=tuple(replace(i, error=i.error.replace("/toy/", "/copy/"))
                         for i in evaluate(detector, own, CONFIG).images),
        )  # fmt: skip

    def test_several_sets_have_a_folder_each(self, detector, own, tmp_path):
        for number, name in enumerate(("mug", "nut"), 1):
            part = own.with_classes([name])
            folder = tmp_path / "out" / f"{number}-{name}"
            measure(detector, part, folder, 2)
            write_evaluation(evaluate(detector, part, CONFIG), tmp_path / "whole" / folder.name)
        assert holds_evaluation(tmp_path / "out")
        merged = merge_evaluation(tmp_path / "out")
        assert [list(evaluation.classes) for evaluation in merged] == [["mug"], ["nut"]]
        assert files(tmp_path / "out") == files(tmp_path / "whole")

    def test_a_set_without_pictures_has_nothing_to_merge(self, detector, own, tmp_path):
        empty = replace(own, samples=())
        (result,) = measure(detector, empty, tmp_path / "out", 1)
        assert (result.chunks, result.pictures) == (0, 0)
        assert merge_evaluation(tmp_path / "out")[0] == evaluate(detector, empty, CONFIG)


class Stop(Exception):
    pass


def stopped(after):
    def stop(stage, done, total):
        if done >= after:
            raise Stop

    return stop


class TestRerun:
    @pytest.mark.parametrize(("after", "kept"), [(3, 0), (4, 1), (5, 2), (8, 2), (9, 3)])
    def test_an_interrupted_shard_goes_on(self, detector, own, tmp_path, after, kept):
        """Inside a chunk, and between two: the chunks of the shard have 4, 1 and 4 pictures."""
        out = tmp_path / "out"
        with pytest.raises(Stop):
            measure(detector, own, out, 2, indexes=[1], progress=stopped(after), save_every_s=0)
        calls = []
        (first,) = measure(
            detector, own, out, 2, indexes=[1], progress=lambda *call: calls.append(call[1:])
        )
        assert first.kept == kept and first.pictures == 9 and calls[-1] == (9, 9)
        assert calls[0][0] == min(after, 4)  # nothing that was saved is scored again
        measure(detector, own, out, 2, indexes=[2])
        assert_merged(detector, own, out)

    def test_a_done_shard_is_skipped_and_a_changed_picture_measured_again(
        self, detector, own, tmp_path
    ):
        out = tmp_path / "out"
        measure(detector, own, out, 2)
        before = {path: path.stat().st_mtime_ns for path in out.rglob("chunk-*")}
        assert len(before) == 6
        with logged_notes() as notes:
            assert [result.kept for result in measure(detector, own, out, 2)] == [3, 3]
        assert notes == [f"shard {n}/2: 3 of 3 chunks were measured already" for n in (2, 1)]
        assert {path: path.stat().st_mtime_ns for path in out.rglob("chunk-*")} == before
        shutil.copy(own.samples[1].image_path, own.samples[9].image_path)
        kept = {str(r.shard): r.kept for r in measure(detector, own, out, 2)}
        assert sorted(kept.values()) == [2, 3]
        assert_merged(detector, own, out)
        assert measure(detector, own, out, 2, resume=False)[0].kept == 0

    def test_a_damaged_chunk_is_measured_again(self, detector, own, tmp_path):
        out = tmp_path / "out"
        measure(detector, own, out, 2)
        path = sorted(out.rglob("chunk-*"))[0]
        path.write_bytes(path.read_bytes()[:-7])
        with pytest.raises(ShardError, match="shard 1/2 is missing, unfinished or damaged"):
            merge_evaluation(out)
        measure(detector, own, out, 2)
        assert_merged(detector, own, out)

    def test_two_processes_do_not_measure_one_shard(self, detector, own, tmp_path):
        with lock_folder(tmp_path / "out" / SHARDS_FOLDER / "00001-of-00002"):
            with pytest.raises(FolderInUseError):
                measure(detector, own, tmp_path / "out", 2, indexes=[1])
            measure(detector, own, tmp_path / "out", 2, indexes=[2])


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda d, s, c: (d, s, replace(c, fpr_limit=0.1)), "other options"),
            (lambda d, s, c: (d, replace(s, samples=s.samples[:-1]), c), "other pictures"),
            (lambda d, s, c: (toys.detector(sigma_px=2.0), s, c), "other model"),
        ],
    )
    def test_another_run_is_not_mixed_in(self, detector, own, tmp_path, change, told):
        measure(detector, own, tmp_path / "out", 2, indexes=[1])
        before = files(tmp_path)
        other, dataset, config = change(detector, own, CONFIG)
        with pytest.raises(ShardError, match=f"shards of another run: {told}"):
            measure(other, dataset, tmp_path / "out", 2, indexes=[2], config=config)
        assert files(tmp_path) == before

    def test_another_version_is_named_with_both_values(self, detector, own, tmp_path, monkeypatch):
        measure(detector, own, tmp_path / "out", 2)
        monkeypatch.setattr("faprompt.__version__", "9.9.9")
        with pytest.raises(ShardError, match=r"other faprompt \(.* and 9\.9\.9\)"):
            measure(detector, own, tmp_path / "out", 2)
        with pytest.raises(ShardError, match=r"measured with faprompt .*, this is 9\.9\.9; merge"):
            merge_evaluation(tmp_path / "out")

    def test_another_number_of_shards(self, detector, own, tmp_path):
        measure(detector, own, tmp_path / "out", 3, indexes=[1])
        with pytest.raises(ShardError, match="a run of 3 shards, got 2; use --shard I/3"):
            measure(detector, own, tmp_path / "out", 2)

    def test_missing_shards_are_named_with_the_command(self, detector, own, tmp_path):
        out = tmp_path / "out"
        measure(detector, own, out, 3, indexes=[2])
        command = r"shards 1/3, 3/3 are missing.*faprompt evaluate .*toy \.\.\. --shard 1/3 --out"
        with pytest.raises(ShardError, match=command):
            merge_evaluation(out)
        assert files(out) == {}

    def test_an_unfinished_shard_is_named(self, detector, own, tmp_path):
        out = tmp_path / "out"
        measure(detector, own, out, 2, indexes=[1])
        with pytest.raises(Stop):
            measure(detector, own, out, 2, indexes=[2], progress=stopped(3), save_every_s=0)
        with pytest.raises(ShardError, match="shard 2/2 is missing, unfinished"):
            merge_evaluation(out)

    def test_a_chunk_that_is_there_twice(self, detector, own, tmp_path):
        out = tmp_path / "out"
        measure(detector, own, out, 2)
        place = out / SHARDS_FOLDER
        shutil.copy(
            place / "00001-of-00002" / "chunk-00000.safetensors",
            place / "00002-of-00002" / "chunk-00000.safetensors",
        )
        with pytest.raises(ShardError, match="there twice .* in 00002-of-00002: chunk-00000"):
            merge_evaluation(out)

    def test_shards_of_another_number_copied_in(self, detector, own, tmp_path):
        measure(detector, own, tmp_path / "out", 2)
        measure(detector, own, tmp_path / "other", 3)
        name = "00001-of-00003"
        shutil.copytree(
            tmp_path / "other" / SHARDS_FOLDER / name, tmp_path / "out" / SHARDS_FOLDER / name
        )
        with pytest.raises(ShardError, match=f"in {name}: chunk-00000.* and others"):
            merge_evaluation(tmp_path / "out")

    @pytest.mark.parametrize("what", ["options", "model", "pictures"])
    def test_a_shard_of_another_run_copied_in(self, detector, own, tmp_path, what):
        """As when two runs are collected from two machines."""
        others = {
            "options": (detector, own, replace(CONFIG, fpr_limit=0.1)),
            "model": (toys.detector(sigma_px=2.0), own, CONFIG),
            "pictures": (detector, replace(own, samples=own.samples[1:]), CONFIG),
        }
        other, dataset, config = others[what]
        measure(detector, own, tmp_path / "out", 2)
        measure(other, dataset, tmp_path / "other", 2, config=config)
        name = "00002-of-00002"
        shutil.rmtree(tmp_path / "out" / SHARDS_FOLDER / name)
        shutil.copytree(
            tmp_path / "other" / SHARDS_FOLDER / name, tmp_path / "out" / SHARDS_FOLDER / name
        )
        with pytest.raises(ShardError, match=rf"of another run \(other {what}\); run .* 2/2 "):
            merge_evaluation(tmp_path / "out")

    @pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:-9], lambda b: b"{}"])
    def test_a_damaged_record_of_the_run(self, detector, own, tmp_path, damage):
        measure(detector, own, tmp_path / "out", 2)
        path = tmp_path / "out" / SHARDS_FOLDER / "run.json"
        path.write_bytes(damage(path.read_bytes()))
        for run in (merge_evaluation, lambda out: measure(detector, own, out, 2)):
            with pytest.raises(ShardError, match="run all shards again"):
                run(tmp_path / "out")

    def test_a_record_of_a_later_format(self, detector, own, tmp_path):
        measure(detector, own, tmp_path / "out", 2)
        path = tmp_path / "out" / SHARDS_FOLDER / "run.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
        with pytest.raises(ShardError, match="format 2, this version reads 1"):
            merge_evaluation(tmp_path / "out")

    def test_a_folder_without_shards(self, tmp_path):
        assert not holds_evaluation(tmp_path) and not holds_evaluation(tmp_path / "gone")
        with pytest.raises(ShardError, match="holds no shards of an evaluation; run `faprompt"):
            merge_evaluation(tmp_path)

    def test_a_set_with_problems(self, detector, own, tmp_path):
        with pytest.raises(DatasetError, match="cannot be used yet: odd"):
            measure(detector, replace(own, problems=("odd",)), tmp_path / "out", 2)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("text", ["", "1", "2/", "a/b", "1/2/3", "-1/2", "1.0/2", " 1/2"])
    def test_no_shard(self, text):
        with pytest.raises(ConfigError, match="--shard should be I/N, such as 2/3; got"):
            EvaluationShard.parse(text)

    @pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "1/100000"])
    def test_a_shard_out_of_range(self, text):
        with pytest.raises(ConfigError, match="1 <= I <= N <= 99999, got"):
            EvaluationShard.parse(text)
