"""Time of shards and of Ray against plain `predict`, and what many shards cost in files.

    python -m benchmarks.shards --pictures 5000 --rounds 3

Plain run, one shard, and two shards in two processes take turns over the same pictures, so that
other load on the machine meets all. Time starts with the first picture to be scored: model and
imports are not in it. Listing, parts and `done.json` are. Each run is in a process of its own and
has one thread, `plain 2` is two plain runs of half the pictures at a time. Ray takes its turns in
the same way, with one or two actors of a local Ray; its time starts when the first actor is ready.
Empty work is timed for 1 to 1,000 shards, and the bytes of rows and lists are measured. Rows go to
`benchmarks/results/shards.csv`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import append_csv, machine_record

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "shards.csv"
COUNTS = (1, 10, 100, 1000)  # shards of the empty work


def draw_pictures(folder: Path, count: int) -> None:
    """Write JPEG files of 256x256 pixels, about the size that a camera's part has when cropped."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    base = draw.normal(120, 12, (300, 300, 3)).clip(0, 255).astype(np.uint8)
    for number in range(count):
        path = folder / f"{number // 1000:03}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        row, column = draw.integers(0, 44, 2)
        Image.fromarray(base[row : row + 256, column : column + 256]).save(path, quality=85)


def work(kind: str, folder: Path, out: Path, model: str, half: int) -> None:
    """Do one run in this process; print its seconds. `half` is the shard, or the half; 0: all."""
    import torch

    import faprompt
    from faprompt.bulk import Shard, predict_shard, shard_of
    from faprompt.prediction import PredictOptions, expand_inputs, predict_files
    from faprompt.storage import StoredFile

    torch.set_num_threads(1)
    detector = faprompt.load_detector(model, device="cpu")
    settings = {"detector": detector.fingerprint(), "decided_by": detector.decided_by()}
    detector.predict(str(next(folder.rglob("*.jpg"))))
    options = PredictOptions(report=False, overlays=False)
    begin, cpu = time.perf_counter(), time.process_time()
    if kind == "plain":
        paths = [path for path in expand_inputs([folder])
                 if half == 0 or shard_of(str(path), 2) == half]  # fmt: skip
        predict_files(detector, paths, out, options, settings=settings)
    else:
        shard = Shard(half, 2) if half else Shard(1, 1)
        files = (StoredFile(str(path), "") for path in expand_inputs([folder]))
        predict_shard(lambda device: detector, files, out, shard, options)
    print(json.dumps({
        "seconds": time.perf_counter() - begin, "cpu": time.process_time() - cpu,
    }))  # fmt: skip


def ray_work(folder: Path, out: Path, model: str, actors: int) -> None:
    """Do one run with actors of a local Ray; print its seconds, and those before and after."""
    import faprompt
    from faprompt.bulk import BulkScorer, ShardScorer, predict_shard, ray_rows
    from faprompt.prediction import PredictOptions, list_inputs

    ready = out.with_name("ready")
    ready.mkdir()

    class Told(BulkScorer):
        """Writes a file when it is ready."""

        def load(self) -> ShardScorer:
            detector = super().load()
            detector.predict(str(next(folder.rglob("*.jpg"))))
            (ready / str(os.getpid())).touch()
            return detector

    detector = faprompt.load_detector(model, device="cpu")
    options = PredictOptions(report=False, overlays=False, resume=True)
    begin = time.time()
    with ray_rows(Told(model, device="cpu"), actors=actors) as rows:
        predict_shard(
            lambda device: detector, list_inputs([str(folder)]), out, options=options,
            source=lambda plan: rows,
        )  # fmt: skip
        end = time.time()
    first = min(path.stat().st_mtime for path in ready.iterdir())
    print(json.dumps({
        "seconds": end - first, "start": first - begin, "stop": time.time() - end,
    }))  # fmt: skip


def timed(kind: str, processes: int, folder: Path, model: str) -> dict[str, float]:
    """Return the seconds, and all processor seconds, of a run in one or two processes."""
    halves = [0] if processes == 1 or kind == "ray" else [1, 2]
    with tempfile.TemporaryDirectory() as out:
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.shards", "--work", kind, "--folder", folder,
                 "--model", model, "--half", str(half), "--processes", str(processes),
                 "--out", Path(out) / (f"plain{half}" if kind == "plain" else "shards")],
                cwd=ROOT, stdout=subprocess.PIPE, text=True,
            )
            for half in halves
        ]  # fmt: skip
        told = [json.loads(process.communicate()[0].splitlines()[-1]) for process in running]
    slowest = max(told, key=lambda each: each["seconds"])
    return slowest | {"cpu": sum(each.get("cpu", 0) for each in told)}


