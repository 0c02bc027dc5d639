"""Training speed: the naive way and ours, side by side in one process.

    python -m benchmarks.training                 ViT-L/14@336 size, 518x518, drawn weights
    python -m benchmarks.training --small         the same road in seconds, to see it work

Measured on a few drawn pictures, reading their files included:

    pass     every picture through our image tower once, nothing kept
    step     one step of ours on features in memory: prompts, loss, gradients, Adam
    run      `train_method()` itself, all its epochs, cache and checkpoints included
    naive    one step the naive way: the batch's images encoded again, then its prompts

The ratios printed last follow from these. Epochs of a real set are not run: figures for
one are computed from the measured ones, and said to be. At the small size the fixed costs
of a run (imports, hashes, curves) outweigh all else, so its ratios mean nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.common import append_csv, machine_record, median_seconds
from benchmarks.naive import naive_images, naive_prompt_step
from faprompt.clip.backbone import Backbone, build_backbone
from faprompt.clip.spec import BackboneSpec, TextSpec, VisionSpec, spec_from_open_clip
from faprompt.imaging.transform import Transform
from faprompt.methods.faprompt import FAPrompt, FAPromptConfig
from faprompt.records import Sample
from faprompt.training.features import Encoder, Features, Pictures
from faprompt.training.training_config import TrainingConfig
from faprompt.training.training_loop import train_method
from faprompt.training.training_steps import TrainingReport, TrainingTask

RESULTS = Path(__file__).parent / "results" / "training.csv"
MVTEC_PICTURES = 1725  # test split of MVTec AD, the paper's training set
SMALL = BackboneSpec(
    embed_dim=64,
    quick_gelu=True,
    vision=VisionSpec(image_size=56, patch_size=14, width=64, layers=4, heads=1),
    text=TextSpec(width=64, layers=4, heads=1),
)


@dataclass(frozen=True, slots=True)
class Seconds:
    """What was measured."""

    one_pass: float  # all pictures, ours
    step: float  # one batch on features in memory, ours
    run: float  # train_method(), all epochs
    run_images: float  # of those: reading and encoding pictures, by its own account
    run_steps: float  # of those: prompts, losses, gradients, Adam, reading cached tokens
    naive_images: float  # one batch
    naive_prompts: float  # one batch


class Bench:
    """A backbone, pictures on disk, and the two ways to train on them."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        side = 70 if options.small else 518
        spec = SMALL if options.small else spec_from_open_clip("ViT-L-14-336", quick_gelu=True)
        torch.manual_seed(111)
        self.backbone: Backbone = build_backbone(spec, name="drawn").to(options.device)
        self.transform = Transform(image_size=(side, side))
        self.method_config = FAPromptConfig(image_size=side)
        self.samples = [draw_sample(folder, i, side) for i in range(options.pictures)]
        self.config = TrainingConfig(
            epochs=options.epochs,
            batch_size=options.batch_size,
            device=options.device,
            cache_dir=str(folder / "cache"),
            cache="on",
            tensorboard=False,
        )

    def measure(self) -> Seconds:
        """The naive way first, as it wants float32."""
        repeats = self.options.repeats
        images, prompts = self.naive_parts()
        naive_images_s = median_seconds(images, self.options.naive_repeats, warmup=0)
        naive_prompts_s = median_seconds(prompts, self.options.naive_repeats)
        self.backbone.set_precision(self.options.precision)
        one_pass = median_seconds(self.encode_all, repeats, warmup=0)
        step = median_seconds(self.our_step(), repeats)
        started = time.perf_counter()
        told = self.train()
        return Seconds(
            one_pass=one_pass,
            step=step,
            run=time.perf_counter() - started,
            run_images=told.image_seconds,
            run_steps=told.step_seconds,
            naive_images=naive_images_s,
            naive_prompts=naive_prompts_s,
        )

    def new_method(self) -> FAPrompt:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(111)
            return FAPrompt(self.method_config, self.backbone).to(self.options.device)

    def batch(self) -> list[Sample]:
        return self.samples[: self.options.batch_size]

    def truth(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Labels and masks of the first batch; what they hold does not matter for time."""
        label = torch.tensor([s.label for s in self.batch()]).to(self.options.device)
        mask = torch.zeros(len(label), *self.transform.image_size, device=label.device)
        mask[label == 1, 10:30, 10:30] = 1
        return label, mask

    def naive_parts(self) -> tuple[Callable[[], None], Callable[[], None]]:
        """Two functions: encode a batch's images, and learn from them."""
        method = self.new_method()
        optimizer = torch.optim.Adam(method.parameters(), lr=1e-3, betas=(0.5, 0.999))
        pictures = Pictures(self.batch(), self.transform)
        label, mask = self.truth()
        kept: list[tuple[torch.Tensor, torch.Tensor, tuple[int, int]]] = []

        def images() -> None:
            pixels = torch.stack([pictures.pixels(i) for i in range(len(pictures))])
            kept[:] = [naive_images(self.backbone, pixels.to(self.options.device))]
            self.wait()

        def prompts() -> None:
            naive_prompt_step(self.backbone, method, optimizer, *kept[0], label, mask)
            self.wait()

        return images, prompts

    def encode_all(self) -> None:
        """One pass, ours, nothing kept."""
        for _ in self.encoder(self.samples).encode(range(len(self.samples))):
            pass

    def our_step(self) -> Callable[[], None]:
        """A function that takes one step on features in memory."""
        method = self.new_method()
        optimizer = torch.optim.Adam(method.parameters(), lr=1e-3, betas=(0.5, 0.999))
        encoder = self.encoder(self.batch())
        features = Features(encoder).batch(range(len(self.batch())))
        label, mask = self.truth()

        def step() -> None:
            terms = method.loss(method(features, self.backbone.text), label, mask)
            optimizer.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            optimizer.step()
            self.wait()

        return step

    def train(self) -> TrainingReport:
        """The real thing, into a folder of its own."""
        task = TrainingTask(
            method=self.new_method(), backbone=self.backbone, transform=self.transform,
            config=self.config, out_dir=self.folder / "run",
        )  # fmt: skip
        return train_method(task, self.samples)

    def encoder(self, samples: list[Sample]) -> Encoder:
        pictures = Pictures(samples, self.transform, readers=self.config.readers)
        return Encoder(self.new_method(), self.backbone, pictures, self.config)

    def wait(self) -> None:
        if self.backbone.device.type == "cuda":
            torch.cuda.synchronize(self.backbone.device)


def draw_sample(folder: Path, index: int, side: int) -> Sample:
    """A noise picture on disk; every odd one is anomalous and has a mask."""
    noise = np.random.default_rng(index).integers(0, 256, (side, side, 3), dtype=np.uint8)
    image_path, mask_path = folder / f"{index}.png", folder / f"{index}_mask.png"
    Image.fromarray(noise).save(image_path)
    mask = np.zeros((side, side), np.uint8)
    mask[10:30, 10:30] = 255
    Image.fromarray(mask).save(mask_path)
    return Sample(
        image_path=image_path,
        label=index % 2,
        class_name="drawn",
        mask_paths=(mask_path,) if index % 2 else (),
        has_pixel_label=True,
    )


def ratios(seconds: Seconds, options: argparse.Namespace) -> dict[str, float]:
    """Figures computed from the measured ones; `report` says what each is."""
    steps = options.epochs * -(-options.pictures // options.batch_size)
    set_steps = -(-MVTEC_PICTURES // options.batch_size)
    set_pass = MVTEC_PICTURES * seconds.one_pass / options.pictures
    set_text = options.epochs * set_steps * seconds.step
    naive_step = seconds.naive_images + seconds.naive_prompts
    return {
        "run_over_pass_plus_text": seconds.run / (seconds.one_pass + steps * seconds.step),
        "run_images_over_pass": seconds.run_images / seconds.one_pass,
        "naive_prompts_over_ours": seconds.naive_prompts / seconds.step,
        "set_pass_h": set_pass / 3600,
        "set_text_h": set_text / 3600,
        "set_epochs_over_pass": (set_pass + set_text) / set_pass,
        "naive_later_epoch_over_ours": naive_step / seconds.step,
        "naive_epochs_over_ours": options.epochs * set_steps * naive_step / (set_pass + set_text),
    }


def report(seconds: Seconds, ratio: dict[str, float], options: argparse.Namespace) -> str:
    """Measured figures, then what follows from them, ratios last."""
    s, n = seconds, options.epochs
    rest = s.run - s.run_images - s.run_steps
    measured = [
        ("ours", "one pass of image encoding", s.one_pass),
        ("ours", "the same per image", s.one_pass / options.pictures),
        ("ours", "one step on features in memory", s.step),
        ("ours", f"train_method(), {n} epochs", s.run),
        ("ours", "  its images, encoded once", s.run_images),
        ("ours", "  its steps", s.run_steps),
        ("ours", "  hashes, checkpoints, curves", rest),
        ("naive", "images of one batch", s.naive_images),
        ("naive", "prompts of one batch", s.naive_prompts),
    ]
    computed = [
        ("ours", "one pass of image encoding", ratio["set_pass_h"]),
        ("ours", f"text work of {n} epochs", ratio["set_text_h"]),
    ]
    told = [
        (
            "measured",
            "train_method() / (one pass + text work), target 1.3",
            "run_over_pass_plus_text",
        ),
        ("measured", f"images of {n} epochs / one pass", "run_images_over_pass"),
        ("measured", "naive / ours, prompts of one step", "naive_prompts_over_ours"),
        ("computed", f"{n} epochs ours with text / one pass", "set_epochs_over_pass"),
        ("computed", "naive / ours, an epoch after the first", "naive_later_epoch_over_ours"),
        ("computed", f"naive / ours, {n} epochs", "naive_epochs_over_ours"),
    ]
    return "\n".join(
        [
            f"{options.pictures} pictures, batch {options.batch_size}, {options.device}, "
            f"ours in {options.precision}, naive in fp32; seconds",
            *(f"  {who:9} {what:46}{value:10.3f}" for who, what, value in measured),
            f"computed for {MVTEC_PICTURES} pictures (MVTec AD), not run; hours",
            *(f"  {who:9} {what:46}{value:10.3f}" for who, what, value in computed),
            "ratios",
            *(f"  {how:9} {what:46}{ratio[name]:10.2f}" for how, what, name in told),
        ]
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="a small drawn CLIP, seconds")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--naive-repeats", type=int, default=3)
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="CSV; results/training.csv unless --small")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as folder:
        seconds = Bench(options, Path(folder)).measure()
    ratio = ratios(seconds, options)
    out = options.out or (None if options.small else RESULTS)
    if out is not None:
        settings = {k: v for k, v in vars(options).items() if k != "out"}
        measured = {f"{name}_s": getattr(seconds, name) for name in Seconds.__slots__}
        out.parent.mkdir(parents=True, exist_ok=True)
        append_csv(out, {**machine_record(), **settings, **measured, **ratio})
    print(report(seconds, ratio, options))


if __name__ == "__main__":
    main()
