"""Count the pictures of every dataset beside the printed numbers: Tables 1 and 2 of the paper.

Table 1 has the classes of MVTec AD and VisA with their training pictures, Table 2 the test split
of the other 17 datasets. Source: FAPrompt (ICCV 2025), appendix A.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tabulate import tabulate

from faprompt.data import Dataset, read_dataset
from faprompt.data.dataset_catalog import known_datasets, published_counts
from faprompt.errors import DatasetError
from faprompt.reproduce.protocol import PAPER_TITLES
from faprompt.reproduce.published import published_table, table_titles
from faprompt.work import ProgressCallback, no_progress

Quantity = Literal["classes", "train_normal", "test_normal", "test_anomalous"]
_HEADS: dict[Quantity, str] = {
    "classes": "classes", "train_normal": "train, normal", "test_normal": "test, normal",
    "test_anomalous": "test, anomalous",
}  # fmt: skip
_COLUMNS: dict[int, tuple[Quantity, ...]] = {
    1: ("train_normal", "test_normal", "test_anomalous"),
    2: ("classes", "test_normal", "test_anomalous"),
}
_WITH_TRAINING = ("mvtec", "visa")  # Table 1 prints their training pictures


@dataclass(frozen=True, slots=True)
class CountRow:
    """One line of Table 1 or 2. A quantity that was not counted is absent from `ours`."""

    table: int
    dataset: str  # its id
    class_name: str  # "" in Table 2
    published: dict[Quantity, int]
    ours: dict[Quantity, int]
    reasons: tuple[str, ...] = ()  # why quantities are absent
    remark: str = ""  # on the printed number

    @property
    def matches(self) -> bool | None:
        """Return whether all counted quantities are the printed ones; None for none counted.

        The number of classes is not compared where `remark` says that the metrics pool them.
        """
        if not self.ours:
            return None
        pooled = "pool" in self.remark
        counts = {n: c for n, c in self.ours.items() if not (pooled and n == "classes")}
        return all(count == self.published[name] for name, count in counts.items())


def count_rows(
    data_root: Path | None, *, progress: ProgressCallback = no_progress
) -> tuple[CountRow, ...]:
    """Count the pictures of every dataset of the paper that lies below a folder.

    Args:
        data_root: holds each dataset in a folder of its id; None counts nothing.
        progress: called with "count", datasets done and datasets in all.

    Returns:
        The rows of Table 1, then those of Table 2, in the paper's order. A dataset that is
        missing or cannot be read has the reason in its rows.
    """
    printed: dict[int, dict[tuple[str, str], dict[Quantity, int]]] = {1: {}, 2: {}}
    remarks: dict[tuple[str, str], str] = {
        (dataset, class_name): f"{misprint}, as the table here"
        for dataset, facts in known_datasets().items()
        for class_name, misprint in facts.misprints.items()
    }
    for cell in (*published_table(1), *published_table(2)):
        place = cell.dataset, cell.class_name or ""
        row = printed[cell.table].setdefault(place, {})
        row[cell.metric] = int(cell.value)  # type: ignore[index]  # those two tables have no others
        if cell.table == 1:
            counts = published_counts(cell.dataset)[place[1]]
            row["test_normal"], row["test_anomalous"] = counts
        if cell.note:
            remarks[place] = cell.note
    names = dict.fromkeys(dataset for rows in printed.values() for dataset, _ in rows)
    found = {}
    for number, name in enumerate(names, start=1):
        found[name] = {
            split: _read(data_root, name, split)
            for split in (("train", "test") if name in _WITH_TRAINING else ("test",))
        }
        progress("count", number, len(names))
    return tuple(
        CountRow(
            table, place[0], place[1], published, *_ours(found[place[0]], place[1]),
            remark=remarks.get(place, ""),
        )
        for table, rows in printed.items()
        for place, published in rows.items()
    )  # fmt: skip


def _read(data_root: Path | None, name: str, split: str) -> Dataset | str:
    """Return a split, or why there is none."""
    if data_root is None:
        return "no data root: give --data-root"
    if not (data_root / name).exists():
        return f"no folder {name} below the data root"
    try:
        return read_dataset(data_root / name, name, split=split)
    except DatasetError as error:
        return f"{split} split: {str(error).rstrip('.')}"


def _ours(
    splits: dict[str, Dataset | str], class_name: str
) -> tuple[dict[Quantity, int], tuple[str, ...]]:
    """Return what was counted of a class ("" for the whole dataset), and why some was not."""
    ours: dict[Quantity, int] = {}
    reasons = []
    for split, found in splits.items():
        if isinstance(found, str):
            reasons.append(found)
            continue
        counts = found.counts()
        if class_name and class_name not in counts:
            reasons.append(f"{split} split: no class {class_name!r}")
            continue
        own = [counts[class_name]] if class_name else list(counts.values())
        normal, anomalous = sum(c.normal for c in own), sum(c.anomalous for c in own)
        if split == "train":
            ours["train_normal"] = normal
            continue
        ours |= {} if class_name else {"classes": len(counts)}
        ours |= {"test_normal": normal, "test_anomalous": anomalous}
    return ours, tuple(dict.fromkeys(reasons))


def describe_rows(rows: Iterable[CountRow]) -> str:
    """Return both tables as Markdown; a cell is our count, then the paper's, "-" for none."""
    rows = list(rows)
    parts = []
    for number, columns in _COLUMNS.items():
        own = [row for row in rows if row.table == number]
        first = ("dataset", "class") if number == 1 else ("dataset",)
        head = (*first, *(f"{_HEADS[name]}: ours / paper" for name in columns), "as the paper")
        cells = [_cells(row, columns) for row in own]
        align = ["left"] * len(first) + ["right"] * len(columns) + ["left"]
        table = tabulate(cells, head, tablefmt="pipe", colalign=align, disable_numparse=True)
        parts += [f"## Table {number}: {table_titles()[number]}", table, "\n".join(_below(own))]
    return "\n\n".join(filter(None, parts))


def _cells(row: CountRow, columns: tuple[Quantity, ...]) -> list[str]:
    names = filter(None, (PAPER_TITLES[row.dataset], row.class_name))
    counts = [f"{row.ours.get(name, '-')} / {row.published[name]}" for name in columns]
    return [*names, *counts, {True: "yes", False: "no", None: "-"}[row.matches]]


def _below(rows: list[CountRow]) -> list[str]:
    """Return the reasons for empty places, a line per dataset and reason, then the remarks."""
    absent = dict.fromkeys(
        f"- {PAPER_TITLES[row.dataset]}: {reason}" for row in rows for reason in row.reasons
    )
    remarks = [
        f"- {' '.join(filter(None, (PAPER_TITLES[row.dataset], row.class_name)))}: {row.remark}"
        for row in rows
        if row.remark
    ]
    return [*absent, *remarks]
