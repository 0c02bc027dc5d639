"""Other rates, added false alarms, and the way back."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from faprompt.calibration import CALIBRATION, read_calibration
from faprompt.detector_setup import EARLIER, SETUP_FILES, setup_changes
from faprompt.errors import ConfigError, ImageReadError, ModelError
from faprompt.inspection import add_false_alarms, calibrate, change_rates, undo_false_alarms
from faprompt.inspection import calibration_changes as changes
from faprompt.models import load_detector
from faprompt.references import REFERENCES
from tests.helpers import small
from tests.inspection.good_pictures import (
    asked,
    level_file,
    level_folder,
    levels,
    picture_folder,
)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*") if path.is_file() and path.name[0] != "."
    }  # fmt: skip


@pytest.fixture
def plain(tmp_path):
    """Red levels 40 to 59, of a detector without references."""
    paths = level_folder(tmp_path / "in", range(40, 60))
    return calibrate(levels(), paths, tmp_path / "model", asked())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with three references, its good pictures, and two other pictures."""
    folder = tmp_path_factory.mktemp("made")
    calibrate(
        small.detector("clip"), picture_folder(folder / "in", 24), folder / "model",
        asked(references=3),
    )  # fmt: skip
    picture_folder(folder / "alarms", 2, first=200)
    return folder


@pytest.fixture
def remembering(made, tmp_path):
    """A copy of the model of `made`, loaded, and its two false alarms."""
    shutil.copytree(made / "model", tmp_path / "model")
    alarms = sorted(map(str, (made / "alarms").glob("*.png")))
    return load_detector(tmp_path / "model"), tmp_path / "model", alarms


class TestRates:
    def test_other_rates_need_no_pictures(self, plain, tmp_path):
        shutil.rmtree(tmp_path / "in")
        changed = change_rates(plain.folder, target_fpr=0.1, review_fpr=0.2)
        assert (changed.target_fpr, changed.review_fpr) == (0.1, 0.2)
        # k = ceil(21 * 0.9) = 19 and ceil(21 * 0.8) = 17 of 40 ... 59
        limits = read_calibration(plain.folder).limits()
        assert (limits.threshold, limits.review_threshold) == (58 / 255, 56 / 255)
        assert changed.fingerprint == plain.calibration.fingerprint
        back = change_rates(plain.folder, target_fpr=0.05, review_fpr=0.1)
        assert back.limits() == plain.calibration.limits()

    def test_rates_that_the_pictures_cannot_state_are_refused(self, plain):
        before = contents(plain.folder)
        with pytest.raises(
            ConfigError, match="rate of 1 % needs at least 99 good pictures, got 20"
        ):
            change_rates(plain.folder, target_fpr=0.01)
        with pytest.raises(ConfigError, match="review_fpr=0.01 should be at least"):
            change_rates(plain.folder, review_fpr=0.01)
        assert contents(plain.folder) == before

    def test_a_folder_without_calibration_is_refused(self, tmp_path):
        small.detector("clip").save_pretrained(tmp_path)
        with pytest.raises(ModelError, match="is not calibrated; run `faprompt calibrate GOOD"):
            change_rates(tmp_path, target_fpr=0.1)


