"""Write Table 3 as files: what was measured beside what the paper prints, and the figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from faprompt.files import csv_table, write_atomically
from faprompt.methods.registry import method_class
from faprompt.reproduce.cell_runner import RunContext
from faprompt.reproduce.complexity import (
    MethodCost,
    Timing,
    chosen_methods,
    cost_precision,
    describe_machine,
)
from faprompt.reproduce.experiment import Experiment
from faprompt.reproduce.experiment_parts import CostOptions
from faprompt.reproduce.figure_dots import Dot
from faprompt.reproduce.published import PublishedCell, published_table
from faprompt.reproduce.study_claims import to_markdown
from faprompt.reproduce.study_figure import write_figure

PARAMETERS, TRAINING, INFERENCE = "parameters", "training_ms_per_batch", "inference_ms_per_image"
_PANELS = {
    PARAMETERS: "parameters",
    TRAINING: "training, ms a batch",
    INFERENCE: "inference, ms a picture",
}
_HEAD = (
    "method", "live parameters", "as the authors count", "published", "training step, ms",
    "on cached tokens, ms", "published", "inference, ms", "published",
)  # fmt: skip


def write_costs(
    config: Experiment, costs: Sequence[MethodCost], context: RunContext, *, drawn: bool
) -> str:
    """Write study.md, table.csv, table.tex and the figure with its CSV; return the Markdown.

    `context` and `drawn` are those of `measure_costs`.
    """
    assert config.complexity is not None
    out, precision = context.out, cost_precision(config.complexity, context)
    out.mkdir(parents=True, exist_ok=True)
    write_figure(cost_dots(costs), out)
    notes = _notes(config, costs, f"{describe_machine(context.device)}, {precision}", drawn)
    rows = [_HEAD, *map(_row, costs)]
    parts = [f"# {config.title}", *([f"The paper: {config.paper}"] if config.paper else [])]
    parts += [to_markdown(rows, rule="---:"), "![figure](figure.svg)"]
    parts.append("\n".join(f"- {note}" for note in notes))
    texts = {
        "study.md": "\n\n".join(parts) + "\n",
        "table.csv": _csv(costs),
        "table.tex": _latex(rows, notes),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode("utf-8"))
    return texts["study.md"]


def cost_dots(costs: Sequence[MethodCost]) -> tuple[Dot, ...]:
    """Return the values of the figure: three panels with our and the paper's value per method."""
    dots = []
    for place, cost in enumerate(costs):
        ours = {
            PARAMETERS: (cost.live, None),
            TRAINING: _pair(cost.step),
            INFERENCE: _pair(cost.inference),
        }
        for metric, (value, spread) in ours.items():
            panel = ("costs", "method", _PANELS[metric], "cost", cost.method, "", float(place))
            if value is not None:
                dots.append(Dot(*panel, "ours", float(value), spread))  # type: ignore[arg-type]
            cell = _published(cost.method, metric)
            if cell is not None and (cell.value or metric == PARAMETERS):
                dots.append(
                    Dot(*panel, "published", cell.value, cell.spread, cell.note)  # type: ignore[arg-type]
                )
    order = list(_PANELS.values())
    return tuple(sorted(dots, key=lambda dot: (order.index(dot.metric), dot.x)))


def dry_run_lines(options: CostOptions) -> Iterator[str]:
    """Yield what would be measured, and how long the paper's machine would take."""
    calls, seconds = options.warmup + options.repeats, 0.0
    for name in chosen_methods(options):
        training, inference = (_published(name, metric) for metric in (TRAINING, INFERENCE))
        yield f"  would measure  {name}{'' if inference else '  (no published time)'}"
        if inference is not None:
            seconds += calls * (inference.value + (2 * training.value if training else 0)) / 1000
    yield (
        f"{calls} calls each of inference, a training step and one on cached tokens; "
        f"those published alone took about {seconds:.0f} s on the paper's RTX 3090"
    )
    yield "disk: well below 1 MB, the backbone's weights apart"


def _pair(timing: Timing | None) -> tuple[float | None, float | None]:
    return (None, None) if timing is None else (timing.median, timing.spread)


