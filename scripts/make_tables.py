"""Write the tables of the documentation and of a model card from result files.

    python scripts/make_tables.py [--check]

None is typed by hand. `--check` only tells whether all are up to date.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from scripts import bulk_tables, model_choice_tables, small_tables  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
MANY = 4  # groups of one dataset that still get a column each
TINY_COLUMNS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}


def rows_of(name: str) -> list[dict[str, str]]:
    """A result file's rows; none where it was not measured yet."""
    path = RESULTS / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def tiny_sets() -> str:
    """docs/tiny.md: a table a dataset, a row a method, each figure with its interval."""
    rows = rows_of("tiny")
    parts = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        own = [row for row in rows if row["dataset"] == dataset]
        groups = list(dict.fromkeys(row["group"] for row in own))
        shown = ["mean"] if len(groups) > MANY else [g for g in groups if g != "mean" or groups[2:]]
        parts.append(f"**{dataset}**\n\n{_set_table(own, shown)}")
    return "\n\n".join(parts)


def _set_table(rows: list[dict[str, str]], groups: list[str]) -> str:
    cells = {(row["group"], row["method"]): row for row in rows}
    columns = [(g, m) for g in groups for m in TINY_COLUMNS if any(r[m] for r in rows)]
    heads = [f"{g + ': ' if groups[1:] else ''}{TINY_COLUMNS[m]}" for g, m in columns]
    lines = ["| method | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(columns)]
    for method in dict.fromkeys(row["method"] for row in rows):
        values = [_with_interval(cells[g, method], m) for g, m in columns]
        lines.append(f"| {method} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def tiny_kinds() -> str:
    """docs/tiny.md: FAPrompt on the drawn test set, things down, defects across."""
    rows = [r for r in rows_of("tiny") if r["method"] == "faprompt" and "/" in r["group"]]
    cells = {tuple(row["group"].split("/")): row for row in rows}
    defects = sorted({defect for _, defect in cells})
    lines = ["| | " + " | ".join(defects) + " |", "|---|" + "---:|" * len(defects)]
    for thing in sorted({thing for thing, _ in cells}):
        values = [_pair(cells.get((thing, defect))) for defect in defects]
        lines.append(f"| {thing.replace('_', ' ')} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def tiny_curve() -> str:
    """docs/tiny.md: the backbone along its training, image and pixel AUROC of every set."""
    rows = [row for row in rows_of("tiny_curve") if row["group"] == "mean"]
    sets = list(dict.fromkeys(row["dataset"] for row in rows))
    cells = {(row["pictures"], row["dataset"]): row for row in rows}
    lines = ["| pictures | " + " | ".join(sets) + " |", "|---:|" + "---:|" * len(sets)]
    for pictures in dict.fromkeys(row["pictures"] for row in rows):
        values = [_pair(cells[pictures, name]) for name in sets]
        lines.append(f"| {int(pictures):,} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def _pair(row: dict[str, str] | None) -> str:
    if row is None:
        return ""
    return " / ".join(_percent(row[m]) for m in ("image_auroc", "pixel_auroc") if row[m])


def _with_interval(row: dict[str, str], metric: str) -> str:
    if not row[metric]:
        return "-"
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    return _percent(row[metric]) + (f" ({_percent(low)} to {_percent(high)})" if low else "")


def speed_table() -> str:
    """The newest row of each benchmark and processor, as ratios to the naive way of the same run.

    The floor is the time that the processor's own rate of multiplication allows.
    """
    lines = ["| what | processor | naive | ours | naive / ours | ours / floor |"]
    lines += ["|---|---|---:|---:|---:|---:|"]
    builders = {"inference": _inference_rows, "training": _training_rows, "metrics": _metrics_rows}
    for name, builder in builders.items():
        for processor, row in _newest(rows_of(name)).items():
            for what, naive, ours, ratio, floor in builder(row):
                lines.append(f"| {what} | {processor} | {naive} | {ours} | {ratio} | {floor} |")
    return "\n".join(lines)


def _newest(rows: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    """Processor -> its newest row at full size."""
    return {_processor(row): row for row in rows if row.get("size") != "small"}


def _processor(row: dict[str, str]) -> str:
    """The processor's name, with the units that multiply 16- and 8-bit matrices."""
    name = re.sub(r"\((R|TM)\)", "", row["cpu"]).removesuffix(" Processor")
    units = row.get("units", "").split()
    return f"{name} with AMX" if "amx_bf16" in units else name


Line = tuple[str, str, str, str, str]  # what, naive, ours, naive / ours, ours / floor


def _inference_rows(row: dict[str, str]) -> list[Line]:
    clock = ", CPU time" if row.get("clock") == "cpu" else ""
    threads = f"{row['threads']} thread{'s' * (row['threads'] != '1')}"
    place = f"ViT-L/14@336, {row['pixels']} px, {threads}{clock}"
    naive, lines = _seconds(row["naive_s"]), []
    for key in ("fp32", "bf16", "int8"):
        if row.get(f"{key}_s"):
            over = row.get(f"{key}_over_floor")
            lines.append((
                f"one image, {key}; {place}", naive, _seconds(row[f"{key}_s"]),
                _times(row[f"{key}_ratio"]), f"{float(over):.2f}" if over else "-",
            ))  # fmt: skip
    text = _seconds(row["naive_text_s"]), _seconds(row["text_s"]), _times(row["text_ratio"], 0)
    return [*lines, ("its text side", *text, "-")]


def _training_rows(row: dict[str, str]) -> list[Line]:
    return [
        (
            f"7 epochs of training, over one pass of image encoding plus the text work "
            f"({row['pictures']} pictures, batch {row['batch_size']})",
            "-", "-", f"{float(row['run_over_pass_plus_text']):.2f}", "-",
        ),
        (
            "prompts of one training step", _seconds(row["naive_prompts_s"]),
            _seconds(row["step_s"]), _times(row["naive_prompts_over_ours"]), "-",
        ),
        (
            "7 epochs on 1725 pictures, computed from the above",
            "-", "-", _times(row["naive_epochs_over_ours"]), "-",
        ),
    ]  # fmt: skip


def _metrics_rows(row: dict[str, str]) -> list[Line]:
    maps = int(row["maps"])
    loop = _seconds(str(maps * float(row["loop_ms_per_map"]) / 1000))
    what = (
        f"all pixel metrics of {maps} maps of {row['size']}x{row['size']}, beside the "
        "200-threshold loop alone (per-map cost, scaled)"
    )
    return [(what, loop, _seconds(row["ours_s"]), _times(row["ratio_to_loop"], 0), "-")]


def _times(value: str, digits: int = 1) -> str:
    return f"{float(value):.{digits}f}x"


def _percent(value: str) -> str:
    return f"{100 * float(value):.1f}" if value else "-"


def _seconds(value: str) -> str:
    return f"{float(value):.2f} s"


def fill(text: str, name: str, table: str) -> str:
    """The text with the part between a table's markers replaced."""
    pattern = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"There are no markers for the table {name!r}.")
    return pattern.sub(lambda match: f"{match[1]}\n{table}\n\n{match[2]}", text)


def main() -> int:
    """Command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    current = True
    for path, tables in PAGES.items():
        old = new = (ROOT / path).read_text(encoding="utf-8")
        for name, table in tables.items():
            new = fill(new, name, table())
        current &= new == old
        if not options.check:
            (ROOT / path).write_text(new, encoding="utf-8", newline="\n")
    return 0 if current or not options.check else 1


PAGES = {
    "docs/speed.md": {"speed": speed_table},
    "docs/tiny.md": {"sets": tiny_sets, "kinds": tiny_kinds, "curve": tiny_curve},
    "src/faprompt/bundled/tiny/README.md": {"sets": tiny_sets},
    "docs/small.md": small_tables.TABLES,
    "docs/which-model.md": model_choice_tables.TABLES,
    "docs/bulk.md": bulk_tables.TABLES,
}


if __name__ == "__main__":
    sys.exit(main())
