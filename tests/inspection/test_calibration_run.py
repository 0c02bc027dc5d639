"""Thresholds from folders of good pictures."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

import faprompt
from faprompt.calibration import CALIBRATION
from faprompt.errors import ConfigError, FolderInUseError, ImageReadError
from faprompt.files import file_digest
from faprompt.inspection import CalibrateOptions, calibrate
from faprompt.inspection.calibration_run import (
    candidate_count,
    product_folders,
    require_calibrated,
)
from faprompt.models import load_detector
from faprompt.work import lock_folder
from tests.helpers import small
from tests.inspection.good_pictures import (
    asked,
    level_file,
    level_folder,
    levels,
    picture_folder,
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return picture_folder(tmp_path_factory.mktemp("good"), 26)


class TestThresholds:
    def test_they_are_order_statistics_of_the_scores_and_of_the_maps(self, tmp_path):
        paths = level_folder(tmp_path / "in", range(40, 60))
        report = calibrate(levels(), paths[::-1], tmp_path / "out", asked())
        found = report.products[""]
        assert (found.pictures, found.parts) == (20, 20)
        # k = ceil(21 * 0.95) = 20 and ceil(21 * 0.9) = 19 of 40 ... 59
        assert (found.limits.threshold, found.limits.review_threshold) == (59 / 255, 58 / 255)
        assert found.limits.map_threshold == np.float32(100 / 255)
        assert found.bound == pytest.approx(1 - 0.05 ** (1 / 20))
        good = report.calibration.products[""].scores
        np.testing.assert_array_equal(good, np.arange(40, 60) / 255)
        assert report.calibration.pictures[""].keys() == set(paths)
        assert report.unreadable == {} and report.copies == ()
        assert report.detector.predict(level_file(tmp_path / "a.png", 60)).verdict == "NG"
        assert report.detector.predict(level_file(tmp_path / "b.png", 59)).verdict == "REVIEW"
        assert report.detector.predict(level_file(tmp_path / "c.png", 58)).verdict == "OK"

    def test_the_folder_holds_the_detector_of_the_report(self, pictures, tmp_path):
        report = faprompt.calibrate(small.detector("clip"), pictures, tmp_path, asked())
        loaded = load_detector(tmp_path)
        assert loaded.setup.calibration.fingerprint == report.calibration.fingerprint
        results = [one.predict(pictures[0]) for one in (loaded, report.detector)]
        assert results[0].score == results[1].score and results[0].p_value is not None
        scores = sorted(small.detector("clip").predict(path).score for path in pictures)
        np.testing.assert_allclose(report.calibration.products[""].scores, scores, atol=1e-5)

    def test_copies_count_once(self, tmp_path):
        paths = level_folder(tmp_path / "in", range(40, 60))
        copies = [level_file(tmp_path / "in" / f"copy{i}.png", 40 + i) for i in range(5)]
        report = calibrate(levels(), [*paths, *copies, paths[0]], tmp_path / "out", asked())
        assert report.copies == tuple(copies)
        assert report.products[""].pictures == 20

    def test_unreadable_pictures_are_reported_and_the_rest_counts(self, tmp_path, caplog):
        paths = level_folder(tmp_path / "in", range(40, 60))
        broken = tmp_path / "in" / "broken.png"
        broken.write_bytes(b"rubbish")
        report = calibrate(levels(), [str(broken), *paths], tmp_path / "out", asked())
        assert list(report.unreadable) == [str(broken)]
        assert "not used" in caplog.text and "broken.png" in caplog.text
        assert report.products[""].pictures == 20

    def test_progress_ends_at_its_total(self, pictures, tmp_path):
        for references, total in ((0, 26), (3, 19)):
            steps = []
            calibrate(
                small.detector("clip"), pictures, tmp_path,
                asked(references=references),
                progress=lambda *step, to=steps: to.append(step),
            )  # fmt: skip
            chosen = [("choose references", i, 26) for i in range(1, 27)] if references else []
            assert steps == chosen + [("calibrate", i, total) for i in range(1, total + 1)]

    def test_an_earlier_calibration_is_replaced(self, pictures, tmp_path):
        first = calibrate(
            small.detector("clip"), pictures, tmp_path, asked(references=2, tiles=2)
        ).detector
        report = calibrate(first, pictures, tmp_path, asked())
        assert report.detector.setup.references is None and report.detector.setup.tiles == "off"
        assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} == {
            "README.md", "config.json", "model.safetensors", CALIBRATION,
        }  # fmt: skip

    def test_a_folder_of_another_run_is_refused(self, pictures, tmp_path):
        with lock_folder(tmp_path), pytest.raises(FolderInUseError):
            calibrate(small.detector("clip"), pictures, tmp_path, asked())


class TestTooFew:
    def refusal(self, paths, tmp_path, detector=None, **options):
        with pytest.raises(ConfigError) as error:
            calibrate(detector or levels(), paths, tmp_path / "out", asked(**options))
        assert not (tmp_path / "out").exists()
        return str(error.value)

    def test_the_numbers_are_told_before_a_picture_is_read(self, tmp_path):
        paths = [str(tmp_path / f"{i}.png") for i in range(18)]  # none exists
        assert self.refusal(paths, tmp_path) == (
            "A false-alarm rate of 5 % needs at least 19 good pictures, got 18. Add pictures, or "
            "ask for 5.2632 % or more."
        )
        assert "got 0" in self.refusal([], tmp_path)

    def test_references_are_counted(self, tmp_path):
        paths = [str(tmp_path / f"{i}.png") for i in range(22)]
        told = self.refusal(paths, tmp_path, references=4)
        assert "needs at least 19 good pictures, got 18" in told
        assert told.endswith("4 pictures are set aside as references.")

    def test_parts_are_counted_not_pictures(self, tmp_path):
        paths = [str(tmp_path / f"p{i // 3}_{i % 3}.png") for i in range(54)]
        told = self.refusal(paths, tmp_path, group=r"p(\d+)_")
        assert "needs at least 19 good pictures, got 18" in told
        assert told.endswith("The 54 pictures count once for each part they show.")

    def test_products_are_named(self, tmp_path):
        paths = [str(tmp_path / "in" / "cap" / f"{i}.png") for i in range(19)]
        paths += [str(tmp_path / "in" / "nut" / f"{i}.png") for i in range(3)]
        assert self.refusal(paths, tmp_path, by_folder=True).startswith("Product nut: A false-alar")

    def test_copies_and_unreadable_pictures_are_told(self, tmp_path):
        paths = level_folder(tmp_path / "in", [*range(17), 3, 4])
        broken = tmp_path / "in" / "broken.png"
        broken.write_bytes(b"rubbish")
        told = self.refusal([*paths, str(broken)], tmp_path)
        assert "got 17" in told and "2 pictures are copies of others." in told
        assert "1 pictures cannot be used:" in told and "broken.png" in told

    def test_parts_that_references_set_aside_are_told(self, tmp_path):
        paths = picture_folder(tmp_path / "in", 20)  # 10 parts of 2 pictures
        told = self.refusal(
            paths, tmp_path, small.detector("clip"), group=r"(\d)\d*\.png", references=2,
            target_fpr=0.1, review_fpr=0.2,
        )  # fmt: skip
        assert "needs at least 9 good pictures" in told

    def test_too_few_pictures_for_the_references(self, tmp_path):
        paths = picture_folder(tmp_path / "in", 3)
        copies = [*paths]
        for number in range(30):
            copies.append(str(tmp_path / "in" / f"copy{number}.png"))
            shutil.copy(paths[0], copies[-1])
        told = self.refusal(copies, tmp_path, small.detector("clip"), references=4)
        assert told == ("references=4 needs as many readable good pictures that differ, got 3.")


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "error", "told"),
        [
            ({"target_fpr": 0}, ConfigError, "target_fpr should be a share above 0"),
            ({"review_fpr": 1.0}, ConfigError, "review_fpr should be a share above 0"),
            ({"review_fpr": 0.001}, ConfigError, "review_fpr=0.001 should be at least target_fpr"),
            ({"tiles": "all"}, ConfigError, "tiles should be"),
            ({"references": -1}, ValueError, "references should be at least 0"),
            ({"reference_weight": 0}, ValueError, "reference_weight should be"),
            ({"batch_size": 0}, ValueError, "batch_size should be at least 1"),
            ({"bit_depth": 40}, ValueError, "bit_depth should be 1 to 32"),
            ({"max_pixels": 0}, ValueError, "max_pixels should be"),
        ],
    )
    def test_values_out_of_range_are_refused(self, options, error, told):
        with pytest.raises(error, match=told):
            CalibrateOptions(**options)

    def test_the_review_rate_is_never_below_the_target_rate(self):
        assert CalibrateOptions().rates == (0.01, 0.05)
        assert CalibrateOptions(target_fpr=0.2).rates == (0.2, 0.2)
        assert CalibrateOptions(target_fpr=0.2, review_fpr=0.3).rates == (0.2, 0.3)

    def test_bit_depth_and_tiles_are_those_of_the_calibration(self, tmp_path):
        for number in range(20):
            deep = (small.picture(40, 48, seed=number)[..., 0].astype(np.uint16)) << 4
            Image.fromarray(deep).save(tmp_path / f"{number}.png")
        paths = sorted(map(str, tmp_path.glob("*.png")))
        made = calibrate(
            small.detector("clip"), paths, tmp_path / "out", asked(bit_depth=12, tiles=2)
        )
        bare = small.detector("clip").with_setup(tiles=2)
        scores = sorted(bare.predict(path, bit_depth=12).score for path in paths)
        np.testing.assert_allclose(made.calibration.products[""].scores, scores, atol=1e-5)
        assert load_detector(tmp_path / "out").predict(paths[0]).p_value is not None

    def test_a_detector_without_calibration_is_told(self):
        with pytest.raises(ConfigError, match="levels is not calibrated; run `faprompt calibrate`"):
            require_calibrated(levels())


class TestGroups:
    def test_a_part_counts_once_with_its_highest_score(self, tmp_path):
        paths = [
            level_file(tmp_path / f"p{part}_{view}.png", 40 + part + 100 * view, green=part + view)
            for part in range(20) for view in (0, 1)
        ]  # fmt: skip
        report = calibrate(levels(), paths, tmp_path / "out", asked(group=r"p(\d+)_"))
        found = report.products[""]
        assert (found.pictures, found.parts) == (40, 20)
        good = report.calibration.products[""]
        np.testing.assert_array_equal(good.scores, np.arange(140, 160) / 255)
        np.testing.assert_array_equal(good.map_maxima, (np.arange(1, 21) / 255).astype("f4"))
        assert report.calibration.group == r"p(\d+)_"

    def test_a_path_without_a_part_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match=r"group 'q\(.\)' finds no part in the path '/"):
            calibrate(levels(), ["a.png"], tmp_path / "out", asked(group="q(.)"))
        with pytest.raises(ConfigError, match="is no regular expression"):
            calibrate(levels(), ["a.png"], tmp_path / "out", asked(group="("))

    def test_the_part_of_a_reference_does_not_calibrate(self, tmp_path):
        for number in range(50):
            small.picture_file(
                tmp_path / f"p{number // 2}_{number % 2}.png", height=40, width=48, seed=number
            )
        paths = sorted(map(str, tmp_path.glob("*.png")))
        report = calibrate(
            small.detector("clip"), paths, tmp_path / "out",
            asked(group=r"p(\d+)_", references=3),
        )  # fmt: skip
        found = report.products[""]
        aside = {name.rpartition("_")[0] for name in found.references}
        used = {path.rpartition("_")[0] for path in report.calibration.pictures[""]}
        assert len(found.references) == 3 and found.parts == 25 - len(aside) == len(used)
        assert not aside & used


class TestReferences:
    def test_those_chosen_never_calibrate_nor_do_the_other_candidates(self, pictures, tmp_path):
        made = small.detector("clip")
        report = calibrate(made, pictures, tmp_path, asked(references=4))
        drawn = sorted(pictures, key=file_digest)[: candidate_count(26, asked(references=4))]
        found = report.products[""]
        assert len(found.references) == 4 and set(found.references) < set(drawn)
        assert report.calibration.pictures[""].keys() == set(pictures) - set(drawn)
        assert found.pictures == 26 - len(drawn)

    def test_a_copy_of_a_reference_does_not_calibrate(self, tmp_path):
        paths = picture_folder(tmp_path / "in", 23)
        first = calibrate(small.detector("clip"), paths, tmp_path / "out", asked(references=3))
        chosen = first.products[""].references[0]
        copy = tmp_path / "in" / "zz.png"
        shutil.copy(chosen, copy)
        again = calibrate(
            small.detector("clip"), [*paths, str(copy)], tmp_path / "out", asked(references=3)
        )
        assert again.copies == (str(copy),)
        assert again.products[""].references == first.products[""].references
        assert again.calibration.products[""].scores.tolist() == (
            first.calibration.products[""].scores.tolist()
        )

    def test_a_method_without_patch_tokens_is_refused_at_the_first_picture(
        self, pictures, tmp_path, monkeypatch
    ):
        made = small.detector("clip")
        encode, calls = made.encode_image, []

        def bare(pixels):
            calls.append(1)
            features = encode(pixels)
            features.patch_tokens.clear()
            return features

        monkeypatch.setattr(made, "encode_image", bare)
        with pytest.raises(ConfigError, match="has no patch tokens of a CLIP backbone"):
            calibrate(made, pictures, tmp_path / "out", asked(references=2))
        assert len(calls) == 1

    def test_the_weight_and_products_reach_the_folder(self, tmp_path):
        paths = [*picture_folder(tmp_path / "in" / "cap", 22),
                 *picture_folder(tmp_path / "in" / "nut", 22, first=50)]  # fmt: skip
        report = calibrate(
            small.detector("clip"), paths, tmp_path / "out",
            asked(references=2, reference_weight=0.25, by_folder=True),
        )  # fmt: skip
        loaded = load_detector(tmp_path / "out")
        assert loaded.setup.references.weight == 0.25
        for product in ("cap", "nut"):
            names = report.products[product].references
            assert len(names) == 2 and all(f"/{product}/" in name for name in names)
            assert loaded.setup.references.bank(product).names == names
        results = loaded.predict_batch([small.picture(40, 48)] * 2, products=["cap", "nut"])
        assert results[0].score != results[1].score


class TestProducts:
    def test_each_subfolder_has_thresholds_of_its_own(self, tmp_path):
        paths = level_folder(tmp_path / "in" / "cap", range(40, 60))
        paths += level_folder(tmp_path / "in" / "nut" / "deep", range(100, 130))
        report = calibrate(levels(), paths, tmp_path / "out", asked(by_folder=True))
        assert report.products["cap"].limits.threshold == 59 / 255
        assert report.products["nut"].limits.threshold == 129 / 255
        new = level_file(tmp_path / "today" / "nut" / "1.png", 70)
        assert report.detector.predict(new).verdict == "OK"
        assert report.detector.predict(new, product="cap").verdict == "NG"

    def test_the_same_picture_may_be_of_two_products(self, tmp_path):
        paths = level_folder(tmp_path / "in" / "cap", range(40, 60))
        paths += level_folder(tmp_path / "in" / "nut", range(40, 60))
        report = calibrate(levels(), paths, tmp_path / "out", asked(by_folder=True))
        assert report.copies == () and report.products["nut"].pictures == 20

    def test_folders(self):
        assert list(product_folders(["in/b10/1.png", "in/b2/x/1.png", "in/b2/2.png"])) == [
            "b2", "b10",
        ]  # fmt: skip
        assert product_folders(["in/cap/1.png", "in/nut/../cap/2.png"]).keys() == {"cap"}
        with pytest.raises(ConfigError, match=r"in/1.png lies beside the folders of products in"):
            product_folders(["in/1.png", "in/cap/2.png"])
        with pytest.raises(ConfigError, match="There is no picture to calibrate with"):
            product_folders([])


class TestMasks:
    def test_masked_pixels_do_not_calibrate(self, pictures, tmp_path):
        mask = np.zeros((40, 48), np.uint8)
        mask[:, 24:] = 255
        Image.fromarray(mask).save(tmp_path / "mask.png")
        reports = []
        for name in ("a", "b"):
            changed = []
            for number, path in enumerate(pictures):
                image = np.array(Image.open(path))
                image[:, 24:] = np.random.default_rng(number).integers(0, 255, (40, 24, 3))
                changed.append(str(tmp_path / name / f"{number}.png"))
                (tmp_path / name).mkdir(exist_ok=True)
                Image.fromarray(image if name == "b" else np.array(Image.open(path))).save(
                    changed[-1]
                )
            reports.append(
                calibrate(
                    small.detector("clip"),
                    changed,
                    tmp_path / f"out-{name}",
                    asked(mask=tmp_path / "mask.png"),
                )  # fmt: skip
            )
        first, second = (report.calibration.products[""] for report in reports)
        np.testing.assert_array_equal(first.scores, second.scores)
        np.testing.assert_array_equal(first.map_maxima, second.map_maxima)

    def test_a_folder_of_masks_goes_by_name(self, tmp_path):
        paths = [level_file(tmp_path / "in" / f"{i}.png", 40 + i, green=50 + i) for i in range(21)]
        for number in range(20):
            mask = np.zeros((8, 8), np.uint8)
            mask[:4] = 255
            (tmp_path / "masks").mkdir(exist_ok=True)
            Image.fromarray(mask).save(tmp_path / "masks" / f"{number}_mask.png")
        report = calibrate(levels(), paths, tmp_path / "out", asked(mask=tmp_path / "masks"))
        assert list(report.unreadable) == [paths[20]]
        assert "no mask in" in report.unreadable[paths[20]]
        assert report.detector.setup.needs_mask_folder

    def test_a_mask_that_does_not_fit_is_told_for_each_picture(self, tmp_path):
        paths = level_folder(tmp_path / "in", range(40, 60))
        odd = level_file(tmp_path / "in" / "odd.png", 90, size=(8, 9))
        mask = np.zeros((8, 8), np.uint8)
        mask[0] = 1
        Image.fromarray(mask).save(tmp_path / "mask.png")
        options = asked(mask=tmp_path / "mask.png")
        report = calibrate(levels(), [*paths, odd], tmp_path / "out", options)
        assert list(report.unreadable) == [odd]
        assert "its mask 8x8; masks are not resized" in report.unreadable[odd]

    def test_a_mask_that_cannot_be_used_is_refused(self, tmp_path):
        paths = level_folder(tmp_path / "in", range(40, 60))
        Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / "all.png")
        with pytest.raises(ConfigError, match="The mask leaves out every pixel"):
            calibrate(levels(), paths, tmp_path / "out", asked(mask=tmp_path / "all.png"))
        with pytest.raises(ImageReadError, match="no such file"):
            calibrate(levels(), paths, tmp_path / "out", asked(mask=tmp_path / "none.png"))
        (tmp_path / "masks").mkdir()
        Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / "masks" / "0.png")
        with pytest.raises(
            ConfigError, match=r"20 pictures cannot be used: .*leaves out every pix"
        ):
            calibrate(levels(), paths, tmp_path / "out", asked(mask=tmp_path / "masks"))
