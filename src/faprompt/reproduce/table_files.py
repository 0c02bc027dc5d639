"""Write tables as `table.md`, `.csv`, `.tex` and `.html`.

They hold no times or paths, so a benchmark that was interrupted and resumed writes the same files
as one in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from faprompt.files import csv_table, write_atomically
from faprompt.pages import render_page
from faprompt.reproduce.cell_runner import CellResult
from faprompt.reproduce.cells import Plan
from faprompt.reproduce.table_grid import DECIMALS, Figure, Table, build_tables
from faprompt.reproduce.table_notes import (
    LEVEL,
    ColumnSettings,
    column_settings,
    reasons,
    settings_line,
    statements,
)

TABLE_FILES = ("table.md", "table.csv", "table.tex", "table.html")
Marks = tuple[str, str, str]  # of a value that is neither best nor second, best, second best
_MARKDOWN: Marks = ("{}", "**{}**", "<u>{}</u>")
_HTML: Marks = ("{}", "<strong>{}</strong>", "<u>{}</u>")
_LATEX: Marks = ("{}", "\\textbf{{{}}}", "\\underline{{{}}}")
_LATEX_SIGNS = {ord("±"): r"$\pm$", ord(LEVEL): r"$\approx$"}
_LATEX_LETTERS = str.maketrans(
    {**{sign: f"\\{sign}" for sign in "&%$#_{}"}, "\\": r"\textbackslash{}",
     "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)  # fmt: skip
_MARKDOWN_LETTERS = str.maketrans({"\\": "\\\\", "|": "\\|", "*": "\\*", "<": "&lt;"})
_CSV_HEAD = (
    "table", "row", "kind", "dataset", "class", "column", "method", "preset", "options",
    "precision", "backbone", "metric", "value", "low", "high", "spread", "published",
    "difference", "rank", "level", "reason",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResultPage:
    """All tables of an experiment and what is said around them."""

    title: str
    tables: Sequence[Table]
    notes: Sequence[str] = ()  # lines below all tables: how they were made
    lacking: Sequence[str] = ()  # reasons for empty places
    under: str = ""  # line below every table; see `settings_line`


def write_tables(plan: Plan, results: Iterable[CellResult], out: Path) -> str:
    """Write all four files into `out` and return the Markdown."""
    results = list(results)
    tables, settings = build_tables(plan, results), column_settings(plan, results)
    notes, lacking = statements(plan, tables, results), reasons(plan, tables, results)
    page = ResultPage(plan.config.title, tables, notes, lacking, settings_line(settings))
    texts = as_markdown(page), as_csv(tables, settings), as_latex(page), as_html(page)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in zip(TABLE_FILES, texts, strict=True):
        write_atomically(out / name, text.encode("utf-8", errors="replace"))
    return texts[0]


def as_markdown(page: ResultPage) -> str:
    """Return a page in Markdown: our values in bold (best) or underlined (second best)."""

    def text(plain: str) -> str:
        return plain.translate(_MARKDOWN_LETTERS)

    parts = [f"# {page.title}"]
    for table in page.tables:
        head, lines = _grid(table, lambda f: "<br>".join(_cell_lines(f, _MARKDOWN)), text)
        parts += [f"## {text(table.title)}", markdown_table(head, lines)]
        parts += [text(page.under)] if page.under else []
    parts.append("\n".join(f"- {line}" for line in page.notes))
    if page.lacking:
        parts.append("\n".join(["Empty places:", "", *(f"- {line}" for line in page.lacking)]))
    return "\n\n".join(parts) + "\n"


def markdown_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; all columns but the first are aligned right."""
    align = ["left"] + ["right"] * (len(head) - 1)
    return tabulate(lines, head, tablefmt="pipe", colalign=align, disable_numparse=True)


def as_csv(tables: Sequence[Table], settings: Mapping[str, ColumnSettings] | None = None) -> str:
    """Return one line per figure; values are fractions with all their digits.

    `settings` is from `column_settings`; without it preset, options and precision are empty.
    """
    unknown = ColumnSettings("", "", "")
    rows: list[Sequence[object]] = [_CSV_HEAD]
    for table in tables:
        for row, column, figure in table.places():
            low, high = figure.interval or (None, None)
            ran = (settings or {}).get(column.title, unknown)
            numbers = (figure.value, low, high, figure.spread, figure.published, figure.difference)
            rows.append(
                [table.title, row.title, row.kind, row.dataset, row.class_name or "",
                 column.title, column.method.name, ran.preset, ran.options, ran.precision,
                 column.backbone, figure.metric,
                 *("" if number is None else f"{number:.6g}" for number in numbers),
                 figure.rank or "", "yes" * figure.level, figure.reason]
            )  # fmt: skip
    return csv_table(rows)


