"""A contact sheet of drawn pictures: masks outlined in red, captions beneath.

python scripts/show_synthetic.py --out sheet.png --kinds all --count 64
"""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.drawn_batches import CaptionedBatch, draw_batch  # noqa: E402

GAP, TEXT_HEIGHT = 6, 40
RED, WHITE = (255, 40, 40), (235, 235, 235)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw a batch and write its sheet."""
    options = _parse(arguments)
    batch = draw_batch(
        options.count,
        size=options.size,
        seed=options.seed,
        kinds=options.kinds,
        anomaly_share=options.anomaly_share,
        views=options.views,
    )
    sheet = contact_sheet(batch, columns=options.columns, outline=options.outline)
    part = options.out.with_name(f".{options.out.stem}.part.png")
    sheet.save(part)
    os.replace(part, options.out)


def contact_sheet(batch: CaptionedBatch, *, columns: int, outline: bool = True) -> Image.Image:
    """All pictures of a batch in rows, captions below."""
    count, _, height, width = batch.images.shape
    step_x, step_y = width + GAP, height + TEXT_HEIGHT
    sheet = Image.new("RGB", (columns * step_x, -(-count // columns) * step_y))
    pen = ImageDraw.Draw(sheet)
    for number in range(count):
        x, y = number % columns * step_x, number // columns * step_y
        pixels = (batch.images[number] * 255).byte().permute(1, 2, 0).numpy().copy()
        if outline:
            pixels[_outline(batch.masks[number])] = RED
        sheet.paste(Image.fromarray(pixels), (x, y))
        kinds = f"{batch.object_kinds[number]}: {batch.defect_kinds[number] or 'normal'}"
        lines = [kinds, *textwrap.wrap(batch.captions[number], max(width // 6, 8))[:2]]
        pen.multiline_text((x + 2, y + height), "\n".join(lines), fill=WHITE, spacing=1)
    return sheet


def _outline(mask: torch.Tensor) -> np.ndarray:
    """Pixels two or three steps outside of a mask (height, width)."""
    field = mask[None, None].float()
    outer, inner = (
        torch.nn.functional.max_pool2d(field, 2 * reach + 1, 1, reach) for reach in (3, 2)
    )
    return ((outer - inner)[0, 0] > 0).numpy()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the sheet, a PNG")
    parser.add_argument("--kinds", default="all", choices=("train", "aux", "test", "all"))
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--columns", type=int, default=8)
    parser.add_argument("--size", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--anomaly-share", type=float, default=0.5)
    parser.add_argument("--outline", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
