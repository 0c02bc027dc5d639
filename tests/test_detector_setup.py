"""Tiles, masks, references and calibration of a detector, and the files that keep them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faprompt.calibration import CALIBRATION, Calibration, GoodScores
from faprompt.detector import Detector
from faprompt.detector_setup import (
    EARLIER,
    MASK,
    DetectorSetup,
    check_mask,
    find_mask,
    read_left_out,
    read_setup,
    save_setup,
    setup_changes,
)
from faprompt.errors import ConfigError, ImageReadError, ModelError
from faprompt.imaging.reading_options import ReadingOptions
from faprompt.imaging.tiles import plan_tiles
from faprompt.models import load_detector
from faprompt.references import REFERENCES, ReferenceBank, References
from faprompt.results import AnomalyResult
from tests.helpers import small

HOLE = np.zeros((40, 48), np.bool_)
HOLE[5:20, 30:] = True


def good(count=99, step=0.001):
    return GoodScores(step * np.arange(1, count + 1), 0.5 + step * np.arange(count))


def calibrated(detector=None, *, products=("",), **setup):
    """A detector whose good scores are 0.001, 0.002, ..., 0.099."""
    bare = (detector or small.detector("clip")).with_setup(**setup)
    made = Calibration(products={name: good() for name in products}, decided_by=bare.decided_by())
    return bare.with_setup(calibration=made)


@cache
def references(seed=0):
    tokens = small.detector("clip").reference_tokens
    return References({"": ReferenceBank.of({
        f"{i}.png": tokens(small.picture(40, 48, seed=seed + i)) for i in (1, 2)})})  # fmt: skip


def write_mask(path, mask=HOLE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    return path


class TestSettings:
    def test_everything_that_decides_a_score_is_named(self):
        assert DetectorSetup().decided_by() == {
            "tiles": "off", "bit depth": "of the file", "mask": "none", "references": "none",
        }  # fmt: skip
        made = DetectorSetup(tiles=3, bit_depth=12, mask=HOLE, references=references()).decided_by()
        assert (made["tiles"], made["bit depth"]) == ("3", "12")
        assert made["references"] == references().digest() != references(7).digest()
        other = HOLE.copy()
        other[0, 0] = True
        masks = [HOLE, other, HOLE.T, HOLE.reshape(48, 40)]
        digests = {DetectorSetup(mask=mask).decided_by()["mask"] for mask in masks}
        assert len(digests) == 4 and made["mask"] in digests
        assert DetectorSetup(mask_folder=Path("x")).decided_by()["mask"] == "a folder of masks"

    @pytest.mark.parametrize("mask", [HOLE.astype(np.uint8), np.zeros((2, 2, 3), np.bool_)])
    def test_a_mask_of_another_kind_is_refused(self, mask):
        with pytest.raises(ValueError, match=r"mask should be \(H, W\) bool, got"):
            DetectorSetup(mask=mask)

    def test_settings_that_contradict_are_refused(self):
        with pytest.raises(ConfigError, match="The mask leaves out every pixel.*Black pixels are"):
            DetectorSetup(mask=np.ones((4, 4), np.bool_))
        with pytest.raises(ValueError, match="mask and mask_folder exclude each other"):
            DetectorSetup(mask=HOLE, mask_folder=Path("masks"))
        with pytest.raises(ConfigError, match="tiles should be 'auto', 'off' or a number"):
            DetectorSetup(tiles=0)

    def test_the_bit_depth_is_that_of_the_calibration(self):
        twelve, ten = ReadingOptions(bit_depth=12), ReadingOptions(bit_depth=10, max_pixels=9)
        assert DetectorSetup().reading(twelve) == twelve
        assert DetectorSetup(bit_depth=12).reading() == twelve
        assert DetectorSetup(bit_depth=12).reading(ten) == ten
        assert calibrated(bit_depth=12).setup.reading(twelve) == twelve
        told = "calibrated with a bit depth {}, got a bit depth of 10; leave it out, or calibrate"
        with pytest.raises(ConfigError, match=told.format("of 12")):
            calibrated(bit_depth=12).setup.reading(ten)
        with pytest.raises(ConfigError, match=told.format("of the file")):
            calibrated().predict(small.picture(), bit_depth=10)

    def test_the_window_is_that_of_the_calibration(self):
        brain = ReadingOptions(window=(40, 80))
        assert DetectorSetup(window=[40, 80]).reading() == brain
        assert calibrated(window=(40.0, 80)).setup.reading(brain) == brain
        assert calibrated(window=(40, 80)).setup.decided_by()["window"] == "40.0,80.0"
        assert "window" not in DetectorSetup(bit_depth=12).decided_by()  # as older calibrations
        told = "calibrated with the window 40.0,80.0, got the window auto; leave it out"
        with pytest.raises(ConfigError, match=told):
            calibrated(window=(40, 80)).predict(small.picture(), window="auto")
        with pytest.raises(ConfigError, match="with the window 40.0,80.0, got a bit depth of 12"):
            calibrated(window=(40, 80)).predict(small.picture(), bit_depth=12)
        with pytest.raises(ConfigError, match="a bit depth of the file, got the window 40.0,80.0"):
            calibrated().predict(small.picture(), window=(40, 80))
        with pytest.raises(ConfigError, match="bit_depth and window exclude each other"):
            DetectorSetup(bit_depth=12, window="auto")


class TestMaskFiles:
    def test_not_black_is_left_out(self, tmp_path):
        np.testing.assert_array_equal(read_left_out(write_mask(tmp_path / "m.png")), HOLE)
        with pytest.raises(ImageReadError, match="no.png cannot be read: no such file"):
            read_left_out(tmp_path / "no.png")

    def test_options_give_a_file_or_a_folder(self, tmp_path):
        assert setup_changes(None, None) == {}
        assert setup_changes("4", None) == {"tiles": 4}
        write_mask(tmp_path / "m.png")
        file, folder = setup_changes(None, tmp_path / "m.png"), setup_changes(None, tmp_path)
        assert file["mask_folder"] is None and file["mask"].sum() == HOLE.sum()
        assert folder == {"mask": None, "mask_folder": tmp_path}
        with pytest.raises(ConfigError, match="tiles should be"):
            setup_changes("many", None)

    @pytest.mark.parametrize("name", ["a.png", "a_mask.png", "a.BMP"])
    def test_a_mask_has_the_name_of_its_picture(self, tmp_path, name):
        wanted = write_mask(tmp_path / "masks" / name)
        write_mask(tmp_path / "masks" / "ab.png")
        (tmp_path / "masks" / "a.txt").write_text("no picture")
        assert find_mask(tmp_path / "masks", tmp_path / "a.jpg") == wanted

    def test_brackets_in_a_name_are_plain_letters(self, tmp_path):
        wanted = write_mask(tmp_path / "masks" / "p[1].png")
        write_mask(tmp_path / "masks" / "p1.png")
        assert find_mask(tmp_path / "masks", Path("p[1].jpg")) == wanted

    def test_an_accent_is_the_same_however_it_is_coded(self, tmp_path):
        composed, split = "caf\u00e9", "cafe\u0301"  # macOS: split in archives and on old disks
        for end in (".png", "_mask.png"):
            wanted = write_mask(tmp_path / end / f"{split}{end}")
            assert find_mask(tmp_path / end, Path(f"{composed}.jpg")) == wanted
            assert find_mask(tmp_path / end, Path(f"{split}.jpg")) == wanted

    def test_no_mask_and_several_are_refused(self, tmp_path):
        picture = small.picture_file(tmp_path / "a.png")
        told = r"a.png: no mask in .*; wanted one file a.png or a_mask.png. A black picture leav"
        with pytest.raises(ImageReadError, match=told):
            find_mask(tmp_path, picture)  # the picture itself is no mask
        write_mask(tmp_path / "a_mask.png")
        assert find_mask(tmp_path, picture).name == "a_mask.png"
        write_mask(tmp_path / "a.bmp")
        with pytest.raises(ImageReadError, match=r"2 masks \(a.bmp, a_mask.png\) in"):
            find_mask(tmp_path, picture)

    def test_a_mask_fits_its_picture(self):
        check_mask(HOLE, (40, 48))
        told = (
            r"a.png is 48x40 \(height x width\), its mask 40x48; masks are not resized, so give "
            "one of the same size"
        )
        with pytest.raises(ImageReadError, match=told):
            check_mask(HOLE, (48, 40), "a.png")
        with pytest.raises(ImageReadError, match=r"the picture: its mask leaves out every pixel"):
            check_mask(np.ones((4, 4), np.bool_), (4, 4))

    def test_pictures_of_two_products_may_have_one_name(self, tmp_path):
        for product in ("cap", "nut"):
            write_mask(tmp_path / "masks" / product / "1.png")
            found = find_mask(tmp_path / "masks", tmp_path / "good" / product / "1.jpg")
            assert found == tmp_path / "masks" / product / "1.png"
        with pytest.raises(ImageReadError, match="no mask in .*nut; wanted one file 2.png"):
            find_mask(tmp_path / "masks", tmp_path / "good" / "nut" / "2.jpg")

    def test_a_folder_of_masks_wants_paths(self, tmp_path):
        made = small.detector("clip").with_setup(mask_folder=tmp_path)
        picture = small.picture_file(tmp_path / "in" / "a.png", height=40, width=48)
        write_mask(tmp_path / "a.png")
        assert not made.predict(picture).score_map[HOLE].any()
        with pytest.raises(ImageReadError, match="matched by file name, and this picture has none"):
            made.predict(small.picture(40, 48))
        with pytest.raises(ImageReadError, match="b.png: no mask in"):
            made.predict(small.picture_file(tmp_path / "in" / "b.png"))

    def test_a_calibration_with_a_folder_of_masks_wants_one_again(self, tmp_path):
        write_mask(tmp_path / "masks" / "a.png")
        picture = small.picture_file(tmp_path / "a.png", height=40, width=48)
        made = calibrated(mask_folder=tmp_path / "masks")
        made.save_pretrained(tmp_path / "model")
        loaded = load_detector(tmp_path / "model")
        with pytest.raises(ConfigError, match="calibrated with a folder of masks; name it by --ma"):
            loaded.predict(picture)
        again = loaded.with_setup(**setup_changes(None, tmp_path / "masks"))
        assert again.predict(picture).p_value == made.predict(picture).p_value is not None
        with pytest.raises(ModelError, match="mask was a folder of masks and is"):
            loaded.with_setup(mask=HOLE)


class TestFolder:
    def test_all_settings_come_back(self, tmp_path):
        made = calibrated(tiles=2, bit_depth=12, mask=HOLE, references=references())
        made.save_pretrained(tmp_path / "model")
        found = read_setup(tmp_path / "model")
        assert found.decided_by() == made.setup.decided_by()
        assert (found.tiles, found.bit_depth) == (2, 12)
        np.testing.assert_array_equal(found.mask, HOLE)
        assert found.calibration.fingerprint == made.fingerprint()

    def test_a_copy_elsewhere_gives_the_same_results(self, tmp_path):
        made = calibrated(mask=HOLE, tiles="auto", references=references())
        made.save_pretrained(tmp_path / "model")
        load_detector(tmp_path / "model").save_pretrained(tmp_path / "again")
        shutil.copytree(tmp_path / "model", tmp_path / "deep" / "copy")
        wanted = made.predict(small.picture(40, 48))
        for name in ("model", "again", "deep/copy"):
            found = load_detector(tmp_path / name).predict(small.picture(40, 48))
            np.testing.assert_array_equal(found.score_map, wanted.score_map)
            assert replace(found, score_map=wanted.score_map) == wanted
        for name in (CALIBRATION, REFERENCES, MASK):
            both = [(tmp_path / at / name).read_bytes() for at in ("model", "again")]
            assert both[0] == both[1]

    def test_a_save_without_calibration_removes_that_of_the_folder(self, tmp_path):
        calibrated(mask=HOLE, references=references()).save_pretrained(tmp_path)
        (tmp_path / EARLIER / "1").mkdir(parents=True)
        small.detector("clip").save_pretrained(tmp_path)
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {"config.json", "model.safetensors", "README.md"}
        assert load_detector(tmp_path).predict(small.picture()).p_value is None

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("tiles", 2),
            ("mask", HOLE),
            ("bit_depth", 12),
            ("window", (40, 80)),
            ("references", references),
        ],
    )
    def test_what_only_a_calibration_keeps_is_not_lost_silently(self, tmp_path, name, value):
        setup = {name: value() if callable(value) else value}
        told = "keeps tiles, mask, bit depth, window and references only with a calibration"
        with pytest.raises(ConfigError, match=told):
            small.detector("clip").with_setup(**setup).save_pretrained(tmp_path / "model")
        assert not (tmp_path / "model").exists()

    def test_the_calibration_is_removed_first_and_written_last(self, tmp_path, monkeypatch):
        made = calibrated(references=references(), mask=HOLE).setup
        save_setup(made, tmp_path)

        def stop(*_):
            raise OSError("disk full")

        monkeypatch.setattr("faprompt.detector_setup.save_references", stop)
        with pytest.raises(OSError, match="disk full"):
            save_setup(made, tmp_path)
        assert not (tmp_path / CALIBRATION).exists()
        monkeypatch.undo()
        monkeypatch.setattr("faprompt.detector_setup.save_calibration", stop)
        with pytest.raises(OSError, match="disk full"):
            save_setup(made, tmp_path)
        with pytest.raises(
            ModelError, match=f"it has {REFERENCES} or {MASK}, and no {CALIBRATION}"
        ):
            read_setup(tmp_path)

    @pytest.mark.parametrize("name", [REFERENCES, MASK])
    def test_files_without_a_calibration_are_refused(self, tmp_path, name):
        calibrated(mask=HOLE, references=references()).save_pretrained(tmp_path)
        for other in {CALIBRATION, REFERENCES, MASK} - {name}:
            (tmp_path / other).unlink()
        with pytest.raises(ModelError, match=f"and no {CALIBRATION}; calibrate again"):
            load_detector(tmp_path)

    def test_files_of_another_calibration_are_refused(self, tmp_path):
        made = calibrated(mask=HOLE, references=references())
        made.save_pretrained(tmp_path / "a")
        calibrated(mask=~HOLE, references=references(7)).save_pretrained(tmp_path / "b")
        for name in (MASK, REFERENCES):
            shutil.copytree(tmp_path / "a", tmp_path / name)
            shutil.copy(tmp_path / "b" / name, tmp_path / name / name)
            changed = name.split(".")[0]
            with pytest.raises(
                ModelError, match=f"under other settings.*: {changed} was .{{12}}.*"
            ):
                load_detector(tmp_path / name)
            (tmp_path / name / name).unlink()
            with pytest.raises(ModelError, match=f"{changed} was .* and is none"):
                load_detector(tmp_path / name)

    @pytest.mark.parametrize(
        ("name", "told"),
        [
            (MASK, "mask .*mask.png cannot be read: .*; calibrate again"),
            (REFERENCES, f"{REFERENCES} cannot be used"),
            (CALIBRATION, f"{CALIBRATION} cannot be used"),
        ],
    )
    def test_damaged_files_are_refused(self, tmp_path, name, told):
        calibrated(mask=HOLE, references=references()).save_pretrained(tmp_path)
        (tmp_path / name).write_bytes(b"rubbish")
        with pytest.raises(ModelError, match=told):
            load_detector(tmp_path)

    def test_a_mask_that_leaves_out_everything_is_refused(self, tmp_path):
        calibrated(mask=HOLE).save_pretrained(tmp_path)
        write_mask(tmp_path / MASK, np.ones_like(HOLE))
        with pytest.raises(ModelError, match="cannot be used: The mask leaves out every pixel"):
            load_detector(tmp_path)


class TestFingerprint:
    def test_precision_auto_is_that_of_the_calibration(self, tmp_path):
        made = small.detector("clip")
        made.save_pretrained(tmp_path / "plain")
        half = load_detector(tmp_path / "plain", precision="bf16")
        calibrated(half).save_pretrained(tmp_path / "model")
        loaded = load_detector(tmp_path / "model")
        assert loaded.backbone.precision == "bf16"
        with pytest.raises(ModelError, match="precision was bf16 and is fp32. Use the same setti"):
            load_detector(tmp_path / "model", precision="fp32")

    def test_the_class_name_is_that_of_the_calibration(self, tmp_path):
        made = Detector(small.backbone(), small.method("clip"), name="m", class_name="pill")
        calibrated(made).save_pretrained(tmp_path)
        assert load_detector(tmp_path).class_name == "pill"
        with pytest.raises(ModelError, match="class name was pill and is mug"):
            load_detector(tmp_path, class_name="mug")

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"tiles": 2}, "tiles was off and is 2"),
            ({"mask": HOLE}, r"mask was none and is [0-9a-f]{12}\.\.\."),
            ({"bit_depth": 12}, "bit depth was of the file and is 12"),
            ({"window": "auto"}, "window was absent and is auto"),
            ({"mask_folder": Path("masks")}, "mask was none and is a folder of masks"),
        ],
    )
    def test_other_settings_are_refused_by_name(self, changes, told):
        with pytest.raises(ModelError, match=f"small-clip was calibrated under other.*{told}"):
            calibrated().with_setup(**changes)

    def test_other_weights_and_options_are_refused_by_name(self):
        made = calibrated(small.detector("faprompt")).setup
        with pytest.raises(ModelError, match=r"other settings.*: weights was"):
            Detector(small.backbone(), small.method("faprompt", stir=0.2), name="m", setup=made)
        with pytest.raises(ModelError, match=r"options was"):
            Detector(small.backbone(), small.method("faprompt", sigma_px=3.0), name="m", setup=made)
        with pytest.raises(ModelError, match=r"method was faprompt and is clip"):
            Detector(small.backbone(), small.method("clip"), name="m", setup=made)

    def test_weights_are_digested_only_for_a_calibration(self, monkeypatch):
        made = small.detector("clip")
        monkeypatch.setattr(Detector, "decided_by", lambda _: pytest.fail("digested"))
        assert made.with_setup(tiles=2).setup.tiles == 2


class Fixed(Detector):
    """Scores a picture by its brightest pixel; its map is 0.25 everywhere."""

    def _score(self, pictures, with_prompt_scores, *, map_size=None):
        return [
            AnomalyResult(
                score=float(picture.image.max()) / 255,
                score_map=np.full(map_size or picture.size, 0.25, np.float32),
                image_size=map_size or picture.size,
                model=self.name,
            )
            for picture in pictures
        ]


def fixed(**setup):
    made = Fixed(small.backbone(), small.method("clip"), name="fixed")
    return made.with_setup(**setup)


class TestTiles:
    def test_the_score_is_the_highest_and_a_constant_map_stays(self):
        image = np.zeros((40, 130, 3), np.uint8)
        image[:, 0] = 51
        for tiles in (2, 5, "auto"):
            result = fixed(tiles=tiles).predict(image)
            assert result.score == 0.2
            np.testing.assert_array_equal(result.score_map, np.float32(0.25))

    def test_each_tile_and_the_whole_picture_are_scored_once(self, monkeypatch):
        sizes, score = [], Fixed._score

        def noted(self, pictures, *rest, **options):
            sizes.extend(picture.size for picture in pictures)
            return score(self, pictures, *rest, **options)

        monkeypatch.setattr(Fixed, "_score", noted)
        fixed(tiles=4).predict(np.zeros((40, 130, 3), np.uint8))
        plan = plan_tiles((40, 130), 4, model_size=(56, 56))
        assert sizes == [(40, 130), *[plan.tile_size] * len(plan.boxes)]

    def test_tiles_under_the_mask_are_not_scored(self):
        image, mask = np.zeros((40, 130, 3), np.uint8), np.zeros((40, 130), np.bool_)
        image[:, 60:], mask[:, 60:] = 255, True
        result = fixed(tiles=4, mask=mask).predict(image)
        assert result.score == 0.0
        np.testing.assert_array_equal(result.score_map, np.where(mask, 0, np.float32(0.25)))

    def test_prompts_class_names_and_products_pass_through(self):
        made = calibrated(small.detector("clip"), products=("cap", "nut"), tiles=3)
        image = small.picture(40, 130)
        named, other = made.predict_batch(
            [image, image], class_names=["pill", "mug"], products=["cap", "nut"],
            with_prompt_scores=True,
        )  # fmt: skip
        assert (named.product, other.product) == ("cap", "nut")
        assert named.score != other.score and len(named.prompt_scores) == 1
        assert named.score_map.shape == (40, 130)
        alone = made.predict_batch([image], class_names=["mug"], products=["cap"])[0]
        assert alone.score == pytest.approx(other.score, abs=1e-6)

    def test_class_names_and_masks_go_together(self):
        image = small.picture(40, 48)
        made = small.detector("clip").with_setup(mask=HOLE)
        named, plain = made.predict_batch([image, image], class_names=["pill", "mug"])
        assert named.score != plain.score and not named.score_map[HOLE].any()


class TestVerdict:
    def judged(self, score, made=None, **options):
        """The result of a picture whose score, and map, is `score`."""
        made = made or calibrated(fixed())
        level = np.full((8, 8, 3), round(255 * score), np.uint8)
        return made.predict(level, **options)

    def test_a_score_at_a_threshold_is_not_above_it(self):
        made = fixed()
        found = sorted(level / 255 for level in range(1, 100))
        made = made.with_setup(
            calibration=Calibration(
                products={"": GoodScores(np.array(found), np.full(99, 0.25))},
                decided_by=made.decided_by(),
            )
        )
        for level, verdict in ((95, "OK"), (96, "REVIEW"), (99, "REVIEW"), (100, "NG")):
            result = self.judged(level / 255, made)
            assert result.verdict == verdict
            assert (result.threshold, result.review_threshold) == (99 / 255, 95 / 255)
            assert result.p_value == pytest.approx(
                (1 + sum(f >= result.score for f in found)) / 100
            )
            assert result.map_threshold == 0.25 and result.regions == ()  # its map is not above

    def test_regions_lie_strictly_above_the_map_threshold(self):
        made = fixed()
        low = GoodScores(np.linspace(0, 1, 99), np.full(99, np.nextafter(0.25, 0, dtype="f4")))
        made = made.with_setup(
            calibration=Calibration(products={"": low}, decided_by=made.decided_by())
        )
        (region,) = self.judged(0.1, made).regions
        assert (region.area_px, region.peak) == (64, 0.25)

    def test_a_threshold_of_the_call_counts_and_the_p_value_stays(self):
        plain, named = self.judged(0.2), self.judged(0.2, threshold=0.19)
        assert plain.p_value == named.p_value == 0.01
        assert (named.verdict, named.threshold) == ("NG", 0.19)
        assert named.review_threshold is None and named.map_threshold == 0.19
        assert self.judged(0.2, threshold=0.3).verdict == "OK"

    def test_the_product_comes_from_the_call_or_the_path(self, tmp_path):
        made = calibrated(fixed(), products=("cap", "nut"))
        path = small.picture_file(tmp_path / "cap" / "x" / "1.png")
        assert made.predict(path).product == "cap"
        assert made.predict(path, product="nut").product == "nut"
        told = "calibrated for the products cap, nut, got product 'bolt'"
        with pytest.raises(ConfigError, match=told):
            made.predict(path, product="bolt")
        with pytest.raises(ImageReadError, match="2.png: .*got a picture of no known product"):
            made.predict(small.picture_file(tmp_path / "2.png"))
        with pytest.raises(ConfigError, match="got a picture of no known product"):
            made.predict_batch([small.picture()])
        with pytest.raises(ConfigError, match="calibrated for one product without a name"):
            calibrated(fixed()).predict(path, product="cap")
