"""Train `tiny`, a small CLIP, from nothing but pictures this project draws.

    python scripts/pretrain_tiny.py --config scripts/pretrain_tiny.toml --out runs/tiny

The losses of every batch: image-caption contrast (it stays an honest CLIP), normal or
damaged for the whole image, for every V-V patch token and for the most damaged few of
them, with the state words drawn anew each step so that no single wording is learned by
heart. Weights are averaged over time (EMA). The pictures follow from the seed and the step
number, so a run stopped at any moment goes on where it was: the same command again.

Writes OUT/checkpoint.pt, OUT/log.csv, OUT/run.toml, now and then OUT/snapshots/STEP/ (the
averaged weights as they are then) and, at the end, OUT/backbone/, the mean of the snapshots
that the configuration names: real pictures were served best by some from the middle.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faprompt.clip.backbone import Backbone, build_backbone  # noqa: E402
from faprompt.clip.spec import BackboneSpec, TextSpec, VisionSpec  # noqa: E402
from faprompt.clip.tokens import END, START, bpe_ids  # noqa: E402
from faprompt.clip.vision import ImageOptions  # noqa: E402
from faprompt.clip.weights import load_backbone, save_backbone  # noqa: E402
from faprompt.config import parse_toml  # noqa: E402
from faprompt.losses import local_loss  # noqa: E402
from faprompt.metrics import auroc  # noqa: E402
from faprompt.prompts.templates import IMAGENET_TEMPLATES, WINCLIP_TEMPLATES  # noqa: E402
from faprompt.scoring import grid_map, pair_logits, unit, upsample  # noqa: E402
from scripts.caption_grammar import (  # noqa: E402
    ABNORMAL_STATES,
    GENERIC,
    NORMAL_STATES,
    TEMPLATES,
    vocabulary_texts,
)
from scripts.drawn_batches import CaptionedBatch, draw_batch  # noqa: E402

MARKED_SHARE = 0.03  # of a patch that has to be damaged for the patch to count as damaged
LOCAL_SCALE = 4  # the local loss is taken at so many points a patch side, not at every pixel
LOCAL_SHARE = 0.25  # of a point's square that has to be damaged
PEAK_PATCHES = 4  # most damaged patches that speak for the whole image
Config = dict[str, dict[str, Any]]
TERMS = ("caption", "state", "local", "balanced", "peak")
WATCHED = ("patch_auroc", "image_auroc", "peak_auroc")
LOG_COLUMNS = ("step", "pictures", *TERMS, *WATCHED, "seconds")


def build_spec(config: Config) -> BackboneSpec:
    """The backbone's sizes, and the token ids that the captions can hold."""
    sizes, side = config["backbone"], config["data"]["image_size"]
    ids = {START, END}
    for text in [*vocabulary_texts(), *IMAGENET_TEMPLATES, *WINCLIP_TEMPLATES]:
        ids.update(bpe_ids(text.replace("{}", "")))
    return BackboneSpec(
        embed_dim=sizes["embed_dim"],
        quick_gelu=False,
        vision=VisionSpec(
            image_size=side,
            patch_size=sizes["patch_size"],
            width=sizes["vision_width"],
            layers=sizes["vision_layers"],
            heads=sizes["vision_heads"],
            stem_channels=tuple(sizes["stem_channels"]),
            stem_strides=tuple(sizes["stem_strides"]),
        ),
        text=TextSpec(
            width=sizes["text_width"],
            layers=sizes["text_layers"],
            heads=sizes["text_heads"],
            context_length=sizes["context_length"],
            vocab_size=len(ids),
        ),
        vocabulary=tuple(sorted(ids)),
    )


