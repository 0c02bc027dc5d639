"""False-alarm and detection rates, and one way of scoring for `evaluate` and `predict`."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from faprompt.calibration import Calibration, GoodScores
from faprompt.detector_setup import DetectorSetup
from faprompt.errors import ConfigError
from faprompt.evaluation import EvaluationConfig, ImageScore, evaluate, to_json, to_markdown
from faprompt.evaluation.sample_scoring import released_reading
from faprompt.evaluation.verdict_rates import reference_paths, verdict_rates
from faprompt.files import file_digest
from faprompt.records import Sample
from faprompt.references import ReferenceBank, References
from tests.evaluation import toys
from tests.helpers import small


def calibration(scores, *, products=None, decided_by=None, **options):
    good = {name: GoodScores(s, s) for name, s in (products or {"": scores}).items()}
    rates = {"target_fpr": 0.05, "review_fpr": 0.2, **options}
    return Calibration(products=good, decided_by=decided_by or {}, **rates)


def image(score, label, *, class_name="mug", path="lot/a.png", digest="", groups=None):
    sample = Sample(image_path=path, label=label, class_name=class_name)
    return ImageScore(sample, score, groups=groups or (class_name,), digests=(digest, ""))


TWENTY = np.arange(1, 21) / 20  # NG above 1.0, REVIEW above 0.85


class TestRates:
    def test_counts_shares_and_intervals_are_right(self):
        setup = DetectorSetup(calibration=calibration(TWENTY))
        images = [image(s, 0) for s in (0.1, 0.85, 0.9, 1.0, 1.01)]
        images += [image(s, 1) for s in (0.2, 1.2, 1.3)] + [image(None, 1)]
        rates = verdict_rates(setup, images)
        normal, anomalous = rates.all.normal, rates.all.anomalous
        assert (normal.total, normal.ng.count, normal.ng_or_review.count) == (5, 1, 3)
        assert (anomalous.total, anomalous.ng.count, anomalous.ng_or_review.count) == (3, 2, 2)
        ends = stats.binomtest(3, 5).proportion_ci(0.95, method="exact")
        assert normal.ng_or_review.share == 0.6
        assert (normal.ng_or_review.low, normal.ng_or_review.high) == pytest.approx(
            (ends.low, ends.high)
        )
        assert rates.classes == {"mug": rates.all}
        assert (rates.target_fpr, rates.review_fpr, rates.counted) == (0.05, 0.2, "pictures")

    def test_an_uncalibrated_detector_has_none(self):
        assert verdict_rates(DetectorSetup(), [image(0.5, 0)]) is None

    def test_a_label_without_pictures_has_no_share(self):
        setup = DetectorSetup(calibration=calibration(TWENTY))
        found = verdict_rates(setup, [image(0.5, 0)]).to_dict()
        assert found["all"]["anomalous"] == {"total": 0}
        json.dumps(found, allow_nan=False)

    def test_thresholds_go_by_product(self):
        products = {"mug": TWENTY, "nut": TWENTY / 2}
        setup = DetectorSetup(calibration=calibration(None, products=products))
        images = [image(0.7, 0), image(0.7, 0, class_name="nut")]
        images.append(image(0.7, 0, class_name="other", path="lot/nut/a.png"))
        rates = verdict_rates(setup, images)
        marked = {name: row.normal.ng.count for name, row in rates.classes.items()}
        assert marked == {"mug": 0, "nut": 1, "other": 1}
        assert (rates.all.normal.ng.count, rates.all.normal.total) == (2, 3)
        assert verdict_rates(setup, images, "mug").all.normal.ng.count == 0

    def test_a_picture_in_two_groups_counts_once_in_all(self):
        setup = DetectorSetup(calibration=calibration(TWENTY))
        images = [image(2.0, 0, groups=("mug/chip", "mug/dent")), image(2.0, 1)]
        rates = verdict_rates(setup, images)
        assert {name: row.normal.total for name, row in rates.classes.items()} == {
            "mug/chip": 1, "mug/dent": 1, "mug": 0,
        }  # fmt: skip
        assert rates.all.normal.total == 1

    def test_the_pictures_of_a_part_count_once_with_their_highest_score(self):
        setup = DetectorSetup(calibration=calibration(TWENTY, group="p([0-9]+)_"))
        images = [image(s, 0, path=f"lot/p{p}_{i}.png") for i, (p, s) in enumerate(
            [(1, 0.1), (1, 1.5), (2, 0.1), (2, 0.3), (2, 0.2)])]  # fmt: skip
        rates = verdict_rates(setup, images)
        assert (rates.counted, rates.all.normal.total, rates.all.normal.ng.count) == ("parts", 2, 1)
        other = verdict_rates(setup, [replace(i, sample=image(0, 0).sample) for i in images])
        assert (other.counted, other.all.normal.total) == ("pictures", 5)

    def test_normal_pictures_of_the_calibration_and_references_are_counted(self, tmp_path):
        known = calibration(TWENTY, pictures={"": {"/gone/x.png": "ab" * 32}})
        path = tmp_path / "reference.png"
        bank = ReferenceBank.of({str(path): [{1: small.torch.eye(3)}]})
        setup = DetectorSetup(calibration=known, references=References({"": bank}))
        images = [image(0.1, 0, digest="ab" * 32), image(0.1, 1, digest="ab" * 32)]
        images += [image(0.1, 0, digest="cd" * 32), image(0.1, 0, path=path)]
        rates = verdict_rates(setup, images, references=reference_paths(setup))
        assert rates.own_pictures == 2


@pytest.fixture(scope="module")
def detector():
    return toys.detector()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Not for tests that change files."""
    return toys.dataset(tmp_path_factory.mktemp("toy"))


