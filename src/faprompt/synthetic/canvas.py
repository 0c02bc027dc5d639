"""A drawing sheet for a batch of pictures at once: coordinates, random numbers, noise, lines.

Lengths are physical: the sheet spans about -1..1, less on one axis and more on the other where
it was squashed to a square. Random values are (count, 1, 1); fields are (count, size, size).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from copy import copy

import torch
import torch.nn.functional as F
from torch import Tensor

TAU = 2 * math.pi
Span = tuple[float, float]
MAX_STRETCH = 3.0  # the longest tile is three times as long as wide before it is squashed
_STORE = 96  # per-picture numbers drawn in one go
_SPLINE_POWER = 0.479  # mean square of a cubic B-spline on a unit grid, both axes together


class Canvas:
    """`count` blank pictures of `size` x `size` pixels with their own random numbers.

    `x` is (count, 1, size) and `y` is (count, size, 1), so that work on one axis stays cheap.

    Args:
        generator: source of every pixel value.
        host: source of choices shared by the whole batch.
        channels: 3, or 1 where every picture is grey (a third of the work).
        squashed: draw for each sheet how much it was squashed to a square; False: no sheet was.
    """

    def __init__(
        self,
        count: int,
        size: int,
        *,
        generator: torch.Generator,
        host: random.Random,
        channels: int = 3,
        squashed: bool = True,
    ) -> None:
        self.count, self.size, self.channels = count, size, channels
        self.generator, self.host = generator, host
        self.pore_zoom = 1.0  # pores are this much larger
        self._store, self._place = torch.empty(0), 0
        self._ratio = [MAX_STRETCH ** (self._draw_power() if squashed else 0) for _ in range(count)]
        ratio = torch.tensor(self._ratio).reshape(-1, 1, 1)
        self.wide, self.tall = ratio.rsqrt(), ratio.sqrt()  # half width and half height
        steps = (torch.arange(size) + 0.5) * (2 / size) - 1
        self._steps = torch.arange(size).reshape(1, -1, 1) / size
        self.x = steps.reshape(1, 1, size) * self.wide
        self.y = steps.reshape(1, size, 1) * self.tall

    def _draw_power(self) -> float:
        return self.host.uniform(-1, 1) if self.host.random() < 0.4 else 0.0

    def take(self, rows: Tensor) -> Canvas:
        """Return the sheets of these rows (any order, repeats allowed)."""
        part = copy(self)
        part._store, part._place = torch.empty(0), 0
        places = rows.tolist()
        part.count, part._ratio = len(places), [self._ratio[row] for row in places]
        part.wide, part.tall, part.x, part.y = (
            field[rows] for field in (self.wide, self.tall, self.x, self.y)
        )
        return part

    @property
    def pixel(self) -> float:
        """Side of one pixel in physical units on an unsquashed sheet."""
        return 2 / self.size

    def full(self, value: float) -> Tensor:
        """Return a field of one value."""
        return torch.full((self.count, self.size, self.size), value)

    def maybe(self, share: float) -> bool:
        """Choose once for the whole batch; saves the work of what is left out."""
        return self.host.random() < share

    def tone(self, red: float, green: float, blue: float) -> Tensor:
        """Return a fixed colour (1, channels, 1, 1), or its brightness on a grey sheet."""
        values = (red, green, blue) if self.channels == 3 else ((red + green + blue) / 3,)
        return torch.tensor(values).reshape(1, -1, 1, 1)

    def rand(self, *shape: int) -> Tensor:
        """Draw evenly from 0..1."""
        return torch.rand(shape, generator=self.generator)

    def randn(self, *shape: int) -> Tensor:
        """Draw from the standard normal distribution."""
        return torch.randn(shape, generator=self.generator)

    def white(self) -> Tensor:
        """Draw white noise of unit variance."""
        return self.randn(self.count, self.size, self.size)

    def grain(self, low: float, high: float) -> Tensor:
        """Draw white noise whose strength is even between low and high."""
        return self.white() * self.uniform(low, high)

    def _next(self) -> Tensor:
        """Values in 0..1 from a store drawn in one go: pictures need hundreds."""
        if self._place == len(self._store):
            self._store = self.rand(_STORE, self.count, 1, 1)
            self._place = 0
        self._place += 1
        return self._store[self._place - 1]

    def uniform(self, low: float, high: float) -> Tensor:
        """Draw evenly between low and high."""
        return self._next().mul(high - low).add_(low)

    def log_uniform(self, low: float, high: float) -> Tensor:
        """Draw evenly in the logarithm."""
        return self._next().mul(math.log(high / low)).exp_().mul_(low)

    def chance(self, share: float) -> Tensor:
        """Draw 1.0 with this chance, else 0.0."""
        return (self._next() < share).float()

    def either(self, share: float, first: Tensor | float, second: Tensor | float) -> Tensor:
        """Choose `first` with this chance for each picture, else `second`."""
        return torch.where(self.chance(share) > 0, first, second)

    def pick(self, values: Sequence[float]) -> Tensor:
        """Choose one of the values for each picture."""
        index = (self._next() * len(values)).long().clamp_(max=len(values) - 1)
        return torch.tensor(values)[index]

    def sign(self) -> Tensor:
        """Draw -1.0 or 1.0."""
        return self.chance(0.5).mul_(2).sub_(1)

    def turned(self, angle: Tensor, scale: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
        """Return the coordinates (u, v), fields turned by `angle` and multiplied by `scale`."""
        cos, sin = angle.cos() * scale, angle.sin() * scale
        return self.x * cos + self.y * sin, self.y * cos - self.x * sin

    def noise(
        self, across: Span, along: Span | None = None, *, dice: Sequence[float] = ()
    ) -> Tensor:
        """Draw smooth noise of about unit variance: a random grid through cubic B-splines.

        Args:
            across: least and most bumps per picture from left to right.
            along: the same from top to bottom; None takes the grain of `across`.
            dice: a number in 0..1 per picture, where between least and most; () draws them.
        """
        first = dice or self.dice()
        if along is None:
            columns, rows = self._splines(across, [*first, *first], -0.5, 0.5)
        else:
            (columns,) = self._splines(across, first, -0.5)
            (rows,) = self._splines(along, self.dice(), 0.5)
        grid = self.randn(self.count, rows.shape[2], columns.shape[2]) / _SPLINE_POWER
        if columns.shape[2] > rows.shape[2]:
            return torch.bmm(rows, torch.bmm(grid, columns.mT))
        return torch.bmm(torch.bmm(rows, grid), columns.mT)

    def streaks(self, along: Span) -> Tensor:
        """Draw upright streaks one pixel wide; `along` as in noise."""
        (rows,) = self._splines(along, self.dice(), 0.5)
        return torch.bmm(rows, self.randn(self.count, rows.shape[2], self.size)) / 0.69

    def dice(self) -> list[float]:
        """Draw one number in 0..1 per picture, known to Python."""
        return [self.host.random() for _ in range(self.count)]

    def _splines(self, span: Span, dice: Sequence[float], *powers: float) -> tuple[Tensor, ...]:
        """Cubic B-spline weights (count, size, knots) for each power: -0.5 width, 0.5 height."""
        low, high = span
        sides = [ratio**power for power in powers for ratio in self._ratio]
        cells = [
            min(low * (high / low) ** t * side, self.size / 2)
            for t, side in zip(dice, sides, strict=True)
        ]
        knots = torch.arange(math.ceil(max(cells)) + 4)
        shift = self.rand(len(cells), 1, 1).add_(1)
        grain = torch.tensor(cells).reshape(-1, 1, 1)
        far = torch.addcmul(shift, self._steps, grain).sub(knots).abs_()
        outer, inner = (2 - far).clamp_(min=0), (1 - far).clamp_(min=0)
        weights = outer.square().mul_(outer).div_(6)
        return weights.sub_(inner.square().mul_(inner), alpha=2 / 3).split(self.count)

    def fractal(self, span: Span, *, octaves: int = 4, gain: float = 0.55) -> Tensor:
        """Draw a sum of ever finer noises, about unit variance."""
        dice, total, power = self.dice(), self.full(0.0), 0.0
        for octave in range(octaves):
            finer = 2.0**octave
            total += gain**octave * self.noise((span[0] * finer, span[1] * finer), dice=dice)
            power += gain ** (2 * octave)
        return total / math.sqrt(power)

    def noise_line(self, steps: int) -> Tensor:
        """Draw noise along a line, (count, steps), about unit variance."""
        knots = self.randn(self.count, 1, max(steps // 16, 2))
        return F.interpolate(knots, size=steps, mode="linear")[:, 0]

    def per_cell(self, column: Tensor, row: Tensor) -> Tensor:
        """Draw one number in 0..1 per cell of a lattice; column and row are floored here."""
        table = self.rand(self.count, 64 * 64)
        shape = torch.broadcast_shapes(column.shape, row.shape)
        return table.gather(1, _cell_index(column, row)).reshape(shape)

    def cells(self, u: Tensor, v: Tensor, *, jitter: float = 0.9) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the Voronoi cells of a jittered lattice, one per unit of u and v, at half size.

        Returns:
            Fields: distance to the nearest seed, distance to the border (both in lattice
            cells), and one number in 0..1 per cell.
        """
        u, v = u[:, ::2, ::2], v[:, ::2, ::2]
        column, row = u.floor(), v.floor()
        tables = [self.rand(self.count, 64 * 64) for _ in range(3)]
        first = torch.full_like(u, 9.0)
        second, tone = first.clone(), torch.zeros_like(u)
        for c, r in ((column + dx, row + dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1)):
            index = _cell_index(c, r)
            jx, jy, own = (table.gather(1, index).reshape(u.shape) for table in tables)
            far = torch.hypot(c + 0.5 + jitter * (jx - 0.5) - u, r + 0.5 + jitter * (jy - 0.5) - v)
            nearer = far < first
            second = torch.where(nearer, first, torch.minimum(second, far))
            first, tone = torch.where(nearer, far, first), torch.where(nearer, own, tone)
        size = (self.size, self.size)
        stack = torch.stack((first, second - first), dim=1)
        large = F.interpolate(stack, size=size, mode="bilinear")
        blocks = F.interpolate(tone[:, None], size=size, mode="nearest")
        return large[:, 0], large[:, 1], blocks[:, 0]


