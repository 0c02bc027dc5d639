"""Rehearsals: counts against a rival, words, files, and what cannot be drawn or is refused."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import beta

from faprompt.calibration import Calibration, GoodScores
from faprompt.detector_setup import DetectorSetup
from faprompt.errors import ConfigError
from faprompt.inspection import RehearsalOptions, rehearse
from faprompt.inspection.rehearsal import FAINT_NOTE, WARNING, Outcome, fit_sizes
from faprompt.inspection.rehearsal_figure import write_rehearsal_figure
from faprompt.inspection.rehearsal_report import findings, rehearsal_text, write_rehearsal
from faprompt.metrics.share_interval import Proportion
from faprompt.regions import find_regions
from faprompt.results import AnomalyResult
from faprompt.synthetic import draw_defects
from faprompt.synthetic.damaged_pictures import own_seed

LEVEL = 200  # of the good pictures
GOOD = np.linspace(0.011, 0.2031, 99)  # between the 256 levels


class Judge:
    """A detector whose map is the distance of each pixel from the level of good pictures."""

    def __init__(self, *, products=("",), map_scale=1.0, mask=None) -> None:
        good = {name: GoodScores(GOOD, GOOD * map_scale) for name in products}
        self.setup = DetectorSetup(
            calibration=Calibration(products=good, decided_by={}), mask=mask
        )  # fmt: skip
        self.seen: list[np.ndarray] = []
        self.masks: list[np.ndarray | None] = []

    def predict_batch(self, images, *, masks=None, products=None):
        self.seen += list(images)
        self.masks += list(masks)
        return [self._judge(*each) for each in zip(images, products, strict=True)]

    def _judge(self, image, product):
        score_map = (np.abs(image.mean(-1) - LEVEL) / 255).astype(np.float32)
        limits = self.setup.calibration.limits(product)
        score = float(score_map.max())
        return AnomalyResult(
            score, score_map, image.shape[:2], "stub", verdict=limits.verdict(score),
            map_threshold=limits.map_threshold, regions=find_regions(score_map, 0.5),
        )  # fmt: skip


def good(count=4, side=64, *, noise=3):
    draw = np.random.default_rng(7)
    grey = draw.integers(LEVEL - noise, LEVEL + noise + 1, (count, side, side, 1))
    return list(np.repeat(grey, 3, axis=-1).astype(np.uint8))


SMALL = RehearsalOptions(kinds=("hole", "scratch"), sizes_px=(6, 16), strengths=(0.2, 1.0),
                         per_cell=3, seed=3, batch_size=5)  # fmt: skip


@pytest.mark.parametrize("map_scale", [1.0, 4.0])
def test_counts_are_those_of_a_rival(map_scale):
    images, judge = good(2), Judge(map_scale=map_scale)
    found = rehearse(judge, images, SMALL)
    limit, review, on_map = GOOD[98], GOOD[94], np.float32(GOOD[98] * map_scale)
    for cell in found.cells:
        marks = []
        for repeat in range(3):
            ((_, drawn),) = draw_defects(
                [images[repeat % 2]], [cell.kind], [cell.size_px], [cell.strength],
                per_cell=1, seed=own_seed(3, repeat),
            )  # fmt: skip
            apart = np.abs(drawn.image.mean(-1) - LEVEL) / 255
            marks.append([apart.max() > limit, apart.max() > review,
                          (apart[drawn.mask] > on_map).any()])  # fmt: skip
        counts = np.sum(marks, axis=0).tolist()
        outcome = cell.outcome
        assert [outcome.ng.count, outcome.ng_or_review.count, outcome.marked.count] == counts
        assert outcome.ng.total == 3 and cell.not_drawable == ""
    assert len(judge.seen) == 2 + 2 * 2 * 2 * 3
    assert found.outcome("hole", 16, 1.0).ng.share == 1
    assert found.outcome("scratch", 6, 0.2).ng.share == 0
    assert (found.outcome("hole", 16, 1.0).marked.share < 1) is (map_scale == 4.0)


def test_an_interval_is_exact():
    found = Proportion.of([True] * 3 + [False] * 17)
    assert (found.count, found.total, found.share) == (3, 20, 0.15)
    assert found.low == pytest.approx(beta.ppf(0.025, 3, 18))
    assert found.high == pytest.approx(beta.ppf(0.975, 4, 17))


def test_undrawn_pictures_show_the_false_alarms():
    images = good()
    images[0][0, 0] = LEVEL - 51  # between the thresholds of REVIEW and NG
    images[1][5, 5] = LEVEL - 60
    undrawn = rehearse(Judge(), images, replace(SMALL, kinds=("hole",), per_cell=4)).undrawn
    counts = undrawn.ng.count, undrawn.ng_or_review.count, undrawn.marked.count
    assert counts == (1, 2, 1) and undrawn.ng.total == 4
    one = replace(SMALL, kinds=("hole",), per_cell=1)
    assert rehearse(Judge(), images, one).pictures == 1  # only those that are drawn on


def test_the_same_seed_and_any_batch_give_the_same():
    first = rehearse(Judge(), good(), SMALL)
    assert rehearse(Judge(), good(), replace(SMALL, batch_size=1)) == first


def test_nothing_is_drawn_where_a_mask_is():
    mask = np.zeros((64, 64), bool)
    mask[:, :40] = True
    (image,) = good(1)
    asked = replace(SMALL, kinds=("hole",), per_cell=2)
    for judge, masks in ((Judge(), [mask]), (Judge(mask=mask), ())):
        found = rehearse(judge, [image], asked, masks=masks)
        assert all((seen[mask] == image[mask]).all() for seen in judge.seen)
        assert all(given is mask for given in judge.masks)
        assert found.outcome("hole", 16, 1.0).ng.share == 1


def test_what_cannot_be_drawn_is_reported_and_ends_nothing():
    images = [good(1, 64)[0], good(1, 24)[0]]
    asked = replace(SMALL, sizes_px=(6, 40, 70), per_cell=4)
    found = rehearse(Judge(), images, asked)
    cells = {(cell.kind, cell.size_px, cell.strength): cell for cell in found.cells}
    assert cells["hole", 6, 1.0].outcome.ng.total == 4
    assert cells["hole", 40, 1.0].outcome.ng.total == 2
    assert cells["hole", 40, 1.0].not_drawable == "40 px do not fit a picture of 24 x 24 pixels."
    assert cells["hole", 70, 0.2].outcome is None and "70 px" in cells["hole", 70, 0.2].not_drawable
    assert found.outcome("scratch", 70, 1.0) is None


def test_what_has_no_place_is_not_tried_on_every_picture(monkeypatch):
    tried = []

    def refuse(images, kinds, sizes_px, *rest, **options):
        tried.append((kinds[0], sizes_px[0]))
        raise ConfigError("there was no free place for it")

    monkeypatch.setattr("faprompt.inspection.rehearsal.draw_defects", refuse)
    found = rehearse(Judge(), good(6), replace(SMALL, per_cell=6))
    assert all(cell.outcome is None for cell in found.cells) and len(tried) == 4 * 3
    assert {cell.not_drawable for cell in found.cells} == {"there was no free place for it"}
    assert "could not be drawn, such as: there was no free place" in rehearsal_text(found)


def test_sizes_are_chosen_by_the_pictures():
    assert fit_sizes(300) == (4, 8, 16, 32, 64) and fit_sizes(3000) == (32, 64, 128, 256, 512)
    assert fit_sizes(10) == (4,) and fit_sizes(10.0**6)[-1] == 2**18
    found = rehearse(Judge(), good(), replace(SMALL, kinds=("hole",), sizes_px=(), per_cell=1))
    assert found.sizes_px == (4, 8, 16)


def test_progress_ends_at_its_total():
    steps = []
    asked = replace(SMALL, sizes_px=(6, 70))
    rehearse(Judge(), good(), asked, progress=lambda *step: steps.append(step))
    assert steps[-1] == ("rehearse", 24, 24)
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)


def outcome(ng, review, marked=0, total=20):
    return Outcome(*(Proportion.of([n < count for n in range(total)])
                     for count in (ng, review, marked)))  # fmt: skip


def rehearsed(shares, sizes=(8, 16, 32, 64), strengths=(1.0,), **options):
    """A rehearsal with these counts of NG among 20, kind by kind and size by size."""
    asked = RehearsalOptions(kinds=("hole",), sizes_px=(6,), strengths=(1.0,), per_cell=1)
    base = rehearse(Judge(), good(1), asked)
    cells = [
        replace(base.cells[0], kind=kind, size_px=size, strength=strength,
                outcome=None if count is None else outcome(count, 20, count))
        for kind, counts in shares.items()
        for size, count in zip(sizes, counts, strict=True)
        for strength in strengths
    ]  # fmt: skip
    return replace(base, cells=tuple(cells), per_cell=20, **options)


SHARES = {
    "hole": (2, 12, 18, 20), "burn": (10, 15, 12, 0), "dent": (10, 0, 11, 1),
    "crack": (0, 0, None, 9), "tear": (0, 0, 0, 20), "stain": (None, None, None, None),
}  # fmt: skip


def test_words_name_the_sizes_that_are_found():
    found = rehearsed(SHARES)
    assert found.found_sizes("hole", 1.0) == (16, 32, 64)
    assert found.found_sizes("hole", 1.0, 0.9) == (32, 64)
    assert found.found_sizes("crack", 1.0, with_review=True) == (8, 16, 64)
    lines = findings(found)
    assert lines[0] == (
        "Found at the chosen rate, at strength 1 in at least half of the draws: burn 8-32 px, "
        "dent 8, 32 px, hole from 16 px on, tear 64 px."
    )
    assert lines[1] == "Not found by that measure at any size drawn: crack, stain."
    larger = "Larger is not always easier: at 64 px less than half is found of burn, dent."
    assert lines[2] == larger
    assert "Each number is of 20 draws: 50 % may be 27 to 73 % on other pictures." in lines
    assert lines[-1] == WARNING and FAINT_NOTE not in lines
    assert FAINT_NOTE in findings(rehearsed({"hole": (1, 2, 3, 4)}, strengths=(0.25, 1.0)))


def test_a_table_has_a_row_for_each_kind():
    found = rehearsed(SHARES, product="nut", target_fpr=0.02, undrawn=outcome(1, 2, 3))
    lines = rehearsal_text(found).splitlines()
    assert lines[0] == "nut: rehearsal on 20 good pictures that did not calibrate"
    assert "NG at a false-alarm rate of 2 % / NG or REVIEW at 5 %, in % of 20" in lines[1]
    rows = {line.split("   ")[0].strip(): line.split()[1:] for line in lines[4:11]}
    assert rows["hole"][:4] == ["10/100", "60/100", "90/100", "100/100"]
    assert rows["hole"][4:] == ["from", "16", "px", "on", "from", "32", "px", "on", "65", "%"]
    assert rows["crack"] == ["0/100", "0/100", "-", "45/100", "-", "-", "15", "%"]
    assert rows["stain"] == ["-"] * 7
    undrawn = "the same pictures undrawn: 1 of 20 NG, 2 NG or REVIEW, 3 with a region"
    assert undrawn in lines
    assert len({len(line) for line in lines[4:11]}) == 1


def test_files_hold_the_values(tmp_path):
    found = [rehearsed(SHARES, product=name, strengths=(1.0, 0.5)) for name in ("=cup", "nut")]
    write_rehearsal(tmp_path, found, {"fingerprint": "f"})
    content = json.loads((tmp_path / "rehearsal.json").read_text())
    assert content["fingerprint"] == "f"
    assert content["rehearsals"] == json.loads(json.dumps([one.to_dict() for one in found]))
    with (tmp_path / "rehearsal.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (1 + 6 * 4 * 2) and rows[0]["product"] == "'=cup"
    assert (rows[0]["kind"], rows[0]["size_px"], rows[0]["drawn"]) == ("undrawn", "", "1")
    row = next(r for r in rows if (r["kind"], r["size_px"]) == ("hole", "16"))
    assert (row["drawn"], row["ng"], row["ng_share"], row["marked"]) == ("20", "12", "0.6000", "12")
    assert float(row["ng_low"]) == pytest.approx(beta.ppf(0.025, 12, 9), abs=1e-4)
    empty = next(r for r in rows if r["kind"] == "stain")
    assert (empty["drawn"], empty["ng"], empty["marked_high"]) == ("0", "", "")
    write_rehearsal_figure(tmp_path / "r.png", found)
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_options_are_checked():
    for wrong in ({"kinds": ("hole", "rust")}, {"sizes_px": (2.0,)}, {"strengths": (1.5,)},
                  {"strengths": ()}):  # fmt: skip
        with pytest.raises(ConfigError, match="Defects cannot be drawn"):
            RehearsalOptions(**wrong)
    with pytest.raises(ValueError, match="per_cell should be at least 1"):
        RehearsalOptions(per_cell=0)
    with pytest.raises(ValueError, match="sizes_px names a value twice"):
        RehearsalOptions(sizes_px=(8, 16, 8))


def test_a_rehearsal_needs_a_calibration_a_picture_and_a_product():
    judge = Judge()
    judge.setup = DetectorSetup()
    with pytest.raises(ConfigError, match="not calibrated"):
        rehearse(judge, good())
    with pytest.raises(ConfigError, match="no picture to draw on"):
        rehearse(Judge(), [])
    with pytest.raises(ConfigError, match="products cup, nut, got product 'tin'"):
        rehearse(Judge(products=("cup", "nut")), good(), product="tin")
    few = replace(SMALL, kinds=("hole",), per_cell=1)
    assert rehearse(Judge(products=("cup", "nut")), good(1), few, product="nut").product == "nut"
