"""Draw docs/methods/rd4ad.jpg: RD4AD at work, on a teacher whose weights are drawn.

    python scripts/make_rd4ad_picture.py

The real teacher's weights are not here, so this one is a narrow network of the same channels
with weights from a seed; its norms take their statistics from the normal pictures, since drawn
features are all alike without. The student is the real one, whole. Both see many pictures of
one drawn thing. It shows what the method does, not how well it does it. Minutes on two cores.
"""

from __future__ import annotations

import argparse
import random
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faprompt.clip.backbone import Backbone  # noqa: E402
from faprompt.clip.weights import load_backbone  # noqa: E402
from faprompt.clip.wide_resnet import TEST_WIDE_RESNET  # noqa: E402
from faprompt.detector import Detector  # noqa: E402
from faprompt.files import write_atomically  # noqa: E402
from faprompt.imaging import colour_table, overlay, thumbnail  # noqa: E402
from faprompt.methods.rd4ad import RD4ADOutput  # noqa: E402
from faprompt.methods.registry import build_method, preset_recipe  # noqa: E402
from faprompt.scoring import upsample  # noqa: E402
from faprompt.synthetic.drawn_set import Plan, draw_plans  # noqa: E402
from faprompt.synthetic.kinds import OBJECT_KINDS  # noqa: E402
from scripts.lettering import INK, PAPER, font  # noqa: E402
from scripts.make_method_pictures import LINE, ROOT, SIDE, strip  # noqa: E402

THING, SEED = "eye", 7
NORMAL = 64  # pictures to learn from, in batches of
BATCH = 8
SHOWN = ("hole", "tear", "burn", "thread", "swelling", "", "")  # "" is good, and not learned from
SIZE, SEEN, SIGMA = 384, 96, 1.5  # pixels of a drawn picture, of what the networks see; smoothing
CAUTION = "the teacher's weights are drawn: what the method does, not how well it does it"
QUALITY = 65  # of the file, which holds five rows


def draw() -> list[np.ndarray]:
    """Normal pictures, then those shown; of one thing in changing light, left or right."""
    kind = next(kind for kind in OBJECT_KINDS if kind.name == THING)
    plans = [Plan(kind, 0, defect, grey=False) for defect in (*[""] * NORMAL, *SHOWN)]
    batch = draw_plans(plans, size=SIZE, host=random.Random(f"rd4ad-{SEED}"))
    return list((batch.images * 255).round().byte().permute(0, 2, 3, 1).numpy())


@torch.no_grad()
def settle(teacher: Backbone, pixels: Tensor) -> None:
    """Give every norm of the drawn teacher the statistics of these pictures."""
    norms = [module for module in teacher.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
        norm.train()
    teacher.encode_image(pixels)
    teacher.eval()


def learn(detector: Detector, pixels: Tensor, steps: int) -> None:
    """The paper's optimizer, for few steps."""
    method, text = detector.method, detector.backbone.text
    batches = [method.encode_image(detector.backbone, part) for part in pixels.split(BATCH)]
    recipe = preset_recipe("rd4ad", "paper")
    optimizer = torch.optim.Adam(
        method.parameters(), lr=recipe["learning_rate"], betas=recipe["betas"]
    )
    nothing = torch.empty(0)  # neither labels nor masks
    method.train()
    for step in range(steps):
        output = method(batches[step % len(batches)], text)
        loss = method.loss(output, nothing, nothing)["distillation"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step + 1}/{steps}: {float(loss.detach()):.3f}", flush=True)
    method.eval()


def stages(output: RD4ADOutput) -> list[list[np.ndarray]]:
    """1 - cos of each stage, a map in 0..1 for every picture."""
    pairs = zip(output.teacher, output.student, strict=True)
    maps = [1 - cosine_similarity(seen, made) for seen, made in pairs]
    size = (SIDE, SIDE)
    return [list(upsample(m, size, align_corners=True).clamp(0, 1).numpy()) for m in maps]


def rows(images: list[np.ndarray], output: RD4ADOutput, maps: list[np.ndarray]) -> np.ndarray:
    """Pictures; the maps of the stages, as they are; pictures under the finished map."""
    shown = [thumbnail(image, max_side=SIDE) for image in images]
    drawn = [strip(shown, [f"{THING}, {defect or 'good'}" for defect in SHOWN])]
    for number, stage in enumerate(stages(output), start=1):
        plain = [colour_table()[np.rint(one * 255).astype(int)] for one in stage]
        drawn.append(strip(plain, [f"stage {number}"] * len(plain)))
    covered = [overlay(image, one) for image, one in zip(images, maps, strict=True)]
    drawn.append(strip(covered, [f"{float(score):.2f}" for score in output.score]))
    line = Image.new("RGB", (drawn[0].shape[1], LINE), PAPER)
    ImageDraw.Draw(line).text((line.width // 2, LINE // 2), CAUTION, INK, font(11), anchor="mm")
    return np.vstack([*drawn, np.asarray(line)])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=60, help="of the student's training")
    options = parser.parse_args()
    images, teacher = draw(), load_backbone(TEST_WIDE_RESNET)
    told = {"image_size": SEEN, "sigma_px": SIGMA, "classes": (THING,)}
    detector = Detector(teacher, build_method("rd4ad", teacher, told), name="rd4ad")
    pixels = torch.stack([detector.to_pixels(image) for image in images])
    settle(teacher, pixels[:NORMAL])
    learn(detector, pixels[:NORMAL], options.steps)
    with torch.no_grad():
        output: Any = detector.encode(pixels[NORMAL:])
    maps = [result.score_map for result in detector.predict_batch(images[NORMAL:])]
    drawn, buffer = Image.fromarray(rows(images[NORMAL:], output, maps)), BytesIO()
    drawn.save(buffer, "JPEG", quality=QUALITY, optimize=True)  # colours subsampled: half the size
    write_atomically(ROOT / "docs" / "methods" / "rd4ad.jpg", buffer.getvalue())
    print("rd4ad", *(f"{float(score):.2f}" for score in output.score))


if __name__ == "__main__":
    main()
