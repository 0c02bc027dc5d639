"""Table 3 as files: every published figure beside ours, and what is said around them."""

from __future__ import annotations

import csv

from faprompt.methods.registry import list_methods
from faprompt.reproduce.complexity import MethodCost, Timing, chosen_methods
from faprompt.reproduce.cost_page import cost_dots, dry_run_lines
from faprompt.reproduce.experiment_parts import CostOptions
from faprompt.reproduce.published import published_table
from faprompt.reproduce.study_figure import read_figure
from tests.reproduce.test_complexity import CONFIG, write

COSTS = tuple(
    MethodCost(
        name, 10 * n, 20 * n, Timing(100.0 * n, 1.0), Timing(9.0, 0.5), Timing(n + 0.25, 0.125), 518
    )
    for n, name in enumerate(chosen_methods(CostOptions()), start=1)
)


def test_every_published_number_stands_beside_ours(tmp_path):
    write(CONFIG, COSTS, tmp_path)
    rows = {r["method"]: r for r in csv.DictReader((tmp_path / "table.csv").open())}
    for cell in published_table(3):
        assert float(rows[cell.method][f"published_{cell.metric}"]) == cell.value
    assert list(rows) == list_methods()
    for n, row in enumerate(rows.values(), start=1):
        assert (row["live"], row["reported"]) == (str(10 * n), str(20 * n))
        assert float(row["inference_ms"]) == n + 0.25 and row["step_ms"] == f"{100 * n}"
    page = (tmp_path / "study.md").read_text()
    assert "| 9,612,256 |" in page and "| 1354.1 ± 1.7 |" in page and "The paper: it is" in page
    latex = (tmp_path / "table.tex").read_text()
    assert latex.count(r"\\") == 1 + len(COSTS) and r"214.7 $\pm$ 0.8 \\" in latex
    assert read_figure(tmp_path / "figure.csv") == cost_dots(COSTS)


def test_what_the_paper_does_not_say_stands_below_its_times(tmp_path):
    page = write(CONFIG, COSTS, tmp_path)
    assert "at which picture size WinCLIP and AnoVL were timed" in page


def test_stages_are_told(tmp_path):
    page = write(CONFIG, COSTS, tmp_path)
    assert page.count("learns in stages") == 1 and "filo learns in stages; its step is one" in page


def test_dots_have_both_sides_and_no_zero_time():
    dots = cost_dots(COSTS)
    places = {(d.metric, d.label, d.source): d.value for d in dots}
    assert places["parameters", "faprompt", "published"] == 9612256
    assert places["inference, ms a picture", "coop", "published"] == 89.9
    assert places["training, ms a batch", "coop", "ours"] == COSTS[list_methods().index(
        "coop")].step.median  # fmt: skip
    assert ("training, ms a batch", "winclip", "published") not in places, "0 is no time"
    assert {d.x for d in dots if d.label == "rd4ad"} == {float(len(COSTS) - 1)}


def test_the_dry_run_lists_every_method():
    lines = list(dry_run_lines(CostOptions(warmup=1, repeats=4)))
    shown = [line.split()[2] for line in lines[:-2]]
    assert shown == list_methods()
    seconds = sum(
        (2 if "training" in c.metric else 1) * c.value for c in published_table(3) if c.unit == "ms"
    )
    assert f"about {5 * seconds / 1000:.0f} s on the paper's RTX 3090" in lines[-2]
