"""Judge parts on a line: a bounded queue stands between the camera and the detector.

The camera's thread calls `put`; the detector's thread calls `decide(part, verdict)`, which must not
raise, in the same order. `put` waits while `waiting` parts wait, or raises `queue.Full` in time.
"""

import queue
import threading

import faprompt


class Line:
    """Give a verdict for each part in a thread of its own; use it in a `with` block."""

    def __init__(self, detector, decide, *, waiting=8):
        self.detector, self.decide = detector, decide
        self.parts = queue.Queue(maxsize=waiting)
        self.thread = threading.Thread(target=self._work, daemon=True)

    def put(self, part, image, *, timeout=None):
        """Hand over a part and its picture: a path, bytes, or an RGB array."""
        self.parts.put((part, image), timeout=timeout)

    def _work(self):
        while (job := self.parts.get()) is not None:
            part, image = job
            try:
                self.decide(part, self.detector.predict(image).verdict)
            except faprompt.errors.FapromptError:  # a person has to look at it
                self.decide(part, "REVIEW")

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.parts.put(None)  # after all parts, so that each gets its verdict
        self.thread.join()
