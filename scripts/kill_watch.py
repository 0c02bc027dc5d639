"""Kill a watch at random moments, start it again, and check that nothing is lost or done twice.

    python scripts/kill_watch.py --runs 200

Pictures are written in pieces or renamed into a folder while a watch judges them, moves them and
sends them to a receiver that fails now and then. The watch is ended by SIGKILL, at a random moment
from its start on, and started again. After the last start everything has to be there: one row for
each picture, one file for each picture, and each row at the receiver, signed, with one key.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import multiprocessing
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from faprompt.watching import WatchOptions, Webhook, sign, watch_folder  # noqa: E402
from tests.prediction.fakes import RedScorer  # noqa: E402

SECRET = b"only-for-this-script"
PROCESSES = multiprocessing.get_context("forkserver")  # imports once, then starts at once
PROCESSES.set_forkserver_preload(["faprompt.watching", "tests.prediction.fakes"])


class SlowScorer(RedScorer):
    """Takes some milliseconds, so that a kill meets every step."""

    def predict_batch(self, images, **keywords):
        time.sleep(0.005 * len(images))
        return super().predict_batch(images, **keywords)


class Receiver:
    """Takes deliveries, checks them, and fails at a given share of them."""

    def __init__(self, failing: float, seed: int) -> None:
        self.bodies: dict[str, set[bytes]] = {}
        self.taken, self.failed, self.forged = Counter(), 0, 0
        self._failing, self._draw, self._lock = failing, random.Random(seed), threading.Lock()

    def take(self, headers, body: bytes) -> int:
        """Return the status of the answer; a delivery may be kept though the answer is 500."""
        key, timestamp = headers["webhook-id"], int(headers["webhook-timestamp"])
        signature = sign(SECRET, key, timestamp, body)
        with self._lock:
            if not hmac.compare_digest(signature, headers["webhook-signature"]):
                self.forged += 1
                return 401
            fails, keeps = self._draw.random() < self._failing, self._draw.random() < 0.5
            if not fails or keeps:
                self.bodies.setdefault(key, set()).add(body)
                self.taken[key] += 1
            self.failed += fails
            return 500 if fails else 204

    @contextmanager
    def serving(self):
        """Yield the address."""
        take = self.take

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(take(self.headers, body))
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            server.server_close()


def watch(home: Path, url: str, stop) -> None:
    """Run one watch in this process."""
    options = WatchOptions(interval_s=0.05, patience_s=0.2, move=True, threshold=0.5, batch_size=2)
    webhook = Webhook(url, SECRET, timeout_s=2)
    watch_folder(SlowScorer(), home / "in", home / "out", options, stop=stop, webhook=webhook)


def add_picture(home: Path, number: int, draw: random.Random) -> str:
    """Put one picture, or a file that is none, into the folder; return the digest."""
    path = home / "in" / f"line-{number % 3}" / f"{number}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.with_name(f".{path.name}")
    image = np.full((16, 24, 3), 20, np.uint8)
    image[4:9, 4:9, 0] = draw.randrange(256)
    image[0, 0] = number % 251, number // 251 % 251, 7
    Image.fromarray(image).save(hidden, format="PNG")
    content = hidden.read_bytes() if number % 10 else b"no picture %d" % number
    if draw.random() < 0.5:
        hidden.write_bytes(content)
        hidden.rename(path)
    else:
        hidden.unlink()
        half = len(content) // 2
        with path.open("wb") as stream:
            stream.write(content[:half])
            stream.flush()
            time.sleep(draw.uniform(0, 0.03))
            stream.write(content[half:])
    return hashlib.sha256(content).hexdigest()


def left_undone(out: Path) -> list[str]:
    """Say which steps a kill has left undone, for the summary."""
    with sqlite3.connect(out / "watch.sqlite") as base:
        end, moves, due = base.execute(
            "SELECT coalesce(max(line_end), 0), coalesce(sum(to_move), 0), count(due) FROM judged"
        ).fetchone()
    base.close()
    results = out / "results.jsonl"
    length = results.stat().st_size if results.exists() else 0
    steps = {"results.jsonl": length < end, "move": moves > 0, "delivery": due > 0}
    return [step for step, undone in steps.items() if undone]


def run(home: Path, kills: int, seed: int, *, failing: float = 0.1) -> dict:
    """Kill and restart; return what was found, with the list of faults (empty: none)."""
    draw, receiver, made = random.Random(seed), Receiver(failing, seed), {}
    (home / "in").mkdir(parents=True)
    undone: Counter[str] = Counter()
    imports = PROCESSES.Process(target=time.sleep, args=(0,))
    imports.start()
    imports.join()
    with receiver.serving() as url:
        for _ in range(kills):
            stop = PROCESSES.Event()
            process = PROCESSES.Process(target=watch, args=(home, url, stop))
            process.start()
            for _ in range(draw.randint(1, 4)):
                number = len(made)
                made[number] = add_picture(home, number, draw)
            time.sleep(draw.uniform(0, 0.6))
            process.kill()
            process.join()
            if (home / "out" / "watch.sqlite").exists():
                undone.update(left_undone(home / "out") or ["nothing"])
        stop = PROCESSES.Event()
        process = PROCESSES.Process(target=watch, args=(home, url, stop))
        process.start()
        ended = _wait(home / "out", len(made), limit_s=60 + kills)
        stop.set()
        process.join(30)
    faults = [] if ended else ["the last watch did not finish its work in time"]
    if process.exitcode != 0:
        faults.append(f"the last watch ended with {process.exitcode}")
        process.kill()
    faults += _faults(home, made, receiver)
    return {
        "kills": kills, "pictures": len(made), "left undone by kills": dict(undone),
        "answers 500": receiver.failed, "faults": faults,
        "deliveries repeated": sum(n - 1 for n in receiver.taken.values()),
    }  # fmt: skip


def _wait(out: Path, count: int, *, limit_s: float) -> bool:
    """Wait until all pictures are judged, moved and delivered; False after the limit."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        time.sleep(0.2)
        if (out / "watch.sqlite").exists():
            base = sqlite3.connect(out / "watch.sqlite", timeout=30)
            found = base.execute("SELECT count(*), count(due), sum(to_move) FROM judged").fetchone()
            base.close()
            if found == (count, 0, 0) and not left_undone(out):
                return True
    return False


