"""Table 3: what is counted is exact; what is timed is only there, as tests do not time."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import torch

from faprompt.clip.weights import load_backbone
from faprompt.errors import ConfigError
from faprompt.evaluation.published import published_table
from faprompt.methods.registry import build_method, list_methods
from faprompt.study import MethodCost, measure_costs, read_figure, write_costs
from faprompt.study import complexity as room
from faprompt.study.complexity import Timing, chosen_methods, pick_backbone
from faprompt.study.config import CostOptions
from faprompt.study.costs import cost_dots, dry_run_lines
from tests.study import toys

OPTIONS = CostOptions(
    methods=("clip", "faprompt"), backbone="test-tiny", batch_size=2, warmup=0, repeats=2
)
CONFIG = replace(toys.config(axes=[toys.values()["axes"][0]]), axes=(), claims=(), benchmark={},
                 figure="costs", complexity=OPTIONS, paper="it is slower.")  # fmt: skip
WHERE = {"device": "cpu", "precision": "fp32", "drawn": False}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Once: fitted to small pictures, as speed is not what is tested."""
    out = tmp_path_factory.mktemp("costs")
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        return out, measure_costs(OPTIONS, out)


def small(patch):
    fit = room.fit_to_backbone

    def smaller(*arguments, **options):
        return {**fit(*arguments, **options), "image_size": 56}

    patch.setattr(room, "fit_to_backbone", smaller)


def test_parameters_are_the_methods_own(measured):
    clip, faprompt = measured[1]
    built = build_method("faprompt", load_backbone("test-tiny"))
    assert faprompt.live == sum(p.numel() for p in built.parameters()) > 0
    assert (clip.live, clip.reported) == (0, 0)
    assert faprompt.reported is None, "the authors counted at another size"


def test_what_trains_has_three_times_and_the_rest_one(measured):
    clip, faprompt = measured[1]
    assert clip.inference.median > 0 and clip.step is None and clip.cached_step is None
    assert min(t.median for t in (faprompt.inference, faprompt.step, faprompt.cached_step)) > 0
    assert clip.image_size == 56


def test_median_and_spread_leave_the_warm_up_out(monkeypatch):
    ticks = iter([0.0, 9.0, 10.0, 10.1, 20.0, 20.3, 30.0, 30.2])
    monkeypatch.setattr(room.time, "perf_counter", lambda: next(ticks))
    timing = room._timing(lambda: None, CostOptions(warmup=1, repeats=3))
    assert timing == Timing(200.0, 100.0)


def test_the_same_call_goes_on(measured, tmp_path, monkeypatch):
    out, costs = measured
    told = []
    monkeypatch.setattr(room, "measure_method", lambda *_: pytest.fail("measured again"))
    assert measure_costs(OPTIONS, out, notify=told.append) == costs
    assert all(line.endswith("(kept)") for line in told) and len(told) == 2
    again = []
    monkeypatch.setattr(room, "measure_method", lambda n, *_: again.append(n) or MethodCost(n, 0))
    measure_costs(replace(OPTIONS, repeats=3), tmp_path)
    assert again == ["clip", "faprompt"], "with other options nothing is kept"
    (tmp_path / "costs" / "clip.json").write_text("{")
    measure_costs(replace(OPTIONS, repeats=3), tmp_path)
    assert again[2:] == ["clip"], "a file cut off is measured again"


def test_a_method_that_cannot_be_is_told_and_tried_again(tmp_path, monkeypatch):
    def refuse(name, *_):
        if name == "clip":
            raise ConfigError("no room for it.")
        return MethodCost(name, 3, 3, inference=Timing(1.0, 0.1))

    monkeypatch.setattr(room, "measure_method", refuse)
    costs = measure_costs(OPTIONS, tmp_path)
    assert costs[0] == MethodCost("clip", reason="no room for it")
    page = write_costs(CONFIG, costs, tmp_path, **WHERE)
    assert "clip was not measured: no room for it." in page
    monkeypatch.undo()
    monkeypatch.setattr(room, "measure_method", lambda n, *_: MethodCost(n, 7))
    assert [c.live for c in measure_costs(OPTIONS, tmp_path)] == [7, 3]


