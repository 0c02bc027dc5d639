"""Table 3 as files: what was measured here beside what the paper prints, and its figure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from faprompt.files import write_atomically
from faprompt.methods.registry import method_class
from faprompt.reproduce.complexity import chosen_methods, machine
from faprompt.reproduce.cost_records import MethodCost, Timing, tell
from faprompt.reproduce.published import PublishedCell, published_table
from faprompt.reproduce.series import Dot
from faprompt.reproduce.study_config import CostOptions, StudyConfig
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
    config: StudyConfig,
    costs: Sequence[MethodCost],
    out: Path,
    *,
    device: str,
    precision: str,
    drawn: bool,
) -> str:
    """study.md, table.csv, table.tex and the figure with its CSV; returns the Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    write_figure(cost_dots(costs), out)
    said = _said(config, costs, f"{machine(device)}, {precision}", drawn)
    markdown = "\n\n".join([f"# {config.title}", *said, "![figure](figure.svg)", _markdown(costs)])
    texts = {
        "study.md": markdown + "\n",
        "table.csv": _csv(costs),
        "table.tex": _latex(costs, said),
    }
    for name, text in texts.items():
        write_atomically(out / name, text.encode("utf-8"))
    return texts["study.md"]


def cost_dots(costs: Sequence[MethodCost]) -> tuple[Dot, ...]:
    """Three panels, a line per method; ours and the paper's."""
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
    """What would be measured, and how long it takes where the paper's times held."""
    calls, seconds = options.warmup + options.repeats, 0.0
    for name in chosen_methods(options):
        cells = [_published(name, metric) for metric in (TRAINING, INFERENCE)]
        if cells[1] is None:
            yield f"  would measure  {name}  (no published time)"
            continue
        spent = calls * sum(2 * c.value if c.metric == TRAINING else c.value for c in cells if c)
        seconds += spent / 1000
        yield f"  would measure  {name}"
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


def _rows(costs: Sequence[MethodCost]) -> Iterator[tuple[str, ...]]:
    for cost in costs:
        count = tuple("-" if n is None else f"{n:,}" for n in (cost.live, cost.reported))
        name = cost.method
        steps = tell(cost.step), tell(cost.cached_step), _printed(name, TRAINING)
        yield (
            name, *count, _printed(name, PARAMETERS), *steps, tell(cost.inference),
            _printed(name, INFERENCE),
        )  # fmt: skip


