"""Score pictures by path inside any engine that calls a Python object with batches of rows."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from faprompt.bulk.shard_predict import ShardScorer, scoring_of
from faprompt.bulk.shard_split import WHOLE_RUN, Shard
from faprompt.detector_setup import setup_changes
from faprompt.errors import ConfigError
from faprompt.exported_detector import is_exported, load_exported
from faprompt.imaging import MAX_PIXELS
from faprompt.prediction.bulk_run import PIXEL_BUDGET, PredictOptions, settings_of_run
from faprompt.prediction.picture_scoring import PictureScoring
from faprompt.prediction.result_rows import ResultRow
from faprompt.storage import open_folder

_log = logging.getLogger("faprompt")
_LOADED: dict[str, ShardScorer] = {}  # detectors of this process, by the values that name them
_LOADING = threading.Lock()
_NUMBERS = ("score", "p_value", "threshold", "review_threshold", "latency_ms")
_SIZES = ("width", "height")
_LISTS = ("regions", "notes")


@dataclass(frozen=True, eq=False)
class BulkScorer:
    """Score batches of paths: a callable for Ray Data, Daft, Spark `mapInPandas` or a plain loop.

    It holds plain values, so it can be pickled. The detector is loaded at the first call, once in
    each process. A picture never raises: what goes wrong with one is a row with status "error".

    Raises:
        ConfigError: options that exclude each other.
        ValueError, TypeError, MissingExtraError: as `PredictOptions`.

    Example:
        >>> BulkScorer("tiny", tiles="auto").tiles
        'auto'
    """

    model: str | Path | None = None  # as in `load_detector`; None: its default
    _: KW_ONLY
    method: str | None = None  # in place of a model: a training-free method, see `build_detector`
    backbone: str | None = None
    preset: str = "paper"  # of the method
    options: Mapping[str, Any] = field(default_factory=dict)  # of the method
    device: str = "auto"
    precision: str = "auto"
    class_name: str | None = None
    tiles: str | None = None  # "auto", "off" or a number; None: the model's
    mask: str | None = None  # file, or folder of a mask for each picture
    threshold: float | None = None
    batch_size: int = 8  # most pictures scored together
    bit_depth: int | None = None
    max_pixels: int = MAX_PIXELS
    product: str | None = None
    pixel_budget: int = PIXEL_BUDGET  # pixels in memory at one time
    out: str | None = None  # folder or URL of maps, overlays and thumbnails
    maps: Literal["npy", "png"] | None = None
    overlays: bool = False
    thumbnails: bool = False  # for a report
    shard: Shard = WHOLE_RUN  # whose folder below `out` they go to
    threads: int | None = 1  # of the model in this process; None: the library's default, all cores

    def __post_init__(self) -> None:
        self._options()
        if self.method is not None and self.model is not None:
            raise ConfigError("Got both a model and a method; give one of them.")
        if self.method is None and (self.options or self.preset != "paper"):
            raise ConfigError("Options and a preset need a method; those of a model are fixed.")
        if self.out is None and (self.maps or self.overlays or self.thumbnails):
            raise ConfigError("Maps, overlays and thumbnails need a folder or URL: give out.")

    @property
    def detector(self) -> ShardScorer:
        """The detector of this process, loaded at the first use.

        Raises:
            FapromptError: it cannot be loaded, or does not go with these values; see
                `load_detector`.
        """
        key = repr([getattr(self, name) for name in _NAMED_BY])
        with _LOADING:
            if key not in _LOADED:
                _LOADED[key] = self.load()
            return _LOADED[key]

    def load(self) -> ShardScorer:
        """Load the detector, without keeping it; see `detector`."""
        if self.threads is not None:
            _limit_threads(self.threads)
        common: dict[str, Any] = {
            "device": self.device, "precision": self.precision, "class_name": self.class_name,
        }  # fmt: skip
        if self.method is not None:
            from faprompt.models import build_detector

            source = self.backbone or "tiny"
            detector: Any = build_detector(
                self.method, source, options=self.options, preset=self.preset, **common
            )
        elif self.model is not None and self.backbone is None and is_exported(Path(self.model)):
            detector = load_exported(Path(self.model), **common)  # needs no torch
        else:
            from faprompt.models import DEFAULT_MODEL, load_detector

            detector = load_detector(self.model or DEFAULT_MODEL, backbone=self.backbone, **common)
        chosen: ShardScorer = detector.with_setup(**setup_changes(self.tiles, self.mask))
        return chosen

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Return the result rows of a batch as columns, in the order of its paths.

        Args:
            batch: has a column `path` of text: a dict of arrays or lists, a pandas DataFrame or
                an Arrow table.

        Returns:
            The fields of `results.jsonl`. Each column has one type in every batch: numbers are
            float64 with NaN for "none", width and height int32 with 0, text is "" for "none",
            regions and notes are JSON lists as text.

        Raises:
            ConfigError: no column `path`.
            FapromptError: the detector cannot be loaded; see `detector`.
            RuntimeError: the GPU of this process cannot be used any more.
        """
        try:
            column = batch["path"]
        except (KeyError, IndexError) as error:
            raise ConfigError(f"A batch should have a column 'path', got {list(batch)}.") from error
        values = column.to_pylist() if hasattr(column, "to_pylist") else list(column)
        return result_columns(self.rows(values))

    def rows(self, paths: Sequence[Any]) -> Iterator[ResultRow]:
        """Yield one row for each path, in order. What is no path is an error row.

        Raises:
            FapromptError, RuntimeError: as `__call__`.
        """
        scoring = self.scoring()
        found = _rows(scoring, [os.fsdecode(path) for path in paths if _is_path(path)])
        for path in paths:
            if _is_path(path):
                yield next(found)
            else:
                reason = f"a path is text, got {path!r}."
                yield ResultRow(str(path), scoring.detector.name, status="error", error=reason)

    def scoring(self) -> PictureScoring:
        """Return the loop over pictures, with the detector of this process.

        Raises:
            FapromptError: as `detector`.
        """
        detector = self.detector
        settings_of_run(detector, self._options())  # checks product and bit depth
        if self.mask is None:
            detector.setup.mask_of(None)  # a model that needs a folder of masks says so here
        return scoring_of(detector, open_folder(self.out or "."), self.shard, self._options())

    def _options(self) -> PredictOptions:
        """Return the values that both have; `PredictOptions` checks them."""
        return PredictOptions(
            batch_size=self.batch_size, threshold=self.threshold, maps=self.maps,
            overlays=self.overlays, report=self.thumbnails, bit_depth=self.bit_depth,
            max_pixels=self.max_pixels, product=self.product, pixel_budget=self.pixel_budget,
        )  # fmt: skip