def _faults(home: Path, made: dict[int, str], receiver: Receiver) -> list[str]:
    """Compare everything with everything."""
    out, faults = home / "out", []
    text = (out / "results.jsonl").read_bytes()
    base = sqlite3.connect(out / "watch.sqlite")
    stored = base.execute("SELECT line, key FROM judged ORDER BY sequence").fetchall()
    if base.execute("PRAGMA integrity_check").fetchone() != ("ok",):
        faults.append("the database is damaged")
    base.close()
    if b"".join(line for line, _ in stored) != text:
        faults.append("results.jsonl differs from the ledger")
    rows = [json.loads(line) for line in text.splitlines()]
    judged = Counter(int(Path(row["path"]).stem) for row in rows)
    if judged != Counter(made.keys()):
        faults.append(f"rows: {judged - Counter(made.keys())} too many, "
                      f"{Counter(made.keys()) - judged} missing")  # fmt: skip
    errors = {int(Path(row["path"]).stem) for row in rows if row["status"] == "error"}
    if errors != {number for number in made if number % 10 == 0}:
        faults.append(f"error rows: {sorted(errors)}")
    places = Counter(hashlib.sha256(p.read_bytes()).hexdigest()
                     for top in ("in", "out/OK", "out/REVIEW", "out/NG")
                     for p in (home / top).rglob("*.png"))  # fmt: skip
    if places != Counter(made.values()):
        faults.append("pictures were lost, copied or changed")
    for row in rows:
        if row["status"] == "ok":
            where = out / row["verdict"] / Path(row["path"]).relative_to(home / "in")
            if not where.is_file() or not (out / row["overlay"]).is_file():
                faults.append(f"{row['path']}: it is not moved, or has no overlay")
    sent = {key: {json.dumps({"id": key, "result": json.loads(line)}).encode()}
            for line, key in stored}  # fmt: skip
    if receiver.bodies != sent:
        faults.append(f"the receiver has {len(receiver.bodies)} rows, or other ones")
    if receiver.forged:
        faults.append(f"{receiver.forged} signatures were wrong")
    return faults


def main() -> int:
    """Print what was found; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=200, help="kills")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        found = run(Path(home), asked.runs, asked.seed)
    print(json.dumps(found, indent=2))
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
