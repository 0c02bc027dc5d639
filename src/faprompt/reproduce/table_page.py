"""`table.html`: all tables on one page that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from faprompt.reproduce.table_grid import Figure, Table
from faprompt.reproduce.wording import published_line, surroundings, values

_MARKS = {0: "{}", 1: "<strong>{}</strong>", 2: "<u>{}</u>"}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{
  color-scheme: light dark;
  --page: #f6f6f4; --card: #ffffff; --ink: #1d1f23; --soft: #62666f; --line: #dcdcd8;
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --page: #15171a; --card: #1f2226; --ink: #e9eaec; --soft: #a0a5af; --line: #34383f;
  }}
}}
body {{
  margin: 0 auto; padding: 28px 24px; max-width: 1560px; background: var(--page);
  color: var(--ink);
  font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  font-variant-numeric: tabular-nums;
}}
h1 {{ font-size: 27px; line-height: 1.2; letter-spacing: -0.01em; margin: 0 0 14px; }}
h2 {{ font-size: 18px; margin: 32px 0 10px; }}
.wide {{ overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ padding: 7px 14px; text-align: right; vertical-align: top; white-space: nowrap; }}
thead th {{ border-bottom: 1px solid var(--ink); vertical-align: bottom; }}
tbody th {{ text-align: left; font-weight: 500; position: sticky; left: 0;
  background: var(--card); }}
tbody tr + tr > * {{ border-top: 1px solid var(--line); }}
tbody tr.mean > * {{ border-top: 1px solid var(--ink); }}
td small {{ display: block; color: var(--soft); font-size: 12.5px; }}
u {{ text-underline-offset: 3px; }}
p.under {{ color: var(--soft); font-size: 13.5px; margin: 8px 0 0; }}
ul {{ color: var(--soft); padding-left: 20px; max-width: 110ch; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>{title}</h1>
{tables}
<h2>How this was measured</h2>
<ul>
{said}
</ul>
{lacking}
</body>
</html>
"""


def to_html(
    title: str,
    tables: Sequence[Table],
    said: Sequence[str],
    lacking: Sequence[str],
    *,
    under: str = "",
) -> str:
    """Return all tables, each with `under` below it; then `said` and why places are empty."""
    empty = f"<h2>Empty places</h2>\n<ul>\n{_items(lacking)}\n</ul>" if lacking else ""
    note = f"\n<p class=under>{escape(under)}</p>" if under else ""
    return _PAGE.format(
        title=escape(title),
        tables="\n".join(_section(table) + note for table in tables),
        said=_items(said),
        lacking=empty,
    )


def _section(table: Table) -> str:
    columns = [column.title for column in table.columns]
    rows = [row.title for row in table.rows]
    cells = [[_cell(figures) for figures in line] for line in table.figures]
    strong = [row.kind in ("mean", "group") for row in table.rows]
    if table.methods_down:
        columns, rows = rows, columns
        cells = [list(line) for line in zip(*cells, strict=True)]
        strong = [False] * len(rows)
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *columns))
    first = strong.index(True) if True in strong else -1
    lines = [
        f"<tr{' class=mean' if number == first else ''}><th>{escape(name)}</th>{''.join(line)}</tr>"
        for number, (name, line) in enumerate(zip(rows, cells, strict=True))
    ]
    body = "\n".join(lines)
    return (
        f"<h2>{escape(table.title)}</h2>\n<div class=wide><table>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _cell(figures: Sequence[Figure]) -> str:
    ours = values(figures, _MARKS)
    around = " ".join(filter(None, map(surroundings, figures)))
    small = [line for line in (around, *published_line(figures)) if line]
    return f"<td>{ours}{''.join(f'<small>{escape(line)}</small>' for line in small)}</td>"


def _items(lines: Sequence[str]) -> str:
    return "\n".join(f"<li>{escape(line)}</li>" for line in lines)