class Pretraining(torch.nn.Module):
    """The backbone with its gradients on, and the contrast's learned scale."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.backbone: Backbone = build_backbone(build_spec(config), name="tiny")
        self.backbone.requires_grad_(True)
        self.logit_scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(
        self, batch: CaptionedBatch, phrases: tuple[str, str], *, class_ln_post: bool
    ) -> dict[str, Tensor]:
        """Weighted loss terms of one batch; `phrases` is a normal and a damaged sentence.

        CLIP reads the class token through `ln_post`, AnomalyCLIP and FAPrompt do not:
        steps alternate, so that both readings mean the same.
        """
        weights, spec = self.config["loss"], self.backbone.spec
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
        with torch.autocast(batch.images.device.type, dtype=torch.bfloat16):
            features = self.backbone.encode_image(
                (batch.images - mean) / std, ImageOptions(class_ln_post=class_ln_post)
            )
            texts = self.backbone.encode_texts([*phrases, *batch.captions])
        pair, captions = texts[:2].float(), texts[2:].float()
        image, temperature = features.class_token.float(), weights["temperature"]
        tokens = features.patch_tokens[spec.vision.layers]
        logits = pair_logits(tokens, pair, temperature=temperature)
        abnormal = grid_map(logits.softmax(dim=-1)[..., 1], features.grid)
        state = pair_logits(image[:, None], pair, temperature=temperature)[:, 0]
        masks = batch.masks.float()[:, None]
        marked = F.adaptive_avg_pool2d(masks, features.grid).flatten(1) > MARKED_SHARE
        points = (features.grid[0] * LOCAL_SCALE, features.grid[1] * LOCAL_SCALE)
        fine = F.adaptive_avg_pool2d(masks, points)[:, 0] > LOCAL_SHARE
        damaged = logits[..., 1] - logits[..., 0]
        peak = damaged.topk(PEAK_PATCHES, dim=1).values.mean(dim=1)
        self.patch_auroc = auroc(abnormal.detach().flatten(), marked.flatten())
        self.image_auroc = auroc((state[:, 1] - state[:, 0]).detach(), batch.labels)
        self.peak_auroc = auroc(peak.detach(), batch.labels)
        return {
            "caption": weights["caption_weight"] * self.contrast(image, captions, batch.captions),
            "state": weights["state_weight"] * F.cross_entropy(state, batch.labels),
            "local": weights["local_weight"] * local_loss(upsample(abnormal, points), fine.float()),
            "balanced": weights["balanced_weight"] * balanced_entropy(damaged, marked.float()),
            "peak": weights["peak_weight"]
            * F.binary_cross_entropy_with_logits(peak, batch.labels.float()),
        }

    def contrast(self, image: Tensor, text: Tensor, captions: tuple[str, ...]) -> Tensor:
        """CLIP's symmetric loss; pictures that share a caption share the target."""
        logits = self.logit_scale.exp().clamp(max=100) * unit(image) @ unit(text).T
        same = torch.tensor([[a == b for b in captions] for a in captions]).float()
        target = same / same.sum(dim=1, keepdim=True)
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def balanced_entropy(logit: Tensor, marked: Tensor) -> Tensor:
    """Cross entropy of patches, marked and unmarked ones weighing the same in sum.

    Without it, calling every patch normal is a comfortable place to stay: runs with the
    local loss alone ended there, all tokens alike.
    """
    entropy = F.binary_cross_entropy_with_logits(logit, marked, reduction="none")
    sides = [(entropy * side).sum() / (side.sum() + 1) for side in (marked, 1 - marked)]
    return torch.stack(sides).sum()


def draw(config: Config, step: int) -> CaptionedBatch:
    """The batch of a step, whatever came before it."""
    data = config["data"]
    return draw_batch(
        config["run"]["batch_size"],
        size=data["image_size"],
        seed=config["run"]["seed"] * 1_000_003 + step,
        kinds="train",
        anomaly_share=data["anomaly_share"],
        views=data["views"],
    )


def state_pair(host: random.Random) -> tuple[str, str]:
    """A normal and a damaged sentence about "object", in the same template."""
    template = host.choice(host.choice((TEMPLATES, TEMPLATES, IMAGENET_TEMPLATES)))
    normal, abnormal = (host.choice(states) for states in (NORMAL_STATES, ABNORMAL_STATES))
    return template.format(normal.format(GENERIC)), template.format(abnormal.format(GENERIC))


def batches(config: Config, first: int, last: int) -> Iterator[CaptionedBatch]:
    """Batches of steps first..last-1; the next is drawn while one is learned from."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(draw, config, first)
        for step in range(first, last):
            batch = coming.result()
            if step + 1 < last:
                coming = pool.submit(draw, config, step + 1)
            yield batch


def rate(config: Config, step: int) -> float:
    """Learning rate of a step: warm up, stay, fall linearly over the last share."""
    options, steps = config["optimizer"], config["run"]["steps"]
    fall = max(1, int(steps * options["decay_share"]))
    return options["learning_rate"] * min(
        1.0, (step + 1) / options["warmup_steps"], max(0.01, (steps - step) / fall)
    )


def build_optimizer(model: Pretraining, config: Config) -> torch.optim.AdamW:
    """AdamW; vectors and tables are not decayed."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": config["optimizer"]["weight_decay"]},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config["optimizer"]["learning_rate"], betas=(0.9, 0.98))


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write whole or not at all."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def log(path: Path, row: dict[str, float]) -> None:
    """Append a line to the CSV, with a heading if it is the first."""
    fresh = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, LOG_COLUMNS)
        if fresh:
            writer.writeheader()
        writer.writerow({key: round(value, 5) for key, value in row.items()})