def _published(method: str, metric: str) -> PublishedCell | None:
    cells = (c for c in published_table(3) if (c.method, c.metric) == (method, metric))
    return next(cells, None)


def _printed(method: str, metric: str) -> str:
    cell = _published(method, metric)
    if cell is None:
        return "-"
    value = f"{cell.value:,.0f}" if metric == PARAMETERS else cell.printed
    return f"{value} ± {cell.spread:g}" if cell.spread is not None else value


def _row(cost: MethodCost) -> tuple[str, ...]:
    name = cost.method
    counts = ["-" if n is None else f"{n:,}" for n in (cost.live, cost.reported)]
    steps = [str(timing or "-") for timing in (cost.step, cost.cached_step)]
    return (
        name, *counts, _printed(name, PARAMETERS), *steps, _printed(name, TRAINING),
        str(cost.inference or "-"), _printed(name, INFERENCE),
    )  # fmt: skip


def _latex(rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    head, *lines = [" & ".join(row).replace("±", r"$\pm$") + r" \\" for row in rows]
    return "\n".join(
        ["% needs \\usepackage{booktabs}", *(f"% {line}" for line in notes),
         f"\\begin{{tabular}}{{l{'r' * (len(_HEAD) - 1)}}}", "\\toprule", head, "\\midrule",
         *lines, "\\bottomrule", "\\end{tabular}", ""]
    )  # fmt: skip


def _csv(costs: Sequence[MethodCost]) -> str:
    """Return one line for each method, with times in milliseconds."""
    timed = ("step", "cached_step", "inference")
    head = ["method", "network", "image_size", "memory", "live", "reported"]
    head += [f"{name}_{part}" for name in timed for part in ("ms", "spread")]
    rows: list[list[Any]] = [[*head, *(f"published_{metric}" for metric in _PANELS), "reason"]]
    for cost in costs:
        pairs = [_pair(getattr(cost, name)) for name in timed]
        cells = [_published(cost.method, metric) for metric in _PANELS]
        values = [cost.live, cost.reported, *(v for pair in pairs for v in pair)]
        values += [cell.value if cell else None for cell in cells]
        plain = ["" if value is None else f"{value:.10g}" for value in values]
        about = [cost.method, cost.network, cost.image_size, cost.memory or ""]
        rows.append([*about, *plain, cost.reason])
    return csv_table(rows)


def _notes(config: Experiment, costs: Sequence[MethodCost], where: str, drawn: bool) -> list[str]:
    """Return what has to be known to read the table."""
    options = config.complexity
    assert options is not None
    weights = "drawn" if drawn else "trained"
    sides = sorted({cost.image_size for cost in costs if cost.image_size and not cost.network})
    sizes = "".join(f", pictures of {side}x{side} px" for side in sides)
    notes = [
        f"Measured on {where}: {options.backbone} with {weights} weights{sizes}; training batches "
        f"of {options.batch_size}, one picture at inference; median and standard deviation of "
        f"{options.repeats} calls after {options.warmup} that do not count.",
        "A training step includes the pass of the image tower, as in the paper. `faprompt train` "
        "caches tokens and takes the time of the step on cached tokens.",
        "The paper's times are of an RTX 3090. It does not say on which backbone and at which "
        "picture size WinCLIP and AnoVL were timed (C.1).",
    ]
    for cost in costs:
        if cost.network:
            notes.append(
                f"{cost.method} was measured on its own network, {cost.network}, with pictures of "
                f"{cost.image_size}x{cost.image_size} px."
            )
        if cost.step and method_class(cost.method).staged:
            notes.append(f"{cost.method} learns in stages; its step is one of the first stage.")
        if cost.memory:
            notes.append(
                f"{cost.method} compares each patch with a drawn memory of {cost.memory:,}, the "
                f"size it keeps of {options.normal_pictures:,} normal pictures. It has no training "
                "step; choosing the memory is not timed."
            )
        if cost.reason:
            share = " in full" if cost.inference else ""
            notes.append(f"{cost.method} was not measured{share}: {cost.reason}.")
    return notes
