"""Maps of how each patch relates to the other patches of its picture. Ours.

Pure functions of patch tokens (B, N, D), row-major over a grid of (rows, columns). Distances are
1 - cosine, 0..2. The method `relations` reads its head's inputs and targets from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from faprompt.scoring import grid_map, unit

NEIGHBOURS = (1, 5, 26)  # nearest other patches, of 256
PERCENTILES = (0.1, 0.5, 0.9)
_LEAST_SHARE = 1 / 16  # of a patch that a defect covers, as a line of one pixel in 16 does


def self_similarity(
    tokens: Tensor, grid: tuple[int, int], counts: Sequence[int] = NEIGHBOURS
) -> Tensor:
    """Return the mean cosine distance of each patch to its nearest others in the picture.

    Patches within one step, diagonals included, do not count. A count above the number of
    other patches is lowered to it.

    Args:
        tokens: (B, N, D) of any length, row-major over `grid`.
        grid: (rows, columns).
        counts: numbers of nearest patches.

    Returns:
        (B, len(counts), rows, columns) float32 in 0..2.

    Raises:
        ValueError: N is not rows x columns, or some patch has no others.

    Example:
        >>> tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, -1.0]]])
        >>> self_similarity(tokens, (1, 4), counts=(1,))
        tensor([[[[0., 2., 0., 1.]]]])
    """
    nearest = _other_similarities(tokens, grid).topk(_reach(grid, max(counts)), dim=-1).values
    means = [1 - nearest[..., : min(k, nearest.shape[-1])].mean(dim=-1) for k in counts]
    return grid_map(torch.stack(means, dim=1).clamp_min(0), grid)


def at_step(
    relation: Callable[[Tensor, tuple[int, int]], Tensor],
    tokens: Tensor,
    grid: tuple[int, int],
    step: int,
) -> Tensor:
    """Return a relation of tokens that differ at each `step`-th row and column only.

    Copies of a patch are no neighbours of it: every `step`-th patch is compared with the others
    of that kind, and the result is upsampled (bilinear) to the whole grid.
    """
    if step == 1:
        return relation(tokens, grid)
    planes = grid_map(tokens.mT, grid)[..., ::step, ::step]
    found = relation(planes.flatten(2).mT, (planes.shape[-2], planes.shape[-1]))
    return F.interpolate(found, size=grid, mode="bilinear", align_corners=False)


def _similarities(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return cosines (B, N, N) of all patches."""
    rows, columns = grid
    if tokens.shape[1] != rows * columns:
        raise ValueError(f"{tokens.shape[1]} patches do not form a {rows}x{columns} grid.")
    units = unit(tokens)
    return units @ units.mT


def _other_similarities(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return cosines (B, N, N); those of patches within one step are -infinity."""
    rows, columns = grid
    place = torch.arange(rows * columns, device=tokens.device)
    row, column = place // columns, place % columns
    near = ((row[:, None] - row).abs() <= 1) & ((column[:, None] - column).abs() <= 1)
    return _similarities(tokens, grid).masked_fill(near, -torch.inf)


def _reach(grid: tuple[int, int], count: int) -> int:
    """Return how many others of `count` every patch has."""
    rows, columns = grid
    others = rows * columns - min(3, rows) * min(3, columns)
    if others < 1:
        raise ValueError(
            f"a grid of {rows}x{columns} patches is too small to compare patches with others "
            "that are more than one step away; use a larger image_size"
        )
    return min(count, others)


def mirror_distance(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the smallest cosine distance of each patch to the patches at its mirrored place.

    The mirrored place and the patches within one step of it, diagonals included, count.

    Args:
        tokens: (B, N, D) of any length, row-major over `grid`.
        grid: (rows, columns).

    Returns:
        (B, 2, rows, columns) float32 in 0..2: mirrored left-right, and up-down.

    Raises:
        ValueError: N is not rows x columns.
    """
    rows, columns = grid
    cosines = _similarities(tokens, grid)
    place = torch.arange(rows * columns, device=tokens.device)
    step = torch.arange(-1, 2, device=tokens.device)
    row, column = (place // columns)[:, None, None], (place % columns)[:, None, None]
    found = []
    for r, c in ((row, columns - 1 - column), (rows - 1 - row, column)):
        # at the border a patch within one step stands in for those outside
        near = (r + step[:, None]).clamp(0, rows - 1) * columns + (c + step).clamp(0, columns - 1)
        near = near.flatten(1).expand(tokens.shape[0], -1, -1)  # (B, N, 9)
        found.append(1 - cosines.gather(2, near).amax(dim=-1))
    return grid_map(torch.stack(found, dim=1).clamp_min(0), grid)


def picture_percentiles(relations: Tensor) -> Tensor:
    """Return the 10th, 50th and 90th percentile (B, R, 3) over the patches of (B, R, N).

    Between two patches the percentile is interpolated, as `torch.quantile` does.
    """
    ordered = relations.sort(dim=-1).values
    last = relations.shape[-1] - 1
    found = []
    for share in PERCENTILES:
        low = int(share * last)
        high = min(low + 1, last)
        weight = share * last - low
        found.append(ordered[..., low] * (1 - weight) + ordered[..., high] * weight)
    return torch.stack(found, dim=-1)


def patch_targets(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return which patches (B, rows, columns) count as anomalous, 0 or 1.

    A sixteenth of the patch has to be masked; where no patch has that much, the patches with the
    largest masked share count.

    Args:
        mask: (B, height, width) of 0 and 1.
        grid: (rows, columns).
    """
    share = F.adaptive_avg_pool2d(mask[:, None].float(), grid)[:, 0]
    most = share.amax(dim=(1, 2), keepdim=True)
    limit = most.clamp(max=_LEAST_SHARE)
    return ((share >= limit) & (most > 0)).float()


def nearest_patches(
    tokens: Tensor, grid: tuple[int, int], patches: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Return each picture's given patch and its `count` nearest others, and their distances.

    Args:
        tokens: (B, N, D) of any length, row-major over `grid`.
        grid: (rows, columns).
        patches: (B,) int64, the number of a patch of each picture.
        count: of other patches; lowered to the number of patches more than one step away.

    Returns:
        (B, 1 + count) int64 numbers, nearest first, and (B, 1 + count) cosine distances, 0..2.

    Raises:
        ValueError: as `self_similarity`.
    """
    cosines = _other_similarities(tokens, grid)[torch.arange(len(patches)), patches]
    nearest = cosines.topk(_reach(grid, count), dim=-1)
    distances = F.pad((1 - nearest.values).clamp_min(0), (1, 0))  # of the patch itself: 0
    return torch.cat([patches[:, None], nearest.indices], dim=1), distances
