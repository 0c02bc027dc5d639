"""Figures of a whole dataset against scikit-learn on the very scores and maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from faprompt.errors import DatasetError
from faprompt.evaluation import EvaluationConfig, evaluate
from faprompt.metrics import METRIC_NAMES, aupro, mean_replicates, pro_200
from tests.evaluation import toys


@pytest.fixture(scope="module")
def detector():
    return toys.detector()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Not for tests that change files."""
    return toys.dataset(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def measured(detector, shared):
    return evaluate(detector, shared)


def image_truth(evaluation, class_name, kinds=("", "dent", "chip")):
    rows = [
        image
        for image in evaluation.images
        if image.sample.class_name == class_name and image.sample.defect_type in kinds
    ]
    return [row.sample.label for row in rows], [row.score for row in rows]


def pixel_truth(detector, dataset, class_name, *, resolution):
    """Maps and masks, read and resized by other means than the workshop's."""
    maps, masks = [], []
    for sample in dataset.samples:
        if sample.class_name != class_name:
            continue
        picture = Image.open(sample.image_path)
        truth = Image.new("L", picture.size)
        if sample.label:
            truth = Image.open(sample.mask_paths[0])
        if resolution == "picture":
            maps.append(detector.predict(picture).score_map)
        else:
            with torch.no_grad():
                pixels = detector.to_pixels(np.asarray(picture))
                maps.append(detector(pixels[None])[1][0].numpy())
            truth = truth.resize((56, 56), Image.Resampling.BILINEAR)
        masks.append(np.asarray(truth) > 127)
    return maps, masks


class TestFigures:
    @pytest.mark.parametrize("class_name", ["mug", "nut"])
    def test_image_figures_equal_scikit_learns(self, measured, class_name):
        labels, scores = image_truth(measured, class_name)
        result = measured.classes[class_name]
        assert (result.normal, result.anomalous) == (4, 5)
        assert result["image_auroc"] == pytest.approx(roc_auc_score(labels, scores))
        assert result["image_ap"] == pytest.approx(average_precision_score(labels, scores))

    @pytest.mark.parametrize("resolution", ["model", "picture"])
    def test_pixel_figures_equal_scikit_learns(self, detector, shared, resolution):
        config = EvaluationConfig(resolution=resolution)
        result = evaluate(detector, shared, config).classes["mug"]
        maps, masks = pixel_truth(detector, shared, "mug", resolution=resolution)
        assert len({score_map.shape for score_map in maps}) == (1 if resolution == "model" else 3)
        truth, scores = (np.concatenate([a.ravel() for a in arrays]) for arrays in (masks, maps))
        assert result["pixel_auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)
        wanted = average_precision_score(truth, scores)
        assert result["pixel_ap"] == pytest.approx(wanted, abs=1e-4)
        assert result["aupro"] == pytest.approx(aupro(maps, masks), abs=1e-4)

    def test_the_mean_is_over_classes(self, measured):
        assert set(measured.mean) == set(METRIC_NAMES)
        for name in METRIC_NAMES:
            both = [measured.classes[c][name] for c in ("mug", "nut")]
            assert measured.mean[name] == pytest.approx(sum(both) / 2)
        assert measured.undefined == {}

    def test_scores_are_the_detectors_own_in_order(self, detector, measured, shared):
        assert [image.sample for image in measured.images] == list(shared.samples)
        for image in measured.images[::5]:
            alone = detector.predict(image.sample.image_path).score
            assert image.score == pytest.approx(alone, abs=1e-5)

    def test_the_size_of_a_batch_does_not_matter(self, detector, measured, shared):
        again = evaluate(detector, shared, EvaluationConfig(batch_size=1))
        scores, alone = ([image.score for image in found.images] for found in (measured, again))
        assert alone == pytest.approx(scores, abs=1e-5)
        for name, value in measured.mean.items():  # a pixel at a threshold may change its side
            assert again.mean[name] == pytest.approx(value, abs=2e-3)

    def test_where_aupro_ends_is_an_option(self, detector, measured, shared):
        whole = evaluate(detector, shared, EvaluationConfig(fpr_limit=1.0))
        assert abs(whole.mean["aupro"] - measured.mean["aupro"]) > 1e-3
        assert whole.mean["pixel_auroc"] == measured.mean["pixel_auroc"]

    def test_each_kind_of_defect_is_measured_against_all_normal_pictures(self, detector, shared):
        found = evaluate(detector, shared, EvaluationConfig(by_defect=True))
        counts = {name: (r.normal, r.anomalous) for name, r in found.classes.items()}
        assert counts == {
            "mug/chip": (4, 2), "mug/dent": (4, 3), "nut/chip": (4, 2), "nut/dent": (4, 3),
        }  # fmt: skip
        for kind in ("chip", "dent"):
            labels, scores = image_truth(found, "mug", ("", kind))
            wanted = roc_auc_score(labels, scores)
            assert found.classes[f"mug/{kind}"]["image_auroc"] == pytest.approx(wanted)
        assert len(found.images) == len(shared.samples)  # each picture is scored once

    def test_what_was_measured_is_told(self, detector, measured):
        assert (measured.dataset, measured.model) == ("toy", "small-clip")
        assert (measured.method, measured.backbone) == ("clip", "test-tiny")
        environment = measured.environment
        assert environment["backbone_fingerprint"] == detector.backbone.state_fingerprint()
        assert environment["device"] == "cpu" and environment["precision"] == "fp32"
        assert environment["image_size"] == "56x56"
        assert environment["torch"] == torch.__version__

    def test_progress_counts_pictures_and_no_batch_holds_two_classes(self, detector, shared):
        calls = []
        evaluate(
            detector, shared, EvaluationConfig(batch_size=5),
            progress=lambda *call: calls.append(call[1:]),
        )  # fmt: skip
        assert calls == [(5, 18), (9, 18), (14, 18), (18, 18)]


class TestIntervals:
    def test_the_mean_is_bootstrapped_replicate_by_replicate(self, measured):
        assert set(measured.mean_intervals) == set(METRIC_NAMES)
        for name, (low, high) in measured.mean_intervals.items():
            drawn = mean_replicates([row[name] for row in measured.replicates.values()])
            assert (low, high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]))

    def test_a_mean_has_none_where_one_of_its_classes_has_no_replicates(self, measured):
        hollow = dict(measured.replicates["mug"])
        hollow["aupro"] = np.full_like(hollow["aupro"], np.nan)
        found = replace(measured, replicates={**measured.replicates, "mug": hollow})
        assert set(measured.mean_replicates) - set(found.mean_replicates) == {"aupro"}
        assert set(found.mean_intervals) == set(METRIC_NAMES) - {"aupro"}

    def test_they_contain_the_mean_or_are_left_out(self, measured):
        moved = {
            name: replace(result, values={**result.values, "aupro": 1.0})
            for name, result in measured.classes.items()
        }
        found = replace(measured, classes=moved)
        assert found.mean["aupro"] == 1.0 and "aupro" not in found.mean_intervals
        for name, (low, high) in measured.mean_intervals.items():
            assert low <= measured.mean[name] <= high

    def test_they_do_not_depend_on_where_the_dataset_lies(self, detector, measured, tmp_path):
        moved = evaluate(detector, toys.dataset(tmp_path))
        assert moved.classes == measured.classes

    def test_groups_that_share_normal_pictures_share_their_draws(self, detector, shared):
        found = evaluate(detector, shared, EvaluationConfig(by_defect=True))
        whole = evaluate(detector, shared)
        chip, dent = (found.replicates[f"mug/{kind}"]["image_auroc"] for kind in ("chip", "dent"))
        known = ~np.isnan(chip) & ~np.isnan(dent)
        both = whole.replicates["mug"]["image_auroc"][known]
        assert known.sum() > 100  # between its two parts, as a weighted mean of them
        assert (np.minimum(chip, dent)[known] <= both + 1e-9).all()
        assert (np.maximum(chip, dent)[known] >= both - 1e-9).all()

    def test_none_are_drawn_where_none_are_wanted(self, detector, measured, shared):
        plain = evaluate(detector, shared, EvaluationConfig(replicates=0))
        assert plain.mean == measured.mean and plain.mean_intervals == {}
        assert all(result.intervals == {} for result in plain.classes.values())

    def test_the_authors_pro_on_request(self, detector, measured, shared):
        found = evaluate(detector, shared, EvaluationConfig(pro_200=True))
        assert "pro_200" not in measured.mean and "pro_200" not in found.mean_intervals
        pair = pixel_truth(detector, shared, "mug", resolution="model")
        assert found.classes["mug"]["pro_200"] == pytest.approx(pro_200(*pair), abs=1e-3)