class TestScoresOfFalseAlarms:
    def test_they_calibrate_too(self, plain, tmp_path):
        alarms = [level_file(tmp_path / "alarms" / f"{i}.png", 100 + i) for i in range(2)]
        copy = level_file(tmp_path / "alarms" / "copy.png", 101)
        report = add_false_alarms(plain.detector, plain.folder, [*alarms, copy], asked())
        assert report.added == tuple(alarms) and not report.as_references
        # 22 scores: k = ceil(23 * 0.95) = 22 and ceil(23 * 0.9) = 21
        limits = report.after[""].limits
        assert (limits.threshold, limits.review_threshold) == (101 / 255, 100 / 255)
        assert report.before[""].limits == plain.calibration.limits()
        assert report.verdicts == {alarms[0]: ("NG", "OK"), alarms[1]: ("NG", "REVIEW")}
        kept = read_calibration(plain.folder)
        assert kept.limits() == limits and set(alarms) < kept.pictures[""].keys()
        json.dumps(report.to_dict())

    def test_undo_restores_every_byte_and_several_adds_are_undone_one_by_one(self, plain, tmp_path):
        states = [contents(plain.folder)]
        for number in range(3):
            alarm = level_file(tmp_path / "alarms" / f"{number}.png", 100 + number)
            add_false_alarms(plain.detector, plain.folder, [alarm], asked())
            states.append(contents(plain.folder))
        assert len(read_calibration(plain.folder).products[""]) == 23
        for number in (2, 1, 0):
            undo_false_alarms(plain.folder)
            assert contents(plain.folder) == states[number]
        assert not (plain.folder / EARLIER).exists()
        with pytest.raises(ModelError, match="has no earlier calibration to go back to"):
            undo_false_alarms(plain.folder)

    def test_a_new_calibration_forgets_the_earlier_ones(self, plain, tmp_path):
        alarm = level_file(tmp_path / "alarm.png", 100)
        add_false_alarms(plain.detector, plain.folder, [alarm], asked())
        calibrate(levels(), level_folder(tmp_path / "in", range(60, 80)), plain.folder, asked())
        with pytest.raises(ModelError, match="has no earlier calibration"):
            undo_false_alarms(plain.folder)

    def test_rates_that_changed_after_loading_stay(self, plain, tmp_path):
        change_rates(plain.folder, review_fpr=0.2)
        alarm = level_file(tmp_path / "alarm.png", 100)
        add_false_alarms(plain.detector, plain.folder, [alarm], asked())
        assert read_calibration(plain.folder).review_fpr == 0.2

    def test_the_model_card_is_left_alone(self, plain, tmp_path):
        (plain.folder / "README.md").write_text("Calibrated for line 7.")
        add_false_alarms(
            plain.detector, plain.folder, [level_file(tmp_path / "a.png", 100)], asked()
        )
        assert (plain.folder / "README.md").read_text() == "Calibrated for line 7."

    def test_pictures_that_calibrate_already_are_refused(self, plain, tmp_path):
        copy = level_file(tmp_path / "copy.png", 45)
        before = contents(plain.folder)
        told = r"1 of the false alarms calibrate already \(.*copy.png\). References never calibrate"
        with pytest.raises(ConfigError, match=told):
            add_false_alarms(plain.detector, plain.folder, [copy], asked())
        assert contents(plain.folder) == before

    def test_what_is_no_false_alarm_of_this_model_is_refused(self, plain, tmp_path):
        alarm = level_file(tmp_path / "a.png", 100)
        with pytest.raises(ConfigError, match="There is no picture to add; name the false alarms"):
            add_false_alarms(plain.detector, plain.folder, [], asked())
        with pytest.raises(ImageReadError, match="none.png: no such file"):
            add_false_alarms(plain.detector, plain.folder, [str(tmp_path / "none.png")], asked())
        with pytest.raises(ConfigError, match="one product without a name, got product 'cap'"):
            add_false_alarms(plain.detector, plain.folder, [alarm], asked(), product="cap")
        other = calibrate(levels(), level_folder(tmp_path / "other", range(40, 60)),
                          tmp_path / "tiles", asked(tiles=2)).detector  # fmt: skip
        for detector in (levels(), other):
            with pytest.raises(ModelError, match="levels is not the calibrated model of .*load it"):
                add_false_alarms(detector, plain.folder, [alarm], asked())
        with pytest.raises(ModelError, match="is not calibrated; run"):
            add_false_alarms(plain.detector, tmp_path, [alarm], asked())
        assert not (plain.folder / EARLIER).exists()

    def test_products_are_taken_from_the_folders(self, tmp_path):
        paths = level_folder(tmp_path / "in" / "cap", range(40, 60))
        paths += level_folder(tmp_path / "in" / "nut", range(40, 60))
        report = calibrate(levels(), paths, tmp_path / "model", asked(by_folder=True))
        alarms = [level_file(tmp_path / "x" / name / "a.png", 90) for name in ("cap", "nut")]
        added = add_false_alarms(report.detector, report.folder, alarms[:1], asked())
        assert added.after["cap"].pictures == 21 and added.after["nut"] == added.before["nut"]
        with pytest.raises(
            ConfigError, match=r"are of several products \(cap, nut\); add those of"
        ):
            add_false_alarms(report.detector, report.folder, alarms, asked())
        with pytest.raises(ConfigError, match="got a picture of no known product"):
            add_false_alarms(
                report.detector, report.folder, [level_file(tmp_path / "a.png", 9)], asked()
            )

    def test_parts_count_once(self, tmp_path):
        paths = [level_file(tmp_path / "in" / f"p{i}_0.png", 40 + i) for i in range(20)]
        report = calibrate(levels(), paths, tmp_path / "model", asked(group=r"p(\d+)_"))
        views = [level_file(tmp_path / "new" / f"p77_{i}.png", 90 + i) for i in range(3)]
        added = add_false_alarms(report.detector, report.folder, views, asked())
        assert (added.after[""].parts, added.after[""].pictures) == (21, 23)
        known = [level_file(tmp_path / "new" / "p5_9.png", 99)]
        detector = levels().with_setup(calibration=read_calibration(report.folder))
        with pytest.raises(ConfigError, match="show parts that are in the calibration already"):
            add_false_alarms(detector, report.folder, known, asked())


