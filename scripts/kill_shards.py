"""Kill the shards of a run at random moments, run them again, and check that no row is lost.

    python scripts/kill_shards.py --pictures 20000 --shards 40 --kills 50

Two processes at a time do the shards of one run with `faprompt predict --shard`, as a scheduler
would, and are ended by SIGKILL at random moments. A shard that was killed is put back into the
queue. Then the same pictures are scored by one plain run that nobody disturbs. Rows have to be the
same, none there twice and none missing. Scores may differ in the last bits, because a matrix
product rounds otherwise for another number of pictures, and shards make other batches.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

RUN = "from faprompt.cli.main import run; run()"
ENV = {"OMP_NUM_THREADS": "1"} | os.environ
PROCESSES = 2
TOLERANCE = 1e-6  # of a score


def draw_pictures(folder: Path, count: int, seed: int) -> None:
    """Write PNG files of 64x64 pixels that all differ, in folders of a thousand; 1 % is broken."""
    draw = np.random.default_rng(seed)
    ramp = np.linspace(60, 190, 64, dtype=np.float32)
    for number in range(count):
        path = folder / f"{number // 1000:03}" / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 100 == 99:
            path.write_bytes(b"no picture %d" % number)
            continue
        image = ramp[:, None, None] + draw.normal(0, 8, (64, 64, 3))
        row, column = draw.integers(0, 48, 2)
        image[row : row + 12, column : column + 12, 0] += draw.integers(0, 120)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)


def start(home: Path, out: str, shard: str, more: list[str]) -> subprocess.Popen[bytes]:
    """Start the command line of a shard."""
    words = ["predict", str(home / "in"), "--out", str(home / out), "--shard", shard, *more]
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *words],
        env=ENV,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def killed_run(
    home: Path, shards: int, kills: int, every_s: float, seed: int, more: list[str]
) -> dict:
    """Do all shards while processes are killed; return what happened."""
    draw, queue = random.Random(seed), list(range(1, shards + 1))
    running: dict[int, subprocess.Popen[bytes]] = {}
    left: Counter[str] = Counter()
    done = 0
    next_kill = time.monotonic()
    while queue or running:
        while queue and len(running) < PROCESSES:
            shard = queue.pop(0)
            running[shard] = start(home, "killed", f"{shard}/{shards}", more)
        for shard, process in [*running.items()]:
            if process.poll() is not None:
                said = process.communicate()[1].decode()
                if process.returncode not in (0, 3):
                    raise SystemExit(f"shard {shard} ended with {process.returncode}: {said}")
                del running[shard]
        if done < kills and running and time.monotonic() >= next_kill:
            shard = draw.choice([*running])
            running[shard].kill()
            running[shard].communicate()
            if running.pop(shard).returncode < 0:
                done += 1
                left[_state(home, shard, shards)] += 1
            queue.insert(draw.randint(0, min(3, len(queue))), shard)
            next_kill = time.monotonic() + draw.uniform(0, 2 * every_s)
        time.sleep(0.005)
    return {"kills": done, "state of the shard after a kill": dict(left)}


def same(one: dict, other: dict) -> bool:
    """Whether two rows are equal, up to the rounding of a score."""
    close = abs((one["score"] or 0) - (other["score"] or 0)) <= TOLERANCE
    return close and one | {"score": None} == other | {"score": None}


def calm_run(home: Path, more: list[str]) -> None:
    """Score the same pictures by a plain run."""
    words = ["predict", str(home / "in"), "--out", str(home / "calm"), *more]
    _call(words, "the plain run")


def _state(home: Path, shard: int, shards: int) -> str:
    place = home / "killed" / f"shards/{shard:05}-of-{shards:05}"
    if (place / "done.json").exists():
        return "done"
    parts = len([*place.glob("parts/part-*")])
    return f"{min(parts, 2)}{' or more' if parts >= 2 else ''} parts" if parts else "no part"


def merge(home: Path) -> None:
    """Merge the shards."""
    _call(["merge", str(home / "killed")], "merge")


def rows_in(folder: Path) -> list[dict]:
    """Return the rows of a run without times, by path."""
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) | {"latency_ms": None} for line in lines]
    return sorted(rows, key=lambda row: row["path"])


def _call(words: list[str], what: str) -> None:
    done = subprocess.run([sys.executable, "-c", RUN, *words], env=ENV, capture_output=True)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{what} ended with {done.returncode}: {done.stderr.decode()}")


def run(
    home: Path, pictures: int, shards: int, kills: int, every_s: float, seed: int, more: list[str]
) -> dict:
    """Return what was found, with the list of faults (empty: none)."""
    draw_pictures(home / "in", pictures, seed)
    begin = time.monotonic()
    found = killed_run(home, shards, kills, every_s, seed, [*more, "--part-rows", "50"])
    merge(home)
    killed_s, begin = time.monotonic() - begin, time.monotonic()
    calm_run(home, more)
    calm_s = time.monotonic() - begin
    rows, wanted = rows_in(home / "killed"), rows_in(home / "calm")
    faults = []
    twice = [path for path, n in Counter(row["path"] for row in rows).items() if n > 1]
    if twice:
        faults.append(f"{len(twice)} pictures have two rows, such as {twice[0]}")
    missing = {str(p) for p in (home / "in").rglob("*.png")} - {row["path"] for row in rows}
    if missing:
        faults.append(f"{len(missing)} pictures have no row, such as {min(missing)}")
    pairs = [*zip(rows, wanted, strict=False)]
    other = sum(not same(a, b) for a, b in pairs)
    if other or len(rows) != len(wanted):
        faults.append(f"{other} of {len(rows)} rows differ from the {len(wanted)} of a plain run")
    errors = sum(row["status"] == "error" for row in rows)
    if errors != pictures // 100:
        faults.append(f"{errors} error rows, and {pictures // 100} broken files")
    litter = [p.name for p in (home / "killed").rglob(".*.tmp")]
    return found | {
        "pictures": pictures, "shards": shards, "error rows": errors,
        "seconds with kills": round(killed_s), "seconds of the plain run": round(calm_s),
        "rows equal to the bit": sum(a == b for a, b in pairs),
        "largest difference of a score": max(
            abs((a["score"] or 0) - (b["score"] or 0)) for a, b in pairs
        ),
        "half-written files left": len(litter), "faults": faults,
    }  # fmt: skip


def main() -> int:
    """Print what was found; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--every", type=float, default=8, help="mean seconds between kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="tiny")
    asked = parser.parse_args()
    more = ["--model", asked.model, "--no-overlays", "--no-report"]
    with tempfile.TemporaryDirectory() as home:
        found = run(
            Path(home), asked.pictures, asked.shards, asked.kills, asked.every, asked.seed, more
        )
    print(json.dumps({"model": asked.model} | found, indent=2))
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
