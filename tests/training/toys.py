"""A very small CLIP and a very small labelled set, both drawn on the spot."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from faprompt.clip.backbone import Backbone, build_backbone
from faprompt.clip.spec import BackboneSpec, TextSpec, VisionSpec
from faprompt.clip.tokens import END, START, bpe_ids
from faprompt.imaging.transform import Transform
from faprompt.methods.anomalyclip import AnomalyCLIP, AnomalyCLIPConfig
from faprompt.methods.faprompt import FAPrompt, FAPromptConfig
from faprompt.records import Sample
from faprompt.training.training_config import TrainingConfig
from faprompt.training.training_loop import train_method
from faprompt.training.training_steps import TrainingTask

IMAGE_SIZE = (40, 32)  # height and width differ, so that exchanging them shows
TRANSFORM = Transform(image_size=IMAGE_SIZE)


@contextmanager
def one_thread():
    """Add up in one order, so that equal means equal to the bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw_backbone(seed: int = 3) -> Backbone:
    vocabulary = tuple(sorted({*bpe_ids("damaged object."), START, END}))
    spec = BackboneSpec(
        embed_dim=32,
        quick_gelu=True,
        vision=VisionSpec(image_size=32, patch_size=8, width=64, layers=4, heads=2),
        text=TextSpec(width=64, layers=3, heads=2, context_length=77, vocab_size=len(vocabulary)),
        vocabulary=vocabulary,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_backbone(spec, name="toy")


@cache
def backbone() -> Backbone:
    return draw_backbone()


def faprompt(seed: int = 1, **options) -> FAPrompt:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = FAPromptConfig(prompts=3, patches=4, **options)
        return FAPrompt(config, backbone())


def anomalyclip(seed: int = 1, **options) -> AnomalyCLIP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AnomalyCLIP(AnomalyCLIPConfig(**options), backbone())


def draw_samples(folder: Path, count: int = 7) -> list[Sample]:
    """Grey noise; every odd picture has a bright square, and a mask of it. 48x36 pixels."""
    noise = np.random.default_rng(5)
    samples = []
    for index in range(count):
        picture = noise.integers(90, 130, (48, 36, 3), dtype=np.uint8)
        mask = np.zeros((48, 36), np.uint8)
        row, column = noise.integers(0, 24), noise.integers(0, 14)
        if index % 2:
            picture[row : row + 20, column : column + 18] = (250, 240, 40)
            mask[row : row + 20, column : column + 18] = 255
        image_path, mask_path = folder / f"{index}.png", folder / f"{index}_mask.png"
        Image.fromarray(picture).save(image_path)
        Image.fromarray(mask).save(mask_path)
        samples.append(
            Sample(
                image_path=image_path,
                label=index % 2,
                class_name="toy",
                mask_paths=(mask_path,) if index % 2 else (),
                has_pixel_label=True,
            )
        )
    return samples


def pixels(sample: Sample) -> torch.Tensor:
    return torch.from_numpy(TRANSFORM.to_pixels(np.asarray(Image.open(sample.image_path))))


def config(folder: Path, **options) -> TrainingConfig:
    """Two epochs of batches of 3, cached in the test's own folder."""
    cache = str(folder / "cache")
    values = {"epochs": 2, "batch_size": 3, "cache_dir": cache, "tensorboard": False, **options}
    return TrainingConfig(**values)


def run(method, samples, folder: Path, *, options=None, out="out", **keywords):
    """Train; the report. Options go to the config."""
    values = {"backbone": keywords.pop("backbone", None) or backbone(), "transform": TRANSFORM}
    settings = config(folder, **(options or {}))
    task = TrainingTask(
        method=method, config=settings, out_dir=folder / out, **{**values, **keywords}
    )
    return train_method(task, samples)


def parameters(method) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in method.named_parameters()}


def assert_moved_alike(first, second, start, *, tolerance: float = 1e-3) -> None:
    """Two methods trained from the same start by two roads.

    The difference of their parameters, relative to the way that each tensor went: Adam makes
    steps of one length from gradients of any, so values alone may agree after a wrong step.
    """
    ours, theirs, before = parameters(first), parameters(second), parameters(start)
    assert ours.keys() == theirs.keys() == before.keys()
    for name, value in before.items():
        way = (theirs[name] - value).norm()
        assert way > 0, name
        assert (ours[name] - theirs[name]).norm() <= tolerance * way, name


def assert_same(first, second) -> None:
    """Two methods with equal parameters, bit for bit."""
    ours, theirs = parameters(first), parameters(second)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
