"""Load on `faprompt serve`: closed loops, overload, and the bare loop over `predict` beside it.

    python -m benchmarks.service --models tiny small --seconds 20 --overload-seconds 600

The service runs in a process of its own; bare loop and service take turns, so that other load on
the machine meets both. Overhead is given by time and by processor time: the second hardly depends
on what else runs. Rows go to `benchmarks/results/service.csv`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common import append_csv, machine_record

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "service.csv"
PICTURES = ROOT / "examples" / "pictures"
CLIENTS = (1, 4, 16, 64)
OVERLOAD = 10  # times the highest throughput
TIME_LIMIT_S = 30
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Tally:
    """What clients saw; filled by several threads."""

    seconds: list[float] = field(default_factory=list)  # of answers 200
    refused: list[float] = field(default_factory=list)  # of answers 503
    statuses: Counter[int] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)  # requests without an answer

    def ask(self, connection: http.client.HTTPConnection, content: bytes) -> None:
        begin = time.perf_counter()
        try:
            connection.request("POST", "/v1/predict", content, {"content-type": "image/jpeg"})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.lost[type(error).__name__] += 1
            connection.close()
            return
        took = time.perf_counter() - begin
        self.statuses[answer.status] += 1
        (self.seconds if answer.status == 200 else self.refused).append(took)

    def quantile(self, share: float) -> float:
        """Return a quantile of the latency of answers 200, in ms."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


class Service:
    """The service as a process."""

    def __init__(self, model: str) -> None:
        command = [sys.executable, "-m", "faprompt", "serve", model, "--port", "0",
                   "--no-access-log", "--timeout", str(TIME_LIMIT_S)]  # fmt: skip
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.match(r"serving .*:(\d+)$", line):
                self.port = int(found[1])
                break
        else:
            raise SystemExit("the service did not start")

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=2 * TIME_LIMIT_S)

    def memory_mib(self) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]

    def processor_seconds(self) -> float:
        values = (
            Path(f"/proc/{self.process.pid}/stat")
            .read_text(encoding="utf-8")
            .rpartition(")")[2]
            .split()
        )
        return (int(values[11]) + int(values[12])) / _TICKS

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


def closed_loop(service: Service, contents: list[bytes], clients: int, seconds: float) -> Tally:
    """Let clients ask one picture after the other for some time."""
    tally, end = Tally(), time.perf_counter() + seconds

    def run(number: int) -> None:
        connection, turn = service.connect(), number
        while time.perf_counter() < end:
            tally.ask(connection, contents[turn % len(contents)])
            turn += 1
        connection.close()

    _in_threads(run, clients)
    return tally


def paced(service: Service, contents: list[bytes], rate: float, seconds: float) -> Tally:
    """Send `rate` requests a second, whatever the answers are."""
    tally, begin = Tally(), time.perf_counter()
    clients = min(240, max(8, round(rate)))

    def run(number: int) -> None:
        connection = service.connect()
        for turn in range(int(seconds * rate / clients)):
            due = begin + (turn + number / clients) * clients / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            if time.perf_counter() > begin + seconds:
                break
            tally.ask(connection, contents[(turn + number) % len(contents)])
        connection.close()

    _in_threads(run, clients)
    return tally


def _in_threads(run, count: int) -> None:
    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextlib.contextmanager
def watched_memory(service: Service) -> Iterator[list[float]]:
    """Note the memory of a service once a second."""
    noted, stop = [service.memory_mib()], threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            noted.append(service.memory_mib())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield noted
    finally:
        stop.set()
        thread.join()


def bare_loop(detector, files: list[Path], seconds: float) -> tuple[float, float]:
    """Return pictures a second, and processor seconds a picture, of a loop over `predict`."""
    begin, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() < begin + seconds:
        detector.predict(files[count % len(files)])
        count += 1
    return count / (time.perf_counter() - begin), (time.process_time() - cpu) / count


def measure(model: str, seconds: float, overload_seconds: float, rounds: int) -> None:
    import faprompt

    files = sorted(PICTURES.glob("*.jpg"))
    contents = [file.read_bytes() for file in files]
    detector = faprompt.load_detector(model)
    bare_loop(detector, files, 2)
    service = Service(model)
    closed_loop(service, contents, 4, 2)
    rates: list[float] = []
    for clients in CLIENTS:
        bare, found = [], []
        for _ in range(rounds):
            bare.append(bare_loop(detector, files, seconds / rounds / 2))
            cpu, begin = service.processor_seconds(), time.perf_counter()
            tally = closed_loop(service, contents, clients, seconds / rounds)
            took = time.perf_counter() - begin
            count = len(tally.seconds)
            found.append((count / took, (service.processor_seconds() - cpu) / count, tally))
        rate, cpu_each = (statistics.median(each[i] for each in found) for i in (0, 1))
        bare_rate, bare_cpu = (statistics.median(each[i] for each in bare) for i in (0, 1))
        together = Tally(seconds=[s for *_, tally in found for s in tally.seconds])
        rates.append(rate)
        _note(
            model, "closed", clients=clients, rate=f"{rate:.1f}", bare_rate=f"{bare_rate:.1f}",
            time_overhead=f"{bare_rate / rate - 1:.3f}",
            cpu_overhead=f"{cpu_each / bare_cpu - 1:.3f}", cpu_ms=f"{1000 * cpu_each:.1f}",
            p50_ms=f"{together.quantile(0.5):.0f}", p95_ms=f"{together.quantile(0.95):.0f}",
            p99_ms=f"{together.quantile(0.99):.0f}", memory_mib=f"{service.memory_mib():.0f}",
            other=str(dict(sum((t.statuses for *_, t in found), Counter()))),
        )  # fmt: skip
    if overload_seconds:
        overload(model, service, contents, OVERLOAD * max(rates), overload_seconds)
    status = service.stop()
    print(f"{model}: the service ended with status {status}")


def overload(
    model: str, service: Service, contents: list[bytes], rate: float, seconds: float
) -> None:
    before = closed_loop(service, contents, 1, 5)
    with watched_memory(service) as memory:
        tally = paced(service, contents, rate, seconds)
    after = closed_loop(service, contents, 1, 5)
    fifth = max(1, len(memory) // 5)
    _note(
        model, "overload", seconds=seconds, rate=f"{rate:.0f}",
        statuses=str(dict(tally.statuses)), lost=str(dict(tally.lost)),
        slowest_s=f"{max(tally.seconds + tally.refused, default=0):.2f}",
        p50_ms=f"{tally.quantile(0.5):.0f}", p99_ms=f"{tally.quantile(0.99):.0f}",
        memory_second_fifth=f"{statistics.mean(memory[fifth : 2 * fifth]):.0f}",
        memory_last_fifth=f"{statistics.mean(memory[-fifth:]):.0f}",
        before_p50_ms=f"{before.quantile(0.5):.0f}", after_p50_ms=f"{after.quantile(0.5):.0f}",
    )  # fmt: skip


def _note(model: str, kind: str, **values: object) -> None:
    print(model, kind, *(f"{name}={value}" for name, value in values.items()), flush=True)
    append_csv(RESULTS, machine_record() | {"model": model, "kind": kind} | values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--models", nargs="+", default=["tiny", "small"])
    parser.add_argument("--seconds", type=float, default=20, help="of each closed loop")
    parser.add_argument("--rounds", type=int, default=3, help="turns of bare loop and service")
    parser.add_argument("--overload-seconds", type=float, default=600, help="0: no overload")
    asked = parser.parse_args()
    for model in asked.models:
        measure(model, asked.seconds, asked.overload_seconds, asked.rounds)


if __name__ == "__main__":
    main()
