"""Galleries of a whole study on folders drawn on the spot."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from faprompt.data import read_dataset
from faprompt.errors import ConfigError, DatasetError
from faprompt.evaluation.measurement import map_overlap
from faprompt.evaluation.sample_batches import read_sample
from faprompt.models import load_detector
from faprompt.reproduce import galleries
from faprompt.reproduce.cell_runner import RunContext
from faprompt.reproduce.cells import build_plan
from faprompt.reproduce.experiment import read_study, study_folders
from faprompt.reproduce.experiment_parts import GalleryOptions
from faprompt.reproduce.galleries import by_detector, describe_choice, read_scores
from faprompt.reproduce.gallery_choice import choose_pictures
from faprompt.reproduce.gallery_files import even_parts
from tests.reproduce import study_toys as toys
from tests.reproduce import toys as benchmark_toys

OPTIONS = {"anomalous": 2, "normal": 1, "several": 2, "rows": 4}
METHODS = [{"name": "clip", "label": "CLIP", "options": {"image_size": 56}}, toys.method("ours")]


def draw_sets(folder):
    benchmark_toys.sets(folder)
    parts = np.zeros((9, 14), np.uint8)
    parts[1:3, 1:3] = parts[6:8, 9:12] = 255
    (mask,) = (folder / "drawer/cup/ground_truth/chip").glob("0*")
    Image.fromarray(parts).save(mask)
    return folder


@pytest.fixture(scope="module")
def sets(quick, tmp_path_factory):
    """Folders that no test changes."""
    return draw_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def ran(sets, tmp_path_factory):
    """The galleries once: result, what was logged, and the folders of galleries and models."""
    folder, lines = tmp_path_factory.mktemp("ran"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(galleries.logger, "info", lambda line, *_: lines.append(line))
        result = run_galleries(study(sets), folder / "out", work=folder / "work")
    return result, lines, folder / "out", folder / "work"


def study(root, methods=METHODS, **options):
    changes = toys.one_axis(methods, figure="gallery", gallery={**OPTIONS, **options})
    return toys.study(root, **changes)


def run_galleries(plan, out, work=None):
    return galleries.run_galleries(plan, RunContext(out=out, work=work))


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def lines(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class TestWhole:
    def test_sheets_lists_and_page(self, ran):
        result, told, out, work = ran
        assert result.complete and result.lacking == ()
        assert {str(path) for path in content(out)} == {
            "study.md", "shelf/pictures.csv", "shelf/pictures-1.jpg", "shelf/pictures-2.jpg",
            "drawer/pictures.csv", "drawer/pictures-1.jpg", "drawer/several-1.jpg",
        }  # fmt: skip
        assert not (work / "cells").exists(), "only the pictures shown are scored"
        assert [line.split("]")[0] for line in told if line.startswith("[")] == [
            "[1/4", "[2/4", "[3/4", "[4/4",
        ]  # fmt: skip
        assert result.markdown == (out / "study.md").read_text()
        assert "- [several-1.jpg](drawer/several-1.jpg)" in result.markdown
        assert [row["dataset"] for row in result.rows] == ["shelf"] * 6 + ["drawer"] * 4
        with Image.open(out / "shelf/pictures-1.jpg") as sheet:
            assert sheet.width == 2 * 24 + 4 * 224 + 3 * 8 and sheet.height > 3 * 140

    def test_the_list_holds_what_each_model_says_alone(self, sets, ran):
        _, _, out, work = ran
        (model,) = (work / "models").glob("faprompt__*")
        detector = load_detector(model, backbone="test-tiny")
        chosen = choose_pictures(read_dataset(sets / "drawer"), GalleryOptions(**OPTIONS))
        rows = lines(out / "drawer" / "pictures.csv")
        assert [row["group"] for row in rows] == ["pictures"] * 3 + ["several"]
        assert rows[-1]["parts"] == "2" and rows[-1]["why"] == "chip, its mask has 2 parts"
        for one, row in zip(chosen, rows, strict=True):
            read = read_sample(one.sample, policy="reference")
            (alone,) = detector.predict_batch([read.image])
            assert float(row["score: ours"]) == pytest.approx(alone.score, rel=1e-5)
            assert row["path"] == one.sample.image_path.relative_to(sets / "drawer").as_posix()
            if one.sample.label:
                overlap = map_overlap(alone.score_map, read.mask)
                assert float(row["overlap: ours"]) == pytest.approx(overlap, abs=1e-5)
            else:
                assert row["overlap: ours"] == ""
            assert row["score: CLIP"] != row["score: ours"]

    def test_again_gives_the_same_files_and_trains_nothing(self, sets, ran, monkeypatch):
        _, _, out, work = ran
        before = content(out)
        monkeypatch.setattr("faprompt.reproduce.cell_runner.train", None)
        (out / "shelf" / "pictures-7.jpg").write_bytes(b"of a longer run")
        run_galleries(study(sets), out, work=work)
        assert content(out) == before

    def test_failures_have_their_causes_and_keep_their_cell(self, sets, ran, tmp_path, monkeypatch):
        out, work = tmp_path / "out", tmp_path / "work"
        shutil.copytree(ran[3], work)  # its models are trained
        wanted = study(sets, failures=5, failures_of=["CLIP"])
        result = run_galleries(wanted, out, work=work)
        measured = {p.name.rpartition("__")[0]: p for p in (work / "cells").iterdir()}
        assert set(measured) == {"clip__test-tiny__shelf", "clip__test-tiny__drawer"}
        rows = lines(out / "shelf/failures/CLIP/gallery/gallery.csv")
        assert rows and all(row["cause"] for row in rows)
        assert (
            "Failures of [CLIP](shelf/failures/CLIP/gallery/gallery.csv): false alarms: "
            in result.markdown
        )
        scores = {row["path"]: row["score"] for row in lines(
            measured["clip__test-tiny__shelf"] / "scores.csv"
        )}  # fmt: skip
        for row in rows:
            assert float(row["score"]) == pytest.approx(float(scores[row["path"]]), rel=1e-5)
        before = content(out)
        monkeypatch.setattr("faprompt.reproduce.cell_runner.evaluate", None)
        run_galleries(wanted, out, work=work)
        assert content(out) == before

    def test_what_is_not_there_is_told_and_stops_nothing(self, tmp_path):
        sets = draw_sets(tmp_path / "sets")
        (sets / "drawer").rename(sets / "hidden")
        (picture,) = (sets / "shelf/mug/test/good").glob("8*")
        for path in picture.parent.iterdir():
            path.write_bytes(b"no picture")
        gone = {"label": "gone", "name": "clip", "model": "no-such-model"}
        result = run_galleries(study(sets, [METHODS[0], gone]), tmp_path / "out")
        assert not result.complete
        told = "\n".join(result.lacking)
        assert "CLIP on drawer: no folder drawer below the data root" in told
        assert "gone on shelf: " in told and "mug/test/good/" in told
        rows = lines(tmp_path / "out/shelf/pictures.csv")
        assert [bool(row["error"]) for row in rows] == [False, False, True] + [False] * 3
        assert rows[2]["score: CLIP"] == "" and "score: gone" not in rows[0]
        assert "Not shown:" in result.markdown

    def test_several_seeds_are_columns_of_their_own(self, sets, tmp_path):
        changes = toys.one_axis(
            METHODS, figure="gallery", gallery={**OPTIONS, "several": 0}, seeds=[1, 2],
            datasets=[benchmark_toys.entry("shelf")],
        )  # fmt: skip
        plan = toys.study(sets, **changes)
        run_galleries(plan, tmp_path / "out")
        (row, *_) = lines(tmp_path / "out/shelf/pictures.csv")
        heads = [name for name in row if name.startswith("score")]
        assert heads == ["score: CLIP", "score: ours, seed 1", "score: ours, seed 2"]


class TestParts:
    @pytest.mark.parametrize(
        ("count", "sizes"), [(0, []), (3, [3]), (4, [4]), (5, [2, 3]), (9, [3, 3, 3]), (8, [4, 4])]
    )
    def test_sheets_are_even_and_none_is_too_long(self, count, sizes):
        parts = list(even_parts(list(range(count)), 4))
        assert [len(part) for part in parts] == sizes
        assert [row for part in parts for row in part] == list(range(count))

    def test_each_detector_is_had_once(self, sets):
        plan = by_detector(study(sets))
        assert [(c.column.title, c.source.entry.key) for c in plan.cells] == [
            ("CLIP", "shelf"), ("CLIP", "drawer"), ("ours", "shelf"), ("ours", "drawer"),
        ]  # fmt: skip

    def test_a_dry_run_says_what_is_scored(self, sets):
        wanted = study(sets, failures=5, failures_of=["ours"])
        told = describe_choice(wanted, wanted.config.gallery)
        assert "3 of each class and 2 of each of 2 datasets, and all pictures for ours" in told

    @pytest.mark.parametrize("other", ["other.png,,0", "{name},0 0 1 1,{label}"])
    def test_scores_of_other_pictures_are_refused(self, sets, tmp_path, other):
        """Another region of the same picture is another sample."""
        path, dataset = tmp_path / "scores.csv", read_dataset(sets / "drawer")
        rows = [f"{s.image_path.name},,{s.label}" for s in dataset.samples]
        first = dataset.samples[0]
        changed = other.format(name=first.image_path.name, label=first.label)
        for row, refused in ((rows[0], False), (changed, True)):
            lines = ["path,region,label", row, *rows[1:]]
            path.write_text("\n".join([lines[0] + ",score,overlap,error"]
                                      + [f"{line},0.5,," for line in lines[1:]]))  # fmt: skip
            if refused:
                with pytest.raises(DatasetError, match="lists other pictures than"):
                    read_scores(path, dataset)
            else:
                assert len(read_scores(path, dataset)) == len(rows)


class TestConfig:
    def test_the_papers_file(self, monkeypatch):
        monkeypatch.chdir(study_folders()[-1].parents[1])
        config = read_study("galleries")
        plan = build_plan(config)
        assert [c.title for c in plan.columns] == [
            "CLIP", "APRIL-GAN", "AnomalyCLIP", "FAPrompt (released code)",
        ]  # fmt: skip
        assert len(plan.sources) == 19
        assert config.gallery.failures_of == ("FAPrompt (released code)",)
        trained = {c.source.entry.key: c.trained_on.entry.id for c in plan.cells if c.trained_on}
        assert trained.pop("mvtec") == "visa" and set(trained.values()) == {"mvtec"}
        assert plan.config.evaluation.pro_200 and not plan.config.training

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"gallery": {"rows": 0}}, "rows should be at least 1"),
            ({"gallery": {"normal": -1}}, "normal should be at least 0"),
            (
                {"gallery": {"anomalous": 0, "normal": 0, "several": 0}},
                "above 0, so that some are shown",
            ),
            ({"gallery": {"failures": 3}}, "failures and failures_of belong together"),
            ({"gallery": {"failures_of": ["CLIP"]}}, "belong together"),
            ({"gallery": {"failures": 3, "failures_of": ["x"]}}, "methods that are not there: x"),
            ({"gallery": {"row": 3}}, "unknown option 'row'"),
            ({"figure": "dots"}, r"'gallery' and \[gallery\] belong together"),
            ({"claims": [{"text": "x", "better": "CLIP", "than": []}]}, "could support claims"),
        ],
    )
    def test_refusals(self, changes, told):
        values = {**toys.one_axis(METHODS, figure="gallery", gallery=OPTIONS), **changes}
        with pytest.raises(ConfigError, match=told):
            toys.config(**values)

    def test_another_study_has_no_gallery(self, tmp_path):
        with pytest.raises(ConfigError, match=r"toys has no table \[gallery\]"):
            run_galleries(toys.study(), tmp_path)
