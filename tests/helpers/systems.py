"""Marks for tests that a system cannot run."""

from __future__ import annotations

import sys

import pytest

needs_posix = pytest.mark.skipif(
    sys.platform == "win32", reason="no pipes, links, shells or such signals on Windows"
)