def compare(
    kind: str, folder: Path, pictures: int, model: str, rounds: int, processes: Sequence[int]
) -> None:
    """Let plain runs and shards, or Ray, take turns, and write the medians of their ratios."""
    for number in processes:
        pairs: list[tuple[dict[str, float], dict[str, float]]] = []
        for turn in range(rounds):
            order = (kind, "plain") if turn % 2 else ("plain", kind)
            both = {each: timed(each, number, folder, model) for each in order}
            pairs.append((both[kind], both["plain"]))
        ours, plain = zip(*pairs, strict=True)

        def middle(runs: Sequence[dict[str, float]], name: str = "seconds") -> float:
            return statistics.median(each[name] for each in runs)

        values: dict[str, Any] = {
            "plain_s": f"{middle(plain):.1f}", f"{kind}_s": f"{middle(ours):.1f}",
            "time_ratio": f"{statistics.median(a['seconds'] / b['seconds'] for a, b in pairs):.3f}",
            "rate": f"{pictures / middle(ours):.1f}",
        }  # fmt: skip
        if kind == "ray":
            values |= {f"{name}_s": f"{middle(ours, name):.1f}" for name in ("start", "stop")}
        else:
            ratio = statistics.median(a["cpu"] / b["cpu"] for a, b in pairs)
            values["cpu_ratio"] = f"{ratio:.3f}"
        note(
            "ray" if kind == "ray" else "overhead", model=model, pictures=pictures,
            processes=number, rounds=rounds, **values,
        )  # fmt: skip


def empty_work(pictures: int) -> None:
    """Time shards whose pictures cost nothing to score, and measure the bytes of their files."""
    from faprompt.bulk import RowSource, Shard, merge_shards, plan_shards, run_shard
    from faprompt.prediction.result_rows import ResultRow
    from faprompt.records import Region
    from faprompt.storage import LocalFolder, StoredFile

    draw = random.Random(0)
    files = [
        StoredFile(f"s3://bucket/line-3/2026-11-{n % 28 + 1:02}/part_{n:09}.jpg",
                   f'{draw.randrange(200_000)}-"{draw.getrandbits(128):032x}"')
        for n in range(pictures)
    ]  # fmt: skip

    def rows(wanted: Sequence[StoredFile]) -> Iterator[ResultRow]:
        for file in wanted:
            yield ResultRow(
                file.path, "small", score=draw.random(), p_value=draw.randrange(1, 201) / 201,
                verdict="OK", threshold=0.9, review_threshold=0.8, width=1024, height=768,
                regions=(Region((10, 20, 30, 40), 310, draw.random(), draw.random()),),
                latency_ms=round(draw.uniform(25, 60), 3),
            )  # fmt: skip

    def settings() -> dict[str, object]:
        return {"model": "small", "threshold": 0.9}

    source: RowSource = rows
    for count in COUNTS:
        for planned in (False, True):
            with tempfile.TemporaryDirectory() as place:
                out = LocalFolder(Path(place))
                begin = time.perf_counter()
                if planned:
                    plan_shards(files, out, count)
                plan_s, begin = time.perf_counter() - begin, time.perf_counter()
                tried = range(1, min(count, 100) + 1)  # of many shards a hundred are enough
                for index in tried:
                    run_shard(source, files, out, Shard(index, count), settings=settings)
                each_s = (time.perf_counter() - begin) / len(tried)
                if len(tried) == count:
                    begin = time.perf_counter()
                    merge_shards(place, tables=("jsonl",), report=False)
                    merge_s = f"{(time.perf_counter() - begin) / pictures * 1e6:.1f}"
                else:
                    merge_s = ""
                sizes = {
                    name: sum(p.stat().st_size for p in out.path.rglob(pattern))
                    for name, pattern in (("part", "part-*"), ("manifest", "manifest*"))
                }
                done = len(tried) / count * pictures
                note(
                    "empty", pictures=pictures, shards=count, planned=planned,
                    plan_us_each=f"{plan_s / pictures * 1e6:.2f}" if planned else "",
                    shard_s=f"{each_s:.3f}",
                    us_each=f"{each_s * count / pictures * 1e6:.2f}",
                    merge_us_each=merge_s,
                    part_bytes_each=f"{sizes['part'] / done:.1f}",
                    manifest_bytes_each=f"{sizes['manifest'] / pictures:.1f}" if planned else "",
                )  # fmt: skip


def note(kind: str, **values: object) -> None:
    """Print a measurement and add it to the file."""
    print(kind, *(f"{name}={value}" for name, value in values.items()), flush=True)
    append_csv(RESULTS, machine_record() | {"kind": kind} | values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--empty-pictures", type=int, default=100_000)
    parser.add_argument("--only", choices=("overhead", "ray", "empty"))
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    for hidden in ("--work", "--folder", "--out"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--half", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work == "ray":
        ray_work(Path(asked.folder), Path(asked.out), asked.model, asked.processes[0])
        return
    if asked.work:
        work(asked.work, Path(asked.folder), Path(asked.out), asked.model, asked.half)
        return
    if asked.only in (None, "empty"):
        empty_work(asked.empty_pictures)
    for kind, wanted in (("shard", "overhead"), ("ray", "ray")):
        if asked.only in (None, wanted):
            with tempfile.TemporaryDirectory() as folder:
                draw_pictures(Path(folder), asked.pictures)
                compare(
                    kind, Path(folder), asked.pictures, asked.model, asked.rounds, asked.processes
                )


if __name__ == "__main__":
    main()
