"""The parts of measuring `small`: sets, the grey mirror, heads that lack an input, the page."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from faprompt.metrics import auroc
from faprompt.records import Sample
from scripts import make_tables, measured_sets, small_tables
from scripts.build_small import leave_out
from scripts.measured_sets import PictureSet, Scores, mean_ranking, mirror_of_grey, rank
from scripts.section_file import SectionFile
from tests.helpers import small


@pytest.fixture
def pictures(tmp_path):
    """Two folders with 20 good pictures each; holes beside the first, tears beside the second."""
    samples, origins = [], []
    for folder, kind in (("a", "hole"), ("b", "tear")):
        for number in range(30):
            label = int(number >= 20)
            path = tmp_path / folder / "pictures" / f"{number}.png"
            samples.append(Sample(path, label, "thing", kind if label else "good"))
            origins.append(folder)
    return PictureSet("things", tuple(samples), tuple(origins), "0" * 64)


@pytest.fixture
def scores(pictures):
    rng = np.random.default_rng(3)
    values = rng.normal(pictures.labels, 1.0)
    return Scores(values, rng.random((len(values), 4, 4), np.float32), 4.0)


def test_a_kind_is_compared_with_the_good_pictures_of_its_folder(pictures):
    kinds = pictures.kinds()
    assert list(kinds) == ["hole", "tear"]
    assert kinds["hole"].tolist() == list(range(30)) and kinds["tear"].tolist() == [*range(30, 60)]
    assert pictures.subset([0, 29, 30]).kinds()["hole"].tolist() == [0, 1]


def test_ranking_is_the_auroc_of_each_kind_and_their_mean(pictures, scores):
    found = rank(pictures, scores)
    for kind, rows in pictures.kinds().items():
        wanted = auroc(scores.values[rows], pictures.labels[rows])
        assert found[kind].values == pytest.approx({"image_auroc": wanted})
        value, low, high = found[kind].row("image_auroc")
        assert low < value < high and found[kind].row("pixel_auroc") is None
    values = [found[kind].values["image_auroc"] for kind in ("hole", "tear")]
    assert found["mean"].values["image_auroc"] == pytest.approx(np.mean(values))


def test_pixels_are_measured_where_there_are_masks(pictures):
    part = pictures.subset([0, 1, 28, 29])
    masks = [np.zeros(measured_sets.SIZE, bool) for _ in part.samples]
    maps = np.random.default_rng(3).random((4, 4, 4), np.float32) / 2
    for row in (2, 3):
        masks[row][:128] = True
        maps[row, :2] += 0.5
    found = rank(part, Scores(np.arange(4.0), maps, 4.0), masks, pixel_replicates=0)
    assert found["hole"].values["pixel_auroc"] > 0.9
    assert found["hole"].values["image_auroc"] == 1
    assert mean_ranking([found["hole"]] * 3).values == pytest.approx(found["hole"].values)


def test_grey_mirror_sees_no_difference_in_a_symmetric_picture():
    half = np.random.default_rng(1).integers(0, 255, (64, 32, 3), dtype=np.uint8)
    symmetric = np.concatenate([half, half[:, ::-1]], axis=1)
    assert mirror_of_grey(symmetric).max() == 0
    marked = symmetric // 2
    marked[16:32, 4:16] = 255
    found = mirror_of_grey(marked)
    assert found[5, 2] > 0.3 and found[5, 13] > 0.3 and found[12].max() < 0.2


def test_copies_of_a_picture_count_once(tmp_path):
    for name in ("0.png", "1.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    samples = [Sample(tmp_path / name, 0, "thing") for name in ("0.png", "1.png")]
    assert len(measured_sets._unique("things", {"a": samples[:1], "b": samples}).samples) == 1


def test_a_head_that_lacks_an_input_reads_the_other_columns():
    method = small.detector("relations").method
    names, head = method.names, method.head
    assert leave_out(method, "", seed=1) == list(range(len(names))) and method.head is head
    kept = leave_out(method, "mirror", seed=1)
    assert [names[n] for n in kept] == list(method.names)
    assert not any(name.startswith("mirror") for name in method.names)
    relations = torch.rand(2, len(names), 16, 16)
    assert method.eval().score_relations(relations[:, kept]).score.shape == (2,)


def test_a_section_is_computed_once_for_each_key(tmp_path):
    path, calls = tmp_path / "results.json", []

    def rows():
        calls.append(1)
        yield {"value": len(calls)}

    for key in ("a", "a", "b"):
        SectionFile(path, [key]).section("one", rows)
    assert len(calls) == 2
    assert json.loads(path.read_text())["sections"]["one"]["rows"] == [{"value": 2}]


@pytest.mark.parametrize("page", make_tables.PAGES)
def test_pages_have_the_tables_of_the_result_files(page):
    text = (make_tables.ROOT / page).read_text(encoding="utf-8")
    for name, table in make_tables.PAGES[page].items():
        assert make_tables.fill(text, name, table()) == text


def test_best_of_a_row_is_bold_and_other_columns_ahead_are_named(monkeypatch):
    def row(column, value, ahead):
        cell = [value, value - 0.1, value + 0.1]
        return {
            "kind": "mean", "column": column, "good": 5, "defective": 7, "image_auroc": cell,
            "pixel_auroc": None, "small_ahead": {"image_auroc": ahead},
        }  # fmt: skip

    rows = [
        row("small", 0.7, [0.0, 0.0, 0.0]), row("tiny", 0.8, [-0.1, -0.15, -0.05]),
        row("untrained", 0.71, [-0.01, -0.02, 0.03]), row("grey mirror", 0.5, [0.2, 0.1, 0.3]),
    ]  # fmt: skip
    monkeypatch.setattr(
        small_tables, "rows_of", lambda name: rows if name == "ranking/brain MRI" else []
    )
    line = small_tables.image_table().splitlines()[-1]
    assert "**80.0** (70.0–90.0)" in line and line.count("**") == 2
    tiny, untrained, grey = small_tables.better_sentences().splitlines()
    assert "is better than `small` on brain MRI, mean (image AUROC, 10.0 points)" in tiny
    assert (
        "has a higher value, within the interval, on brain MRI, mean (image AUROC, 1.0 points)"
        in untrained
    )
    assert "is nowhere ahead" in grey
