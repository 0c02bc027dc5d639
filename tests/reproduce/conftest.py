"""What the tests of benchmarks and studies share."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture
def told(caplog):
    """Return a function that gives what was logged so far, as text."""
    caplog.set_level(logging.INFO, logger="faprompt")
    return lambda: list(caplog.messages)
