"""Count the pictures of every dataset beside the printed numbers: Tables 1 and 2 of the paper.

Table 1 has the classes of MVTec AD and VisA with their training pictures, Table 2 the test split
of the other 17 datasets. Source: FAPrompt (ICCV 2025), appendix A.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tabulate import tabulate

from faprompt.data import Dataset, read_dataset
from faprompt.data.dataset_catalog import known_datasets, published_counts
from faprompt.errors import DatasetError
from faprompt.reproduce.protocol import PAPER_TITLES
from faprompt.reproduce.published import published_table, table_titles
from faprompt.work import ProgressCallback, no_progress

_HEADS = {
    "classes": "classes", "train_normal": "train, normal", "test_normal": "test, normal",
    "test_anomalous": "test, anomalous",
}  # fmt: skip
_COLUMNS = {
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
    published: dict[str, int]
    ours: dict[str, int]
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
    """Count the pictures of every dataset of the paper that is in a folder.

    Args:
        data_root: holds each dataset in a folder of its id; None counts nothing.
        progress: called with "count", datasets done and datasets in all.

    Returns:
        The rows of Table 1, then those of Table 2, in the paper's order. A dataset that is
        missing or cannot be read has the reason in its rows.
    """
    misprints = {
        (dataset, class_name): f"{misprint}, as the table here"
        for dataset, facts in known_datasets().items()
        for class_name, misprint in facts.misprints.items()
    }
    rows: dict[tuple[str, str], CountRow] = {}
    for cell in (*published_table(1), *published_table(2)):
        place = cell.dataset, cell.class_name or ""
        remark = misprints.get(place, "")
        row = rows.get(place, CountRow(cell.table, *place, published={}, ours={}, remark=remark))
        published = {**row.published, cell.metric: int(cell.value)}
        if cell.table == 1:
            normal, anomalous = published_counts(cell.dataset)[place[1]]
            published |= {"test_normal": normal, "test_anomalous": anomalous}
        rows[place] = replace(row, published=published, remark=cell.note or row.remark)
    names = dict.fromkeys(dataset for dataset, _ in rows)
    for number, name in enumerate(names, start=1):
        splits = ("train", "test") if name in _WITH_TRAINING else ("test",)
        read = {split: _read(data_root, name, split) for split in splits}
        for place, row in rows.items():
            if place[0] == name:
                ours, reasons = _ours(read, place[1])
                rows[place] = replace(row, ours=ours, reasons=reasons)
        progress("count", number, len(names))
    return tuple(rows.values())


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
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return what was counted of a class ("" for the whole dataset), and why some was not."""
    ours: dict[str, int] = {}
    reasons: dict[str, None] = {}
    for split, found in splits.items():
        counts = {} if isinstance(found, str) else found.counts()
        if isinstance(found, str) or (class_name and class_name not in counts):
            text = found if isinstance(found, str) else f"{split} split: no class {class_name!r}"
            reasons[text] = None
            continue
        own = [counts[class_name]] if class_name else list(counts.values())
        normal, anomalous = sum(c.normal for c in own), sum(c.anomalous for c in own)
        if split == "train":
            ours["train_normal"] = normal
            continue
        ours |= {} if class_name else {"classes": len(counts)}
        ours |= {"test_normal": normal, "test_anomalous": anomalous}
    return ours, tuple(reasons)


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


def _cells(row: CountRow, columns: tuple[str, ...]) -> list[str]:
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