_NAMED_BY = (
    "model", "method", "backbone", "preset", "options", "device", "precision", "class_name",
    "tiles", "mask", "threads",
)  # fmt: skip


def result_columns(rows: Iterable[ResultRow]) -> dict[str, np.ndarray]:
    """Return rows as columns of numpy arrays; see `BulkScorer.__call__`.

    Example:
        >>> columns = result_columns([ResultRow("a.png", "small", score=0.25)])
        >>> columns["score"], columns["verdict"], columns["regions"]
        (array([0.25]), array([''], dtype=object), array(['[]'], dtype=object))
    """
    found = [row.to_dict() for row in rows]
    return {name: _column(name, [row[name] for row in found]) for name in _FIELDS}


_FIELDS = tuple(ResultRow("", "").to_dict())


def _column(name: str, values: list[Any]) -> np.ndarray:
    if name in _NUMBERS:
        return np.array([np.nan if value is None else value for value in values], np.float64)
    if name in _SIZES:
        return np.array([value or 0 for value in values], np.int32)
    if name in _LISTS:
        return np.array([json.dumps(value) for value in values], object)
    texts = [value or "" for value in values]  # bytes of a file name that are no Unicode: \udcXX
    return np.array([text.encode(errors="backslashreplace").decode() for text in texts], object)


def _rows(scoring: PictureScoring, paths: list[str]) -> Iterator[ResultRow]:
    """Yield rows in order; after an unexpected error the rest is scored picture by picture."""
    done = 0
    try:
        for row in scoring.rows(paths):
            yield row
            done += 1
        return
    except ConfigError:
        raise
    except Exception as error:
        _log.warning("%s: %s; scoring one by one", type(error).__name__, error)
    for path in paths[done:]:
        try:
            yield from scoring.rows([path])
        except ConfigError:
            raise
        except Exception as error:
            _check_gpu(scoring.detector)
            reason = " ".join(str(error).split()) or "no reason given"
            reason = f"{path}: scoring failed ({type(error).__name__}: {reason})."
            yield ResultRow(path, scoring.detector.name, status="error", error=reason)


def _check_gpu(detector: Any) -> None:
    """Raise RuntimeError if the detector's GPU answers no more, as after a failed kernel."""
    device = str(getattr(getattr(detector, "backbone", None), "device", "cpu"))
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def _is_path(value: object) -> bool:
    return isinstance(value, str | bytes | os.PathLike)


def _limit_threads(count: int) -> None:
    """Let torch, OpenMP, onnxruntime and openvino of this process use `count` threads."""
    os.environ["OMP_NUM_THREADS"] = str(count)  # read by those that are not imported yet
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
