"""Pixel metrics: the usual way and ours, side by side in one process.

    python -m benchmarks.metrics                     1,000 maps of 518x518
    python -m benchmarks.metrics --maps 50 --size 128 --repeats 3

Ours is `AnomalyMetrics("binned")`: AUROC, AP, best F1 and AUPRO in one pass. The naive way
is what the public code does: scikit-learn on all pixels at once, and PRO by a loop over 200
thresholds, in which regions are found anew for every image and threshold. It would take
hours on 1,000 maps, so it runs on `--naive-maps` of them and its cost per map is scaled up;
the loop is linear in the maps, and sorting a little worse, so the ratio is on the low side.

Maps are drawn one at a time outside the clock, so neither their cost nor their memory counts.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
from scipy import ndimage
from sklearn import metrics as sklearn_metrics

from benchmarks.common import append_csv, machine_record, median_seconds
from faprompt.metrics import AnomalyMetrics, pro_200

RESULTS = Path(__file__).parent / "results" / "metrics.csv"
PIXEL_METRICS = ("pixel_auroc", "pixel_ap", "pixel_f1_max", "aupro")
_EIGHT = np.ones((3, 3))


def draw_pictures(count: int, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Score maps (size, size) float32 in 0..1 and masks bool; half of them have anomalies."""
    rng = np.random.default_rng(0)
    noise = 15 * ndimage.gaussian_filter(rng.standard_normal((2 * size, 2 * size)), 4)
    for number in range(count):
        top, left = rng.integers(0, size, 2)
        values = noise[top : top + size, left : left + size] * rng.uniform(0.7, 1.3)
        mask = np.zeros((size, size), dtype=bool)
        for _ in range(rng.integers(1, 6) * (number % 2)):
            height, width = rng.integers(3, size // 6, 2)
            y, x = rng.integers(0, size - size // 6, 2)
            mask[y : y + height, x : x + width] = True
        values = values + 1.5 * mask - 2 + 0.01 * rng.standard_normal((size, size))
        yield (1 / (1 + np.exp(-values))).astype(np.float32), mask


def measure_ours(maps: int, size: int) -> tuple[float, float, float]:
    """Seconds in update and compute, of those on the processor, and MiB the peak memory grew."""
    metrics = AnomalyMetrics("binned")
    wall = cpu = 0.0
    pictures = draw_pictures(maps, size)
    first = next(pictures)
    before = peak_mebibytes()
    for score_map, mask in chain([first], pictures):
        label = [int(mask.any())]
        start = time.perf_counter(), time.process_time()
        metrics.update([float(score_map.max())], label, score_map[None], mask[None])
        wall, cpu = wall + time.perf_counter() - start[0], cpu + time.process_time() - start[1]
    start = time.perf_counter(), time.process_time()
    metrics.compute()
    wall, cpu = wall + time.perf_counter() - start[0], cpu + time.process_time() - start[1]
    return wall, cpu, peak_mebibytes() - before


def sklearn_three(score_maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """AUROC, AP and best F1 of all pixels, by scikit-learn."""
    labels, scores = masks.ravel(), score_maps.ravel()
    precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, scores)
    return {
        "pixel_auroc": sklearn_metrics.roc_auc_score(labels, scores),
        "pixel_ap": sklearn_metrics.average_precision_score(labels, scores),
        "pixel_f1_max": np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12)),
    }


def pro_loop(score_maps: np.ndarray, masks: np.ndarray) -> float:
    """PRO as the public code computes it: per threshold, per image, per region."""
    low, high = score_maps.min(), score_maps.max()
    pros, fprs = [], []
    normal = ~masks
    for threshold in np.arange(low, high, (high - low) / 200):
        called = score_maps > threshold
        overlaps = []
        for picture, mask in zip(called, masks, strict=True):
            numbered, _ = ndimage.label(mask, structure=_EIGHT)
            for region, box in enumerate(ndimage.find_objects(numbered), start=1):
                overlaps.append(picture[box][numbered[box] == region].mean())
        pros.append(np.mean(overlaps))
        fprs.append(np.logical_and(normal, called).sum() / normal.sum())
    pro, fpr = np.array(pros), np.array(fprs)
    kept = fpr < 0.3
    axis = (fpr[kept] - fpr[kept].min()) / np.ptp(fpr[kept])
    return float(sklearn_metrics.auc(axis, pro[kept]))