def with_references(detector, dataset):
    tokens = {s.image_path.name: detector.reference_tokens(read(s)) for s in dataset.samples[:2]}
    return detector.with_setup(references=References({"": ReferenceBank.of(tokens)}))


def calibrated(detector, scores=TWENTY, **options):
    known = calibration(scores, decided_by=detector.decided_by(), **options)
    return detector.with_setup(calibration=known)


def read(sample):
    return np.asarray(Image.open(sample.image_path))


SETUPS = {
    "calibrated": lambda d, data, folder: calibrated(d),
    "tiles": lambda d, data, folder: calibrated(d.with_setup(tiles=2)),
    "references": lambda d, data, folder: calibrated(with_references(d, data)),
    "masks": lambda d, data, folder: calibrated(d.with_setup(mask_folder=masks(data, folder))),
    "only tiles": lambda d, data, folder: d.with_setup(tiles=2),
}


def masks(dataset, folder):
    """A mask for each picture of a class, that leaves out its left third."""
    for sample in dataset.samples:
        marked = np.zeros(read(sample).shape[:2], np.uint8)
        marked[:, : marked.shape[1] // 3] = 255
        Image.fromarray(marked).save(folder / f"{sample.image_path.stem}.png")
    return folder


class TestOneWayOfScoring:
    @pytest.mark.parametrize("resolution", ["model", "picture"])
    @pytest.mark.parametrize("name", SETUPS)
    def test_scores_are_those_of_predict(self, detector, tmp_path, name, resolution):
        data = toys.dataset(tmp_path, classes=("mug",))
        data = replace(data, samples=(*data.samples[:2], *data.samples[4:6]))
        for number, sample in enumerate(data.samples):  # masks go by name
            sample.image_path.rename(sample.image_path.with_name(f"picture{number}.png"))
        moved = [
            replace(s, image_path=s.image_path.with_name(f"picture{n}.png"))
            for n, s in enumerate(data.samples)
        ]
        data = replace(data, samples=tuple(moved))
        (tmp_path / "masks").mkdir()
        own = SETUPS[name](detector, data, tmp_path / "masks")
        found = evaluate(own, data, EvaluationConfig(resolution=resolution, replicates=0))
        alone = [own.predict(sample.image_path) for sample in data.samples]
        wanted = [result.score for result in alone]
        assert [row.score for row in found.images] == pytest.approx(wanted, rel=1e-6)
        if name != "only tiles":
            ng = sum(r.verdict == "NG" for r, s in zip(alone, data.samples, strict=True) if s.label)
            assert found.verdicts.all.anomalous.ng.count == ng
        plain = [detector.predict(sample.image_path).score for sample in data.samples]
        assert (name == "calibrated") == (wanted == pytest.approx(plain, rel=1e-6))

    def test_a_calibrated_detector_keeps_its_class_name(self, tmp_path):
        data = toys.dataset(tmp_path, classes=("mug",))
        named = small.detector("clip", sigma_px=1.0, use_class_names=True)
        own, mug = (
            calibrated(named),
            named.predict_batch([read(data.samples[0])], class_names=["mug"]),
        )
        found, plain = (evaluate(d, data, EvaluationConfig(replicates=0)) for d in (own, named))
        first = data.samples[0].image_path
        assert found.images[0].score == pytest.approx(own.predict(first).score, rel=1e-6)
        assert plain.images[0].score == pytest.approx(mug[0].score, rel=1e-6)
        assert mug[0].score != pytest.approx(own.predict(first).score, rel=1e-6)

    def test_pictures_are_read_as_predict_reads_them(self):
        released = small.detector("clip", picture_handling="released")
        assert released_reading(released) is not None
        assert released_reading(calibrated(released)) is None
        assert released_reading(released.with_setup(tiles="auto")) is None

    def test_the_bit_depth_of_the_setup_counts(self, detector, tmp_path):
        data = toys.dataset(tmp_path, classes=("mug",))
        dark = np.random.default_rng(0).integers(0, 4096, (56, 56), dtype=np.uint16)
        Image.fromarray(dark).save(data.samples[0].image_path)
        own = detector.with_setup(bit_depth=12)
        first = data.samples[0].image_path
        found = evaluate(own, data, EvaluationConfig(replicates=0)).images[0].score
        assert found == pytest.approx(own.predict(first).score, rel=1e-6)
        assert found != pytest.approx(detector.predict(first).score, rel=1e-6)

    def test_a_picture_without_its_mask_is_unreadable(self, detector, tmp_path):
        data = toys.dataset(tmp_path, classes=("mug",))
        (tmp_path / "masks").mkdir()
        masks(replace(data, samples=data.samples[1:4]), tmp_path / "masks")
        own = detector.with_setup(mask_folder=tmp_path / "masks")
        found = evaluate(own, replace(data, samples=data.samples[:4]), EvaluationConfig())
        assert [image.sample for image in found.unreadable] == [data.samples[0]]
        assert "no mask in" in found.unreadable[0].error


class TestEvaluation:
    def test_metrics_are_those_of_the_same_detector_without_a_calibration(self, detector, shared):
        own = evaluate(calibrated(detector), shared)
        assert own.classes == evaluate(detector, shared).classes

    def test_rates_are_in_the_files_and_the_printed_table(self, detector, shared):
        plain = evaluate(detector, shared)
        middle = float(np.median([image.score for image in plain.images]))
        found = evaluate(calibrated(detector, np.linspace(0, middle, 20)), shared)
        verdicts = to_json(found)["verdicts"]
        assert set(verdicts["classes"]) == {"mug", "nut"}
        for name, row in verdicts["classes"].items():
            for label, kind in enumerate(("normal", "anomalous")):
                rows = [i for i in found.images if i.groups == (name,) and i.sample.label == label]
                above = sum(i.score > middle for i in rows)
                assert (row[kind]["total"], row[kind]["ng"]["count"]) == (len(rows), above)
        both = [verdicts["classes"][name]["normal"]["ng"]["count"] for name in ("mug", "nut")]
        assert verdicts["all"]["normal"]["ng"]["count"] == sum(both)
        text = to_markdown([found])
        assert "Stated false-alarm rates: 5 % NG, 20 % NG or REVIEW" in text
        share = verdicts["all"]["anomalous"]["ng"]
        low, high = share["interval"]
        cell = f"{100 * share['share']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        assert "| **all** | 8 | " in text and cell in text
        assert "verdicts" not in to_json(plain) and "Verdicts" not in to_markdown([plain])

    def test_pictures_of_the_calibration_are_remarked_once(self, detector, shared):
        digests = {str(s.image_path): file_digest(s.image_path) for s in shared.samples[:3]}
        found = evaluate(calibrated(detector, pictures={"": digests}), shared)
        (line,) = [remark for remark in found.remarks if "calibrated the model" in remark]
        assert line.startswith("3 of the normal pictures calibrated the model")
        assert found.verdicts.own_pictures == 3

    def test_kinds_of_defects_have_their_own_detection(self, detector, shared):
        config = EvaluationConfig(by_defect=True, replicates=0)
        rates = evaluate(calibrated(detector), shared, config).verdicts
        totals = {name: (r.normal.total, r.anomalous.total) for name, r in rates.classes.items()}
        assert totals["mug/chip"] == (4, 2) and totals["nut/dent"] == (4, 3)
        assert (rates.all.normal.total, rates.all.anomalous.total) == (8, 10)

    def test_a_class_of_no_product_is_refused_before_anything_is_scored(self, detector, shared):
        own = calibrated(detector, None, products={"mug": TWENTY, "cap": TWENTY})
        with pytest.raises(ConfigError, match=r"Class nut: .* products cap, mug"):
            evaluate(own, shared)
        config = EvaluationConfig(product="mug", replicates=0)
        assert evaluate(own, shared, config).verdicts.all.normal.total == 8
        assert evaluate(own, shared.with_classes(["mug"])).verdicts.all.normal.total == 4
