"""Score pictures with Ray on two nodes of this machine, lose a node, and check every row.

    python scripts/prove_ray.py --pictures 2000 --memory 1000 5000 20000

Each run has a cluster of its own: a head without processors and two nodes with one each. Rows are
compared with those of one process. One run is undisturbed; in one a node is killed after a fifth
of the rows and another node joins after a half; in one some pictures end the process that scores
them, raise, or are no pictures. Then the memory of the driver and of the object store is sampled
during runs of several lengths, each in a new process. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
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

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from kill_shards import draw_pictures

from faprompt.bulk import BulkScorer, ray_rows, run_shard
from faprompt.prediction.result_rows import ResultRow
from faprompt.storage import StoredFile, open_folder
from tests.bulk.poisoned import ENDS, OUT_OF_MEMORY, RAISES, PoisonedBulkScorer, lot

os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "src")])  # of the workers
os.environ |= {"OMP_NUM_THREADS": "1", "RAY_BACKEND_LOG_LEVEL": "fatal"}

NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 2**27}


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Yield a cluster with two nodes that have one processor each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args=NODE | {"num_cpus": 0, "include_dashboard": False}
    )
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
        below = [path.read_text("utf-8").split(") ") for path in Path("/proc").glob("[0-9]*/stat")]
        ours = [name for name, rest in below if int(rest.split()[1]) == raylet.process.pid]
        return {"processes of the added node": sum("MapWorker" in name for name in ours)}
    return {}


def score(
    scorer: BulkScorer, paths: Sequence[str], disturb: Callable[..., dict[str, int]] | None = None
) -> tuple[list[ResultRow], dict[str, float]]:
    """Return the rows of a cluster in the order in which they came, and seconds."""
    rows: list[ResultRow] = []
    found: dict[str, float] = {}
    with two_nodes() as cluster:
        begin = time.monotonic()
        first_s = 0.0
        with ray_rows(scorer, address=cluster.address) as source:
            for row in source([StoredFile(path, "") for path in paths]):
                first_s = first_s or time.monotonic() - begin
                rows.append(row)
                if disturb:
                    found |= disturb(cluster, len(rows), len(paths))
            all_s = time.monotonic() - begin
    return rows, found | {"seconds to the first row": round(first_s, 1), "seconds": round(all_s, 1)}


def compared(rows: Sequence[ResultRow], wanted: dict[str, ResultRow]) -> dict[str, Any]:
    """Return how rows differ from those of one process."""
    counts = Counter(row.path for row in rows)
    pairs = [(row, wanted[row.path]) for row in rows if row.path in wanted]
    other = [a.path for a, b in pairs if _plain(a) != _plain(b)]
    return {
        "pictures": len(wanted), "rows": len(rows),
        "twice": sum(n > 1 for n in counts.values()), "missing": len({*wanted} - {*counts}),
        "unknown": len({*counts} - {*wanted}), "other": len(other), "such as": other[:3],
        "error rows": sum(row.status == "error" for row in rows),
        "largest difference of a score": max(
            (abs((a.score or 0) - (b.score or 0)) for a, b in pairs), default=None
        ),
    }  # fmt: skip


def _plain(row: ResultRow) -> ResultRow:
    """Return a row without its time, with figures as a batch of another size rounds them."""
    regions = tuple(replace(r, peak=round(r.peak, 4), mean=round(r.mean, 4)) for r in row.regions)
    score = None if row.score is None else round(row.score, 4)
    return replace(row, latency_ms=None, score=score, regions=regions)


def checks(home: Path, count: int, model: str) -> dict[str, Any]:
    """Return what an undisturbed run and one that loses a node give."""
    draw_pictures(home / "in", count, seed=0)
    paths = sorted(str(path) for path in (home / "in").rglob("*.png"))
    scorer = BulkScorer(model, threshold=0.5, device="cpu")
    begin = time.monotonic()
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
    crashed = [row for row in rows if row.path in ends]
    return compared([row for row in rows if row.path not in ends], wanted) | seconds | {
        "pictures that end a process": len(ends),
        "their rows": [f"{row.status}: {row.error.removeprefix(row.path)}" for row in crashed],
    }  # fmt: skip


def memory(folder: Path, count: int) -> dict[str, Any]:
    """Return the memory of a run with two actors of a local Ray, in this process.

    The detector takes no time, so that rows come as fast as they can.
    """
    files = [StoredFile(str(path), "") for path in sorted(folder.rglob("*.png"))[:count]]
    scorer, settings = PoisonedBulkScorer("red", threshold=0.5), {"threshold": 0.5}
    used: list[tuple[float, float]] = []  # MB of this process and of the object store
    over, begin = threading.Event(), time.monotonic()
    with tempfile.TemporaryDirectory() as out, ray_rows(scorer, actors=2) as source:
        import ray

        size = ray.cluster_resources()["object_store_memory"]

        def sample() -> None:
            while not over.wait(0.1):
                free = ray.available_resources()["object_store_memory"]
                used.append((_resident(), (size - free) / 1e6))

        sampler = threading.Thread(target=sample)
        sampler.start()
        done = run_shard(source, files, open_folder(out), settings=lambda: settings)
        over.set()
        sampler.join()
    driver, store = zip(*used, strict=True)
    return {
        "pictures": count, "rows": done.n_ok + done.n_error, "samples": len(used),
        "seconds": round(time.monotonic() - begin, 1),
        "driver MB, first": round(driver[0], 1), "driver MB, peak": round(max(driver), 1),
        "object store MB, peak": round(max(store), 3),
    }  # fmt: skip


def _resident() -> float:
    """Return the resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=2000, help="0: memory alone")
    parser.add_argument("--memory", type=int, nargs="*", default=[1000, 5000, 20000])
    parser.add_argument("--model", default="tiny")
    asked = parser.parse_args()
    found: dict[str, Any] = {"model": asked.model}
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        if asked.pictures:
            found |= checks(home, asked.pictures, asked.model) | {"poisoned": poison(home)}
        if asked.memory:
            draw_pictures(home / "many", max(asked.memory), seed=1)
        for count in asked.memory:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
                found |= {f"memory {count}": fresh.submit(memory, home / "many", count).result()}
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
