"""Small studies of small benchmarks, and dots made up by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faprompt.reproduce.study_config import StudyConfig, parse_study
from faprompt.reproduce.study_plan import StudyPlan, build_study

from faprompt.reproduce.figure_dots import Dot
from tests.reproduce import toys

SMALL = {"image_size": 56, "prompts": 2, "patches": 4}
TRAINING = {**toys.TRAINING, "cache": "on"}


def point(label: str, **options: Any) -> dict[str, Any]:
    return {"label": label, "options": {**SMALL, **options}}


def values(**changes: Any) -> dict[str, Any]:
    """A sweep of K and M whose middle is one run, as plain data."""
    return {
        "title": "K and M",
        "name": "toys",
        "figure": "lines",
        "paper": "more is better.",
        "axes": [
            {"name": "K", "title": "prompts K", "points": [
                {**point("K = 1", prompts=1), "x": 1}, {**point("K = 2"), "x": 2},
            ]},
            {"name": "M", "title": "patches M", "points": [
                {**point("M = 4"), "x": 4}, {**point("M = 8", patches=8), "x": 8},
            ]},
        ],
        "claims": [{"text": "two are better than one", "better": "K = 2", "than": ["K = 1"]}],
        "benchmark": {
            "backbones": ["test-tiny"],
            "datasets": [toys.entry("shelf"), toys.entry("drawer")],
            "evaluation": toys.FAST,
            "training": TRAINING,
        },
        **changes,
    }  # fmt: skip


def config(**changes: Any) -> StudyConfig:
    return parse_study(values(**changes))


def study(root: Path | None = None, **changes: Any) -> StudyPlan:
    from faprompt.reproduce.study_plan import Changes

    return build_study(config(**changes), data_root=root, changes=Changes(train_on="shelf"))


def dot(label: str, value: float, **changes: Any) -> Dot:
    place = {"form": "lines", "axis": "prompts K", "metric": "image AUROC", "series": "shelf"}
    rest = {"backbone": "", "x": 1.0, "source": "ours"}
    return Dot(**{**place, **rest, "label": label, "value": value, **changes})
