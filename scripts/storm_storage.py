"""Score pictures from and to an object storage whose answers fail, and check every byte.

    python scripts/storm_storage.py --pictures 2000 --share 0.2

A real S3 server runs on the loopback address. A share of its answers is a 503, a body that is cut
off, a connection that is lost after the request was done, or is slow. `faprompt predict --shard`
reads from a bucket and writes to it, in two processes at one time; `faprompt merge` joins the
shards. Then local copies of the pictures are scored without faults. Rows, overlays and maps have
to be the same, and there must be no file more or less. Prints JSON, also how fast the pictures
are read from the server and from local files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from kill_shards import draw_pictures

from faprompt.imaging import MAX_PIXELS
from faprompt.prediction.input_paths import list_inputs
from faprompt.prediction.picture_fetching import READERS, fetch_ahead
from faprompt.storage import OutputFolder, open_folder
from tests.helpers.object_storage import BUCKET, Faults, object_storage

# The command line with a count of the pauses of `repeat`, one before each repeated request.
RUN = """import time, sys
from faprompt import storage_requests
class Counting:
    monotonic, pauses = time.monotonic, 0
    def sleep(seconds):
        Counting.pauses += 1
        time.sleep(seconds)
storage_requests.time = Counting
from faprompt.cli.main import run
try:
    run()
finally:
    print("repeated:", Counting.pauses, file=sys.stderr)"""
KINDS = {"slow_down": 0.45, "cut": 0.25, "lost": 0.25, "slow": 0.05}  # shares of the faults
INPUTS = f"s3://{BUCKET}/in"
ARTIFACTS = ("maps", "overlays", "thumbs")


def score(inputs: str, out: str, shards: int, more: list[str]) -> int:
    """Do all shards, two at one time, and merge them; return how often requests were repeated."""

    def one(shard: int) -> int:
        return call("predict", inputs, "--out", out, "--shard", f"{shard}/{shards}", *more)

    with ThreadPoolExecutor(2) as pool:
        repeats = sum(pool.map(one, range(1, shards + 1)))
    return repeats + call("merge", out)


def call(*words: str) -> int:
    """Run the command line; return how often it repeated a request."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words],
        env={"OMP_NUM_THREADS": "1"} | os.environ,
        capture_output=True,
        text=True,
    )
    if done.returncode not in (0, 3):
        raise SystemExit(f"{words} ended with {done.returncode}: {done.stderr[-2000:]}")
    return int(done.stderr.rpartition("repeated: ")[2])


def upload(local: Path) -> None:
    """Copy the pictures into the bucket."""
    bucket = open_folder(INPUTS)
    with ThreadPoolExecutor(8) as pool:
        paths = [path for path in local.rglob("*") if path.is_file()]
        names = (path.relative_to(local).as_posix() for path in paths)
        list(pool.map(bucket.write, names, (path.read_bytes() for path in paths)))


def rows_of(out: OutputFolder) -> dict[str, dict]:
    """Return the rows of a merged run by the path below the inputs; a path is there once."""
    rows = {}
    for line in out.read("results.jsonl").splitlines():
        row = json.loads(line) | {"latency_ms": None}
        name = row["path"].partition("/in/")[2]
        if name in rows:
            raise SystemExit(f"{name} has two rows")
        rows[name] = row | {"path": name, "error": row["error"] and "unreadable"}
    return rows


def differences(storm: OutputFolder, calm: OutputFolder, shards: int) -> list[str]:
    """Return what differs between two runs, by row and by file."""
    ours, wanted = rows_of(storm), rows_of(calm)
    found = [
        f"row of {name}" for name in {*ours, *wanted} if _plain(ours, name) != _plain(wanted, name)
    ]
    pairs = [
        (ours[name][kind], wanted[name][kind])
        for name in {*ours} & {*wanted}
        for kind in ("map", "overlay")
        if ours[name][kind]
    ]
    with ThreadPoolExecutor(8) as pool:
        same = pool.map(lambda pair: storm.read(pair[0]) == calm.read(pair[1]), pairs)
        found += [f"file {pair[0]}" for pair, equal in zip(pairs, same, strict=True) if not equal]
    for kind in ARTIFACTS:
        counts = [
            sum(
                len(out.names(f"shards/{index:05}-of-{shards:05}/{kind}"))
                for index in range(1, shards + 1)
            )
            for out in (storm, calm)
        ]
        if counts[0] != counts[1]:
            found.append(f"{counts[0]} {kind} in place of {counts[1]}")
    return found


def _plain(rows: dict[str, dict], name: str) -> dict | None:
    row = rows.get(name)
    return row and row | {kind: row[kind] is not None for kind in ("map", "overlay")}


def reading_rate(inputs: str) -> tuple[float, float]:
    """Read all pictures as a run does; return pictures and MB in a second."""
    files = list(list_inputs([inputs]))
    begin = time.perf_counter()
    if "://" in inputs:
        limits = {"readers": READERS, "held_bytes": 2**27, "max_pixels": MAX_PIXELS}
        sizes = [len(found.content) for found in fetch_ahead(files, **limits)]
    else:
        sizes = [len(Path(file.path).read_bytes()) for file in files]
    seconds = time.perf_counter() - begin
    return len(sizes) / seconds, sum(sizes) / seconds / 1e6


def run(
    home: Path, faults: Faults, pictures: int, shards: int, share: float, more: list[str]
) -> dict:
    """Return what was found."""
    draw_pictures(home / "in", pictures, seed=0)
    upload(home / "in")
    rates = {
        name: reading_rate(place)
        for name, place in (("server", INPUTS), ("local", str(home / "in")))
    }
    storm, calm = f"s3://{BUCKET}/out", str(home / "calm")
    faults.set(**{kind: share * part for kind, part in KINDS.items()})
    begin = time.monotonic()
    repeats = score(INPUTS, storm, shards, more)
    seconds, requests, injected = time.monotonic() - begin, faults.requests, faults.injected
    faults.set()
    begin = time.monotonic()
    score(str(home / "in"), calm, shards, more)
    calm_seconds = time.monotonic() - begin
    rows = rows_of(open_folder(storm))
    return {
        "pictures": pictures, "shards": shards,
        "requests": dict(requests), "faults": dict(injected),
        "repeats by faprompt": repeats,
        "rows": len(rows), "error rows": sum(row["status"] == "error" for row in rows.values()),
        "seconds in the storm": round(seconds),
        "seconds of the calm local run": round(calm_seconds),
        "pictures read in a second": {name: round(rate[0]) for name, rate in rates.items()},
        "MB read in a second": {name: round(rate[1], 1) for name, rate in rates.items()},
        "differences": differences(open_folder(storm), open_folder(calm), shards),
    }  # fmt: skip


def main() -> int:
    """Print what was found; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--share", type=float, default=0.2, help="of answers that are faulty")
    parser.add_argument("--model", default="tiny")
    asked = parser.parse_args()
    more = ["--model", asked.model, "--maps", "png", "--threshold", "0.5"]
    more += ["--batch-size", "1"]  # a shard of other paths has other batches, which round otherwise
    with tempfile.TemporaryDirectory() as home, object_storage() as faults:
        found = run(Path(home), faults, asked.pictures, asked.shards, asked.share, more)
    print(json.dumps({"model": asked.model, "share of faults": asked.share} | found, indent=2))
    return 1 if found["differences"] or found["rows"] != asked.pictures else 0


if __name__ == "__main__":
    sys.exit(main())
