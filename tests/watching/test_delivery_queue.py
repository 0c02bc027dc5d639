"""Deliveries reach the receiver in the end, whatever it does."""

from __future__ import annotations

import json
import socket
import time

import pytest

from faprompt.watching import delivery_queue
from faprompt.watching.delivery_queue import DeliveryQueue, back_off
from faprompt.watching.watch_ledger import WatchLedger
from faprompt.watching.webhook import Webhook
from tests.watching.receiver import Receiver
from tests.watching.test_watch_ledger import add

SECRET = b"0123456789abcdef"


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    monkeypatch.setattr(delivery_queue, "_FIRST_DELAY", 0.01)
    ledger = WatchLedger(tmp_path)
    yield ledger
    ledger.close()


def wait_for(condition, limit_s: float = 10.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def paths(receiver: Receiver) -> list[str]:
    return [json.loads(body)["result"]["path"] for _, body in receiver.got]


def test_rows_arrive_in_order_once(ledger):
    for number in range(3):
        add(ledger, number, due=0)
    with (
        Receiver().serving() as receiver,
        DeliveryQueue(ledger, Webhook(receiver.url, SECRET)) as queue,
    ):
        wait_for(lambda: ledger.waiting_deliveries() == 0)
        add(ledger, 3, due=time.time())
        queue.wake()
        wait_for(lambda: ledger.waiting_deliveries() == 0)
    assert paths(receiver) == [f"in/{n}.png" for n in range(4)]
    keys = {json.loads(body)["id"] for _, body in receiver.got}
    assert keys == {headers["webhook-id"] for headers, _ in receiver.got} and len(keys) == 4


def test_a_failing_receiver_gets_the_same_key_again(ledger, caplog):
    add(ledger, 1, due=0)
    with (
        caplog.at_level("INFO", logger="faprompt"),
        Receiver(500, 503, 0, 500).serving() as receiver,
        DeliveryQueue(ledger, Webhook(receiver.url, SECRET)),
    ):
        wait_for(lambda: ledger.waiting_deliveries() == 0)
    assert len(receiver.got) == 5
    assert len({(headers["webhook-id"], body) for headers, body in receiver.got}) == 1
    assert "answered 500; 1 delivery waits" in caplog.text
    assert caplog.text.count("takes deliveries again") == 1 and "0123456789" not in caplog.text


def test_a_row_that_is_refused_holds_up_no_other(ledger, monkeypatch):
    monkeypatch.setattr(delivery_queue, "_FIRST_DELAY", 0.3)
    for number in range(3):
        add(ledger, number, due=number)
    with (
        Receiver(400).serving() as receiver,
        DeliveryQueue(ledger, Webhook(receiver.url, SECRET)),
    ):
        wait_for(lambda: ledger.waiting_deliveries() == 0)
    assert paths(receiver) == ["in/0.png", "in/1.png", "in/2.png", "in/0.png"]


def test_a_receiver_that_is_down_is_waited_for(ledger):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    add(ledger, 1, due=0)
    receiver = Receiver()
    webhook = Webhook(f"http://127.0.0.1:{port}/hook", SECRET)
    with DeliveryQueue(ledger, webhook):
        wait_for(lambda: ledger.next_delivery(time.time() + 999).attempts >= 2)
        with receiver.serving(port):
            wait_for(lambda: ledger.waiting_deliveries() == 0)
    assert paths(receiver) == ["in/1.png"]


def test_a_slow_receiver_gets_a_row_again(ledger):
    """It took the row, and answered too late: at least once, by the same key."""
    add(ledger, 1, due=0)
    with (
        Receiver(pause_s=0.25).serving() as receiver,
        DeliveryQueue(ledger, Webhook(receiver.url, SECRET, timeout_s=0.1)),
    ):
        wait_for(lambda: len(receiver.got) >= 2)
        receiver.pause_s = 0
        wait_for(lambda: ledger.waiting_deliveries() == 0)
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


def test_ending_keeps_what_was_not_sent(ledger):
    add(ledger, 1, due=0)
    with (
        Receiver(*[500] * 99).serving() as receiver,
        DeliveryQueue(ledger, Webhook(receiver.url, SECRET)),
    ):
        wait_for(lambda: len(receiver.got) >= 1)
    assert ledger.waiting_deliveries() == 1


def test_the_wait_doubles_up_to_five_minutes():
    for attempts, seconds in ((1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (99, 300), (9999, 300)):
        assert 0.8 * seconds <= back_off(attempts) <= 1.2 * seconds
