"""Score pictures with Ray on two nodes of this machine, lose a node, and check every row.

    python scripts/prove_ray.py --pictures 2000 --memory 1000 5000 20000

Each cluster is a head without processors and two nodes with one each. Rows are compared with those
of one process. One run is undisturbed; in one a node is killed after a fifth of the rows and one is
added after a half; in one some pictures end the process that scores them, or raise. Then the memory
of the driver and of the object store is sampled during runs of several lengths. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ray
from kill_shards import draw_pictures
from ray.cluster_utils import Cluster

from faprompt.bulk import BulkScorer, ray_rows, run_shard
from faprompt.prediction.result_rows import ResultRow
from faprompt.storage import StoredFile, open_folder
from tests.bulk.poisoned import ENDS, OUT_OF_MEMORY, RAISES, PoisonedBulkScorer, lot

os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], f"{sys.path[0]}/src"])  # of the workers
os.environ["OMP_NUM_THREADS"] = "1"
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 2**27, "include_dashboard": False}


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Yield a cluster with two nodes that have one processor each."""
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(**NODE)
        yield cluster
    finally:
        cluster.shutdown()


def lose_a_node(cluster: Any, done: int, count: int) -> dict[str, int]:
    """Kill a node after a fifth of the rows, add one after a half; say if that one has work."""
    if done == count // 5:
        node = cluster.list_all_nodes()[-1]
        threading.Thread(target=cluster.remove_node, args=(node, False)).start()
    elif done == count // 2:
        cluster.add_node(wait=False, **NODE)
    elif done == count - 50:
        (raylet,) = cluster.list_all_nodes()[-1].all_processes["raylet"]
        words = ["ps", "--ppid", str(raylet.process.pid), "-o", "comm="]
        names = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        return {"processes of the added node": names.count("MapWorker")}
    return {}


def score(
    scorer: BulkScorer, paths: Sequence[str], disturb: Callable[..., dict[str, int]] | None = None
) -> tuple[list[ResultRow], dict[str, float]]:
    """Return the rows of a cluster in the order in which they came, and seconds."""
    rows, found = [], {}
    with two_nodes() as cluster:
        begin = time.monotonic()
        with ray_rows(scorer, address=cluster.address) as source:
            for row in source([StoredFile(path, "") for path in paths]):
                found.setdefault("seconds to the first row", round(time.monotonic() - begin, 1))
                rows.append(row)
                found |= disturb(cluster, len(rows), len(paths)) if disturb else {}
            found["seconds"] = round(time.monotonic() - begin, 1)
    return rows, found


def compared(rows: Sequence[ResultRow], wanted: dict[str, ResultRow]) -> dict[str, Any]:
    """Return how rows differ from those of one process."""
    counts = Counter(row.path for row in rows)
    pairs = [(row, wanted[row.path]) for row in rows if row.path in wanted]
    return {
        "pictures": len(wanted), "rows": len(rows), "twice": sum(n > 1 for n in counts.values()),
        "missing": len({*wanted} - {*counts}), "unknown": len({*counts} - {*wanted}),
        "other": sum(_plain(a) != _plain(b) for a, b in pairs),
        "error rows": sum(row.status == "error" for row in rows),
        "largest difference": max(abs((a.score or 0) - (b.score or 0)) for a, b in pairs),
    }  # fmt: skip


def _plain(row: ResultRow) -> ResultRow:
    # without its time, with figures as a batch of another size rounds them
    regions = tuple(replace(r, peak=round(r.peak, 4), mean=round(r.mean, 4)) for r in row.regions)
    return replace(row, latency_ms=None, score=round(row.score or 0, 4), regions=regions)


def checks(home: Path, count: int) -> dict[str, Any]:
    """Return what an undisturbed run and one that loses a node give."""
    draw_pictures(home / "in", count, seed=0)
    paths = sorted(str(path) for path in (home / "in").rglob("*.png"))
    scorer, begin = BulkScorer("tiny", threshold=0.5, device="cpu"), time.monotonic()
    wanted = {row.path: row for row in scorer.rows(paths)}
    found: dict[str, Any] = {"one process, seconds": round(time.monotonic() - begin, 1)}
    for name, disturb in (("undisturbed", None), ("a node is killed", lose_a_node)):
        rows, seconds = score(scorer, paths, disturb)
        found[name] = compared(rows, wanted) | seconds
    return found


def poison(home: Path) -> dict[str, Any]:
    """Return what a run gives in which 3 of 300 pictures end their process and 3 fail otherwise."""
    bad = {20: ENDS, 21: ENDS, 150: RAISES, 151: OUT_OF_MEMORY, 299: ENDS}
    paths = lot(home / "poisoned", 300, bad)
    Path(paths[40]).write_bytes(b"no picture")
    scorer = PoisonedBulkScorer("red", threshold=0.5)
    ends = {paths[number] for number, kind in bad.items() if kind == ENDS}
    wanted = {row.path: row for row in scorer.rows([path for path in paths if path not in ends])}
    rows, seconds = score(scorer, paths)
    told = [row.error.removeprefix(row.path) for row in rows if row.path in ends]
    rows = [row for row in rows if row.path not in ends]
    return compared(rows, wanted) | seconds | {"pictures that end a process": told}


def memory(folder: Path, count: int) -> dict[str, Any]:
    """Return the memory of a run on a local Ray from this process, with a detector that is fast."""
    files = [StoredFile(str(path), "") for path in [*folder.rglob("*.png")][:count]]
    used: list[tuple[float, float]] = []  # MB of this process and of the object store
    over, begin = threading.Event(), time.monotonic()

    def sample() -> None:
        size = ray.cluster_resources()["object_store_memory"]
        while not over.wait(0.1):
            free = ray.available_resources()["object_store_memory"]
            held = int(Path("/proc/self/statm").read_bytes().split()[1])
            used.append((held * os.sysconf("SC_PAGE_SIZE") / 1e6, (size - free) / 1e6))

    with tempfile.TemporaryDirectory() as out, ray_rows(PoisonedBulkScorer("red")) as source:
        (sampler := threading.Thread(target=sample)).start()
        done = run_shard(source, files, open_folder(out), settings=dict)
        over.set()
        sampler.join()
    driver, store = zip(*used, strict=True)
    return {
        "rows": done.n_ok + done.n_error, "seconds": round(time.monotonic() - begin, 1),
        "driver MB, first": round(driver[0], 1), "driver MB, peak": round(max(driver), 1),
        "object store MB, peak": round(max(store), 3),
    }  # fmt: skip


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=2000, help="0: memory alone")
    parser.add_argument("--memory", type=int, nargs="*", default=[1000, 5000, 20000])
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        if asked.pictures:
            found |= checks(home, asked.pictures) | {"poisoned": poison(home)}
        draw_pictures(home / "many", max(asked.memory, default=0), seed=1)
        for count in asked.memory:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
                found[f"memory {count}"] = fresh.submit(memory, home / "many", count).result()
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
