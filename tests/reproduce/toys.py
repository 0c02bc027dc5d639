"""Small benchmarks: drawn folders, the drawn backbone, and results made up by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faprompt.reproduce.cell_runner import CellResult
from faprompt.reproduce.cells import Cell, Plan, build_plan
from faprompt.reproduce.experiment import parse_experiment
from tests.helpers import folders

FAST = {"replicates": 0, "gallery": 0}
TRAINING = {"epochs": 1, "cache": "off", "batch_size": 6, "tensorboard": False}
CLIP = {"name": "clip", "options": {"image_size": 56}}
FAPROMPT = {
    "name": "faprompt", "options": {"image_size": 56, "prompts": 2, "patches": 4},
    "train_on": "shelf",
}  # fmt: skip


def shelf(folder: Path, *, classes: tuple[str, ...] = ("mug", "nut")) -> Path:
    """An MVTec tree of a few tiny pictures."""
    for name in classes:
        folders.mvtec_class(
            folder / name,
            normal={"good": ["8.png", "9.png"]},
            defects={"chip": ["0.png", "1.png"]},
        )
    return folder


def sets(folder: Path) -> Path:
    """Two of them: `shelf` of two classes and `drawer` of one."""
    shelf(folder / "shelf")
    shelf(folder / "drawer", classes=("cup",))
    return folder


def entry(name: str) -> dict[str, str]:
    return {"folder": name, "label": name}


def config(**changes: Any) -> dict[str, Any]:
    """A benchmark of two methods on two folders, as plain data."""
    return {
        "title": "Toys",
        "backbones": ["test-tiny"],
        "methods": [CLIP, FAPROMPT],
        "datasets": [entry("shelf"), entry("drawer")],
        "evaluation": FAST,
        "training": TRAINING,
        **changes,
    }


def plan(root: Path | None = None, **changes: Any) -> Plan:
    return build_plan(parse_experiment(config(**changes)), data_root=root)


def done(cell: Cell, mean: dict[str, float], **parts: Any) -> CellResult:
    """A finished cell with these means."""
    metrics = {"mean": mean, "undefined": {}, "classes": {}, **parts}
    record = {"normal": 3, "anomalous": 4, "matches_paper": None, "unreadable": 0}
    return CellResult(cell, "done", "", record, metrics)
