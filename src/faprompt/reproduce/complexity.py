"""What each method costs on the machine at hand: parameters, training step, inference.

As Table 3 of FAPrompt's appendix: batches of 8 in training, one picture at inference. A
training step is timed twice, with the image pass in it as the paper has it, and on cached
tokens as `faprompt train` works. Several calls are not counted, then the median and the
standard deviation of the rest. See `cost_models` for what is measured where nothing is trained.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.vision import ImageFeatures
from faprompt.config import to_mapping
from faprompt.detector import Detector
from faprompt.errors import FapromptError
from faprompt.methods.registry import describe_methods, list_methods, method_class, presets_of
from faprompt.reproduce.benchmark_plan import slug
from faprompt.reproduce.cost_models import (
    CLASS_NAME,
    build_measured,
    draw_pixels,
    fit_network,
    pick_backbone,
)
from faprompt.reproduce.cost_records import TIMED, CostFile, MethodCost, Timing, describe
from faprompt.reproduce.study_config import CostOptions
from faprompt.work import logger

LONG_MS = 5000.0  # after a call that took longer, the next one is announced
EPOCHS = 100  # that a staged method is told of: enough for all its stages, and the first is timed
LABELS = dict(zip(TIMED, ("inference", "training step", "step on cached tokens"), strict=True))


def chosen_methods(options: CostOptions) -> tuple[str, ...]:
    """Those asked for, or all."""
    return options.methods or tuple(list_methods())


def measure_costs(
    options: CostOptions,
    out: Path,
    *,
    drawn: bool = False,
    device: str = "cpu",
    precision: str = "fp32",
) -> tuple[MethodCost, ...]:
    """Measure what is not measured yet; a method that cannot be is a line with its reason.

    Args:
        options: what to measure.
        out: gets `costs/<method>.json`; the same call goes on from those, be it in the midst
            of a method.
        drawn, device, precision: see `pick_backbone`.
    """

    @cache
    def backbone() -> Backbone:
        return pick_backbone(options.backbone, drawn=drawn, device=device, precision=precision)

    found = []
    for name in chosen_methods(options):
        identity = _identity(options, name, drawn, device, precision)
        file = CostFile(out / "costs" / f"{slug(name)}.json", identity)
        cost, complete = file.read()
        if cost is None or not complete:
            cost = _measured(name, backbone(), options, file, cost, drawn=drawn)
        found.append(cost)
        logger.info(f"{describe(cost)}{' (kept)' if complete else ''}")
    return tuple(found)


def measure_method(
    name: str,
    backbone: Backbone,
    options: CostOptions,
    *,
    drawn: bool = False,
    known: MethodCost | None = None,
    keep: Callable[[MethodCost], None] = lambda cost: None,
) -> MethodCost:
    """One method on a backbone, or on the network it is bound to.

    Args:
        name: of the method.
        backbone: the study's.
        options: what to measure, and how often.
        drawn: whether weights of another network may be drawn.
        known: times that were measured before; they are taken over.
        keep: takes what is known after each measurement.

    Raises:
        ConfigError, ModelError, MissingExtraError: as in `fit_network` and `build_measured`.
    """
    preset = options.preset if options.preset in presets_of(name) else "paper"
    network = fit_network(name, backbone, preset=preset, drawn=drawn)
    detector = build_measured(name, network, preset=preset, normal_pictures=options.normal_pictures)
    cost = _counted(detector, other_network=network is not backbone)
    for part in TIMED if cost.live else TIMED[:1]:
        told: dict[str, Any] = {part: _part(part, detector, options, known)}
        cost = replace(cost, **told)
        keep(cost)
    return cost


def _part(part: str, detector: Detector, options: CostOptions, known: MethodCost | None) -> Timing:
    """The time of one of `TIMED`, measured or known."""
    timing: Timing | None = getattr(known, part, None)
    label = f"{detector.method.name}: {LABELS[part]}"
    logger.info(f"{label} {'...' if timing is None else '(kept)'}")
    if timing is not None:
        return timing
    work = _works(part, detector, options.batch_size)
    return _timing(work, options, label)


def machine(device: str) -> str:
    """What the times were taken on."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    cpu = Path("/proc/cpuinfo")
    names = cpu.read_text(encoding="utf-8").splitlines() if cpu.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in names if line.startswith("model name")]
    threads = f"{torch.get_num_threads()} threads"
    return f"{models[0] if models else device}, {threads}, torch {torch.__version__}"


