"""Measure what each method costs on this machine: parameters, training step, inference.

As in Table 3 of FAPrompt's appendix, training batches have 8 pictures and inference has one. A
training step is timed with the pass of the image tower in it, as in the paper, and on cached
tokens, as `faprompt train` works. `cost_models` builds the detectors that are measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from faprompt.clip.backbone import Backbone
from faprompt.clip.vision import ImageFeatures
from faprompt.config import to_mapping
from faprompt.detector import Detector
from faprompt.errors import FapromptError
from faprompt.methods.registry import describe_methods, list_methods, method_class, presets_of
from faprompt.reproduce.cell_identity import read_record, write_record
from faprompt.reproduce.cell_runner import RunContext
from faprompt.reproduce.cells import slug
from faprompt.reproduce.cost_models import (
    CLASS_NAME,
    build_measured,
    draw_pixels,
    fit_network,
    pick_backbone,
)
from faprompt.reproduce.experiment_parts import CostOptions
from faprompt.work import logger, pick_precision

LONG_MS = 5000.0  # after a call that took longer, the next one is reported
EPOCHS = 100  # of a staged method: enough for all its stages, of which the first is timed
TIMED = {"inference": "inference", "step": "training step", "cached_step": "step on cached tokens"}


@dataclass(frozen=True, slots=True)
class Timing:
    """Time of a call in milliseconds."""

    median: float
    spread: float  # standard deviation

    def __str__(self) -> str:
        return f"{self.median:.1f} ± {self.spread:.1f}"


@dataclass(frozen=True, slots=True)
class MethodCost:
    """The cost of one method; None where it does not apply or was not measured."""

    method: str
    live: int | None = None  # parameters that training changes
    reported: int | None = None  # the authors' count, where the method has the size they counted
    step: Timing | None = None  # one training batch, with the pass of the image tower
    cached_step: Timing | None = None  # one training batch on cached tokens
    inference: Timing | None = None  # one picture
    image_size: int = 0  # px
    reason: str = ""  # why something was not measured
    network: str = ""  # the backbone, where it is not the study's
    memory: int = 0  # patches that each patch of a picture is compared with

    def __str__(self) -> str:
        if self.reason and self.inference is None:
            return f"{self.method}: - ({self.reason})"
        parts = [f"{self.live:,} parameters", f"{self.inference or '-'} ms a picture"]
        parts += [f"{self.step} ms a training batch"] if self.step else []
        parts += [f"incomplete ({self.reason})"] if self.reason else []
        return f"{self.method}: {', '.join(parts)}"


def chosen_methods(options: CostOptions) -> tuple[str, ...]:
    """Return the methods of a study of cost; default all."""
    return options.methods or tuple(list_methods())


def cost_precision(options: CostOptions, context: RunContext) -> str:
    """Return the precision of the image tower: the caller's, else the study's."""
    return pick_precision(context.precision or options.precision, context.device)


def measure_costs(
    options: CostOptions, context: RunContext, *, drawn: bool = False
) -> tuple[MethodCost, ...]:
    """Measure what is not measured yet; a method that cannot be measured has a reason.

    `out` of the context gets `costs/<method>.json`; the same call continues from there. The
    backbone is that of `pick_backbone`, with its errors.
    """
    device, precision = context.device, cost_precision(options, context)

    @cache
    def backbone() -> Backbone:
        return pick_backbone(options.backbone, drawn=drawn, device=device, precision=precision)

    costs = []
    for name in chosen_methods(options):
        path = context.out / "costs" / f"{slug(name)}.json"
        identity = cost_identity(options, name, drawn=drawn, device=device, precision=precision)
        known, complete = read_cost(path, identity)
        cost = known or MethodCost(name)
        if not complete:
            shared = backbone()  # a study without its backbone ends here
            try:
                for cost in measure_method(name, shared, options, drawn=drawn, known=known):
                    write_cost(path, identity, cost, complete=False)
            except (FapromptError, torch.cuda.OutOfMemoryError, MemoryError) as error:
                cost = replace(cost, reason=str(error).rstrip("."))
            write_cost(path, identity, cost, complete=not cost.reason)
        costs.append(cost)
        logger.info(f"{cost}{' (kept)' if complete else ''}")
    return tuple(costs)


def measure_method(
    name: str,
    backbone: Backbone,
    options: CostOptions,
    *,
    drawn: bool = False,
    known: MethodCost | None = None,
) -> Iterator[MethodCost]:
    """Yield the cost of a method after each of its measurements.

    A method that needs another network than the study's is measured on that; its weights may be
    `drawn`. Times in `known` are taken over. Errors are those of `fit_network` and
    `build_measured`.
    """
    preset = options.preset if options.preset in presets_of(name) else "paper"
    network = fit_network(name, backbone, preset=preset, drawn=drawn)
    detector = build_measured(name, network, preset=preset, normal_pictures=options.normal_pictures)
    method = detector.method
    live = sum(parameter.numel() for parameter in method.parameters())
    counted = next(row for row in describe_methods() if row["name"] == name)
    cost = MethodCost(
        name,
        live,
        int(counted["reported_parameters"]) if counted["parameters"] == live else None,
        image_size=detector.transform.image_size[0],
        network="" if network is backbone else network.name,
        memory=sum(getattr(method.config, "memory", ())),
    )
    for part, title in TIMED.items():
        if part != "inference" and not live:
            continue
        timing: Timing | None = getattr(known, part, None)
        label = f"{name}: {title}"
        logger.info(f"{label} {'...' if timing is None else '(kept)'}")
        if timing is None:
            timing = time_call(build_call(part, detector, options.batch_size), options, label)
        cost = replace(cost, **{part: timing})  # type: ignore[arg-type]
        yield cost


def build_call(part: str, detector: Detector, batch_size: int) -> Callable[[], None]:
    """Return a function that does once what a part of `TIMED` measures.

    "inference" scores one picture, "step" takes a training step of `batch_size` pictures from
    pixels, and "cached_step" takes it from the tokens of the image tower.
    """
    method, backbone = detector.method, detector.backbone
    pixels = draw_pixels(method, 1 if part == "inference" else batch_size, backbone.device)
    if part == "inference":
        method.eval()

        def score() -> None:
            with torch.inference_mode():
                detector(pixels, class_names=[CLASS_NAME])[0].tolist()  # waits for the device

        return score

    method.train()
    method.begin_epoch(0, EPOCHS)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3, betas=(0.5, 0.999))
    label = torch.arange(batch_size, device=backbone.device) % 2
    mask = torch.zeros(batch_size, *detector.transform.image_size, device=backbone.device)
    mask[label == 1, : mask.shape[-1] // 4] = 1
    names: dict[str, Any] = {}
    if method.uses_class_names:
        names = {"class_names": [CLASS_NAME] * batch_size}

    @torch.no_grad()
    def encode() -> ImageFeatures:  # training keeps tokens only
        return replace(method.encode_image(backbone, pixels), pixels=None)

    cached = encode() if part == "cached_step" else None

    def step() -> None:
        output = method(encode() if cached is None else cached, backbone.text, **names)
        total = torch.stack(list(method.loss(output, label, mask).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        total.item()  # waits for the device

    return step


def time_call(call: Callable[[], None], options: CostOptions, label: str) -> Timing:
    """Time calls and return median and deviation of those after the warm-up."""
    times: list[float] = []
    count = options.warmup + options.repeats
    for number in range(1, count + 1):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
        if times[-1] > LONG_MS and number < count:
            logger.info(f"{label}, call {number + 1} of {count} ...")
    counted = times[options.warmup :]
    return Timing(round(statistics.median(counted), 4), round(statistics.stdev(counted), 4))


def describe_machine(device: str) -> str:
    """Return the name of the processor, threads and version of torch."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    cpu = Path("/proc/cpuinfo")
    names = cpu.read_text(encoding="utf-8").splitlines() if cpu.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in names if line.startswith("model name")]
    threads = f"{torch.get_num_threads()} threads"
    return f"{models[0] if models else device}, {threads}, torch {torch.__version__}"