def _cell_index(column: Tensor, row: Tensor) -> Tensor:
    """Places in a 64 x 64 table; float work, which is several times faster here."""
    return (row.floor().remainder(64) * 64 + column.floor().remainder(64)).long().flatten(1)


def stamp(
    canvas: Canvas, points: Tensor, radius: Tensor, strength: Tensor, *, reach: int
) -> Tensor:
    """Stamp soft-edged discs: (n, size, size) in 0..1, the strongest where they overlap.

    Args:
        points: (n, p, 2) as (x, y) in pixels; those outside the picture leave nothing.
        radius: (n, p) in pixels, at most `reach`, the half side of the stamped window.
        strength: (n, p) in 0..1.
    """
    wide = canvas.size + 2 * reach  # a margin takes what falls outside
    near = torch.arange(-reach, reach + 1)
    base = points.floor()
    apart = (near + 0.5 - (points - base)[..., None]).square()  # (n, p, 2, k)
    far = (apart[:, :, 1, :, None] + apart[:, :, 0, None, :]).sqrt()  # (n, p, k, k)
    cover = (radius[..., None, None] + 0.5 - far).clamp_(0, 1) * strength[..., None, None]
    inside = ((base >= 0) & (base < canvas.size)).all(-1)
    corner = (base.clamp(0, canvas.size - 1) + reach).long()
    shift = near[:, None] * wide + near
    index = (corner[..., 1] * wide + corner[..., 0])[..., None, None] + shift
    cover = cover * inside[..., None, None]
    sheet = torch.zeros(points.shape[0], wide * wide)
    sheet.scatter_reduce_(1, index.flatten(1), cover.flatten(1), reduce="amax")
    return sheet.reshape(-1, wide, wide)[:, reach:-reach, reach:-reach]