def _measured(
    name: str,
    backbone: Backbone,
    options: CostOptions,
    file: CostFile,
    known: MethodCost | None,
    *,
    drawn: bool,
) -> MethodCost:
    """What could be measured, written down; the rest is a reason."""
    parts = known or MethodCost(name)

    def keep(cost: MethodCost) -> None:
        nonlocal parts
        parts = cost
        file.write(cost, complete=False)

    try:
        cost = measure_method(name, backbone, options, drawn=drawn, known=known, keep=keep)
    except (FapromptError, torch.cuda.OutOfMemoryError, MemoryError) as error:
        cost = replace(parts, reason=str(error).rstrip("."))
    file.write(cost, complete=not cost.reason)
    return cost


def _counted(detector: Detector, *, other_network: bool) -> MethodCost:
    """What is told without any measuring."""
    method = detector.method
    live = sum(parameter.numel() for parameter in method.parameters())
    return MethodCost(
        method.name,
        live,
        _reported(method.name, live),
        image_size=detector.transform.image_size[0],
        network=detector.backbone.name if other_network else "",
        memory=sum(getattr(method.config, "memory", ())),
    )


def _reported(name: str, live: int) -> int | None:
    """The authors' count, where the method has the size they counted."""
    row = next(row for row in describe_methods() if row["name"] == name)
    return int(row["reported_parameters"]) if row["parameters"] == live else None


def _works(part: str, detector: Detector, batch_size: int) -> Callable[[], None]:
    """A function that does once what `part` of `TIMED` is about."""
    if part == "inference":
        return _score(detector)
    return _step(detector, batch_size, cached=part == "cached_step")


def _score(detector: Detector) -> Callable[[], None]:
    """A function that scores one picture."""
    detector.eval()
    pixels = draw_pixels(detector.method, 1, detector.backbone.device)

    def score() -> None:
        with torch.inference_mode():
            detector(pixels, class_names=[CLASS_NAME])[0].tolist()  # waits for the device

    return score


def _step(detector: Detector, batch_size: int, *, cached: bool) -> Callable[[], None]:
    """A function that takes one training step, from pixels or from tokens."""
    method, backbone = detector.method, detector.backbone
    method.train()
    method.begin_epoch(0, EPOCHS)
    pixels = draw_pixels(method, batch_size, backbone.device)
    learn = _learner(detector, batch_size)

    @torch.no_grad()
    def encode() -> ImageFeatures:  # training keeps tokens only
        return replace(method.encode_image(backbone, pixels), pixels=None)

    if not cached:
        return lambda: learn(encode())
    kept = encode()
    return lambda: learn(kept)


def _learner(detector: Detector, batch_size: int) -> Callable[[ImageFeatures], None]:
    """A function that takes one step of Adam on the features of a batch."""
    method, text = detector.method, detector.backbone.text
    device = detector.backbone.device
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3, betas=(0.5, 0.999))
    label = torch.arange(batch_size, device=device) % 2
    mask: Tensor = torch.zeros(batch_size, *detector.transform.image_size, device=device)
    mask[label == 1, : mask.shape[-1] // 4] = 1
    names: dict[str, Any] = {}
    if method.uses_class_names:
        names = {"class_names": [CLASS_NAME] * batch_size}

    def learn(features: ImageFeatures) -> None:
        output = method(features, text, **names)
        total = torch.stack(list(method.loss(output, label, mask).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        total.item()  # waits for the device

    return learn


def _timing(work: Callable[[], None], options: CostOptions, label: str) -> Timing:
    times = list(_milliseconds(work, options.warmup + options.repeats, label))[options.warmup :]
    return Timing(round(statistics.median(times), 4), round(statistics.stdev(times), 4))


def _milliseconds(work: Callable[[], None], count: int, label: str) -> Iterator[float]:
    for number in range(1, count + 1):
        began = time.perf_counter()
        work()
        spent = 1000 * (time.perf_counter() - began)
        if spent > LONG_MS and number < count:
            logger.info(f"{label}, call {number + 1} of {count} ...")
        yield spent


def _identity(
    options: CostOptions, name: str, drawn: bool, device: str, precision: str
) -> dict[str, Any]:
    """All that decides a method's figures here."""
    chosen = {k: v for k, v in to_mapping(options).items() if k != "methods"}
    if not getattr(method_class(name), "remembers", False):
        del chosen["normal_pictures"]
    about = {"drawn": drawn, "device": device, "precision": precision, "machine": machine(device)}
    return {"method": name, **chosen, **about}
