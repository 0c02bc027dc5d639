"""Figures against arithmetic by hand: seeds, groups, ranks, what was published."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean, stdev

import numpy as np
import pytest

from faprompt.reproduce.published import published_value
from faprompt.reproduce.table_grid import build_tables, published_places
from tests.reproduce import toys

ONE = {"table": {"metrics": [["image_auroc"]]}, "methods": ["clip", "clip-ac"]}


def results(plan, values, **parts):
    """A finished cell for each value, in the plan's order; None leaves it waiting."""
    pairs = zip(plan.cells, values, strict=True)
    return [toys.done(c, {"image_auroc": v}, **parts) for c, v in pairs if v is not None]


def column(table, number, place=0):
    return [line[number][place] for line in table.figures]


def test_a_row_per_dataset_with_the_value_and_what_was_published():
    plan = toys.plan(methods=["anomalyclip"], datasets=["visa", "btad"], published=[4])
    (table, *_) = build_tables(plan, [toys.done(plan.cells[0], {"image_auroc": 0.8})])
    visa, btad, group = column(table, 0)
    assert (visa.value, visa.published) == (0.8, 0.821)
    assert visa.difference == pytest.approx(-0.021)
    assert (btad.value, btad.reason, btad.published, btad.difference) == (
        None, "no data root: give --data-root", 0.883, None,
    )  # fmt: skip
    assert [row.title for row in table.rows] == ["VisA", "BTAD", "industrial (mean of 2)"]
    assert (group.value, group.reason) == (None, "the mean lacks BTAD")
    assert group.published is None, "the paper's mean is over other sets"


def test_ranks_are_of_what_is_printed():
    methods = ["clip", "clip-ac", "anomalyclip", "faprompt"]
    plan = toys.plan(methods=methods, datasets=["visa"], table=ONE["table"])
    for values, ranks in (
        ((0.9, 0.8, 0.7, 0.6), [1, 2, 0, 0]),
        ((0.70, 0.9001, 0.8999, 0.9), [2, 1, 1, 1]),
        ((None, 0.5, 0.6, None), [0, 2, 1, 0]),
        ((None, 0.5, None, None), [0, 0, 0, 0]),
    ):
        (table,) = build_tables(plan, results(plan, values))
        assert [figures[0].rank for figures in table.figures[0]] == ranks


def test_seeds_have_a_mean_and_a_spread_but_no_interval():
    seeds = {"seeds": [1, 2, 3], "methods": ["faprompt"], "datasets": ["visa"]}
    plan = toys.plan(**seeds, table=ONE["table"])
    values = [0.7, 0.8, 0.85]
    (table,) = build_tables(plan, results(plan, values, intervals={"image_auroc": [0.1, 0.9]}))
    (figure,) = column(table, 0)
    assert (figure.value, figure.spread) == pytest.approx((mean(values), stdev(values)))
    assert figure.interval is None
    (table,) = build_tables(plan, results(plan, [0.7, None, 0.9]))
    assert column(table, 0)[0].value is None, "a mean over fewer seeds is another figure"


def test_intervals_and_reasons_are_read_tolerantly():
    plan = toys.plan(methods=["clip"], datasets=["visa"], table=ONE["table"])
    for intervals in ({"image_auroc": [0.6, 0.9]}, {"mean": {"image_auroc": [0.6, 0.9]}}):
        (table,) = build_tables(plan, results(plan, [0.7], intervals=intervals))
        assert column(table, 0)[0].interval == (0.6, 0.9)
    told = toys.done(plan.cells[0], {}, undefined={"image_auroc": "one class only"})
    (table,) = build_tables(plan, [told])
    assert column(table, 0)[0].reason == "one class only"
    (table,) = build_tables(plan, [toys.done(plan.cells[0], {})])
    assert column(table, 0)[0].reason == "not measured"


def test_group_means_as_the_paper_groups_them():
    """MVTec AD counts in none; ELPV has no pixel figures and Kvasir no image figures."""
    sets = ["mvtec", "visa", "elpv", "brainmri", "kvasir", "isic"]
    metrics = ["image_auroc", "aupro"]
    plan = toys.plan(methods=["clip"], datasets=sets, table={"metrics": [[m] for m in metrics]})
    made = {name: 0.1 * number for number, name in enumerate(sets, start=1)}
    given = [
        toys.done(cell, dict.fromkeys(metrics, made[cell.source.entry.id])) for cell in plan.cells
    ]
    image, pixel = build_tables(plan, given)
    named = [
        dict(zip((r.title for r in t.rows), column(t, 0), strict=True)) for t in (image, pixel)
    ]
    assert list(named[0]) == ["MVTec AD", "VisA", "ELPV", "BrainMRI", "industrial (mean of 2)"]
    assert named[0]["industrial (mean of 2)"].value == pytest.approx((0.2 + 0.3) / 2)
    assert list(named[1]) == ["MVTec AD", "VisA", "Kvasir", "ISIC", "medical (mean of 2)"]
    assert named[1]["medical (mean of 2)"].value == pytest.approx((0.5 + 0.6) / 2)


