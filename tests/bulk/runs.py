"""A detector without a model for shards, and short calls."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

from faprompt.bulk import WHOLE_RUN, Shard, predict_shard
from faprompt.prediction import PredictOptions
from faprompt.prediction.result_rows import ResultRow
from faprompt.storage import StoredFile, open_folder
from tests.prediction.fakes import RedScorer

ASKED = {"threshold": 0.5}


class RedDetector(RedScorer):
    """The red scorer with the fingerprint of a detector."""

    weights = "red weights"

    def fingerprint(self) -> str:
        return self.weights

    def decided_by(self) -> dict[str, str]:
        return {"weights": self.weights}


def load_red(device: str) -> RedDetector:
    """The detector of any device; picklable."""
    return RedDetector()


def load_nothing(device: str) -> RedDetector:
    raise AssertionError("no picture had to be scored")


def listed(paths) -> list[StoredFile]:
    return [StoredFile(str(path), "") for path in paths]


def run(paths, out, shard: Shard | str = WHOLE_RUN, *, load=load_red, asked=None, **more):
    """Call `predict_shard`; options of `PredictOptions` may be among the keywords."""
    if isinstance(shard, str):
        shard = Shard(*map(int, shard.split("/")))
    named = {field.name for field in fields(PredictOptions)}
    options = {"batch_size": 2, "threshold": 0.5}
    options |= {name: more.pop(name) for name in named & set(more)}
    return predict_shard(
        load, listed(paths), out, shard, PredictOptions(**options),
        asked=ASKED if asked is None else asked, **more,
    )  # fmt: skip


def run_all(paths, out, count: int, **more) -> None:
    for index in range(1, count + 1):
        run(paths, out, Shard(index, count), **more)


def merged(out) -> list[ResultRow]:
    """The rows of the merged table, by path, without times and places of pictures."""
    lines = open_folder(out).read("results.jsonl").splitlines()
    rows = [ResultRow.from_dict(json.loads(line)) for line in lines]
    plain = (replace(row, latency_ms=None, overlay=None, map=None) for row in rows)
    return sorted(plain, key=lambda row: row.path)


def parts_of(out: Path) -> list[Path]:
    return sorted(out.glob("**/part-*"))
