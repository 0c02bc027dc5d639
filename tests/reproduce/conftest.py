"""What the tests of benchmarks and studies share."""

from __future__ import annotations

import logging

import pytest

from tests.reproduce import toys


@pytest.fixture
def told(caplog):
    """Return a function that gives what was logged so far, as text."""
    caplog.set_level(logging.INFO, logger="faprompt")
    return lambda: list(caplog.messages)


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    """Draw no curves, and keep tokens out of the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faprompt.evaluation.metric_files._plot", lambda *_, **__: None)
        patch.setattr("faprompt.training.loss_log._draw_curves", lambda *_: b"")
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def sets(quick, tmp_path_factory):
    """Two labelled folders that no test changes."""
    return toys.sets(tmp_path_factory.mktemp("sets"))