class TestMoreReferences:
    def test_they_extend_the_memory_and_all_good_pictures_are_scored_again(self, remembering):
        detector, folder, alarms = remembering
        steps = []
        report = add_false_alarms(
            detector, folder, alarms, asked(), progress=lambda *step: steps.append(step)
        )
        assert report.as_references and report.added == tuple(alarms)
        assert steps == [("calibrate", i, 19) for i in range(1, 20)]
        now = load_detector(folder)
        before, after = (one.setup.references.bank("") for one in (detector, now))
        assert after.names == (*before.names, *alarms) and after.typical == before.typical
        calibration = now.setup.calibration
        assert calibration.pictures == detector.setup.calibration.pictures
        scores = sorted(now.predict(path).score for path in calibration.pictures[""])
        np.testing.assert_allclose(calibration.products[""].scores, scores, atol=1e-5)
        old = detector.setup.calibration.products[""].scores
        assert calibration.products[""].scores.mean() <= old.mean()
        results = [[one.predict(path) for path in alarms] for one in (detector, now)]
        assert all(b.score < a.score for a, b in zip(*results, strict=True))
        assert report.verdicts == {
            path: (a.verdict, b.verdict) for path, a, b in zip(alarms, *results, strict=True)
        }

    def test_undo_restores_every_byte(self, remembering):
        detector, folder, alarms = remembering
        before = contents(folder)
        add_false_alarms(detector, folder, alarms[:1], asked())
        one = contents(folder)
        add_false_alarms(load_detector(folder), folder, alarms[1:], asked())
        assert undo_false_alarms(folder).fingerprint == load_detector(folder).fingerprint()
        assert contents(folder) == one
        undo_false_alarms(folder)
        assert contents(folder) == before

    def test_references_and_calibration_pictures_are_refused(self, remembering, tmp_path):
        detector, folder, alarms = remembering
        reference = detector.setup.references.bank("").names[0]
        copy = shutil.copy(reference, tmp_path / "copy.png")
        for path in (reference, copy):
            with pytest.raises(ConfigError, match="1 of the false alarms are references already"):
                add_false_alarms(detector, folder, [str(path)], asked())
        good = next(iter(detector.setup.calibration.pictures[""]))
        with pytest.raises(ConfigError, match="1 of the false alarms calibrate already"):
            add_false_alarms(detector, folder, [*alarms, good], asked())
        add_false_alarms(detector, folder, alarms, asked())
        with pytest.raises(ConfigError, match="2 of the false alarms are references already"):
            add_false_alarms(load_detector(folder), folder, alarms, asked())

    def test_good_pictures_that_are_gone_or_changed_are_refused(self, tmp_path):
        paths = picture_folder(tmp_path / "in", 22)
        report = calibrate(small.detector("clip"), paths, tmp_path / "model", asked(references=2))
        alarm = picture_folder(tmp_path / "alarms", 1, first=200)
        first, second = list(report.calibration.pictures[""])[:2]
        before = contents(tmp_path / "model")
        small.picture_file(tmp_path / first, height=40, width=48, seed=300)
        told = r"1 good pictures of the calibration are {} \(.*\). With references all of them are"
        with pytest.raises(ImageReadError, match=told.format("changed")):
            add_false_alarms(report.detector, report.folder, alarm, asked())
        (tmp_path / second).unlink()
        with pytest.raises(ImageReadError, match=told.format("gone")):
            add_false_alarms(report.detector, report.folder, alarm, asked())
        assert contents(tmp_path / "model") == before

    def test_products_keep_memories_of_their_own(self, tmp_path):
        paths = [*picture_folder(tmp_path / "in" / "cap", 21),
                 *picture_folder(tmp_path / "in" / "nut", 21, first=50)]  # fmt: skip
        calibrate(
            small.detector("clip"), paths, tmp_path / "model", asked(references=1, by_folder=True)
        )
        alarm = picture_folder(tmp_path / "alarms", 1, first=200)
        loaded = load_detector(tmp_path / "model")
        report = add_false_alarms(loaded, tmp_path / "model", alarm, asked(), product="nut")
        assert report.after["cap"] == report.before["cap"]
        assert report.after["nut"].references == (*report.before["nut"].references, *alarm)
        now = load_detector(tmp_path / "model").setup.calibration.products
        old = loaded.setup.calibration.products
        np.testing.assert_array_equal(now["cap"].scores, old["cap"].scores)
        assert (now["nut"].scores != old["nut"].scores).any()


