"""The bill of health: each fault put into a sound folder, and what is said of it."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image

from faprompt.data import check_dataset, describe, published_counts
from faprompt.data.check import inspect_picture
from faprompt.errors import DatasetError
from faprompt.imaging import read_image
from tests.helpers import folders, industrial
from tests.imaging.files import png_header


@pytest.fixture
def root(tmp_path):
    for name in ("tile", "wood"):
        folders.mvtec_class(
            tmp_path / name, normal={"good": folders.names(2)}, defects={"crack": folders.names(3)}
        )
    return tmp_path


def test_a_sound_folder(root):
    check = check_dataset(root)
    assert check.problems == ()
    assert check.usable and check.matches_paper is False
    assert json.loads(json.dumps(check.to_dict())) == {
        "dataset": "mvtec",
        "split": "test",
        "recognised_by": "MVTec tree (test/ inside) of tile, wood",
        "normal": 4,
        "anomalous": 6,
        "classes": {
            "tile": {"normal": 2, "anomalous": 3, "with_mask": 3},
            "wood": {"normal": 2, "anomalous": 3, "with_mask": 3},
        },
        "published": {
            name: {"normal": normal, "anomalous": anomalous}
            for name, (normal, anomalous) in published_counts("mvtec").items()
        },
        "matches_paper": False,
        "usable": True,
        "problems": [],
        "warnings": list(check.warnings),
        "unmasked": [],
        "orphan_masks": [],
        "copies": [],
        "licence": "CC BY-NC-SA 4.0, no commercial use",
    }
    assert all("not the paper's mvtec" in line for line in check.warnings)


def test_orphans_are_problems_that_do_not_block(root):
    (root / "tile/ground_truth/crack/8_mask.png").unlink()
    (root / "wood/test/crack/9.png").unlink()
    check = check_dataset(root)
    assert check.usable
    told = "\n".join(check.problems)
    assert len(check.problems) == 2
    assert "1 anomalous without a mask" in told and "tile/test/crack/8.png" in told
    assert "1 without a picture" in told and "wood/ground_truth/crack/9_mask.png" in told
    assert not any("without a mask" in line for line in check.warnings)
    assert check.classes["tile"].with_mask == 2
    assert check.unmasked == ("tile/test/crack/8.png",)
    assert check.orphan_masks == ("wood/ground_truth/crack/9_mask.png",)


def test_every_orphan_is_listed_for_scripts(root):
    for number in range(20, 28):
        folders.picture(root / f"tile/test/crack/{number}.png")
        folders.mask(root / f"wood/ground_truth/crack/{number}_mask.png")
    told = check_dataset(root).to_dict()
    assert told["unmasked"] == [f"tile/test/crack/{number}.png" for number in range(20, 28)]
    assert told["orphan_masks"] == [
        f"wood/ground_truth/crack/{number}_mask.png" for number in range(20, 28)
    ]


def test_a_size_clash_blocks(root):
    folders.mask(root / "tile/ground_truth/crack/8_mask.png", size=(9, 13))
    check = check_dataset(root)
    assert not check.usable
    (problem,) = check.problems
    assert "8_mask.png is 9x13" in problem and "crack/8.png is 9x14" in problem


def test_every_size_clash_is_listed(root):
    for name in folders.names(3):
        folders.mask(root / f"tile/ground_truth/crack/{name[:-4]}_mask.png", size=(9, 13))
    assert len(check_dataset(root).problems) == 3


def test_several_masks_block(root):
    folders.mask(root / "tile/ground_truth/crack/8.png")
    check = check_dataset(root)
    assert not check.usable
    assert "tile/test/crack/8.png has several masks" in check.problems[0]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("8.png", b"", "the file is empty"),
        ("8.png", b"not a picture", "none of PNG, JPEG, TIFF, BMP, WebP and DICOM"),
        ("8.png", b"GIF89a" + bytes(40), "none of PNG"),
        ("8.png", None, ""),
        ("8.jpg", None, "truncated"),
        ("8.bmp", None, ""),
        ("8.tif", None, ""),
        ("8.webp", None, ""),
    ],
)
def test_unreadable_pictures_are_named_with_the_reason(root, name, content, told):
    """`None`: a sound file of that kind, cut in half."""
    path = root / "tile/test/good" / name
    if content is None:
        folders.picture(path, size=(40, 50))
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    check = check_dataset(root)
    (problem,) = check.problems
    assert problem.startswith(f"tile/test/good/{name} cannot be read: ")
    assert told in problem
    assert check.usable, "the run goes on without it"


def test_nothing_readable_is_not_usable(root):
    for path in root.rglob("test/*/*.png"):
        path.write_bytes(b"")
    check = check_dataset(root)
    assert not check.usable
    files = [
        f"{name}/test/{kind}"
        for name in ("tile", "wood")
        for kind in ("crack/8", "crack/9", "crack/10", "good/8", "good/9")
    ]
    assert check.problems == tuple(
        f"{file}.png cannot be read: the file is empty" for file in files
    )
    assert not any("copies" in line for line in check.warnings), "empty files are no copies"


def test_an_unreadable_mask_blocks(root):
    (root / "tile/ground_truth/crack/8_mask.png").write_bytes(b"x")
    check = check_dataset(root)
    assert not check.usable
    assert "8_mask.png cannot be read" in check.problems[0]


def test_copies_are_counted(root):
    good = root / "tile/test/good"
    for name in ("20.png", "21.png"):
        shutil.copy(good / "8.png", good / name)
    shutil.copy(good / "9.png", good / "22.png")
    check = check_dataset(root)
    (line,) = [line for line in check.warnings if "exact copies" in line]
    assert line.startswith("3 exact copies in 2 groups: ")
    assert "tile/test/good/8.png = tile/test/good/20.png = tile/test/good/21.png" in line
    assert check.problems == () and check.usable
    assert check.to_dict()["copies"] == [
        [f"tile/test/good/{number}.png" for number in (8, 20, 21)],
        [f"tile/test/good/{number}.png" for number in (9, 22)],
    ]


def test_one_picture_with_both_labels_is_a_problem(root):
    shutil.copy(root / "tile/test/good/8.png", root / "tile/test/crack/8.png")
    check = check_dataset(root)
    assert not any("copies" in line for line in check.warnings), "told once"
    (problem,) = check.problems
    assert problem == (
        "1 with equal content, normal and anomalous at once: "
        "tile/test/crack/8.png = tile/test/good/8.png"
    )


def test_empty_masks_are_told_and_kept(root):
    folders.mask(root / "tile/ground_truth/crack/8_mask.png", value=0)
    check = check_dataset(root)
    assert check.problems == () and check.classes["tile"].with_mask == 3
    assert any("single marked pixel: tile/test/crack/8.png" in line for line in check.warnings)


def test_empty_visa_masks_mention_that_they_always_look_black(tmp_path):
    folders.visa_own(tmp_path)
    assert not any("look black" in line for line in check_dataset(tmp_path).warnings)
    folders.mask(tmp_path / "candle/Data/Masks/Anomaly/008.png", value=0)
    assert any("look black" in line for line in check_dataset(tmp_path).warnings)


def test_content_under_a_wrong_name_is_told(root):
    folders.picture(root / "tile/test/good/77.jpg", kind="PNG")
    check = check_dataset(root)
    assert check.problems == ()
    assert any("1 hold another format" in x and "77.jpg (PNG)" in x for x in check.warnings)


def test_turned_pictures_with_masks_are_told(root):
    folders.picture(root / "tile/test/crack/30.jpg", turn=3)
    folders.mask(root / "tile/ground_truth/crack/30_mask.png")
    folders.picture(root / "tile/test/good/31.jpg", turn=3)
    (line,) = [line for line in check_dataset(root).warnings if "EXIF" in line]
    assert "crack/30.jpg" in line and "31.jpg" not in line


def test_undefined_figures_are_told(root):
    shutil.rmtree(root / "tile/test/good")
    shutil.rmtree(root / "wood/ground_truth")
    check = check_dataset(root)
    assert any("image figures are undefined, one label only, for tile" in x for x in check.warnings)
    assert not any("pixel figures are undefined" in line for line in check.warnings)
    assert check.usable
    shutil.rmtree(root / "tile")
    assert any("pixel figures are undefined" in line for line in check_dataset(root).warnings)
    shutil.rmtree(root / "wood/test/good")
    assert not check_dataset(root).usable


def test_train_split(root):
    check = check_dataset(root, split="train")
    assert (check.normal, check.anomalous) == (2, 0)
    assert check.usable and check.matches_paper is None and check.warnings == ()


def test_progress_counts_to_the_end(root):
    calls = []
    check_dataset(root, progress=lambda *call: calls.append(call))
    assert calls == [("check", done, 10) for done in range(1, 11)]


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no dataset we know"):
        check_dataset(tmp_path)


def test_description_of_a_dataset_with_faults(root):
    (root / "tile/ground_truth/crack/8_mask.png").unlink()
    text = describe(check_dataset(root))
    lines = text.splitlines()
    assert lines[0] == "mvtec: 4 normal and 6 anomalous pictures (test split)"
    (row,) = [line for line in lines if line.startswith("  tile ")]
    assert row.split()[:4] == ["tile", "2", "3", "2"]
    assert "33 + 84 (the paper prints 83 anomalous; the dataset has 84)" in row
    assert any(line.split() == ["bottle", "0", "0", "0", "20", "+", "63"] for line in lines)
    assert "equals the paper's counts: no" in lines
    assert "can be evaluated: yes" in lines
    assert "licence: CC BY-NC-SA 4.0, no commercial use" in lines
    assert "problems:" in lines and "warnings:" in lines
    assert not any(line != line.rstrip() for line in lines)


def test_description_of_a_dataset_the_paper_does_not_have(tmp_path):
    folders.magnetic_tile(tmp_path)
    text = describe(check_dataset(tmp_path))
    assert "equals the paper's counts: the paper does not have it" in text
    assert "problems" not in text and "warnings" not in text


def test_pooled_counts_stand_beside_ours(tmp_path):
    folders.yes_no(tmp_path / "brain_tumor_dataset")
    text = describe(check_dataset(tmp_path))
    assert any(
        line.split() == ["brain", "3", "4", "0", "98", "+", "155"] for line in text.splitlines()
    )


def test_inspection_of_a_file_that_vanished(tmp_path):
    facts = inspect_picture(tmp_path / "gone.png")
    assert facts.fault == "No such file or directory" and facts.digest == ""


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_inspection_of_sound_files(tmp_path, mode):
    facts = inspect_picture(folders.picture(tmp_path / "a.png", size=(7, 12), mode=mode))
    assert (facts.fault, facts.size, facts.other_format, facts.turned) == (
        "",
        (7, 12),
        "",
        False,
    )


def test_inspection_gives_the_size_as_shown_not_as_drafted(tmp_path):
    image = folders.picture(tmp_path / "a.jpg", size=(160, 240), turn=6)
    facts = inspect_picture(image)
    assert facts.size == (240, 160) and facts.turned


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1", "i2", "u2", "u4"])
@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
def test_inspection_reads_what_a_run_reads(tmp_path, kind, photometric):
    """TIFF kinds that Pillow does not open; size and turn are those of the reader."""
    shape = (7, 12) if photometric == "minisblack" else (3, 7, 12)
    values = np.linspace(0, 1, math.prod(shape)).reshape(shape) * (1 if kind[0] == "f" else 99)
    planar = None if photometric == "minisblack" else "separate"
    tifffile.imwrite(tmp_path / "a.tif", values.astype(kind), photometric=photometric,
                     planarconfig=planar, extratags=[(274, "H", 1, 6, True)])  # fmt: skip
    facts = inspect_picture(tmp_path / "a.tif")
    assert (facts.fault, facts.size, facts.other_format, facts.turned) == (
        "", (12, 7), "", True,
    )  # fmt: skip
    assert read_image(tmp_path / "a.tif").image_size == facts.size


def test_inspection_refuses_what_a_run_refuses(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0.5, np.nan]], np.float32))
    assert "NaN or infinite" in inspect_picture(tmp_path / "a.tif").fault
    Image.new("LAB", (3, 3)).save(tmp_path / "b.tif")
    assert "CIELAB" in inspect_picture(tmp_path / "b.tif").fault


def test_inspection_of_too_many_pixels(tmp_path, monkeypatch):
    """The limit is the one of `read_image`, before any pixel is decoded; Pillow's is ignored."""
    (tmp_path / "b.png").write_bytes(png_header(100_000, 90_000))
    facts = inspect_picture(tmp_path / "b.png")
    assert "above the limit of 200,000,000" in facts.fault
    image = folders.picture(tmp_path / "a.png", size=(30, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert inspect_picture(image).fault == ""


def test_slices_are_counted_and_their_pictures_opened_once(tmp_path):
    industrial.sdd(tmp_path)
    seen = []
    check = check_dataset(tmp_path, subset="all", progress=lambda *call: seen.append(call))
    assert (check.normal, check.anomalous) == (15, 3)
    assert seen[-1] == ("check", 18, 18)
    assert check.usable and check.problems == ()
    assert not any("copies" in line for line in check.warnings)
    assert (check_dataset(tmp_path).normal, check.matches_paper) == (4, False)
    assert ["sdd", "15", "3", "3", "286", "+", "54"] in map(str.split, describe(check).splitlines())
