"""Rows, pictures and a calibration for tests of the report."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.calibration import Calibration, GoodScores
from faprompt.imaging.picture_windows import ArrayWindows
from faprompt.prediction import ResultRow, write_report
from faprompt.prediction.result_pictures import Artifacts
from faprompt.regions import find_regions
from faprompt.results import AnomalyResult
from faprompt.storage import LocalFolder

SEPARATOR = "\x1f"  # between the texts of two tags
SIZE = (60, 90)  # height, width


class Page(HTMLParser):
    """What a browser would find in the report."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.data: dict[str, Any] = {}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][1].get("id") == "data" and not self.data:
            self.data = json.loads(data)
        else:
            self.text += data + SEPARATOR

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            attrs
            for name, attrs in self.tags
            if name == tag and all(attrs.get(key) == value for key, value in wanted.items())
        ]


def page_of(tmp_path: Path, rows, **options) -> Page:
    """Write a report and read it again."""
    options = {"model": "m", "threshold": 0.5} | options
    write_report(tmp_path / "report.html", rows, **options)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def scored(count: int, *, verdict="OK", threshold=None) -> list[ResultRow]:
    """`count` rows with rising scores, (i + 0.5) / count."""
    return [
        ResultRow(f"p{i}.png", "m", score=(i + 0.5) / count, verdict=verdict, threshold=threshold,
                  width=4, height=3)
        for i in range(count)
    ]  # fmt: skip


def calibration(**counts: int) -> Calibration:
    """Good scores of products, evenly spread over 0.2..0.6; without names of one product."""
    spread = {name: np.linspace(0.2, 0.6, count) for name, count in (counts or {"": 120}).items()}
    return Calibration(
        products={name: GoodScores(scores, scores) for name, scores in spread.items()},
        decided_by={"model": "m"},
    )


def judged(path: str, score: float, known: Calibration, product: str | None = None) -> ResultRow:
    """The row of a picture that a calibration judged."""
    limits = known.limits(product)
    score_map = _score_map(score)
    return ResultRow(
        path, "m", score=score, p_value=known.p_value(score, product),
        verdict=limits.verdict(score), threshold=limits.threshold,
        review_threshold=limits.review_threshold, product=product,
        width=SIZE[1], height=SIZE[0], regions=find_regions(score_map, limits.map_threshold + 1e-6),
    )  # fmt: skip


def write_pictures(folder: Path, rows: list[ResultRow], *, scale: int = 1) -> None:
    """Write the thumbnails of rows; the pictures differ by their grey."""
    artifacts = Artifacts(LocalFolder(folder), overlays=False)
    for i, row in enumerate(rows):
        score_map = np.kron(_score_map(row.score or 0.0), np.ones((scale, scale), np.float32))
        result = AnomalyResult(
            row.score or 0.0, score_map, score_map.shape, "m", verdict=row.verdict,
            threshold=row.threshold, regions=row.regions,
        )  # fmt: skip
        image = np.full((*score_map.shape, 3), 40 + i % 150, np.uint8)
        artifacts.write(row.path, ArrayWindows(image), result)


def _score_map(score: float) -> np.ndarray:
    score_map = np.zeros(SIZE, np.float32)
    score_map[20:40, 30:60] = score
    return score_map
