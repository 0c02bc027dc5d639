"""What each method costs on the machine at hand: parameters, training step, inference.

As Table 3 of FAPrompt's appendix: batches of 8 in training, one picture at inference. A
training step is timed twice, with the image pass in it as the paper has it, and on cached
tokens as `faprompt train` works. Speed does not depend on what weights hold, so they may be
drawn. Several calls are not counted, then the median and the standard deviation of the rest.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faprompt.benchmark.plan import slug
from faprompt.clip.backbone import Backbone, build_backbone
from faprompt.clip.catalog import pretrained_spec, split_name
from faprompt.clip.weights import load_backbone
from faprompt.config import to_mapping
from faprompt.detector import Detector
from faprompt.errors import ConfigError, FapromptError
from faprompt.methods.registry import build_method, describe_methods, list_methods, method_class
from faprompt.model_folder import fit_to_backbone
from faprompt.prediction.rows import write_atomically
from faprompt.study.config import CostOptions

CLASS_NAME = "bottle"  # what drawn pictures are said to show, for methods that ask


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds."""

    median: float
    spread: float  # standard deviation


@dataclass(frozen=True, slots=True)
class MethodCost:
    """One method's line. What it has not is None; `reason` says why there is nothing at all."""

    method: str
    live: int | None = None  # parameters that move
    reported: int | None = None  # as the authors count, where that is known for this backbone
    step: Timing | None = None  # one training batch, its image pass included
    cached_step: Timing | None = None  # the same on cached tokens
    inference: Timing | None = None  # one picture
    image_size: int = 0
    reason: str = ""


def chosen_methods(options: CostOptions) -> tuple[str, ...]:
    """Those asked for, or all that see more than one kind of thing."""
    every = tuple(name for name in list_methods() if not method_class(name).full_shot)
    return options.methods or every


def pick_backbone(name: str, *, drawn: bool, device: str = "cpu", precision: Any = "fp32") -> Any:
    """The backbone of a study of cost.

    Args:
        name: as for `load_backbone`; with `drawn`, an open_clip name.
        drawn: seeded weights of that architecture instead of the trained ones.
        device: where it goes.
        precision: of the image tower.

    Raises:
        ConfigError: weights can be drawn for open_clip's architectures only.
    """
    if not drawn:
        return load_backbone(name, precision=precision, device=device)
    found = split_name(name)
    if found is None:
        raise ConfigError(f"Weights can be drawn for open_clip's names only, not for {name!r}.")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(111)
        backbone = build_backbone(pretrained_spec(*found), name=f"{name}, drawn weights")
    return backbone.set_precision(precision).to(device)


def measure_costs(
    options: CostOptions,
    out: Path,
    *,
    drawn: bool = False,
    device: str = "cpu",
    precision: str = "fp32",
    notify: Callable[[str], None] = lambda line: None,
) -> tuple[MethodCost, ...]:
    """Measure what is not measured yet; a method that cannot be is a line with its reason.

    Args:
        options: what to measure.
        out: gets `costs/<method>.json`; the same call goes on from those.
        drawn, device, precision: see `pick_backbone`.
        notify: takes a line per method.
    """
    backbone: Backbone | None = None
    found = []
    for name in chosen_methods(options):
        place = out / "costs" / f"{slug(name)}.json"
        identity = _identity(options, name, drawn, device, precision)
        cost = _read(place, identity)
        kept = cost is not None
        if cost is None:
            if backbone is None:
                backbone = pick_backbone(
                    options.backbone, drawn=drawn, device=device, precision=precision
                )
            cost = _measured(name, backbone, options)
            _write(place, identity, cost)
        found.append(cost)
        notify(f"{describe(cost)}{' (kept)' if kept else ''}")
    return tuple(found)


def measure_method(name: str, backbone: Backbone, options: CostOptions) -> MethodCost:
    """One method on a backbone; errors as in `build_method`."""
    preset = options.preset if options.preset in method_class(name).presets else "paper"
    chosen = fit_to_backbone(name, backbone, {}, preset=preset)
    detector = Detector(backbone, build_method(name, backbone, chosen, preset=preset), name=name)
    live = sum(parameter.numel() for parameter in detector.method.parameters())
    cost = MethodCost(
        name, live, _reported(name, live), image_size=detector.transform.image_size[0]
    )
    inference = _timing(_score(detector), options)
    if not detector.method.learns:
        return replace(cost, inference=inference)
    whole, cached = _steps(detector, options.batch_size)
    return replace(
        cost,
        inference=inference,
        step=_timing(whole, options),
        cached_step=_timing(cached, options),
    )


