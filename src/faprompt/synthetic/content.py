"""A drawn thing before any defect: its picture, where it lies and what is behind it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from faprompt.synthetic.fields import Canvas, Span


@dataclass(frozen=True, slots=True)
class Content:
    """One sub-batch of clean pictures of one kind of thing."""

    image: Tensor  # (n, c, size, size), about 0..1; c is 1 on a grey sheet, else 3 # 0..1
    ground: Tensor  # (n, size, size) in 0..1, where defects may lie
    behind: Tensor  # (n, c, size, size) or (n, c, 1, 1), seen where a part is missing

    def take(self, rows: Tensor) -> Content:
        """The pictures of these rows."""
        return Content(self.image[rows], self.ground[rows], self.behind[rows])


def colour(canvas: Canvas, light: Span, *, vivid: float = 0.35) -> Tensor:
    """(n, c, 1, 1) a random colour of this brightness; `vivid` bounds its distance from grey."""
    level = canvas.uniform(*light)[:, None]
    strength = canvas.rand(canvas.count, 1, 1, 1).square() * vivid
    if canvas.channels == 1:
        return level.clamp(0.01, 1)
    hue = canvas.rand(canvas.count, 3, 1, 1) * 2 - 1
    hue = hue - hue.mean(1, keepdim=True)
    return (level * (1 + strength * hue * 1.2)).clamp(0.01, 1)


def tint(field: Tensor, dark: Tensor, bright: Tensor) -> Tensor:
    """Field (n, size, size), 0 and 1 becoming the two colours (n, 3, 1, 1)."""
    return torch.addcmul(dark, field[:, None], bright - dark)


def blend(image: Tensor, over: Tensor | float, alpha: Tensor) -> Tensor:
    """Lay `over` on an image (n, c, size, size) where alpha (n, size, size) says so."""
    return image + (over - image) * alpha[:, None]


def texture(
    canvas: Canvas, field: Tensor, *, light: Span = (0.35, 0.75), vivid: float = 0.35
) -> Content:
    """A surface that fills the picture; `field` strays around 0 with its own contrast."""
    middle = colour(canvas, light, vivid=vivid)
    image = middle * (1 + field[:, None])
    whole = torch.ones(canvas.count, canvas.size, canvas.size, device=canvas.device)
    dark = middle * canvas.uniform(0.35, 0.75)[:, None]
    return Content(image=image, ground=whole, behind=dark)