def cost_identity(
    options: CostOptions, name: str, *, drawn: bool, device: str, precision: str
) -> dict[str, Any]:
    """Return all that decides the cost of a method on this machine."""
    chosen = {k: v for k, v in to_mapping(options).items() if k != "methods"}
    if not getattr(method_class(name), "remembers", False):
        del chosen["normal_pictures"]
    about = {"drawn": drawn, "device": device, "precision": precision}
    return {"method": name, **chosen, **about, "machine": describe_machine(device)}


def read_cost(path: Path, identity: Mapping[str, Any]) -> tuple[MethodCost | None, bool]:
    """Read what is known of a method's cost, and whether that is complete; None if nothing is."""
    record = read_record(path, identity=identity)
    if record is None:
        return None, False
    try:
        values = {**record["cost"], "reason": ""}
        timings = {key: Timing(**values[key]) if values[key] else None for key in TIMED}
        complete = bool(record.get("complete", True)) and not record["cost"]["reason"]
        return MethodCost(**{**values, **timings}), complete
    except (KeyError, TypeError):  # of another version
        return None, False


def write_cost(
    path: Path, identity: Mapping[str, Any], cost: MethodCost, *, complete: bool
) -> None:
    """Keep what is known so far."""
    write_record(path, {"identity": identity, "cost": asdict(cost), "complete": complete})