class TestMasks:
    @pytest.fixture
    def masked(self, tmp_path):
        (tmp_path / "masks").mkdir()
        mask = np.zeros((8, 8), np.uint8)
        mask[:4] = 255
        for number in range(25):
            Image.fromarray(mask).save(tmp_path / "masks" / f"{number}.png")
        paths = level_folder(tmp_path / "in", range(40, 60))
        return calibrate(levels(), paths, tmp_path / "model", asked(mask=tmp_path / "masks"))

    def test_the_folder_of_masks_is_named_again(self, masked, tmp_path):
        alarm = [level_file(tmp_path / "new" / "22.png", 90)]
        bare = levels().with_setup(calibration=masked.calibration)
        with pytest.raises(ConfigError, match="name it by --mask"):
            add_false_alarms(bare, masked.folder, alarm, asked())
        report = add_false_alarms(bare, masked.folder, alarm, asked(mask=tmp_path / "masks"))
        assert report.after[""].pictures == 21

    def test_another_mask_is_refused(self, masked, tmp_path):
        alarm = [level_file(tmp_path / "new" / "22.png", 90)]
        with pytest.raises(ModelError, match="mask was a folder of masks and is"):
            add_false_alarms(
                masked.detector, masked.folder, alarm, asked(mask=tmp_path / "masks" / "0.png")
            )
        assert setup_changes(None, tmp_path / "masks")["mask"] is None


class TestInterruption:
    """Whatever step fails, the folder is as before, or is refused and can be undone."""

    def test_a_state_is_kept_whole_or_not_at_all(self, remembering, monkeypatch):
        detector, folder, alarms = remembering
        before, copy2 = contents(folder), shutil.copy2

        def stop(source, target):
            if source.name == REFERENCES:
                raise OSError("disk full")
            copy2(source, target)

        monkeypatch.setattr(changes.shutil, "copy2", stop)
        with pytest.raises(OSError, match="disk full"):
            add_false_alarms(detector, folder, alarms, asked())
        assert contents(folder).keys() - before.keys() <= {
            key for key in contents(folder) if key.startswith(EARLIER) and "/." in key
        }
        with pytest.raises(ModelError, match="has no earlier calibration"):
            undo_false_alarms(folder)
        monkeypatch.undo()
        add_false_alarms(detector, folder, alarms, asked())
        undo_false_alarms(folder)
        assert contents(folder) == before

    def test_a_failed_write_can_be_undone(self, remembering, monkeypatch):
        detector, folder, alarms = remembering
        before = contents(folder)

        def stop(*_):
            raise OSError("disk full")

        monkeypatch.setattr("faprompt.detector_setup.save_calibration", stop)
        with pytest.raises(OSError, match="disk full"):
            add_false_alarms(detector, folder, alarms, asked())
        with pytest.raises(ModelError, match=f"and no {CALIBRATION}"):
            load_detector(folder)
        undo_false_alarms(folder)
        assert contents(folder) == before

    def test_an_undo_can_be_repeated(self, remembering, monkeypatch):
        detector, folder, alarms = remembering
        before = contents(folder)
        add_false_alarms(detector, folder, alarms, asked())
        write, done = changes.write_atomically, []

        def stop(path, content):
            if len(done) == 1:
                raise OSError("disk full")
            done.append(path.name)
            write(path, content)

        monkeypatch.setattr(changes, "write_atomically", stop)
        with pytest.raises(OSError, match="disk full"):
            undo_false_alarms(folder)
        assert done == [REFERENCES] and not (folder / CALIBRATION).exists()
        monkeypatch.undo()
        undo_false_alarms(folder)
        assert contents(folder) == before
        assert set(before) >= {CALIBRATION, REFERENCES} & set(SETUP_FILES)
