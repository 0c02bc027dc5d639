"""Collect what a run writes to the log `faprompt`."""

import logging
from contextlib import contextmanager


class _Collector(logging.Handler):
    def __init__(self):
        super().__init__()
        self.notes = []

    def emit(self, record):
        self.notes.append(record.getMessage())


@contextmanager
def logged_notes():
    """Collect the messages of the log `faprompt`, from INFO, while the block runs."""
    logger, collector = logging.getLogger("faprompt"), _Collector()
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(collector)
    try:
        yield collector.notes
    finally:
        logger.removeHandler(collector)
        logger.setLevel(level)