def describe(cost: MethodCost) -> str:
    """One line for a person."""
    if cost.reason:
        return f"{cost.method}: - ({cost.reason})"
    told = [f"{cost.live:,} parameters", f"{tell(cost.inference)} ms a picture"]
    told += [f"{tell(cost.step)} ms a training batch"] if cost.step else []
    return f"{cost.method}: {', '.join(told)}"


def tell(timing: Timing | None) -> str:
    """`12.3 ± 0.4`, or a dash."""
    return "-" if timing is None else f"{timing.median:.1f} ± {timing.spread:.1f}"


def machine(device: str) -> str:
    """What the times were taken on."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    cpu = Path("/proc/cpuinfo")
    names = cpu.read_text(encoding="utf-8").splitlines() if cpu.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in names if line.startswith("model name")]
    threads = f"{torch.get_num_threads()} threads"
    return f"{models[0] if models else device}, {threads}, torch {torch.__version__}"


def _measured(name: str, backbone: Backbone, options: CostOptions) -> MethodCost:
    try:
        return measure_method(name, backbone, options)
    except (FapromptError, torch.cuda.OutOfMemoryError, MemoryError) as error:
        return MethodCost(name, reason=str(error).rstrip("."))


def _reported(name: str, live: int) -> int | None:
    """The authors' count, where the method has the size they counted."""
    row = next(row for row in describe_methods() if row["name"] == name)
    return int(row["reported_parameters"]) if row["parameters"] == live else None


def _pixels(detector: Detector, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(111)
    pixels = torch.randn(count, 3, *detector.transform.image_size, generator=generator)
    return pixels.to(detector.backbone.device)


def _score(detector: Detector) -> Callable[[], None]:
    """A function that scores one picture."""
    pixels = _pixels(detector, 1)

    def score() -> None:
        with torch.inference_mode():
            detector(pixels, class_names=[CLASS_NAME])[0].tolist()  # waits for the device

    return score


def _steps(detector: Detector, batch_size: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """Two functions that take one training step: from pixels, and from tokens."""
    method, backbone = detector.method, detector.backbone
    method.train()
    pixels = _pixels(detector, batch_size)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3, betas=(0.5, 0.999))
    label = torch.arange(batch_size, device=pixels.device) % 2
    mask = torch.zeros(batch_size, *detector.transform.image_size, device=pixels.device)
    mask[label == 1, : mask.shape[-1] // 4] = 1
    names = {"class_names": [CLASS_NAME] * batch_size} if method.uses_class_names else {}

    def learn(features: Any) -> None:
        output = method(features, backbone.text, **names)
        total = torch.stack(list(method.loss(output, label, mask).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        total.item()  # waits for the device

    with torch.no_grad():
        kept = method.encode_image(backbone, pixels)

    def from_pixels() -> None:
        with torch.no_grad():
            features = method.encode_image(backbone, pixels)
        learn(features)

    return from_pixels, lambda: learn(kept)


def _timing(work: Callable[[], None], options: CostOptions) -> Timing:
    times = list(_milliseconds(work, options.warmup + options.repeats))[options.warmup :]
    return Timing(round(statistics.median(times), 4), round(statistics.stdev(times), 4))


def _milliseconds(work: Callable[[], None], count: int) -> Iterator[float]:
    for _ in range(count):
        began = time.perf_counter()
        work()
        yield 1000 * (time.perf_counter() - began)


def _identity(
    options: CostOptions, name: str, drawn: bool, device: str, precision: str
) -> dict[str, Any]:
    """All that decides a method's figures here."""
    chosen = {k: v for k, v in to_mapping(options).items() if k != "methods"}
    about = {"drawn": drawn, "device": device, "precision": precision, "machine": machine(device)}
    return {"method": name, **chosen, **about}


def _read(place: Path, identity: dict[str, Any]) -> MethodCost | None:
    try:
        told = json.loads(place.read_text(encoding="utf-8"))
        if told["identity"] != identity or told["cost"]["reason"]:
            return None
        values = told["cost"]
        timings = {
            key: Timing(**values[key]) if values[key] else None
            for key in ("step", "cached_step", "inference")
        }
        return MethodCost(**{**values, **timings})
    except (OSError, ValueError, KeyError, TypeError):  # absent, cut off or another program's
        return None


def _write(place: Path, identity: dict[str, Any], cost: MethodCost) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"identity": identity, "cost": asdict(cost)}, indent=2) + "\n"
    write_atomically(place, text.encode())