def test_weights_are_drawn_alike_and_only_for_open_clip(monkeypatch):
    from faprompt.clip.weights import TEST_TINY

    monkeypatch.setattr(room, "pretrained_spec", lambda *_: TEST_TINY)
    first, second = (pick_backbone("ViT-B-32", drawn=True) for _ in range(2))
    assert first.state_fingerprint() == second.state_fingerprint()
    assert first.name == "ViT-B-32, drawn weights"
    assert not any(p.requires_grad for p in first.parameters())
    with pytest.raises(ConfigError, match="open_clip's names only, not for 'no/such'"):
        pick_backbone("no/such", drawn=True)


COSTS = tuple(
    MethodCost(
        name, 10 * n, 20 * n, Timing(100.0 * n, 1.0), Timing(9.0, 0.5), Timing(n + 0.25, 0.125), 518
    )
    for n, name in enumerate(chosen_methods(CostOptions()), start=1)
)


def test_every_published_number_stands_beside_ours(tmp_path):
    write_costs(CONFIG, COSTS, tmp_path, **WHERE)
    rows = {r["method"]: r for r in csv.DictReader((tmp_path / "table.csv").open())}
    for cell in published_table(3):
        assert float(rows[cell.method][f"published_{cell.metric}"]) == cell.value
    for n, row in enumerate(rows.values(), start=1):
        assert (row["live"], row["reported"]) == (str(10 * n), str(20 * n))
        assert float(row["inference_ms"]) == n + 0.25 and row["step_ms"] == f"{100 * n}"
    page = (tmp_path / "study.md").read_text()
    assert "| 9,612,256 |" in page and "| 1354.1 ± 1.7 |" in page and "The paper: it is" in page
    latex = (tmp_path / "table.tex").read_text()
    assert latex.count(r"\\") == 1 + len(COSTS) and r"214.7 $\pm$ 0.8 \\" in latex
    assert read_figure(tmp_path / "figure.csv") == cost_dots(COSTS)


def test_shares_of_faprompts_time(tmp_path):
    ours = {c.method: c.inference.median for c in COSTS}
    page = write_costs(CONFIG, COSTS, tmp_path, **WHERE)
    share = f"anomalyclip {ours['anomalyclip'] / ours['faprompt']:.2f} (paper {124.2 / 214.7:.2f})"
    assert share in page


def test_dots_have_both_sides_and_no_zero_time():
    dots = cost_dots(COSTS)
    places = {(d.metric, d.label, d.source): d.value for d in dots}
    assert places["parameters", "faprompt", "published"] == 9612256
    assert places["inference, ms a picture", "coop", "published"] == 89.9
    assert places["training, ms a batch", "coop", "ours"] == COSTS[list_methods().index(
        "coop")].step.median  # fmt: skip
    assert ("training, ms a batch", "winclip", "published") not in places, "0 is no time"
    assert {d.x for d in dots if d.label == "faprompt"} == {float(len(COSTS) - 1)}


def test_the_dry_run_lists_every_method():
    lines = list(dry_run_lines(CostOptions(warmup=1, repeats=4)))
    shown = [line.split()[2] for line in lines[:-2]]
    assert shown == [name for name in list_methods() if name not in ("patchcore", "rd4ad")]
    seconds = sum(
        (2 if "training" in c.metric else 1) * c.value for c in published_table(3) if c.unit == "ms"
    )
    assert f"about {5 * seconds / 1000:.0f} s on the paper's RTX 3090" in lines[-2]


def test_the_record_tells_the_machine(measured):
    record = json.loads((measured[0] / "costs" / "faprompt.json").read_text())["identity"]
    assert f"torch {torch.__version__}" in record["machine"] and record["backbone"] == "test-tiny"
