"""The paper's printed numbers, cell by cell: Tables 1 to 16 of FAPrompt's appendix.

One CSV per table holds the numbers as printed, in percent, with trailing zeros; the records
give them as fractions too. A dash in the paper is an absent cell. `tables.csv` has the captions
and notes that hold for whole tables.

- `aupro` is here the paper's "PRO": the authors' curve of 200 thresholds with a stretched
  axis, `faprompt.metrics.pro_200`, which is not comparable with an exact AUPRO.
- Where the paper contradicts itself, the numbers stay as printed; the `note` of each side has
  the other number.
- `industrial` and `medical` are means over `faprompt.data.dataset_catalog.datasets_of_group`.

The test counts of each class are in `faprompt/data/datasets.toml`.

Source: FAPrompt (ICCV 2025), appendix; notes on other papers are from those papers.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Literal

from faprompt.data import list_datasets, published_counts
from faprompt.errors import ConfigError
from faprompt.methods.registry import list_methods
from faprompt.metrics import METRIC_NAMES

Unit = Literal["fraction", "count", "ms"]

# A cell printed more than once is taken from the finest table: classes, ablation, summary.
_FINEST_FIRST = (*range(7, 17), 4, 5, 6)
# Named in the appendix, with results in no table of it.
_WITHOUT_TABLE = ("filo", "blip", "anomalyclip-ensemble")
_MILLISECONDS = ("training_ms_per_batch", "inference_ms_per_image")


@dataclass(frozen=True, slots=True)
class PublishedCell:
    """One number as the paper prints it."""

    table: int
    dataset: str  # our id, or "industrial" and "medical"; "" in Table 3
    class_name: str | None  # None: the whole dataset, which is the mean over its classes
    method: str  # our id, or an ablation: base, cap, cap-no-loc, dap, dap-no-prior; "" in 1 and 2
    setting: str  # "deep_length=2", an option of FAPrompt, in Table 6; else ""
    metric: str  # one of `METRIC_NAMES`; counts and times have names of their own
    printed: str  # as it stands in the paper; percent where the unit is "fraction"
    value: float  # 0..1 where the unit is "fraction"
    unit: Unit
    spread: float | None = None  # behind the paper's plus-minus sign, same unit
    note: str = ""  # what contradicts this number, or limits it


@cache
def table_titles() -> dict[int, str]:
    """Return the paper's caption of each table by its number.

    Example:
        >>> table_titles()[5]
        'Comparison with TCP'
    """
    return {int(row["number"]): row["title"] for row in _rows("tables.csv")}


@cache
def published_table(number: int) -> tuple[PublishedCell, ...]:
    """Return all numbers of one table, row by row as printed.

    Raises:
        ConfigError: there is no such table; the message lists the known ones.

    Example:
        >>> cell = published_table(3)[-1]
        >>> cell.method, cell.metric, cell.printed, cell.spread, cell.unit
        ('faprompt', 'inference_ms_per_image', '214.7', 0.8, 'ms')
    """
    if number not in table_titles():
        raise ConfigError(f"No table {number!r}; the appendix has Tables 1 to 16.")
    return tuple(_cell(row) for row in _rows(f"table{number:02d}.csv"))


def published_value(
    dataset: str,
    method: str,
    metric: str,
    *,
    class_name: str | None = None,
    table: int | None = None,
    setting: str = "",
) -> PublishedCell | None:
    """Return one result of the paper, or None if it prints none.

    Args:
        dataset: our id, "industrial" or "medical".
        method: our id, or an ablation. `base` is AnomalyCLIP by its numbers, on more datasets.
        metric: one of `METRIC_NAMES`; the paper has `image_auroc`, `image_ap`, `pixel_auroc`
            and `aupro` (its PRO).
        class_name: one class; None is the whole dataset.
        table: the only table to search. By default the most detailed one: the tables of classes
            (7 to 14), then the ablations (15, 16), then 4, 5 and 6; `note` says where they differ.
        setting: as in Table 6, such as "deep_length=2"; "" for the method's defaults.

    Raises:
        ConfigError: an unknown name, a setting that the table does not have, or a table without
            results by dataset.

    Example:
        >>> cell = published_value("visa", "faprompt", "image_auroc")
        >>> cell.printed, cell.value, cell.table
        ('84.6', 0.846, 11)
        >>> published_value("visa", "faprompt", "image_auroc", table=4).printed
        '84.5'
    """
    if table is not None and table not in _FINEST_FIRST:
        raise ConfigError(f"Table {table!r} has no results by dataset; Tables 4 to 16 do.")
    _check_names(dataset, method, metric, class_name)
    cells = [cell for cell in _results() if table in (None, cell.table)]
    _check("setting", setting, (cell.setting for cell in cells))
    wanted = (dataset, class_name, method, setting, metric)
    return next((cell for cell in cells if _place(cell) == wanted), None)


def _check_names(dataset: str, method: str, metric: str, class_name: str | None) -> None:
    cells = _results()
    methods = (cell.method for cell in cells)
    _check("dataset", dataset, (*(cell.dataset for cell in cells), *list_datasets()))
    _check("method", method, (*methods, *_WITHOUT_TABLE, *list_methods()))
    _check("metric", metric, METRIC_NAMES)
    classes = published_counts(dataset)
    if class_name is not None and len(classes) > 1:  # a pooled group may have any name
        _check(f"class of {dataset}", class_name, classes)


def _check(what: str, name: str, known: Iterable[str]) -> None:
    names = dict.fromkeys(known)
    if name not in names:
        listed = ", ".join(each or "''" for each in names)
        raise ConfigError(f"Unknown {what} {name!r}; known: {listed}.")


@cache
def _results() -> tuple[PublishedCell, ...]:
    return tuple(cell for number in _FINEST_FIRST for cell in published_table(number))


def _place(cell: PublishedCell) -> tuple[str, str | None, str, str, str]:
    return cell.dataset, cell.class_name, cell.method, cell.setting, cell.metric


def _cell(row: dict[str, str]) -> PublishedCell:
    metric, printed, spread = row["metric"], row["value"], row.get("spread")
    unit = _unit(metric)
    return PublishedCell(
        table=int(row["table"]),
        dataset=row.get("dataset", ""),
        class_name=row.get("class") or None,
        method=row.get("method", ""),
        setting=row.get("setting", ""),
        metric=metric,
        printed=printed,
        value=float(Decimal(printed) / 100 if unit == "fraction" else Decimal(printed)),
        unit=unit,
        spread=float(spread) if spread else None,
        note=row["note"],
    )


def _unit(metric: str) -> Unit:
    if metric in METRIC_NAMES:
        return "fraction"
    return "ms" if metric in _MILLISECONDS else "count"


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files("faprompt.reproduce.published").joinpath(name).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))