def walk(
    canvas: Canvas,
    start: Tensor,
    heading: Tensor,
    length: Tensor,
    *,
    wiggle: Tensor,
    bend: Tensor,
    steps: int = 256,
) -> tuple[Tensor, Tensor]:
    """Draw n wandering lines: points (n, steps, 2) and headings (n, steps).

    Args:
        start: (n, 2) in pixels; `length` is (n, 1) in pixels.
        heading: (n, 1) radians.
        wiggle: (n, 1) how far the heading strays at each of 24 knots, radians.
        bend: (n, 1) steady turning over the whole length, radians.
    """
    knots = 24
    turns = canvas.randn(start.shape[0], knots) * wiggle
    angle = heading + torch.linspace(0, 1, knots) * bend + turns
    angle = F.interpolate(angle[:, None], size=steps, mode="linear")[:, 0]
    move = torch.stack((angle.cos(), angle.sin()), dim=-1) * (length / steps)[..., None]
    return start[:, None] + move.cumsum(1), angle


def to_pixels(canvas: Canvas, x: Tensor, y: Tensor) -> Tensor:
    """Convert physical (n, p) coordinates to pixels (n, p, 2)."""
    half = canvas.size / 2
    across, down = x / canvas.wide[:, 0] + 1, y / canvas.tall[:, 0] + 1
    return torch.stack((across * half, down * half), dim=-1)
