"""Inference speed: the naive way and ours, side by side in one process.

    python -m benchmarks.inference                ViT-L/14@336 size, 518x518, drawn weights
    python -m benchmarks.inference --small        the same road in seconds, to see it work

One image at a time, as the naive way knows no other. Measured: the whole image the naive
way (fp32), ours in fp32, bf16 and int8; the text side alone, both ways; how far the scores and
maps are apart. All take turns, round by round, and so does the machine's multiplication rate
(see `benchmarks.peak`): the floor is the time in which it could do the picture's matrix products
and nothing else. `--images` takes real pictures; without it, drawn ones serve.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import append_csv, machine_record, median_seconds
from benchmarks.naive import encode_prompts, naive_score
from benchmarks.peak import image_operations, matrix_units, multiply_rates
from faprompt.clip.backbone import Backbone, build_backbone
from faprompt.clip.spec import BackboneSpec, TextSpec, VisionSpec, spec_from_open_clip
from faprompt.detector import Detector
from faprompt.imaging.image_reading import read_image
from faprompt.imaging.transform import Transform
from faprompt.methods.faprompt import FAPrompt, FAPromptConfig

RESULTS = Path(__file__).parent / "results" / "inference.csv"
_CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
SMALL = BackboneSpec(
    embed_dim=64,
    quick_gelu=True,
    vision=VisionSpec(image_size=56, patch_size=14, width=64, layers=4, heads=1),
    text=TextSpec(width=64, layers=4, heads=1),
)


def drawn_backbone(spec: BackboneSpec) -> Backbone:
    """Seeded weights, scaled so that attention is as decided as in a trained tower."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(111)
        backbone = build_backbone(spec, name="drawn")
        for name, weight in backbone.named_parameters():
            if weight.ndim == 2 and "blocks" in name:
                gain = 1.5 if "in_proj" in name else 1.0
                torch.nn.init.normal_(weight, std=gain * weight.shape[1] ** -0.5)
    return backbone


def pictures(paths: list[Path], side: int, count: int) -> Tensor:
    """(count, 3, side, side) normalised pixels of the given pictures, or of drawn ones."""
    transform = Transform(image_size=(side, side))
    if paths:
        arrays = [read_image(path).array for path in paths[:count]]
    else:
        drawn = np.random.default_rng(111).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
        arrays = list(drawn)
    return torch.stack([torch.from_numpy(transform.to_pixels(array)) for array in arrays])


def text_seconds(detector: Detector, method: FAPrompt, repeats: int) -> tuple[float, float]:
    """One image's text side: naive (both passes, 77 positions) and ours (the refined prompts)."""
    backbone = detector.backbone
    static = method.static_text(backbone.text)
    shift = torch.zeros(1, backbone.spec.text.width)
    tokens = method.prompts.abnormal_tokens

    def naive() -> None:
        encode_prompts(backbone, method, tokens)
        encode_prompts(backbone, method, tokens + shift[0])

    with torch.no_grad():
        return (
            median_seconds(naive, repeats),
            median_seconds(
                lambda: method.prompts.encode_refined(backbone.text, static.prefix, shift), repeats
            ),
        )


def measure_rounds(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of each call, medians over rounds in which all take turns; and the best rates."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    rates: list[dict[str, float]] = []
    for _ in range(rounds):
        rates.append(multiply_rates(clock))
        for name, call in calls.items():
            started = clock()
            call()
            seconds[name].append(clock() - started)
    best = {name: max(each[name] for each in rates) for name in rates[0]}
    return {name: statistics.median(taken) for name, taken in seconds.items()}, best


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--images", type=Path, nargs="*", default=[])
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the medians are reported")
    parser.add_argument("--compare", type=int, default=4, help="pictures whose scores are compared")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", choices=_CLOCKS, default="wall",
        help="cpu counts the processor's time, for one thread on a machine that others use too",
    )  # fmt: skip
    options = parser.parse_args()
    if options.clock == "cpu" and options.threads != 1:
        parser.error("--clock cpu adds up the threads' time; use --threads 1.")
    torch.set_num_threads(options.threads)
    spec = SMALL if options.small else spec_from_open_clip("ViT-L-14-336", quick_gelu=True)
    side = 70 if options.small else 518
    exact = drawn_backbone(spec)
    torch.manual_seed(111)
    method = FAPrompt(FAPromptConfig(image_size=side), exact).requires_grad_(False)
    detectors = {
        name: Detector(
            exact if name == "fp32" else drawn_backbone(spec).set_precision(name),
            method,
            name="drawn",
        )
        for name in ("fp32", "bf16", "int8")
    }
    pixels = pictures(options.images, side, options.compare)

    def ours(name: str, batch: Tensor) -> tuple[Tensor, Tensor]:
        with torch.inference_mode():
            return detectors[name](batch)

    naive_text, our_text = text_seconds(detectors["fp32"], method, options.repeats)
    reference = naive_score(exact, method, pixels)  # these runs warm up as well
    found = {
        name: [
            torch.cat(parts) for parts in zip(*(ours(name, p[None]) for p in pixels), strict=True)
        ]
        for name in detectors
    }
    calls = {name: partial(ours, name, pixels[:1]) for name in detectors}
    seconds, rates = measure_rounds(
        {"naive": lambda: naive_score(exact, method, pixels[:1]), **calls},
        options.repeats,
        _CLOCKS[options.clock],
    )
    operations = image_operations(spec, (side // spec.vision.patch_size) ** 2)
    row: dict[str, Any] = {
        **machine_record(),
        "units": matrix_units(),
        "size": "small" if options.small else "ViT-L-14-336",
        "pixels": side,
        "threads": options.threads,
        "clock": options.clock,
        "pictures": "real" if options.images else "drawn",
        "compared": len(pixels),
        "naive_text_s": naive_text,
        "text_s": our_text,
        "text_ratio": naive_text / our_text,
        "score_spread": float(found["fp32"][0].std()),
        "naive_s": seconds["naive"],
        "operations": operations,
    }
    for name in detectors:
        wanted = reference if name == "fp32" else found["fp32"]
        floor = operations / rates[name]
        row |= {
            f"{name}_s": seconds[name],
            f"{name}_ratio": seconds["naive"] / seconds[name],
            f"{name}_score_error": float((found[name][0] - wanted[0]).abs().max()),
            f"{name}_map_error": float((found[name][1] - wanted[1]).abs().max()),
            f"{name}_same_ranking": bool((found[name][0].argsort() == wanted[0].argsort()).all()),
            f"{name}_floor_s": floor,
            f"{name}_over_floor": seconds[name] / floor,
        }
    if not options.small:
        append_csv(RESULTS, row)
    for name, value in row.items():
        print(f"{name:>20}  {value:.4g}" if isinstance(value, float) else f"{name:>20}  {value}")
    print(f"\n{'':8}{'seconds':>10}{'naive/ours':>12}{'floor s':>10}{'ours/floor':>12}")
    print(f"{'naive':8}{seconds['naive']:10.2f}")
    for name in detectors:
        print(
            f"{name:8}{seconds[name]:10.2f}{row[f'{name}_ratio']:12.2f}"
            f"{row[f'{name}_floor_s']:10.2f}{row[f'{name}_over_floor']:12.2f}"
        )


if __name__ == "__main__":
    main()
