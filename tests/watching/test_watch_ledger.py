"""The database, and results.jsonl as its copy."""

from __future__ import annotations

import os
import sqlite3

import pytest

from faprompt.errors import ConfigError
from faprompt.prediction import ResultRow, read_rows
from faprompt.watching.watch_ledger import LEDGER_NAME, Identity, WatchLedger


@pytest.fixture
def ledger(tmp_path):
    ledger = WatchLedger(tmp_path)
    yield ledger
    ledger.close()


def add(ledger: WatchLedger, number: int, *, move=False, due=None) -> bool:
    row = ResultRow(f"in/{number}.png", "red", score=0.25, verdict="OK")
    return ledger.record(Identity(f"/in/{number}.png", 10, number), row, move=move, due=due)


def test_a_content_is_recorded_once(ledger):
    assert add(ledger, 1) and not add(ledger, 1) and add(ledger, 2)
    assert len(ledger) == 2
    assert ledger.knows(Identity("/in/1.png", 10, 1))
    assert not ledger.knows(Identity("/in/1.png", 11, 1))
    assert not ledger.knows(Identity("/in/1.png", 10, 2))


def test_names_that_are_no_unicode_are_kept(ledger):
    name = os.fsdecode(b"/in/\xff.png")
    row = ResultRow(name, "red", score=0.5)
    assert ledger.record(Identity(name, 1, 1), row, move=False, due=0)
    assert ledger.knows(Identity(name, 1, 1)) and not ledger.knows(Identity("/in/.png", 1, 1))


@pytest.mark.parametrize("cut", [0, 1, 50, -1])
def test_results_are_completed_from_any_length(ledger, tmp_path, cut):
    for number in range(4):
        add(ledger, number)
    ledger.complete_results()
    path = tmp_path / "results.jsonl"
    whole = path.read_bytes()
    assert [row.path for row in read_rows(path)] == [f"in/{n}.png" for n in range(4)]
    path.write_bytes(whole[:cut])
    ledger.complete_results()
    assert path.read_bytes() == whole
    path.unlink()
    ledger.complete_results()
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", [b"other\n", b"{}\n" * 400])
def test_rows_of_another_program_are_left_and_refused(ledger, tmp_path, content):
    path = tmp_path / "results.jsonl"
    path.write_bytes(content)
    for number in range(2):
        with pytest.raises(ConfigError, match="another program wrote it"):
            ledger.complete_results()
        add(ledger, number)
    assert path.read_bytes() == content


def test_deliveries_come_by_their_time(ledger):
    add(ledger, 1, due=20)
    add(ledger, 2, due=10)
    add(ledger, 3)
    assert ledger.next_delivery(9) is None and ledger.waiting_deliveries() == 2
    first = ledger.next_delivery(30)
    assert (first.sequence, first.attempts) == (2, 0)
    ledger.postpone(2, 40)
    assert ledger.next_delivery(30).sequence == 1
    ledger.delivered(1)
    assert ledger.next_delivery(30) is None
    again = ledger.next_delivery(40)
    assert (again.key, again.attempts) == (first.key, 1)


def test_a_restart_finds_everything(tmp_path):
    ledger = WatchLedger(tmp_path)
    add(ledger, 1, move=True, due=5)
    ledger.begin_move(1, "/out/OK/1.png")
    ledger.close()
    ledger = WatchLedger(tmp_path)
    (move,) = ledger.moves()
    assert move == (1, ("/in/1.png", 10, 1), "OK", "/out/OK/1.png")
    assert ledger.next_delivery(5).sequence == 1
    ledger.end_move(1, moved=True)
    assert list(ledger.moves()) == []
    ledger.close()


def test_a_damaged_or_newer_database_is_refused(tmp_path):
    (tmp_path / LEDGER_NAME).write_bytes(b"no database" * 100)
    with pytest.raises(ConfigError, match="cannot be read"):
        WatchLedger(tmp_path)
    (tmp_path / LEDGER_NAME).unlink()
    base = sqlite3.connect(tmp_path / LEDGER_NAME)
    base.execute("PRAGMA user_version = 9")
    base.close()
    with pytest.raises(ConfigError, match="of version 9"):
        WatchLedger(tmp_path)


def test_a_place_that_cannot_be_written_is_a_fault_of_the_system(tmp_path):
    (tmp_path / LEDGER_NAME).mkdir()
    with pytest.raises(OSError, match="cannot be written"):
        WatchLedger(tmp_path)
