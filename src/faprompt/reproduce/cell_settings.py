"""What the columns of a benchmark ran with: preset, options and precision, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from faprompt.reproduce.benchmark_plan import Column, Plan
from faprompt.reproduce.benchmark_run import CellResult


@dataclass(frozen=True, slots=True)
class ColumnSettings:
    """What a column ran with, as far as it is known before or after its cells ran."""

    preset: str  # "" for a model that does not record it
    options: str  # those that differ from the preset's, such as "prompts=1"
    precision: str  # of the image tower
    unpublished: bool = False  # no number of the paper stands beside it, though the table has some

    @property
    def words(self) -> str:
        """Return preset and options in one phrase, such as "official with prompts=1"."""
        preset = self.preset or "not recorded"
        return f"{preset} with {self.options}" if self.options else preset


def column_settings(plan: Plan, results: Iterable[CellResult]) -> dict[str, ColumnSettings]:
    """Return the settings of every column by its title.

    Args:
        plan: of `build_plan`.
        results: of `run_benchmark`. A finished cell says which precision it ran in, and which
            preset its model records; for the others the benchmark's own file does.
    """
    done = {result.cell.column.title: result.metrics for result in results if result.metrics}
    return {
        column.title: _settings(plan, column, done.get(column.title, {})) for column in plan.columns
    }


def _settings(plan: Plan, column: Column, metrics: Mapping[str, Any]) -> ColumnSettings:
    method = column.method
    return ColumnSettings(
        preset=(metrics.get("preset") or "") if method.model else method.preset,
        options=", ".join(f"{name}={value}" for name, value in method.options.items()),
        precision=metrics.get("precision") or plan.config.precision,
        unpublished=bool(plan.config.published) and not method.published,
    )


def settings_line(settings: Mapping[str, ColumnSettings]) -> str:
    """Return precision and presets in words, for the line under every table.

    Example:
        >>> paper = ColumnSettings("paper", "", "fp32")
        >>> settings_line({"CLIP": paper, "FAPrompt": ColumnSettings("official", "", "fp32")})
        'Precision of the image tower: fp32. Presets: paper (CLIP); official (FAPrompt).'
    """
    parts = [
        "; ".join(f"{words} ({', '.join(titles)})" for words, titles in grouped.items())
        for grouped in (_titles_by(settings, "precision"), _titles_by(settings, "words"))
    ]
    alike = {each.precision for each in settings.values()}
    precision = alike.pop() if len(alike) == 1 else parts[0]
    without = [title for title, each in settings.items() if each.unpublished]
    beside = f" No published number stands beside {', '.join(without)}." if without else ""
    return f"Precision of the image tower: {precision}. Presets: {parts[1]}.{beside}"


def _titles_by(settings: Mapping[str, ColumnSettings], name: str) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for title, each in settings.items():
        grouped.setdefault(getattr(each, name), []).append(title)
    return grouped
