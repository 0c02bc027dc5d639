"""Serve models over HTTP, with an inspection page; needs the extra `serve`."""

from __future__ import annotations
