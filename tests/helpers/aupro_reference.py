"""Rivals of the region metrics: slow, plain, and sharing no code with the product."""

from __future__ import annotations

import numpy as np


def regions_by_flood(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """8-connected regions, grown pixel by pixel; each a list of (row, column)."""
    left = {(int(row), int(column)) for row, column in np.argwhere(mask)}
    regions = []
    while left:
        front = [left.pop()]
        region = []
        while front:
            row, column = front.pop()
            region.append((row, column))
            around = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= around
            front.extend(around)
        regions.append(region)
    return regions


def aupro_by_thresholds(score_maps, masks, fpr_limit: float = 0.3) -> float:
    """Exact AUPRO: every score is tried as a threshold, every region is looked at anew."""
    normal = np.concatenate([m[~k.astype(bool)] for m, k in zip(score_maps, masks, strict=True)])
    regions = [
        np.array([score_map[place] for place in region])
        for score_map, mask in zip(score_maps, masks, strict=True)
        for region in regions_by_flood(mask)
    ]
    scores = np.unique(np.concatenate([np.ravel(score_map) for score_map in score_maps]))
    points = [(0.0, 0.0)]
    for threshold in scores[::-1]:
        overlap = np.mean([np.mean(region >= threshold) for region in regions])
        points.append((float(np.mean(normal >= threshold)), float(overlap)))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if x1 > fpr_limit:
            y_cut = y0 + (y1 - y0) * (fpr_limit - x0) / (x1 - x0)
            return (area + (fpr_limit - x0) * (y0 + y_cut) / 2) / fpr_limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / fpr_limit


def pro_200_loop(score_maps: np.ndarray, masks: np.ndarray, fpr_limit: float = 0.3) -> float:
    """The authors' loop, retold: thresholds outside, images inside, all regions pooled."""
    low, high = score_maps.min(), score_maps.max()
    pros, fprs = [], []
    for threshold in np.arange(low, high, (high - low) / 200):
        called = score_maps > threshold
        overlaps = []
        for picture, mask in zip(called, masks, strict=True):
            for region in regions_by_flood(mask):
                hits = sum(bool(picture[place]) for place in region)
                overlaps.append(hits / len(region))
        pros.append(np.mean(overlaps))
        fprs.append(np.logical_and(masks == 0, called).sum() / (masks == 0).sum())
    pro, fpr = np.array(pros), np.array(fprs)
    kept = fpr < fpr_limit
    pro, fpr = pro[kept], fpr[kept]
    fpr = (fpr - fpr.min()) / (fpr.max() - fpr.min())
    return float(np.trapezoid(pro[::-1], fpr[::-1]))
