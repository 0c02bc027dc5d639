"""Make the report of a session of the inspection page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from faprompt.prediction.html_report import report_page
from faprompt.prediction.result_pictures import Artifacts
from faprompt.prediction.result_rows import ResultRow
from faprompt.records import Region
from faprompt.serving.model_worker import ModelWorker
from faprompt.serving.problems import Problem
from faprompt.serving.request_bodies import check_name, read_base64
from faprompt.storage import LocalFolder

_PICTURES = ("small_base64", "layer_base64", "large_base64")  # as `Artifacts.thumbnail_names`
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # of JPEG and PNG
_TITLE = "Inspection session"


def session_report(values: Mapping[str, Any], worker: ModelWorker) -> bytes:
    """Return the report of the rows and pictures that the page kept, as HTML.

    Args:
        values: `pictures`, each with a `row` as the service answered it and pictures as base64;
            `title`, and `model`, whose calibration the report shows.
        worker: of that model.

    Raises:
        Problem: 422, something is missing, unknown or of another kind.
    """
    pictures = values.get("pictures")
    if set(values) - {"model", "title", "pictures"} or not isinstance(pictures, list):
        raise _wrong("wanted pictures, and at will model and title")
    embedded: dict[str, str] = {}
    rows: list[ResultRow] = []
    for number, item in enumerate(pictures):
        if not isinstance(item, Mapping) or not {"row"} <= set(item) <= {"row", *_PICTURES}:
            raise _wrong(f"pictures[{number}] should have row, and at will {', '.join(_PICTURES)}")
        rows.append(_row(item["row"], f"pictures[{number}].row"))
        names = Artifacts(LocalFolder(Path())).thumbnail_names(rows[-1].path)
        for name, key in zip(names, _PICTURES, strict=True):
            if text := item.get(key):
                if not read_base64(text, f"pictures[{number}].{key}").startswith(_STARTS):
                    raise _wrong(f"pictures[{number}].{key} is neither JPEG nor PNG")
                embedded[name] = text
    detector = worker.detector
    calibrated = detector.setup.calibration is not None
    page = report_page(
        rows,
        lambda name: embedded.get(name, ""),
        model=detector.name,
        threshold=worker.threshold if calibrated else worker.threshold or detector.threshold,
        title=check_name(values.get("title") or _TITLE),
        calibration=detector.setup.calibration,
    )
    return page.encode(errors="replace")


def _row(values: Any, where: str) -> ResultRow:
    """Build a row from what the service answered; anything else is a Problem."""
    try:
        row = ResultRow.from_dict({**values, "map": None, "overlay": None})
        _check(row)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise _wrong(f"{where} is no answer of this service") from error
    return row


def _check(row: ResultRow) -> None:
    """Refuse values of other types than a row has, by a ValueError."""
    numbers = (row.score, row.p_value, row.threshold, row.review_threshold)
    texts = (row.path, row.model, row.error or "", row.product or "", *row.notes)
    sizes = (row.width or 1, row.height or 1)
    fits = (
        all(isinstance(text, str) for text in texts)
        and all(value is None or _is_share(value) for value in numbers)
        and all(type(size) is int and 0 < size < 2**31 for size in sizes)
        and row.verdict in ("OK", "REVIEW", "NG", None)
        and row.status == ("error" if row.score is None else "ok")
        and (row.status == "ok" or isinstance(row.error, str))
        and all(_is_region(region) for region in row.regions)
    )
    if not fits:
        raise ValueError


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and 0 <= value <= 1


def _is_region(region: Region) -> bool:
    box = cast(tuple[Any, ...], region.bbox)
    whole = all(type(value) is int for value in (*box, region.area_px))
    return len(box) == 4 and whole and _is_share(region.peak) and _is_share(region.mean)


def _wrong(what: str) -> Problem:
    return Problem(422, "session", f"The session cannot be read: {what}.")