class TestIncompleteData:
    @pytest.fixture
    def own(self, tmp_path):
        return toys.dataset(tmp_path, classes=("mug",))

    def test_an_unreadable_picture_is_named_and_left_out(self, detector, own):
        broken = own.samples[5]
        broken.image_path.write_bytes(b"no picture")
        found = evaluate(detector, own)
        assert [image.sample for image in found.unreadable] == [broken]
        assert str(broken.image_path) in found.unreadable[0].error
        rest = replace(own, samples=tuple(s for s in own.samples if s is not broken))
        assert found.classes["mug"].to_dict() == evaluate(detector, rest).classes["mug"].to_dict()

    def test_nothing_readable_is_no_figure(self, detector, own):
        for sample in own.samples:
            sample.image_path.write_bytes(b"")
        found = evaluate(detector, own)
        assert found.mean == {} and set(found.undefined) == set(METRIC_NAMES)
        assert len(found.unreadable) == 9

    def test_a_picture_without_its_mask_leaves_the_pixel_figures_only(self, detector, own):
        lost = own.samples[4]
        samples = [replace(s, mask_paths=()) if s is lost else s for s in own.samples]
        found = evaluate(detector, replace(own, samples=tuple(samples)))
        rest = replace(own, samples=tuple(s for s in own.samples if s is not lost))
        without, whole = evaluate(detector, rest), evaluate(detector, own)
        for name in METRIC_NAMES:
            wanted = whole if name.startswith("image") else without
            assert found.mean[name] == wanted.mean[name], name

    def test_without_any_mask_pixel_figures_are_undefined_with_a_reason(self, detector, own):
        samples = tuple(replace(s, mask_paths=(), has_pixel_label=False) for s in own.samples)
        found = evaluate(detector, replace(own, samples=samples))
        assert set(found.mean) == {"image_auroc", "image_ap", "image_f1_max"}
        assert set(found.undefined) == {"pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro"}
        assert all(found.undefined.values())

    def test_one_kind_of_label_gives_no_image_figure(self, detector, own):
        samples = tuple(s for s in own.samples if s.label)
        found = evaluate(detector, replace(own, samples=samples))
        assert "image_auroc" not in found.mean and found.undefined["image_auroc"]
        assert "pixel_auroc" in found.mean

    def test_normal_pictures_alone_have_no_kind_of_defect(self, detector, own):
        samples = tuple(s for s in own.samples if not s.label)
        found = evaluate(detector, replace(own, samples=samples), EvaluationConfig(by_defect=True))
        assert found.classes == {}
        assert found.undefined["image_auroc"] == "no kind of defect to measure"

    def test_regions_are_pictures_of_their_own(self, detector, own):
        base = own.samples[4]  # 60x80 or smaller, damaged
        height, width = toys.SIZES[0]
        left = replace(base, region=(0, 0, width // 2, height))
        found = evaluate(
            detector, replace(own, samples=(left, *own.samples)),
            EvaluationConfig(resolution="picture"),
        )  # fmt: skip
        image = np.asarray(Image.open(base.image_path))[:, : width // 2]
        assert found.images[0].score == pytest.approx(detector.predict(image).score, abs=1e-5)

    def test_a_region_outside_its_picture_is_refused(self, detector, own):
        wrong = replace(own.samples[0], region=(0, 0, 500, 20), has_pixel_label=False)
        with pytest.raises(DatasetError, match=r"region .*does not lie within .*0.png, .* 60x80"):
            evaluate(detector, replace(own, samples=(wrong,)))

    def test_a_mask_of_another_size_is_refused(self, detector, own):
        damaged = own.samples[4]
        Image.new("L", (9, 9), 255).save(damaged.mask_paths[0])
        with pytest.raises(DatasetError, match="masks are not resized"):
            evaluate(detector, own)

    def test_a_turned_picture_meets_its_mask_as_shown(self, detector, own):
        damaged = own.samples[4]
        truth = np.asarray(Image.open(damaged.mask_paths[0]))
        exif = Image.Exif()
        exif[0x0112] = 6
        shown = Image.open(damaged.image_path).convert("RGB")
        shown.transpose(Image.Transpose.ROTATE_90).save(damaged.image_path, exif=exif)
        found = evaluate(detector, own, EvaluationConfig(resolution="picture"))
        assert truth.shape == shown.size[::-1]
        upright = detector.predict(shown).score
        assert found.images[4].score == pytest.approx(upright, abs=1e-5)

    def test_a_dataset_with_problems_is_refused(self, detector, own):
        with pytest.raises(DatasetError, match="cannot be used yet: two masks of one name"):
            evaluate(detector, replace(own, problems=("two masks of one name",)))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"batch_size": 0}, "batch_size should be at least 1"),
        ({"resolution": "screen"}, "resolution should be one of model, picture, got 'screen'"),
        ({"fpr_limit": 0}, "fpr_limit should be above 0 and at most 1, got 0"),
        ({"fpr_limit": 1.5}, "fpr_limit should be above 0 and at most 1, got 1.5"),
        ({"replicates": 7}, r"replicates should be 0 \(no intervals\) or at least 40, got 7"),
        ({"gallery": -1}, "gallery should be at least 0, got -1"),
    ],
)
def test_options_out_of_range_are_refused(options, told):
    with pytest.raises(ValueError, match=told):
        EvaluationConfig(**options)