def forget_after(path: Path, step: int) -> None:
    """Drop the log's lines about steps that will be taken again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines[1:] if int(line.split(",")[0]) <= step]
        path.write_text("".join([*lines[:1], *kept]), encoding="utf-8", newline="\n")


class Meter:
    """Means of what is watched, between two lines of the log."""

    def __init__(self) -> None:
        self.started, self.seen = time.perf_counter(), 0
        self.sums = dict.fromkeys((*TERMS, *WATCHED), 0.0)

    def add(self, model: Pretraining, terms: dict[str, Tensor]) -> None:
        """Take in one step."""
        values = {name: term.item() for name, term in terms.items()}
        values |= {name: getattr(model, name) for name in WATCHED}
        self.seen += 1
        for name, value in values.items():
            self.sums[name] += value

    def row(self, step: int, pictures: int) -> dict[str, float]:
        """The log's next line; starts again at zero."""
        means = {name: value / self.seen for name, value in self.sums.items()}
        self.sums, self.seen = dict.fromkeys(self.sums, 0.0), 0
        seconds = time.perf_counter() - self.started
        return {"step": step, "pictures": pictures, **means, "seconds": seconds}


def run(config: Config, out: Path) -> None:
    """Train, or go on training, until the configured step; writes the averaged backbone."""
    torch.manual_seed(config["run"]["seed"])
    out.mkdir(parents=True, exist_ok=True)
    model, path, often = Pretraining(config), out / "checkpoint.pt", config["run"]
    optimizer = build_optimizer(model, config)
    average = {key: value.clone() for key, value in model.state_dict().items()}
    first, last = 0, often["steps"]
    if path.exists():
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        average, first = saved["average"], saved["step"]
        forget_after(out / "log.csv", first)
        print(f"going on at step {first}", flush=True)
    meter = Meter()
    for step, batch in enumerate(batches(config, first, last), start=first):
        meter.add(model, learn(model, optimizer, batch, config, step))
        update_average(average, model, config["optimizer"]["ema_decay"], step)
        done = step + 1
        if done % often["log_every"] == 0:
            row = meter.row(done, done * often["batch_size"])
            log(out / "log.csv", row)
            print(" ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
        if done % often["checkpoint_every"] == 0 or done == last:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            save_checkpoint(path, {**state, "average": average, "step": done})
        if done % often["snapshot_every"] == 0:
            write_backbone(averaged(config, average), snapshot(out, done))
    if missing := [step for step in often["ship"] if not snapshot(out, step).exists()]:
        raise SystemExit(f"No snapshot of step {', '.join(map(str, missing))} to make the mean of.")
    write_backbone(mean_backbone([snapshot(out, step) for step in often["ship"]]), out / "backbone")


def snapshot(out: Path, step: int) -> Path:
    """Where the averaged weights of a step lie."""
    return out / "snapshots" / f"{step:06d}"


def mean_backbone(folders: Sequence[Path]) -> Backbone:
    """The backbone whose weights are the mean of these."""
    backbones = [load_backbone(folder) for folder in folders]
    first, states = backbones[0], [backbone.state_dict() for backbone in backbones]
    first.load_state_dict({key: torch.stack([s[key] for s in states]).mean(0) for key in states[0]})
    first.logit_scale.copy_(torch.stack([b.logit_scale for b in backbones]).mean(0))
    return first


def learn(
    model: Pretraining,
    optimizer: torch.optim.Optimizer,
    batch: CaptionedBatch,
    config: Config,
    step: int,
) -> dict[str, Tensor]:
    """One step; the loss terms it was taken on."""
    for group in optimizer.param_groups:
        group["lr"] = rate(config, step)
    terms = model(batch, state_pair(random.Random(step)), class_ln_post=step % 2 == 0)
    optimizer.zero_grad()
    torch.stack(list(terms.values())).sum().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config["optimizer"]["clip_norm"])
    optimizer.step()
    return terms


def averaged(config: Config, average: dict[str, Tensor]) -> Backbone:
    """The backbone with the averaged weights."""
    model = Pretraining(config)
    model.load_state_dict(average)
    model.backbone.logit_scale.copy_(model.logit_scale.detach())
    return model.backbone.requires_grad_(False)


def write_backbone(backbone: Backbone, folder: Path) -> None:
    """In 16 bits, as it ships."""
    save_backbone(backbone, folder, dtype=torch.float16)
    print(f"wrote {folder}", flush=True)


def update_average(
    average: dict[str, Tensor], model: torch.nn.Module, decay: float, step: int
) -> None:
    """Exponential moving average, quick at the start."""
    decay = min(decay, (1 + step) / (10 + step))
    for key, value in model.state_dict().items():
        average[key].lerp_(value.float(), 1 - decay)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", type=Path, default=Path(__file__).with_suffix(".toml"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="overrides the config, to stop early")
    options = parser.parse_args()
    config: Config = parse_toml(options.config.read_text(encoding="utf-8"))
    if options.steps:
        config["run"]["steps"] = options.steps
    options.out.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(options.config, options.out / "run.toml")
    run(config, options.out)


if __name__ == "__main__":
    main()
