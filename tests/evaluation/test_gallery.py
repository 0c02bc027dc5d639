"""Which mistakes are shown, and that the pictures line up."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faprompt.detector_setup import DetectorSetup
from faprompt.evaluation import (
    EvaluationConfig,
    ImageScore,
    evaluate,
    worst_mistakes,
    write_gallery,
)
from faprompt.evaluation.causes import CAUSES, LikelyCause, likely_cause
from faprompt.evaluation.contact_sheet import SIDE
from faprompt.evaluation.gallery import group_thresholds
from faprompt.evaluation.measurement import map_overlap
from faprompt.evaluation.sample_batches import read_sample
from faprompt.records import Sample
from tests.evaluation import toys


@pytest.fixture(scope="module")
def detector():
    return toys.detector()


@pytest.fixture(scope="module")
def evaluation(detector, tmp_path_factory):
    dataset = toys.dataset(tmp_path_factory.mktemp("toy"))
    return evaluate(detector, dataset, EvaluationConfig(replicates=0))


def scored(name, label, score, *, overlap=None, groups=("mug",)):
    sample = Sample(Path(f"{name}.png"), label, "mug", "dent" if label else "")
    return ImageScore(sample, score, overlap=overlap, groups=groups)


# The best F1 of "mug" is 3/4, from 0.5 on: three of four found, with one false alarm.
IMAGES = (
    scored("calm", 0, 0.1), scored("loud", 0, 0.8), scored("calm 2", 0, 0.2),
    scored("calm 3", 0, 0.3), scored("calm 4", 0, 0.4),
    scored("faint", 1, 0.15, overlap=0.4), scored("clear", 1, 0.9, overlap=0.9),
    scored("odd", 1, 0.7, overlap=0.0), scored("plain", 1, 0.5, overlap=0.6),
    ImageScore(Sample(Path("broken.png"), 1, "mug"), None, "empty", groups=("mug",)),
)  # fmt: skip


def names(mistakes, kind):
    return [m.image.sample.image_path.stem for m in mistakes if m.kind == kind]


class TestChoice:
    def test_mistakes_by_kind_worst_first(self, evaluation):
        found = worst_mistakes(replace(evaluation, images=IMAGES), 5)
        assert group_thresholds(IMAGES) == {"mug": 0.5}
        assert names(found, "false_alarms") == ["loud"]
        assert names(found, "missed_pictures") == ["faint"]
        assert names(found, "missed_areas") == ["odd", "faint"]
        assert [m.rank for m in found if m.kind == "missed_areas"] == [1, 2]
        assert {(m.group, m.threshold) for m in found} == {("mug", 0.5)}

    def test_no_more_than_asked_for(self, evaluation):
        found = worst_mistakes(replace(evaluation, images=IMAGES), 1)
        assert names(found, "missed_areas") == ["odd"] and len(found) == 3
        assert worst_mistakes(replace(evaluation, images=IMAGES), 0) == []

    def test_each_group_has_its_own_threshold(self, evaluation):
        low = [scored(f"n{i}", 0, 0.01 + i / 100, groups=("nut",)) for i in range(3)]
        low += [scored("n found", 1, 0.3, groups=("nut",))]
        found = worst_mistakes(replace(evaluation, images=(*IMAGES, *low)), 9)
        assert names(found, "missed_pictures") == ["faint"]  # 0.3 is above the nuts' threshold
        assert group_thresholds([*IMAGES, *low]) == {"mug": 0.5, "nut": 0.3}

    def test_a_normal_picture_of_two_groups_is_judged_by_the_stricter(self, evaluation):
        both = ("mug/a", "mug/b")
        images = (
            scored("normal", 0, 0.6, groups=both), scored("a", 1, 0.5, groups=both[:1]),
            scored("b", 1, 0.9, groups=both[1:]),
        )  # fmt: skip
        (alarm,) = worst_mistakes(replace(evaluation, images=images), 9)
        assert (alarm.kind, alarm.group, alarm.threshold) == ("false_alarms", "mug/a", 0.5)

    def test_a_group_of_one_kind_has_no_threshold_but_areas(self, evaluation):
        images = (scored("x", 1, 0.5, overlap=0.1), scored("y", 1, 0.6, overlap=0.8))
        (mistake,) = worst_mistakes(replace(evaluation, images=images), 9)
        assert mistake.kind == "missed_areas" and mistake.threshold is None


class TestOverlap:
    def test_by_sorting(self):
        rng = np.random.default_rng(0)
        for _ in range(20):
            score_map, mask = rng.random((9, 11)), rng.random((9, 11)) < 0.2
            order = np.argsort(-score_map.ravel())[: mask.sum()]
            wanted = mask.ravel()[order].mean()
            assert map_overlap(score_map, mask) == pytest.approx(wanted)

    def test_ties_count_by_their_share(self):
        mask = np.array([[True, True, False, False]])
        assert map_overlap(np.zeros((1, 4)), mask) == 0.5
        assert map_overlap(np.array([[1.0, 0, 0, 0]]), mask) == pytest.approx((1 + 1 / 3) / 2)
        assert map_overlap(np.zeros((1, 4)), mask | True) == 1

    def test_an_empty_mask_is_refused(self):
        with pytest.raises(ValueError, match="the mask is empty"):
            map_overlap(np.zeros((2, 2)), np.zeros((2, 2), bool))

    def test_the_run_tells_it_for_defects_alone(self, evaluation):
        for image in evaluation.images:
            assert (image.overlap is not None) == bool(image.sample.label)
            assert image.groups == (image.sample.class_name,)


class TestRegions:
    """Two bands of one file, both wrong."""

    @pytest.fixture(scope="class")
    @classmethod
    def bands(cls, evaluation):
        def band(top, label):
            whole = evaluation.images[4].sample
            part = replace(whole, region=(0, top, 80, top + 30), label=label)
            return ImageScore(part, 0.9 - label, overlap=0.1 if label else None, groups=("mug",))

        return replace(evaluation, images=(band(0, 0), band(30, 0), band(0, 1), band(30, 1)))

    def test_the_list_tells_them_apart(self, detector, bands, tmp_path):
        write_gallery(detector, bands, tmp_path)
        with (tmp_path / "gallery" / "gallery.csv").open(newline="") as file:
            alarms = [row for row in csv.DictReader(file) if row["kind"] == "missed_areas"]
        assert {row["region"] for row in alarms} == {"0 0 80 30", "0 30 80 60"}
        assert len({row["path"] for row in alarms}) == 1

    def test_the_sheet_tells_them_apart(self, detector, bands, tmp_path, monkeypatch):
        from faprompt.evaluation import gallery

        entries = []
        monkeypatch.setattr(
            gallery, "draw_sheet",
            lambda t, about, columns, found, **_: entries.extend(found)
            or np.zeros((4, 4, 3), np.uint8),
        )  # fmt: skip
        write_gallery(detector, bands, tmp_path)
        names = {entry.caption[0].split(maxsplit=1)[1] for entry in entries}
        assert names == {"mug/dent/0.png [0 0 80 30]", "mug/dent/0.png [0 30 80 60]"}

    def test_a_whole_picture_has_no_region(self, detector, evaluation, tmp_path):
        write_gallery(detector, evaluation, tmp_path)
        with (tmp_path / "gallery" / "gallery.csv").open(newline="") as file:
            assert {row["region"] for row in csv.DictReader(file)} == {""}


def told(detector, mistake):
    """The cause of a mistake, measured anew."""
    sample = mistake.image.sample
    read = read_sample(sample, policy="reference")
    (result,) = detector.predict_batch([read.image])
    found = likely_cause(
        read.image, result.score_map, read.mask, label=sample.label, score=mistake.image.score,
        threshold=mistake.threshold,
    )  # fmt: skip
    return found.cause, found.why


class TestFiles:
    def test_sheets_and_a_list(self, detector, evaluation, tmp_path):
        sheets = write_gallery(detector, evaluation, tmp_path)
        mistakes = worst_mistakes(evaluation, 12)
        kinds = list(dict.fromkeys(m.kind for m in mistakes))
        assert kinds and [path.stem for path in sheets] == kinds
        for path in sheets:
            assert Image.open(path).size[0] > 3 * SIDE
        with (tmp_path / "gallery" / "gallery.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert len(lines) == len(mistakes)
        for line, mistake in zip(lines, mistakes, strict=True):
            assert line["path"] == str(mistake.image.sample.image_path)
            assert (line["kind"], int(line["rank"])) == (mistake.kind, mistake.rank)
            assert float(line["score"]) == pytest.approx(mistake.image.score, rel=1e-5)
            assert (line["cause"], line["why"]) == told(detector, mistake)
            assert line["cause"] in CAUSES and "response_share=" in line["measures"]
        assert not [p for p in tmp_path.rglob("*") if ".part" in p.name]

    def test_sheets_go_cause_by_cause_the_worst_first(
        self, detector, evaluation, tmp_path, monkeypatch
    ):
        from faprompt.evaluation import gallery

        names = iter(["subtle", "tiny", "unexplained", "tiny", "overshadowed"] * 9)
        monkeypatch.setattr(
            gallery, "likely_cause",
            lambda *_, **__: LikelyCause(next(names), "because", ("subtle",), {}),
        )  # fmt: skip
        drawn = {}
        monkeypatch.setattr(
            gallery, "draw_sheet",
            lambda title, about, columns, entries, **_: drawn.update({title: (about, entries)})
            or np.zeros((4, 4, 3), np.uint8),
        )  # fmt: skip
        write_gallery(detector, evaluation, tmp_path)
        assert max(len(entries) for _, entries in drawn.values()) >= 3
        for about, entries in drawn.values():
            causes = [entry.caption[2] for entry in entries]
            words = [cause.removeprefix("likely cause: ").split(",")[0] for cause in causes]
            places = [CAUSES.index(word) for word in words]
            assert places == sorted(places)
            ranks = [int(entry.caption[0].split()[0]) for entry in entries]
            pairs = list(zip(places, ranks, strict=True))
            assert pairs == sorted(pairs)
            assert f"{words[0]} {words.count(words[0])}" in about
            assert causes[0].endswith(", because (also subtle)")

    def test_methods_that_ask_are_told_the_class(self, detector, evaluation, tmp_path):
        asked = []

        class Asking:
            released_reading, setup = None, DetectorSetup()

            def predict_batch(self, images, *, class_names, **options):
                asked.extend(class_names)
                return detector.predict_batch(images)

        write_gallery(Asking(), evaluation, tmp_path)
        shown = {id(m.image.sample): m.image.sample for m in worst_mistakes(evaluation, 12)}
        assert asked == [sample.class_name for sample in shown.values()]

    def test_sheets_of_a_former_run_do_not_stay(self, detector, evaluation, tmp_path):
        write_gallery(detector, evaluation, tmp_path)
        perfect = [replace(i, score=float(i.sample.label), overlap=1.0) for i in evaluation.images]
        assert write_gallery(detector, replace(evaluation, images=tuple(perfect)), tmp_path) == ()
        assert [p.name for p in (tmp_path / "gallery").iterdir()] == ["gallery.csv"]

    def test_none_are_drawn_when_none_are_wanted(self, detector, evaluation, tmp_path):
        off = replace(evaluation, config=EvaluationConfig(gallery=0))
        assert write_gallery(detector, off, tmp_path) == ()
        assert list(tmp_path.iterdir()) == []

    def test_only_the_chosen_pictures_are_read(self, detector, evaluation, tmp_path, monkeypatch):
        from faprompt.evaluation import gallery

        read = []
        real = gallery.read_sample
        monkeypatch.setattr(
            gallery, "read_sample", lambda s, **options: read.append(s) or real(s, **options)
        )
        few = replace(evaluation, config=EvaluationConfig(gallery=1))
        write_gallery(detector, few, tmp_path)
        chosen = {id(m.image.sample) for m in worst_mistakes(few, 1)}
        assert {id(s) for s in read} == chosen and len(read) == len(chosen)