def _markdown(costs: Sequence[MethodCost]) -> str:
    lines = [_HEAD, ("---", *["---:"] * (len(_HEAD) - 1)), *_rows(costs)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _latex(costs: Sequence[MethodCost], said: Sequence[str]) -> str:
    rows = [" & ".join(line).replace("±", r"$\pm$") + r" \\" for line in (_HEAD, *_rows(costs))]
    return "\n".join(
        ["% needs \\usepackage{booktabs}", *(f"% {line}" for line in said),
         f"\\begin{{tabular}}{{l{'r' * (len(_HEAD) - 1)}}}", "\\toprule", rows[0], "\\midrule",
         *rows[1:], "\\bottomrule", "\\end{tabular}", ""]
    )  # fmt: skip


def _csv(costs: Sequence[MethodCost]) -> str:
    """One line per method, milliseconds; numbers without marks."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    timed = ("step", "cached_step", "inference")
    writer.writerow(
        ["method", "network", "image_size", "memory", "live", "reported"]
        + [f"{name}_{part}" for name in timed for part in ("ms", "spread")]
        + [f"published_{metric}" for metric in _PANELS]
        + ["reason"]
    )
    for cost in costs:
        pairs = [_pair(getattr(cost, name)) for name in timed]
        cells = [_published(cost.method, metric) for metric in _PANELS]
        values = [cost.live, cost.reported, *(v for pair in pairs for v in pair)]
        values += [cell.value if cell else None for cell in cells]
        plain = ["" if value is None else f"{value:.10g}" for value in values]
        about = [cost.method, cost.network, cost.image_size, cost.memory or ""]
        writer.writerow([*about, *plain, cost.reason])
    return out.getvalue()


def _said(config: StudyConfig, costs: Sequence[MethodCost], where: str, drawn: bool) -> list[str]:
    options = config.complexity
    assert options is not None
    weights = "drawn weights, which cost what trained ones do" if drawn else "its trained weights"
    sides = sorted({cost.image_size for cost in costs if cost.image_size and not cost.network})
    pictures = " or ".join(f"{side}x{side}" for side in sides)
    seen = f", pictures of {pictures}" if sides else ""
    lines = [f"The paper: {config.paper}"] if config.paper else []
    lines.append(
        f"Measured on {where}: {options.backbone} with {weights}{seen}; training "
        f"batches of {options.batch_size}, one picture at inference; the median and standard "
        f"deviation of {options.repeats} calls after {options.warmup} that are not counted. A "
        "training step has its image pass in it, as in the paper; `faprompt train` keeps tokens "
        "and pays the step on cached tokens. The paper's times are of an RTX 3090."
    )
    lines += _apart(costs, options)
    lines += _published_otherwise(costs, options)
    lines += _orders(costs)
    for cost in costs:
        if cost.reason:
            share = " in full" if cost.inference else ""
            lines.append(f"{cost.method} was not measured{share}: {cost.reason}.")
    return lines


def _apart(costs: Sequence[MethodCost], options: CostOptions) -> Iterator[str]:
    """Which rows stand on another network, learn in stages, or were given a memory."""
    for cost in costs:
        if cost.network:
            side = cost.image_size
            yield (
                f"{cost.method} is bound to {cost.network} and was measured on it, with pictures "
                f"of {side}x{side}: its times are of another network and size than the others'."
            )
        if cost.step and method_class(cost.method).staged:
            yield f"{cost.method} learns in stages; its step is one of the first stage."
        if cost.memory:
            yield (
                f"{cost.method} compares each patch with a memory of {cost.memory:,}, as many as "
                f"it keeps of {options.normal_pictures:,} normal pictures; what the memory holds "
                "is drawn. Nothing moves in it, so it has no training step; choosing what is "
                "kept is not timed."
            )


def _published_otherwise(costs: Sequence[MethodCost], options: CostOptions) -> Iterator[str]:
    """What is not known of the published times of two methods, where ours stand beside them."""
    names = {cost.method for cost in costs if cost.inference}
    if not names & {"winclip", "anovl"}:
        return
    yield (
        f"Our rows are of the preset `{options.preset}`, where a method has it, and on one "
        "backbone, where nothing else is said. "
        "The paper resizes the pictures of its baselines to 518x518 too, but keeps their own "
        "preprocessing where they have one (B.1); on which backbone and at which size WinCLIP and "
        "AnoVL were timed it does not say (C.1). What makes them dear here: WinCLIP encodes "
        "every window of 2x2 and 3x3 patches, 2,521 of them at 518x518 in patches of 14, and AnoVL "
        "22 views of a picture."
    )


def _orders(costs: Sequence[MethodCost]) -> Iterator[str]:
    """Whether methods stand in the paper's order, told as ratios to FAPrompt."""
    for metric, name in ((TRAINING, "step"), (INFERENCE, "inference")):
        ours = {c.method: getattr(c, name).median for c in costs if getattr(c, name)}
        theirs = {m: cell.value for m in ours if (cell := _published(m, metric)) and cell.value}
        if "faprompt" not in theirs or len(theirs) < 2:
            continue
        told = [
            f"{m} {ours[m] / ours['faprompt']:.2f} (paper {value / theirs['faprompt']:.2f})"
            for m, value in theirs.items()
            if m != "faprompt"
        ]
        label = "A training batch" if metric == TRAINING else "A picture"
        yield f"{label}, as a share of FAPrompt's time: {', '.join(told)}."
