"""Deliver rows to a webhook in a thread, and try again until the receiver takes them."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time

from faprompt.watching.watch_ledger import Delivery, WatchLedger
from faprompt.watching.webhook import DeliveryError, Webhook
from faprompt.work import logger

_FIRST_DELAY = 1.0  # seconds after the first failed attempt; it doubles with each
_LONGEST_DELAY = 300.0  # seconds


def back_off(attempts: int) -> float:
    """Return the seconds to wait after so many failed attempts: 1, 2, 4 ... 300, ± 20 %."""
    delay = min(_FIRST_DELAY * 2 ** min(attempts - 1, 30), _LONGEST_DELAY)
    return delay * random.uniform(0.8, 1.2)


def delivery_body(delivery: Delivery) -> bytes:
    """Return the JSON that is sent: the idempotency key, and the object of `results.jsonl`."""
    return json.dumps({"id": delivery.key, "result": json.loads(delivery.line)}).encode()


class DeliveryQueue:
    """A thread that sends what the ledger has for delivery, one row after the other.

    Where the receiver cannot be reached or fails, all rows wait. Where it refuses one row (4xx),
    this row alone waits. No row is ever given up.
    """

    def __init__(self, ledger: WatchLedger, webhook: Webhook) -> None:
        """Prepare the thread; entering the context starts it."""
        self._ledger, self._webhook = ledger, webhook
        self._stop, self._new = threading.Event(), threading.Event()
        self._failures = 0  # one after the other, of the receiver as a whole
        self._reported = ""
        self._thread = threading.Thread(target=self._run, name="deliveries", daemon=True)

    def __enter__(self) -> DeliveryQueue:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End after the attempt that is under way; what is left is sent at the next start."""
        self._stop.set()
        self._new.set()
        self._thread.join(self._webhook.timeout_s)

    def wake(self) -> None:
        """Say that a row was added."""
        self._new.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._new.clear()
            try:
                delivery = self._ledger.next_delivery(time.time())
                pause = 1.0 if delivery is None else self._attempt(delivery)
            except sqlite3.Error as error:  # the disk is full, or the share is gone
                self._report(f"deliveries wait: {error}")
                pause = 5.0
            if pause and self._failures:
                self._stop.wait(pause)
            elif pause:
                self._new.wait(pause)

    def _attempt(self, delivery: Delivery) -> float:
        """Send one row; return the seconds to wait before the next one."""
        try:
            self._webhook.post(delivery.key, delivery_body(delivery))
        except DeliveryError as error:
            return self._postpone(delivery, error)
        self._ledger.delivered(delivery.sequence)
        if self._failures:
            logger.info("%s takes deliveries again.", self._webhook.place)
        self._failures, self._reported = 0, ""
        return 0.0

    def _postpone(self, delivery: Delivery, error: DeliveryError) -> float:
        waiting = self._ledger.waiting_deliveries()
        self._report(f"{error}; {waiting} {'delivery waits' if waiting == 1 else 'deliveries wait'}"
                     ", and will be tried again.", key=str(error))  # fmt: skip
        if error.refused:
            delay = max(back_off(delivery.attempts + 1), error.retry_after)
            self._ledger.postpone(delivery.sequence, time.time() + delay)
            return 0.0
        self._failures += 1
        self._ledger.postpone(delivery.sequence, time.time())
        return max(back_off(self._failures), error.retry_after)

    def _report(self, text: str, key: str = "") -> None:
        """Log a fault once, until another one comes or a delivery works."""
        if (key or text) != self._reported:
            logger.warning("%s", text)
        self._reported = key or text