def test_groups_alone_with_the_papers_means():
    sets = ["brainmri", "headct", "lag", "br35h", "visa"]
    plan = toys.plan(
        methods=["anomalyclip", "faprompt"], datasets=sets, published=[5],
        table={"rows": "groups", "metrics": [["image_auroc", "image_ap"]]},
    )  # fmt: skip
    given = [toys.done(c, {"image_auroc": 0.9, "image_ap": 0.8}) for c in plan.cells]
    (table,) = build_tables(plan, given)
    assert table.methods_down
    assert [row.title for row in table.rows] == [
        "industrial (mean of 1): image AUROC, image AP", "medical: image AUROC, image AP",
    ]  # fmt: skip
    medical = table.figures[1][1]
    assert [figure.value for figure in medical] == pytest.approx([0.9, 0.8])
    assert [figure.published for figure in medical] == [0.910, 0.930]
    assert table.figures[0][1][0].published is None


def test_own_folders_count_in_the_group_they_name():
    sets = [{"folder": n, "label": n, "group": "castings"} for n in ("a", "b")] + ["mvtec"]
    plan = toys.plan(methods=["clip"], datasets=sets, table=ONE["table"])
    (table,) = build_tables(plan, results(plan, [0.6, 0.8, 0.1]))
    assert [row.title for row in table.rows] == ["a", "b", "MVTec AD", "castings (mean of 2)"]
    assert column(table, 0)[-1].value == pytest.approx(0.7)


def test_a_row_per_class_then_the_mean():
    plan = toys.plan(
        methods=["faprompt"], datasets=["btad"],
        table={"rows": "classes", "metrics": [["image_auroc"]]},
    )  # fmt: skip
    found = {
        "01": {"image_auroc": 0.9, "undefined": {}, "intervals": {"image_auroc": [0.8, 0.95]}},
        "02": {"undefined": {"image_auroc": "one class only"}},
    }
    (table,) = build_tables(plan, results(plan, [0.9], classes=found))
    assert [row.title for row in table.rows] == ["01", "02", "03", "mean"]
    first, second, third, last = column(table, 0)
    assert (first.value, first.interval, last.value) == (0.9, (0.8, 0.95), 0.9)
    assert second.reason == "one class only" and third.reason == "the data has no class '03'"
    own = toys.plan(
        methods=["clip"], datasets=[toys.entry("shelf")],
        table={"rows": "classes", "metrics": [["image_auroc"]]},
    )  # fmt: skip
    (table,) = build_tables(own, results(own, [0.9], classes=found))
    assert [row.title for row in table.rows] == ["01", "02", "mean"], "as they were found"


def test_published_class_figures():
    plan = toys.plan(
        methods=[{"name": "clip", "published_as": "winclip"}], datasets=["mvtec"], published=[7],
        table={"rows": "classes", "metrics": [["image_auroc"]]},
    )  # fmt: skip
    (table,) = build_tables(plan)
    published = {row.title: line[0][0].published for row, line in zip(table.rows, table.figures)}  # noqa: B905
    assert published["grid"] == published_value(
        "mvtec", "winclip", "image_auroc", class_name="grid"
    ).value == 0.988  # fmt: skip
    assert published["mean"] == 0.918
    places = published_places([table])
    assert {"dataset": "mvtec", "class": "grid", "method": "winclip", "setting": "",
            "metric": "image_auroc"} in places and len(places) == 16  # fmt: skip


def test_what_the_pictures_cannot_tell_from_the_best_is_level():
    """Against the best only, in pairs: far apart in luck, never apart in order."""
    plan = toys.plan(methods=["clip", "clip-ac", "winclip"], datasets=["visa"], table=ONE["table"])
    luck = np.linspace(-0.2, 0.2, 200)
    above = np.where(np.arange(200) % 10 == 0, -0.01, 0.03)  # worse in a tenth of the draws
    drawn = [0.8 + luck, 0.8 + luck - above, 0.8 + luck - 0.02]
    made = zip(results(plan, (0.8, 0.79, 0.78)), drawn, strict=True)
    given = [replace(r, replicates={"image_auroc": values}) for r, values in made]
    (table,) = build_tables(plan, given)
    assert [figures[0].level for figures in table.figures[0]] == [False, True, False]
    assert [figures[0].rank for figures in table.figures[0]] == [1, 2, 0]
    (table,) = build_tables(plan, results(plan, (0.8, 0.79, 0.78)))
    assert not any(figures[0].level for figures in table.figures[0]), "not known, not claimed"


def test_replicates_of_seeds_are_averaged():
    seeds = {"seeds": [1, 2], "methods": ["faprompt"], "datasets": ["visa"]}
    plan = toys.plan(**seeds, table=ONE["table"])
    one, two = np.linspace(0.6, 0.8, 200), np.linspace(0.9, 0.7, 200)
    made = zip(results(plan, (0.7, 0.8)), (one, two), strict=True)
    given = [replace(r, replicates={"image_auroc": values}) for r, values in made]
    (table,) = build_tables(plan, given)
    np.testing.assert_allclose(column(table, 0)[0].replicates, (one + two) / 2)
    (table,) = build_tables(plan, [given[0], replace(given[1], replicates={})])
    assert column(table, 0)[0].replicates is None


def test_many_methods_on_few_sets_are_printed_downwards():
    methods = [{"name": "clip", "label": str(number)} for number in range(7)]
    for count, down in ((6, False), (7, True)):
        plan = toys.plan(methods=methods[:count], datasets=["visa"], table=ONE["table"])
        (table,) = build_tables(plan, results(plan, [0.5] * count))
        assert table.methods_down is down
    several = ["visa", "btad", "mpdd", "sdd", "aitex", "dagm", "elpv"]
    plan = toys.plan(methods=methods, datasets=several, table=ONE["table"])
    (table,) = build_tables(plan)
    assert not table.methods_down
