"""Tables as files: `table.md`, `.csv`, `.tex` and `.html`. No times or paths in them.

So a benchmark that was interrupted and resumed writes the same files as one in one go.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from faprompt.files import write_atomically
from faprompt.reproduce.benchmark_plan import Plan
from faprompt.reproduce.benchmark_run import CellResult
from faprompt.reproduce.cell_settings import ColumnSettings, column_settings, settings_line
from faprompt.reproduce.table_grid import Figure, Table, build_tables
from faprompt.reproduce.table_notes import reasons, statements
from faprompt.reproduce.table_page import to_html
from faprompt.reproduce.wording import LEVEL, published_line, surroundings, values

TABLE_FILES = ("table.md", "table.csv", "table.tex", "table.html")
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip
_LATEX_SIGNS = {ord("±"): r"$\pm$", ord(LEVEL): r"$\approx$"}


def write_tables(plan: Plan, results: Iterable[CellResult], out: Path) -> str:
    """Write all four files into `out`; returns the Markdown."""
    results = list(results)
    tables = build_tables(plan, results)
    said, lacking = statements(plan, tables, results), reasons(plan, tables, results)
    settings = column_settings(plan, results)
    under = settings_line(settings)
    markdown = to_markdown(plan.config.title, tables, said, lacking, under=under)
    texts = (
        markdown,
        to_csv(tables, settings),
        to_latex(tables, said, lacking, under=under),
        to_html(plan.config.title, tables, said, lacking, under=under),
    )
    out.mkdir(parents=True, exist_ok=True)
    for name, text in zip(TABLE_FILES, texts, strict=True):
        write_atomically(out / name, text.encode("utf-8", errors="replace"))
    return markdown


def to_markdown(
    title: str,
    tables: Sequence[Table],
    said: Sequence[str],
    lacking: Sequence[str],
    *,
    under: str = "",
) -> str:
    """Return all tables, our values in bold (best) or underlined (second best).

    Args:
        title: of the page.
        tables: of `build_tables`.
        said: lines below all tables.
        lacking: reasons for empty places.
        under: line below every table; see `settings_line`.
    """
    parts = [f"# {title}"]
    for table in tables:
        head, lines = _grid(table, _markdown_cell, _markdown_text)
        rule = "|---|" + "---:|" * (len(head) - 1)
        rows = [f"| {' | '.join(line)} |" for line in (head, *lines)]
        parts.append("\n".join([f"## {_markdown_text(table.title)}", "", rows[0], rule, *rows[1:]]))
        parts += [_markdown_text(under)] if under else []
    parts.append("\n".join(f"- {line}" for line in said))
    if lacking:
        parts.append("\n".join(["Empty places:", "", *(f"- {line}" for line in lacking)]))
    return "\n\n".join(parts) + "\n"


def to_csv(tables: Sequence[Table], settings: Mapping[str, ColumnSettings] | None = None) -> str:
    """Return one line per figure; values are fractions with all their digits.

    `settings` is of `column_settings`; without it preset, options and precision are empty.
    """
    unknown = ColumnSettings("", "", "")
    lines: list[list[str]] = [
        ["table", "row", "kind", "dataset", "class", "column", "method", "preset", "options",
         "precision", "backbone", "metric",
         "value", "low", "high", "spread", "published", "difference", "rank", "level", "reason"]
    ]  # fmt: skip
    for table in tables:
        for row, column, figure in table.places():
            low, high = figure.interval or (None, None)
            marks = [str(figure.rank or ""), "yes" * figure.level, figure.reason]
            ran = (settings or {}).get(column.title, unknown)
            numbers = (figure.value, low, high, figure.spread, figure.published, figure.difference)
            lines.append(
                [table.title, row.title, row.kind, row.dataset, row.class_name or "",
                 column.title, column.method.name, ran.preset, ran.options, ran.precision,
                 column.backbone, figure.metric,
                 *map(_digits, numbers), *marks]
            )  # fmt: skip
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def to_latex(
    tables: Sequence[Table], said: Sequence[str], lacking: Sequence[str], *, under: str = ""
) -> str:
    """Return one tabular per table, for booktabs; `said` and `lacking` are comments.

    `under` is printed below every tabular; see `to_markdown`.
    """
    parts = ["% needs \\usepackage{booktabs}"]
    parts += [f"% {line}" for line in (*said, *(f"empty: {line}" for line in lacking))]
    for table in tables:
        head, lines = _grid(table, _latex_cell, _latex_text)
        rows = [f"{' & '.join(line)} \\\\" for line in lines]
        parts += [
            "", f"% {table.title}", f"\\begin{{tabular}}{{l{'c' * (len(head) - 1)}}}", "\\toprule",
            f"{' & '.join(head)} \\\\", "\\midrule", *rows, "\\bottomrule", "\\end{tabular}",
        ]  # fmt: skip
        if under:
            parts += ["", f"{{\\footnotesize {_latex_text(under)}}}"]
    return "\n".join(parts) + "\n"


def _grid(
    table: Table, cell: Callable[[Sequence[Figure]], str], text: Callable[[str], str]
) -> tuple[list[str], list[list[str]]]:
    """Head and lines, with the methods across or down."""
    rows = [text(row.title) for row in table.rows]
    columns = [text(column.title) for column in table.columns]
    cells = [[cell(figures) for figures in line] for line in table.figures]
    if table.methods_down:
        turned = zip(columns, zip(*cells, strict=True), strict=True)
        return ["", *rows], [[name, *line] for name, line in turned]
    return ["", *columns], [[name, *line] for name, line in zip(rows, cells, strict=True)]


def _markdown_cell(figures: Sequence[Figure]) -> str:
    marks = {0: "{}", 1: "**{}**", 2: "<u>{}</u>"}
    return "<br>".join(_cell_lines(figures, marks))


def _latex_cell(figures: Sequence[Figure]) -> str:
    marks = {0: "{}", 1: "\\textbf{{{}}}", 2: "\\underline{{{}}}"}
    first, *rest = (line.translate(_LATEX_SIGNS) for line in _cell_lines(figures, marks))
    if not rest:
        return first
    small = [f"{{\\scriptsize {line}}}" for line in rest]
    return "\\shortstack{" + " \\\\ ".join([first, *small]) + "}"


def _cell_lines(figures: Sequence[Figure], marks: dict[int, str]) -> list[str]:
    """Our values; their intervals or spread, if any; what was published, if anything."""
    lines = [values(figures, marks)]
    around = [surroundings(figure) for figure in figures]
    lines += [" ".join(around)] if any(around) else []
    return lines + published_line(figures)


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _markdown_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
