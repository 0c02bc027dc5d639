"""Train heads of `small` that lack a kind of relations, or that saw fewer drawn pictures.

The drawn pictures are those on which `small` was trained, from the cache of
scripts/build_small.py. A trained head is kept in a file, so that it is trained once.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from faprompt import Detector
from faprompt.files import write_atomically
from faprompt.methods.relations import Relations
from scripts.build_small import (
    BuildOptions,
    build_untrained,
    fill_cache,
    leave_out,
    train_head,
)

SEEDS = (111, 112, 113)  # of the heads
KINDS = ("self-similarity", "mirror")
COUNTS = (400, 1600, 6400)  # drawn pictures, beside all of them
ALL_INPUTS = "all inputs"


def build_options(small: Detector) -> BuildOptions:
    """Read from the model's own record how it was built."""
    record = small.description["training"]
    return BuildOptions(**{f.name: record[f.name] for f in fields(BuildOptions)})


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """A head of `small` that lacks one kind of relations, or saw the first pictures alone."""

    options: BuildOptions  # of the drawn pictures and of the training
    seed: int  # of the head
    kind: str  # left out; "" for none
    count: int | None  # drawn pictures; None for all
    runs: Path
    trunk: Path
    folder: Path  # where heads are kept

    @property
    def path(self) -> Path:
        """The file of the head."""
        name = f"{self.kind or 'all'}-{self.count or 'all'}-{self.seed}.safetensors"
        return self.folder / name

    def build(self) -> tuple[Relations, list[int]]:
        """Build the method with a fresh head; the columns of the relations that it reads too."""
        method = build_untrained(self.trunk, replace(self.options, seed=self.seed))
        return method, leave_out(method, self.kind, self.seed)

    def load(self) -> tuple[Relations, list[int]]:
        """Read the trained head; the columns of the relations that it reads too."""
        method, kept = self.build()
        method.head.load_state_dict(load_file(self.path))
        return method.eval(), kept


def train_planned(plan: HeadPlan) -> None:
    """Train a head and write its file."""
    torch.set_num_threads(1)
    method, kept = plan.build()
    cached = fill_cache(plan.runs, plan.trunk, plan.options, workers=1)
    arrays = {key: values[: plan.count] for key, values in cached.items()}
    options = replace(plan.options, seed=plan.seed)
    with torch.enable_grad():
        train_head(method, arrays, options, plan.path.with_suffix(".csv"), kept)
    write_atomically(plan.path, save(method.head.state_dict()))


def head_plans(small: Detector, runs: Path, trunk: Path, workers: int) -> dict[str, list[HeadPlan]]:
    """Variant -> its heads, one of each seed; those that were not trained yet are trained now."""
    options = build_options(small)
    variants: dict[str, tuple[str, int | None]] = {ALL_INPUTS: ("", None)}
    variants |= {f"without {kind}": (kind, None) for kind in KINDS}
    fewer = [count for count in COUNTS if count < options.pictures]
    variants |= {f"{count:,} drawn pictures": ("", count) for count in fewer}
    folder = runs / f"heads-{small.fingerprint()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    places = runs, trunk, folder
    plans = {
        name: [HeadPlan(options, seed, *variant, *places) for seed in SEEDS]
        for name, variant in variants.items()
    }
    missing = [plan for own in plans.values() for plan in own if not plan.path.is_file()]
    if missing:
        check_recipe(small, missing[0])
        fill_cache(runs, trunk, options, workers)
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            list(pool.map(train_planned, missing))
    return plans


def check_recipe(small: Detector, plan: HeadPlan) -> None:
    """Refuse to train heads for another model than `small`."""
    built = build_untrained(plan.trunk, plan.options)
    if (built.names, built.config) != (small.method.names, small.method.config):
        raise SystemExit(
            "scripts/build_small.py now builds a model of other inputs or options than the one "
            "that is measured; build small again, or measure with --no-heads."
        )