def as_latex(page: ResultPage) -> str:
    """Return one tabular per table, for booktabs; notes are comments."""

    def text(plain: str) -> str:
        return plain.translate(_LATEX_LETTERS)

    parts = ["% needs \\usepackage{booktabs}"]
    parts += [f"% {line}" for line in (*page.notes, *(f"empty: {line}" for line in page.lacking))]
    for table in page.tables:
        head, lines = _grid(table, _latex_cell, text)
        first, *rows = (f"{' & '.join(line)} \\\\" for line in (head, *lines))
        parts += [
            "", f"% {table.title}", f"\\begin{{tabular}}{{l{'c' * (len(head) - 1)}}}", "\\toprule",
            first, "\\midrule", *rows, "\\bottomrule", "\\end{tabular}",
        ]  # fmt: skip
        if page.under:
            parts += ["", f"{{\\footnotesize {text(page.under)}}}"]
    return "\n".join(parts) + "\n"


def as_html(page: ResultPage) -> str:
    """Return a page of HTML that needs no network."""

    def cell(figures: Sequence[Figure]) -> dict[str, object]:
        values, *small = _cell_lines(figures, _HTML)
        return {"ours": values, "small": small}

    shown = []
    for table in page.tables:
        head, lines = _grid(table, cell, str)
        means = [row.kind in ("mean", "group") and not table.methods_down for row in table.rows]
        first = means.index(True) if True in means else -1
        rows = [
            {"title": name, "cells": cells, "first_mean": number == first}
            for number, (name, *cells) in enumerate(lines)
        ]
        shown.append({"title": table.title, "head": head, "rows": rows})
    return render_page(
        "table.html", title=page.title, tables=shown, said=page.notes, lacking=page.lacking,
        under=page.under,
    )  # fmt: skip


def _grid(
    table: Table, cell: Callable[[Sequence[Figure]], object], text: Callable[[str], str]
) -> tuple[list[str], list[list]]:
    """Return head and lines, with the methods across or down."""
    rows = [text(row.title) for row in table.rows]
    columns = [text(column.title) for column in table.columns]
    cells = [[cell(figures) for figures in line] for line in table.figures]
    if table.methods_down:
        rows, columns, cells = columns, rows, [list(line) for line in zip(*cells, strict=True)]
    return ["", *columns], [[name, *line] for name, line in zip(rows, cells, strict=True)]


def _latex_cell(figures: Sequence[Figure]) -> str:
    first, *rest = (line.translate(_LATEX_SIGNS) for line in _cell_lines(figures, _LATEX))
    if not rest:
        return first
    small = [f"{{\\scriptsize {line}}}" for line in rest]
    return "\\shortstack{" + " \\\\ ".join([first, *small]) + "}"


def _cell_lines(figures: Sequence[Figure], marks: Marks) -> list[str]:
    """Return our values; their intervals or spread, if any; what was published, if anything."""
    around = [_surroundings(figure) for figure in figures]
    lines = [_values(figures, marks)]
    lines += [" ".join(filter(None, around))] if any(around) else []
    if any(figure.published is not None for figure in figures):
        printed = _pair([_percent(figure.published) for figure in figures])
        differences = [_points(figure.difference) for figure in figures]
        known = any(figure.difference is not None for figure in figures)
        lines.append(f"{printed} ({', '.join(differences)})" if known else printed)
    return lines


def _values(figures: Sequence[Figure], marks: Marks) -> str:
    if all(figure.value is None for figure in figures):
        return "-"
    return _pair([marks[f.rank].format(_percent(f.value)) + LEVEL * f.level for f in figures])


def _surroundings(figure: Figure) -> str:
    """Return the interval or the spread over seeds, in percent."""
    if figure.interval:
        return f"[{_percent(figure.interval[0])}, {_percent(figure.interval[1])}]"
    return "" if figure.spread is None else f"± {_percent(figure.spread)}"


def _pair(texts: Sequence[str]) -> str:
    """Return one text as it is, several in brackets as the paper prints its pairs."""
    return f"({', '.join(texts)})" if len(texts) > 1 else texts[0]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.{DECIMALS}f}"


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.{DECIMALS}f}"
