"""The whole watch with a detector that needs no model."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from faprompt import storage
from faprompt.errors import ConfigError, FolderInUseError
from faprompt.watching import WatchOptions, Webhook, watch_folder
from faprompt.watching.watch_ledger import LEDGER_NAME, WatchLedger
from faprompt.work import lock_folder
from tests.prediction.fakes import RedScorer, part, predict, rows_of
from tests.watching.receiver import Receiver
from tests.watching.test_delivery_queue import wait_for

KILL = Path(__file__).resolve().parents[2] / "scripts" / "kill_watch.py"
QUICK = {"interval_s": 0.05, "patience_s": 0.1, "threshold": 0.5}


class Running:
    """A watch in a thread; leaving the context ends it."""

    def __init__(self, home, *, scorer=None, webhook=None, **options) -> None:
        self.stop, self.rows, self.error = threading.Event(), [], None
        self.home, self.options = home, WatchOptions(**QUICK | options)
        self._rest = {"webhook": webhook, "on_result": self.rows.append, "stop": self.stop}
        self._thread = threading.Thread(target=self._run, args=(scorer or RedScorer(),))

    def _run(self, scorer) -> None:
        watch_folder(scorer, self.home / "in", self.home / "out", self.options, **self._rest)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def wait(self, count: int) -> None:
        wait_for(lambda: len(self.rows) >= count)


@pytest.fixture
def home(tmp_path):
    (tmp_path / "in").mkdir()
    return tmp_path


def test_rows_and_overlays_are_those_of_predict(home):
    paths = [part(home / "in" / f"{n}.png", 60 * n) for n in range(5)]
    with Running(home) as watch:
        watch.wait(5)
    predict(RedScorer(), sorted(map(str, paths)), out_dir=home / "whole", threshold=0.5)
    wanted = {row.path: row for row in rows_of(home / "whole")}
    for row in rows_of(home / "out"):
        other = wanted.pop(row.path)
        ours, theirs = row.to_dict(), other.to_dict()
        overlays = ours.pop("overlay"), theirs.pop("overlay")
        ours.pop("latency_ms"), theirs.pop("latency_ms")
        assert ours == theirs
        pictures = [home / "out" / overlays[0], home / "whole" / overlays[1]]
        assert pictures[0].read_bytes() == pictures[1].read_bytes()
    assert not wanted and len(watch.rows) == 5
    settings = json.loads((home / "out" / "run.json").read_text())
    assert settings == json.loads((home / "whole" / "run.json").read_text())


def test_a_restart_judges_nothing_twice_and_a_change_again(home):
    path = part(home / "in" / "a.png", 250)
    with Running(home) as watch:
        watch.wait(1)
    part(home / "in" / "b.png", 0)
    with Running(home) as watch:
        watch.wait(1)
        part(path, 0, size=(14, 22))
        watch.wait(2)
    rows = rows_of(home / "out")
    assert [(Path(row.path).name, row.verdict) for row in rows] == [
        ("a.png", "NG"), ("b.png", "OK"), ("a.png", "OK")
    ]  # fmt: skip
    first, _, second = (Image.open(home / "out" / row.overlay).size for row in rows)
    assert first == (20, 12) and second == (22, 14)  # both are kept


def test_a_file_that_cannot_be_read_is_one_error(home):
    (home / "in" / "broken.png").write_bytes(b"nothing")
    (home / "in" / "empty.png").touch()
    with Running(home) as watch:
        watch.wait(2)
        part(home / "in" / "good.png", 0)
        watch.wait(3)
    with Running(home) as again:
        part(home / "in" / "last.png", 0)
        again.wait(1)
    found = Counter((Path(row.path).name, row.status) for row in rows_of(home / "out"))
    assert found == {("broken.png", "error"): 1, ("empty.png", "error"): 1,
                     ("good.png", "ok"): 1, ("last.png", "ok"): 1}  # fmt: skip


def test_a_slow_writer_gets_time(home):
    """A file that pauses between two halves is no error while it may still be completed."""
    whole = part(home / "whole.png", 250).read_bytes()
    path = home / "in" / "slow.png"
    path.write_bytes(whole[:40])
    looked = []
    scorer = RedScorer()
    scorer.setup.reading()
    with Running(home, scorer=scorer, patience_s=30) as watch:
        part(home / "in" / "other.png", 0)
        watch.wait(1)
        looked.append(len(watch.rows))
        path.write_bytes(whole)
        watch.wait(2)
    assert looked == [1]
    assert [row.status for row in rows_of(home / "out")] == ["ok", "ok"]


def test_judged_pictures_are_moved_and_unreadable_ones_stay(home):
    part(home / "in" / "gear" / "bad.png", 250)
    part(home / "in" / "good.png", 0)
    (home / "in" / "broken.png").write_bytes(b"nothing")
    with Running(home, move=True) as watch:
        watch.wait(3)
    left = sorted(str(p.relative_to(home)) for p in home.rglob("*.png"))
    assert left == ["in/broken.png", "out/NG/gear/bad.png", "out/OK/good.png"]


def test_the_output_may_lie_in_the_watched_folder(home):
    part(home / "in" / "a.png", 250)
    stop, rows = threading.Event(), []

    def first(row) -> None:
        rows.append(row)
        part(home / "in" / "b.png", 0)
        if len(rows) == 2:
            stop.set()

    options = WatchOptions(**QUICK, move=True)
    judged = watch_folder(RedScorer(), home / "in", home / "in" / "out", options, stop=stop,
                          on_result=first)  # fmt: skip
    assert judged == 2 and [Path(row.path).name for row in rows] == ["a.png", "b.png"]


def test_a_webhook_gets_each_row_also_after_a_restart(home):
    part(home / "in" / "a.png", 250)
    dead = Webhook("http://127.0.0.1:9/", b"0123456789abcdef", timeout_s=0.2)
    with Running(home, webhook=dead) as watch:
        watch.wait(1)
    with Receiver().serving() as receiver:
        webhook = Webhook(receiver.url, b"0123456789abcdef")
        with Running(home, webhook=webhook) as watch:
            part(home / "in" / "b.png", 0)
            wait_for(lambda: len(receiver.got) == 2)
    bodies = [json.loads(body) for _, body in receiver.got]
    lines = (home / "out" / "results.jsonl").read_text().splitlines()
    assert [body["result"] for body in bodies] == [json.loads(line) for line in lines]


class Full:
    """Lets writing fail as on a full disk, until it is mended."""

    def __init__(self, real) -> None:
        self.real, self.full, self.refused = real, True, 0

    def __call__(self, *arguments, **keywords):
        if self.full:
            self.refused += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.real(*arguments, **keywords)


@pytest.mark.parametrize("what", ["overlay", "ledger", "results"])
def test_a_full_disk_is_waited_for(home, monkeypatch, caplog, what):
    place, name = {
        "overlay": (storage, "write_atomically"),
        "ledger": (WatchLedger, "record"),
        "results": (WatchLedger, "complete_results"),
    }[what]
    for number in range(3):
        part(home / "in" / f"{number}.png", 60 * number)
    disk = Full(getattr(place, name))
    if what == "results":  # the start needs it once
        disk.full = False
    monkeypatch.setattr(place, name, lambda *a, **k: disk(*a, **k))
    with caplog.at_level("INFO", logger="faprompt"), Running(home) as watch:
        wait_for(lambda: (home / "out" / "run.json").exists())
        if what == "results":
            disk.full = True
        wait_for(lambda: disk.refused >= 2)
        disk.full = False
        wait_for(lambda: "the watch goes on" in caplog.text)
        watch.wait(3)
    assert caplog.text.count("No space left on device") == 1
    assert sorted(Path(row.path).name for row in rows_of(home / "out")) == [
        "0.png", "1.png", "2.png"
    ]  # fmt: skip


def test_a_share_that_is_gone_is_waited_for(home, caplog):
    part(home / "in" / "a.png", 0)
    with caplog.at_level("INFO", logger="faprompt"), Running(home) as watch:
        watch.wait(1)
        (home / "in").rename(home / "away")
        wait_for(lambda: "the watch waits" in caplog.text)
        (home / "away").rename(home / "in")
        part(home / "in" / "b.png", 0)
        watch.wait(2)
    assert len(rows_of(home / "out")) == 2


class Fragile(RedScorer):
    """Fails at a red of 123."""

    def _predict(self, image, threshold):
        if image.max() == 123:
            raise RuntimeError("the model failed")
        return super()._predict(image, threshold)


def test_a_picture_that_makes_the_detector_fail_affects_no_other(home):
    for number, red in enumerate((0, 123, 250)):
        part(home / "in" / f"{number}.png", red)
    with Running(home, scorer=Fragile()) as watch:
        watch.wait(3)
    rows = {Path(row.path).name: row for row in rows_of(home / "out")}
    assert [rows[f"{n}.png"].status for n in range(3)] == ["ok", "error", "ok"]
    assert "the model failed" in rows["1.png"].error


class Replacing(RedScorer):
    """Writes a new picture over the one that is being scored, once."""

    path: Path | None = None

    def predict_batch(self, images, **keywords):
        if self.path is not None:
            part(self.path, 250, size=(30, 40))
            self.path = None
        return super().predict_batch(images, **keywords)


def test_a_picture_that_changes_while_it_is_scored_gets_no_verdict_of_its_old_content(home):
    scorer = Replacing()
    scorer.path = part(home / "in" / "a.png", 0)
    with Running(home, scorer=scorer) as watch:
        watch.wait(1)
    (row,) = rows_of(home / "out")
    assert (row.verdict, row.height, row.width) == ("NG", 30, 40)


def test_refusals(home):
    def start(scorer=None, source="in", out="out", **options):
        options = WatchOptions(**QUICK | options)
        stop = threading.Event()
        stop.set()
        watch_folder(scorer or RedScorer(), home / source, home / out, options, stop=stop)

    with pytest.raises(ConfigError, match="is no folder"):
        start(source="none")
    with pytest.raises(ConfigError, match="would hold the results"):
        start(out="in")
    (home / "all" / "NG").mkdir(parents=True)
    with pytest.raises(ConfigError, match="would hold the results"):
        start(source="all/NG", out="all")
    with pytest.raises(ConfigError, match="--move needs verdicts"):
        start(move=True, threshold=None)
    with lock_folder(home / "out"), pytest.raises(FolderInUseError):
        start()
    start()
    with pytest.raises(ConfigError, match="threshold was 0.5 and is 0.6. Choose another output"):
        start(threshold=0.6)
    with pytest.raises(ConfigError, match="model was 'red' and is 'blue'"):
        start(RedScorer("blue"))
    predict(RedScorer(), [part(home / "one" / "a.png", 0)], out_dir=home / "taken")
    with pytest.raises(ConfigError, match="results of another run"):
        start(out="taken")
    assert not (home / "taken" / LEDGER_NAME).exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("interval_s", 0), ("interval_s", float("nan")), ("patience_s", -1), ("batch_size", 0),
     ("threshold", 2.0), ("max_pixels", 0), ("bit_depth", 33)],
)  # fmt: skip
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=option):
        WatchOptions(**{option: value})


def test_kills_lose_nothing(tmp_path):
    """A short form of scripts/kill_watch.py."""
    command = [sys.executable, KILL, "--runs", "4", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = json.loads(done.stdout)
    assert (done.returncode, found["faults"], found["kills"]) == (0, [], 4), done.stderr
    assert found["pictures"] >= 4