def peak_mebibytes() -> float:
    """Highest memory this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024**2 if sys.platform == "darwin" else peak / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", type=int, default=1000)
    parser.add_argument("--size", type=int, default=518, help="height and width of a map")
    parser.add_argument("--naive-maps", type=int, default=20, help="maps the naive way runs on")
    parser.add_argument("--repeats", type=int, default=3, help="the median is reported")
    arguments = parser.parse_args()
    print_report(arguments.maps, arguments.size, arguments.naive_maps, arguments.repeats)


def print_report(maps: int, size: int, naive_maps: int, repeats: int) -> None:
    """Measure both ways, print the table, keep a row."""
    # Memory first, while the peak is still ours: a tenth of the maps, then all of them.
    _, _, tenth_mebibytes = measure_ours(max(maps // 10, 2), size)
    runs = [measure_ours(maps, size) for _ in range(repeats)]
    ours = statistics.median(wall for wall, _, _ in runs)
    ours_cpu = statistics.median(cpu for _, cpu, _ in runs)
    mebibytes = tenth_mebibytes + sum(growth for _, _, growth in runs)

    few_maps, few_masks = (
        np.stack(some) for some in zip(*draw_pictures(naive_maps, size), strict=True)
    )
    sklearn_each = _per_map(lambda: sklearn_three(few_maps, few_masks), naive_maps, repeats)
    loop_each = _per_map(lambda: pro_loop(few_maps, few_masks), naive_maps, 1)
    ours_200_each = _per_map(lambda: pro_200(few_maps, few_masks), naive_maps, repeats)
    naive = maps * (sklearn_each + loop_each)
    error = compare(few_maps, few_masks)

    print(f"{maps} maps of {size}x{size}; naive times scaled up from {naive_maps} maps")
    print(f"{'':44}{'seconds':>10}{'ms/map':>10}")
    for name, seconds in (
        ("scikit-learn: AUROC, AP, best F1", maps * sklearn_each),
        ("loop over 200 thresholds: PRO", maps * loop_each),
        ("pro_200 of ours: the same number", maps * ours_200_each),
        ("AnomalyMetrics: AUROC, AP, best F1, AUPRO", ours),
    ):
        print(f"{name:44}{seconds:10.2f}{1000 * seconds / maps:10.2f}")
    print(f"of the last line, processor time: {ours_cpu:.2f} s (others may share this machine)")
    print(f"peak memory grew by {mebibytes:.0f} MiB, on a tenth of the maps {tenth_mebibytes:.0f}")
    print(f"largest difference from exact on {naive_maps} maps: {error:.1e}")
    print(f"ratio to the 200-threshold loop alone: {maps * loop_each / ours:.0f}x")
    print(f"ratio to the naive way: {naive / ours:.0f}x")

    row = machine_record() | {
        "maps": maps,
        "size": size,
        "naive_maps": naive_maps,
        "repeats": repeats,
        "ours_s": round(ours, 3),
        "ours_cpu_s": round(ours_cpu, 3),
        "sklearn_ms_per_map": round(1000 * sklearn_each, 2),
        "loop_ms_per_map": round(1000 * loop_each, 2),
        "pro_200_ms_per_map": round(1000 * ours_200_each, 2),
        "peak_growth_mib": round(mebibytes),
        "peak_growth_tenth_mib": round(tenth_mebibytes),
        "largest_difference": f"{error:.1e}",
        "ratio_to_loop": round(maps * loop_each / ours, 1),
        "ratio": round(naive / ours, 1),
    }
    append_csv(RESULTS, row)


def compare(score_maps: np.ndarray, masks: np.ndarray) -> float:
    """Largest difference of the binned road from scikit-learn and from the exact AUPRO."""
    binned, exact = AnomalyMetrics("binned"), AnomalyMetrics("exact")
    labels = masks.any(axis=(1, 2))
    for metrics in (binned, exact):
        metrics.update(score_maps.max(axis=(1, 2)), labels, score_maps, masks)
    expected = sklearn_three(score_maps, masks) | {"aupro": exact.compute()["aupro"]}
    result = binned.compute()
    return max(abs(result[name] - expected[name]) for name in PIXEL_METRICS)


def _per_map(function: Callable[[], object], maps: int, repeats: int) -> float:
    return median_seconds(function, repeats, warmup=0) / maps


if __name__ == "__main__":
    main()
