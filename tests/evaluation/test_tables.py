"""The files of an evaluation, read back."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faprompt.evaluation import (
    EvaluationConfig,
    evaluate,
    read_replicates,
    to_json,
    to_markdown,
    write_evaluation,
    write_gallery,
)
from faprompt.evaluation import metric_files as module
from faprompt.metrics import METRIC_NAMES
from faprompt.model_folder import build_detector
from faprompt.reproduce.galleries import read_scores
from tests.evaluation import toys


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """Two classes, one without masks, and one picture that cannot be read."""
    dataset = toys.dataset(tmp_path_factory.mktemp("toy"))
    samples = [
        replace(s, mask_paths=(), has_pixel_label=False) if s.class_name == "nut" else s
        for s in dataset.samples
    ]
    samples[2].image_path.write_bytes(b"")
    return evaluate(toys.detector(), replace(dataset, samples=tuple(samples)))


@pytest.fixture(scope="module")
def folder(evaluation, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "deep" / "er"
    assert write_evaluation(evaluation, out) == out / "metrics.json"
    return out


@pytest.fixture
def undrawn(monkeypatch):
    """Drawing curves is slow; the paths they would have got."""
    paths = []
    monkeypatch.setattr(module, "_plot", lambda curves, path, *, title: paths.append(path))
    return paths


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def shown(result, name):
    low, high = result.intervals[name]
    return f"{100 * result[name]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def strict(text):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


class TestMetricsJson:
    def test_it_has_the_promised_fields(self, folder, evaluation):
        content = strict((folder / "metrics.json").read_text())
        assert content == json.loads(json.dumps(to_json(evaluation)))
        assert content["dataset"] == "toy" and content["model"] == "small-clip"
        assert content["method"] == "clip" and content["backbone"] == "test-tiny"
        assert content["precision"] == content["environment"]["precision"] == "fp32"
        assert content["preset"] is None, "this detector was built by hand"
        assert set(content["classes"]) == {"mug", "nut"}
        others = {"normal", "anomalous", "undefined", "intervals"}
        assert set(content["classes"]["mug"]) == {*METRIC_NAMES, *others}
        assert content["mean"] == evaluation.mean
        assert content["resolution"] == content["settings"]["resolution"] == "model"
        assert content["environment"]["torch"]

    def test_what_cannot_be_computed_is_absent_with_a_reason(self, folder):
        nut = strict((folder / "metrics.json").read_text())["classes"]["nut"]
        missing = {"pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro"}
        others = {"normal", "anomalous", "undefined", "intervals"}
        assert set(nut) == set(METRIC_NAMES) - missing | others
        assert set(nut["intervals"]) == set(METRIC_NAMES) - missing
        assert set(nut["undefined"]) == missing and all(nut["undefined"].values())

    def test_every_figure_has_its_interval(self, folder, evaluation):
        content = strict((folder / "metrics.json").read_text())
        for name, result in evaluation.classes.items():
            told = content["classes"][name]["intervals"]
            assert told == {metric: list(pair) for metric, pair in result.intervals.items()}
        assert set(content["intervals"]) == set(content["mean"]) == set(METRIC_NAMES)
        for low, high in content["intervals"].values():
            assert 0 <= low <= high <= 1

    def test_unreadable_pictures_are_named(self, folder, evaluation):
        unreadable = strict((folder / "metrics.json").read_text())["unreadable"]
        assert [entry["path"] for entry in unreadable] == [
            str(evaluation.images[2].sample.image_path)
        ]
        assert "empty" in unreadable[0]["error"]


class TestTables:
    def test_markdown_has_a_row_a_class_and_the_mean(self, folder, evaluation):
        lines = (folder / "metrics.md").read_text().splitlines()
        table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
        assert table[0] == ["class", "normal", "anomalous", *METRIC_NAMES]
        mug = evaluation.classes["mug"]
        assert table[1] == ["mug", "3", "5", *(shown(mug, n) for n in METRIC_NAMES)]
        assert table[2][:3] == ["nut", "4", "5"] and table[2][-4:] == ["-"] * 4
        assert table[3][0] == "**mean**"
        assert table[3][-1].startswith(f"{100 * evaluation.mean['aupro']:.1f} [")
        assert "1 pictures could not be read." in lines
        assert "1 unreadable, left out: mug/good/2.png." in lines
        told = "Preset: not recorded. Precision of the image tower: fp32."
        assert any(line.endswith(told) for line in lines)

    @pytest.mark.parametrize("preset", ["paper", "common"])
    def test_preset_and_precision_are_those_of_the_detector(self, tmp_path, preset):
        detector = build_detector(
            "clip", "test-tiny", options={"image_size": 56}, preset=preset, precision="bf16"
        )
        found = evaluate(detector, toys.dataset(tmp_path), EvaluationConfig(replicates=0))
        content = to_json(found)
        assert (content["preset"], content["precision"]) == (preset, "bf16")
        told = f"Preset: {preset}. Precision of the image tower: bf16."
        assert told in to_markdown([found])

    def test_one_class_needs_no_mean(self, evaluation):
        single = replace(evaluation, classes={"mug": evaluation.classes["mug"]})
        text = to_markdown([single, single])
        assert "mean" not in text and text.count("### toy — small-clip") == 2

    def test_csv_holds_the_same_figures(self, folder, evaluation):
        mug, nut, mean = rows(folder / "metrics.csv")
        assert (mug["class"], nut["class"], mean["class"]) == ("mug", "nut", "mean")
        for name in METRIC_NAMES:
            assert float(mug[name]) == pytest.approx(evaluation.classes["mug"][name], rel=1e-5)
            assert float(mean[name]) == pytest.approx(evaluation.mean[name], rel=1e-5)
            low, high = evaluation.classes["mug"].intervals[name]
            assert float(mug[f"{name}_low"]) == pytest.approx(low, rel=1e-5)
            assert float(mug[f"{name}_high"]) == pytest.approx(high, rel=1e-5)
            assert float(mean[f"{name}_high"]) >= float(mean[f"{name}_low"])
        assert nut["aupro"] == nut["aupro_low"] == "" and nut["normal"] == "4"
        assert list(mug)[:10] == ["class", "normal", "anomalous", *METRIC_NAMES]

    def test_the_table_says_what_was_measured_where(self, evaluation):
        told = to_markdown([evaluation])
        assert "Pixel metrics at the model's size, 56x56 (resolution: model)." in told
        assert "95 % intervals over pictures, from 200 bootstrap replicates." in told
        config = EvaluationConfig(resolution="picture", replicates=0)
        told = to_markdown([replace(evaluation, config=config)])
        assert "Pixel metrics at each picture's own size (resolution: picture)." in told
        assert "bootstrap" not in told

    def test_the_authors_pro_stands_beside_the_others_on_request(self, tmp_path):
        config = EvaluationConfig(pro_200=True, replicates=0)
        found = evaluate(toys.detector(), toys.dataset(tmp_path), config)
        assert to_json(found)["mean"]["pro_200"] == pytest.approx(
            np.mean([result["pro_200"] for result in found.classes.values()])
        )
        assert "| aupro | pro_200 |" in to_markdown([found])
        assert "pro_200,image_auroc_low" in module._metrics_csv(found)

    def test_every_picture_has_a_line_of_scores(self, folder, evaluation):
        lines = rows(folder / "scores.csv")
        assert len(lines) == len(evaluation.images)
        for line, image in zip(lines, evaluation.images, strict=True):
            assert line["path"] == str(image.sample.image_path)
            assert int(line["label"]) == image.sample.label
            if image.score is None:
                assert line["score"] == "" and line["error"] == image.error
            else:
                assert float(line["score"]) == pytest.approx(image.score, rel=1e-5)
                assert line["defect_type"] == image.sample.defect_type


class TestCurves:
    def test_numbers_and_a_picture_a_class(self, folder):
        lines = rows(folder / "curves" / "mug.csv")
        names = {line["curve"] for line in lines}
        assert names == {"image_roc", "image_pr", "pixel_roc", "pixel_pr", "pro"}
        roc = [(float(li["x"]), float(li["y"])) for li in lines if li["curve"] == "image_roc"]
        assert roc == sorted(roc) and roc[-1] == (1, 1)
        width, height = Image.open(folder / "curves" / "mug.png").size
        assert width > 4 * height
        assert {line["curve"] for line in rows(folder / "curves" / "nut.csv")} == {
            "image_roc", "image_pr",
        }  # fmt: skip

    @pytest.mark.parametrize("name", ["mug/dent", "../../out", "a\\b", "/etc/x"])
    def test_a_class_name_does_not_lead_out_of_the_folder(
        self, evaluation, tmp_path, undrawn, name
    ):
        renamed = replace(
            evaluation, classes={name: evaluation.classes["mug"]},
            curves={name: evaluation.curves["mug"]},
        )  # fmt: skip
        write_evaluation(renamed, tmp_path / "a" / "out")
        (numbers,) = [path for path in tmp_path.rglob("*.csv") if path.parent.name == "curves"]
        assert numbers.parent == tmp_path / "a" / "out" / "curves"
        assert undrawn == [numbers.with_suffix(".png")]

    def test_by_defect_names_become_files(self, tmp_path, undrawn):
        found = evaluate(toys.detector(), toys.dataset(tmp_path), EvaluationConfig(by_defect=True))
        write_evaluation(found, tmp_path / "out")
        names = {path.name for path in (tmp_path / "out" / "curves").glob("*.csv")}
        assert names == {"mug_chip.csv", "mug_dent.csv", "nut_chip.csv", "nut_dent.csv"}


def test_writing_again_replaces_and_leaves_nothing_behind(evaluation, folder, undrawn):
    before = {path.name for path in folder.rglob("*")}
    write_evaluation(evaluation, folder)
    assert {path.name for path in folder.rglob("*")} == before
    assert not [path for path in before if ".part" in path]


def test_a_write_that_fails_leaves_the_old_file(evaluation, folder, monkeypatch):
    before = (folder / "metrics.md").read_text()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("faprompt.files.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_evaluation(replace(evaluation, model="other"), folder)
    assert (folder / "metrics.md").read_text() == before


def test_stored_scores_are_the_very_scores(evaluation):
    near = [0.5, 0.50000006, 0.49999997]  # neighbours in float32
    images = tuple(
        replace(image, score=float(np.float32(score)))
        for image, score in zip(evaluation.images, near, strict=False)
    )
    text = module._scores_csv(replace(evaluation, images=images))
    stored = [np.float32(row["score"]) for row in csv.DictReader(text.splitlines())]
    assert stored == [np.float32(score) for score in near]


def test_replicates_of_the_means_come_back_and_give_their_intervals(evaluation, folder, undrawn):
    drawn = read_replicates(folder)
    assert list(drawn) == list(evaluation.mean) and {v.shape for v in drawn.values()} == {(200,)}
    for name, values in evaluation.mean_replicates.items():
        np.testing.assert_allclose(drawn[name], values, rtol=1e-8)
    told = strict((folder / "metrics.json").read_text())["intervals"]
    known = drawn["image_auroc"][~np.isnan(drawn["image_auroc"])]
    assert told["image_auroc"] == pytest.approx(np.quantile(known, (0.025, 0.975)), abs=1e-8)


def test_two_detectors_draw_the_same_pictures(evaluation, tmp_path):
    """So the replicates of one detector on one dataset are always the same."""
    again = evaluate(toys.detector(), toys.dataset(tmp_path / "moved"))
    once = evaluate(toys.detector(), toys.dataset(tmp_path / "elsewhere"))
    for name, values in once.mean_replicates.items():
        np.testing.assert_array_equal(values, again.mean_replicates[name])


def test_without_replicates_a_former_file_goes(evaluation, tmp_path, undrawn):
    write_evaluation(evaluation, tmp_path)
    write_evaluation(replace(evaluation, replicates={}, classes={}, curves={}), tmp_path)
    assert read_replicates(tmp_path) == {}
    (tmp_path / "replicates.csv").write_text("image_auroc\nmuch\n")
    with pytest.raises(ValueError, match="could not convert"):
        read_replicates(tmp_path)


@pytest.fixture(scope="module")
def partly(tmp_path_factory):
    """Three anomalous mugs of which two have a mask; nuts without any mask."""
    dataset = toys.dataset(tmp_path_factory.mktemp("toy"))
    bare = {(s.class_name, s.defect_type) for s in dataset.samples if s.class_name == "nut"}
    samples = [
        replace(s, mask_paths=(), has_pixel_label=False)
        if (s.class_name, s.defect_type) in bare or s.image_path.name == "2.png" and s.label
        else s
        for s in dataset.samples
        if not (s.label and s.image_path.name == "0.png")
    ]
    return evaluate(
        toys.detector(), replace(dataset, samples=tuple(samples)), EvaluationConfig(gallery=0)
    )


class TestPixelPictures:
    def test_metrics_json_counts_them_per_class(self, partly):
        assert partly.classes["mug"].anomalous == 3
        assert to_json(partly)["pixel_pictures"] == {
            "mug": {"normal": 4, "anomalous": 2},
            "nut": {"normal": 0, "anomalous": 0},
        }

    def test_the_table_says_how_many_have_a_mask(self, partly):
        lines = to_markdown([partly]).splitlines()
        assert [line for line in lines if line.startswith("| mug | 4 | 3 (2 with a mask) |")]
        assert [line for line in lines if line.startswith("| nut | 4 | 3 |")]
        assert (
            "anomalous pictures with a mask, which alone count in pixel metrics: mug 2 of 3."
            in lines
        )

    def test_csv_counts_them_and_gives_reasons(self, partly):
        mug, nut, mean = csv.DictReader(module._metrics_csv(partly).splitlines())
        assert (mug["pixel_normal"], mug["pixel_anomalous"], mug["undefined"]) == ("4", "2", "")
        assert (nut["pixel_normal"], nut["pixel_anomalous"]) == ("0", "0")
        assert "aupro: no image has both a score map and a mask" in nut["undefined"]
        assert mean["undefined"] == ""

    def test_the_reason_of_a_missing_figure_is_printed(self, partly):
        assert (
            "Undefined: pixel_auroc, pixel_ap, pixel_f1_max, aupro of nut: "
            "no image has both a score map and a mask."
        ) in to_markdown([partly]).splitlines()

    def test_metrics_that_are_missing_everywhere_need_no_remark_on_their_size(self, partly):
        nut = replace(
            partly, classes={"nut": partly.classes["nut"]},
            images=tuple(i for i in partly.images if i.groups == ("nut",)),
        )  # fmt: skip
        told = to_markdown([nut])
        assert "Pixel metrics at" not in told and "aupro of nut: no image has both" in told
        assert nut.undefined["aupro"] == "no image has both a score map and a mask"

    def test_every_missing_metric_has_its_classes_and_its_own_reason(self, partly):
        alone = {
            name: replace(
                result,
                undefined={"image_auroc": "one class only: all images are normal"},
                values={},
            )
            for name, result in partly.classes.items()
        }
        (line,) = module._reasons(replace(partly, classes=alone))
        assert line == ("Undefined: image_auroc of mug, nut: one class only: all images are normal")


def test_remarks_on_the_dataset_are_in_the_table_and_in_json(tmp_path):
    dataset = toys.dataset(tmp_path)
    copied = dataset.samples[1].image_path
    copied.write_bytes(dataset.samples[0].image_path.read_bytes())
    for item in dataset.samples:
        for path in item.mask_paths if item.class_name == "mug" else ():
            Image.fromarray(255 - np.array(Image.open(path))).save(path)
    named = replace(dataset, warnings=("a remark of the reader",)).with_classes(["mug"])
    found = evaluate(toys.detector(), named, EvaluationConfig(replicates=0))
    told = to_json(found)["remarks"]
    assert told[0] == "a remark of the reader"
    assert told[1] == "1 of 2 classes are used: mug"
    assert told[2] == "1 exact copies in 1 groups: mug/good/0.png = mug/good/1.png"
    assert told[3].startswith("class mug: 5 of 5 masks mark most of their picture (")
    assert len(told) == 4 and to_json(found)["left_out_classes"] == ["nut"]
    lines = to_markdown([found]).splitlines()
    assert all(f"{line}." in lines for line in told)


def test_file_names_do_not_break_the_lines_of_a_table(evaluation):
    odd = replace(evaluation, remarks=("a\nb\x1b[31m.png and \udcff.png",))
    assert "a?b?[31m.png and ?.png." in to_markdown([odd]).splitlines()


class TestAnotherSetInTheSameFolder:
    def test_what_an_earlier_evaluation_left_goes(self, evaluation, tmp_path):
        (tmp_path / "gallery").mkdir()
        for name in ("false_alarms.png", "missed_areas.png", "gallery.csv"):
            (tmp_path / "gallery" / name).write_text("old")
        write_evaluation(evaluation, tmp_path)
        other = replace(
            evaluation, classes={"cup": evaluation.classes["mug"]}, replicates={},
            curves={"cup": evaluation.curves["mug"]},
        )  # fmt: skip
        write_evaluation(other, tmp_path)
        assert sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")) == [
            "curves", "curves/cup.csv", "curves/cup.png",
            "metrics.csv", "metrics.json", "metrics.md", "scores.csv",
        ]  # fmt: skip

    def test_files_of_other_origin_stay(self, evaluation, tmp_path, undrawn):
        write_evaluation(evaluation, tmp_path)
        own = ("curves/mine.csv", "curves/mine.png", "gallery/mine.png", "notes.txt")
        for name in own:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("x,y\n1,2\n")
        write_evaluation(replace(evaluation, curves={}), tmp_path)
        assert not (tmp_path / "curves" / "mug.csv").exists()
        assert all((tmp_path / name).is_file() for name in own)

    def test_no_empty_folder_is_left(self, evaluation, tmp_path, undrawn):
        write_evaluation(evaluation, tmp_path)
        assert (tmp_path / "curves").is_dir()
        write_evaluation(replace(evaluation, curves={}), tmp_path)
        assert not (tmp_path / "curves").exists()


def test_names_of_files_and_classes_are_no_formulas(tmp_path, monkeypatch, undrawn):
    monkeypatch.chdir(tmp_path)
    dataset = toys.dataset(Path("=set"), classes=("@mug",))
    odd = dataset.samples[-1].image_path.rename("+1.png")
    last = replace(dataset.samples[-1], image_path=odd, defect_type="-chip")
    dataset = replace(dataset, samples=(*dataset.samples[:-1], last))
    detector, config = toys.detector(), EvaluationConfig(replicates=0, gallery=3)
    found = evaluate(detector, dataset, config)
    write_evaluation(found, tmp_path / "out")
    write_gallery(detector, found, tmp_path / "out")
    scores = rows(tmp_path / "out" / "scores.csv")
    assert [row["path"] for row in scores] == [f"'{s.image_path}" for s in dataset.samples]
    assert {row["class"] for row in scores} == {"'@mug"} and scores[-1]["defect_type"] == "'-chip"
    assert rows(tmp_path / "out" / "metrics.csv")[0]["class"] == "'@mug"
    listed = rows(tmp_path / "out" / "gallery" / "gallery.csv")
    assert listed and all(row["path"][:2] in ("'=", "'+") for row in listed)
    assert {row["group"] for row in listed} == {"'@mug"}
    back = read_scores(tmp_path / "out" / "scores.csv", dataset)  # and they are still told apart
    assert [image.score for image in back] == pytest.approx([i.score for i in found.images])
