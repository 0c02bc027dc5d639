"""Rehearsals on files: what is held out, whose pictures are refused, what is written."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from faprompt.errors import ConfigError
from faprompt.inspection import (
    CalibrateOptions,
    RehearsalOptions,
    calibrate,
    hold_out,
    rehearse_files,
)
from tests.helpers import small

FEW = RehearsalOptions(kinds=("hole",), sizes_px=(12,), strengths=(1.0,), per_cell=2)
TENTH = {"target_fpr": 0.1, "review_fpr": 0.2}  # needs 9 good pictures


def good_file(folder, name, seed):
    """A grey picture with noise of its own."""
    path = folder / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(120, 160, (48, 48), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return str(path)


def good_files(folder, count, *, first=0):
    return [good_file(folder, f"{first + n:03d}", first + n) for n in range(count)]


@pytest.mark.parametrize(("count", "held"), [(13, 4), (20, 11), (29, 20), (60, 20)])
def test_as_many_are_held_out_as_the_rate_leaves(tmp_path, count, held):
    paths = good_files(tmp_path, count)
    rest, out = hold_out(paths, CalibrateOptions(**TENTH))
    assert len(out) == held and sorted(rest + out) == paths
    places = np.diff([paths.index(path) for path in out])
    assert places.max() - places.min() <= 1 and rest == sorted(rest)


def test_too_few_pictures_are_refused_with_the_numbers(tmp_path):
    paths = good_files(tmp_path, 12)
    with pytest.raises(ConfigError, match=r"10 % needs 9 others: 13 in all, got 12 that differ"):
        hold_out(paths, CalibrateOptions(**TENTH))
    asked = CalibrateOptions(references=3, **TENTH)
    with pytest.raises(ConfigError, match=r"9 others and 3 references: 16 in all, got 12"):
        hold_out(paths, asked)
    with pytest.raises(ConfigError, match=r"1 % needs 99 others: 103 in all, got 12"):
        hold_out(paths, CalibrateOptions())
    same = [shutil.copy(paths[0], tmp_path / f"copy{n}.png") for n in range(5)]
    with pytest.raises(ConfigError, match="got 12 that differ"):
        hold_out([*paths, *map(str, same)], CalibrateOptions(**TENTH))


def test_a_part_is_held_out_whole_and_copies_with_it(tmp_path):
    paths = [good_file(tmp_path, f"p{part:02d}_{view}", 10 * part + view)
             for part in range(14) for view in range(3)]  # fmt: skip
    asked = CalibrateOptions(group=r"p(\d+)_", **TENTH)
    rest, out = hold_out(paths, asked)
    assert len(out) == 5 and len(rest) == 3 * 9
    assert not {path[-8:-6] for path in out} & {path[-8:-6] for path in rest}
    with pytest.raises(ConfigError, match="good parts, which do not calibrate"):
        hold_out(paths[:30], asked)
    copy = shutil.copy(out[0], tmp_path / "p00_9.png")
    assert copy not in hold_out([*paths, str(copy)], asked)[0]


def test_each_product_is_held_out_by_its_own(tmp_path):
    paths = good_files(tmp_path / "cup", 14) + good_files(tmp_path / "nut", 30, first=50)
    _, out = hold_out(paths, CalibrateOptions(by_folder=True, **TENTH))
    assert [sum(name in path for path in out) for name in ("cup", "nut")] == [5, 20]
    with pytest.raises(ConfigError, match="Product cup: --rehearse holds out"):
        hold_out(paths[2:], CalibrateOptions(by_folder=True, **TENTH))


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A detector calibrated for two products, and the pictures it did not see."""
    folder = tmp_path_factory.mktemp("products")
    paths = good_files(folder / "cup", 13) + good_files(folder / "nut", 13, first=50)
    asked = CalibrateOptions(by_folder=True, references=0, **TENTH)
    rest, held = hold_out(paths, asked)
    report = calibrate(small.detector(), rest, folder / "model", asked)
    return report.detector, rest, held, asked


def test_products_are_rehearsed_each_by_its_own(calibrated, tmp_path):
    detector, _, held, asked = calibrated
    steps = []
    found = rehearse_files(detector, held, tmp_path, asked, FEW,
                           progress=lambda *step: steps.append(step))  # fmt: skip
    assert [one.product for one in found] == ["cup", "nut"]
    assert all(one.pictures == 2 and one.cells[0].outcome.ng.total == 2 for one in found)
    assert steps[-1] == ("rehearse nut", 2, 2)
    content = json.loads((tmp_path / "rehearsal.json").read_text())
    assert content["fingerprint"] == detector.setup.calibration.fingerprint
    assert [one["product"] for one in content["rehearsals"]] == ["cup", "nut"]
    assert (tmp_path / "rehearsal.csv").read_text().count("\n") == 1 + 2 * 2
    assert (tmp_path / "rehearsal.png").is_file()
    (nut,) = rehearse_files(detector, held[:4], tmp_path, asked, FEW, product="nut")
    assert nut.product == "nut"
    assert rehearse_files(detector, [], tmp_path, asked, FEW) == []


def test_pictures_that_calibrated_are_refused_by_content(calibrated, tmp_path):
    detector, rest, held, asked = calibrated
    copy = shutil.copy(rest[0], tmp_path / "other-name.png")
    with pytest.raises(ConfigError, match=r"other-name.png \(1 in all\) are among the pictures"):
        rehearse_files(detector, [*held, str(copy)], tmp_path, asked, FEW, product="cup")


def test_references_are_refused_by_content(tmp_path):
    paths = good_files(tmp_path, 12)
    asked = CalibrateOptions(references=2, **TENTH)
    report = calibrate(small.detector(), paths, tmp_path / "model", asked)
    memory = report.products[""].references[0]
    assert memory not in report.calibration.pictures[""]
    copy = shutil.copy(memory, tmp_path / "again.png")
    with pytest.raises(ConfigError, match="again.png"):
        rehearse_files(report.detector, [str(copy)], tmp_path, asked, FEW)


def test_a_picture_that_cannot_be_read_is_left_out(calibrated, tmp_path, caplog):
    detector, _, held, asked = calibrated
    broken = tmp_path / "cup" / "broken.png"
    broken.parent.mkdir()
    broken.write_bytes(b"no picture")
    (found,) = rehearse_files(detector, [str(broken), held[0]], tmp_path, asked, FEW)
    assert found.pictures == 1 and "broken.png" in caplog.text
    with pytest.raises(ConfigError, match="no picture to draw on"):
        rehearse_files(detector, [str(broken)], tmp_path, asked, FEW)
    with pytest.raises(ConfigError, match="is not calibrated"):
        rehearse_files(small.detector(), held, tmp_path, asked, FEW)
