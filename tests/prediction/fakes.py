"""A detector without a model, and a folder of pictures for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from PIL import Image

from faprompt.detector_setup import DetectorSetup
from faprompt.imaging.picture_windows import PictureWindows
from faprompt.prediction import ResultRow, read_rows
from faprompt.prediction.bulk_run import PredictOptions, predict_files
from faprompt.regions import find_regions, verdict
from faprompt.results import AnomalyResult


class RedScorer:
    """Calls red anomalous: the map is the red channel, the score its highest value.

    `seen` keeps the size of each batch; at batch number `stop_at` it is interrupted.
    """

    def __init__(self, name: str = "red", *, stop_at: int | None = None) -> None:
        self.name = name
        self.setup = DetectorSetup()
        self.seen: list[int] = []
        self.stop_at = stop_at

    def predict_batch(
        self,
        images: Sequence[PictureWindows],
        *,
        threshold: float | None,
        masks: Sequence[np.ndarray | None] = (),
        products: Sequence[str | None] = (),
    ) -> list[AnomalyResult]:
        if len(self.seen) == self.stop_at:
            raise KeyboardInterrupt
        self.seen.append(len(images))
        return [self._predict(windows.thumbnail(10**6), threshold) for windows in images]

    def _predict(self, image: np.ndarray, threshold: float | None) -> AnomalyResult:
        score_map = image[..., 0].astype(np.float32) / 255
        score = float(score_map.max())
        return AnomalyResult(
            score=score,
            score_map=score_map,
            image_size=image.shape[:2],
            model=self.name,
            verdict=verdict(score, threshold, 0.1),
            threshold=threshold,
            regions=() if threshold is None else find_regions(score_map, threshold),
        )


def part(path: Path, red: int, *, size: tuple[int, int] = (12, 20)) -> Path:
    """A dark picture (height, width) with one patch whose red is `red`; a lossless file."""
    image = np.full((*size, 3), 20, np.uint8)
    image[size[0] // 2 :, size[1] // 2 :, 0] = red
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def parts(folder: Path, count: int = 7) -> list[Path]:
    """`count` pictures with rising scores, i * 30 / 255."""
    return [part(folder / f"part_{i}.png", 30 * i) for i in range(count)]


def rows_of(out_dir: Path) -> list[ResultRow]:
    """The rows that a run wrote."""
    return list(read_rows(out_dir / "results.jsonl"))


def timeless(out_dir: Path) -> list[ResultRow]:
    """The same without what differs from run to run."""
    return [replace(row, latency_ms=None) for row in rows_of(out_dir)]


def predict(scorer, paths, *, out_dir, **keywords):
    """Call `predict_files` with its options as keywords."""
    named = {field.name for field in fields(PredictOptions)}
    options = PredictOptions(**{name: keywords.pop(name) for name in named & set(keywords)})
    return predict_files(scorer, paths, out_dir, options, **keywords)
