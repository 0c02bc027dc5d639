"""Small studies of small benchmarks, and dots made up by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faprompt.reproduce.cells import Plan, build_plan
from faprompt.reproduce.experiment import Experiment, change_experiment, parse_experiment
from faprompt.reproduce.figure_dots import Dot
from tests.reproduce import toys

SMALL = {"image_size": 56, "prompts": 2, "patches": 4}
TRAINING = {**toys.TRAINING, "cache": "on"}


def method(label: str, **options: Any) -> dict[str, Any]:
    return {"name": "faprompt", "label": label, "options": {**SMALL, **options}}


def values(**changes: Any) -> dict[str, Any]:
    """A sweep of K and M whose middle is one run, as plain data."""
    return {
        "title": "K and M",
        "name": "toys",
        "figure": "lines",
        "paper": "more is better.",
        "axes": [{"name": "K", "title": "prompts K"}, {"name": "M", "title": "patches M"}],
        "methods": [
            {**method("K = 1", prompts=1), "axis": "K", "x": 1},
            {**method("K = 2"), "axis": "K", "x": 2},
            {**method("M = 4"), "axis": "M", "x": 4},
            {**method("M = 8", patches=8), "axis": "M", "x": 8},
        ],
        "claims": [{"text": "two are better than one", "better": "K = 2", "than": ["K = 1"]}],
        "backbones": ["test-tiny"],
        "datasets": [toys.entry("shelf"), toys.entry("drawer")],
        "evaluation": toys.FAST,
        "training": TRAINING,
        **changes,
    }


def one_axis(methods: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """Changes of `values` for a study of these methods, without claims."""
    axes = [{"name": "method", "title": "method"}]
    return {"axes": axes, "methods": methods, "claims": [], **changes}


def config(**changes: Any) -> Experiment:
    return parse_experiment(values(**changes))


def study(root: Path | None = None, **changes: Any) -> Plan:
    return build_plan(change_experiment(config(**changes), train_on="shelf"), data_root=root)


def dot(label: str, value: float, **changes: Any) -> Dot:
    place = {"form": "lines", "axis": "prompts K", "metric": "image AUROC", "series": "shelf"}
    rest = {"backbone": "", "x": 1.0, "source": "ours"}
    return Dot(**{**place, **rest, "label": label, "value": value, **changes})
