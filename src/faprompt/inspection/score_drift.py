"""Measure whether today's scores still look like those of the calibration's good pictures.

The test is Kolmogorov and Smirnov's for two samples: it sees any change of a distribution, not
only of its location, and does not depend on the scale of the scores. Its p-value says whether
there is a difference; the population stability index (PSI) says how large it is.

A run with defective parts differs from good parts without any drift. Defective parts score high,
so they add to the upper half of the scores, and the lower half keeps its shape. That is why the
scores up to the calibration's median are compared a second time, alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import stats

from faprompt.calibration import Calibration, GoodScores, ranks_above
from faprompt.metrics import share_interval

Level = Literal["none", "slight", "moderate", "strong"]

LEVELS: tuple[Level, ...] = ("none", "slight", "moderate", "strong")
SIGNIFICANCE = 0.01  # over all products of a run together
MODERATE_PSI, STRONG_PSI = 0.1, 0.25  # a convention of credit scoring, no result of a test
BINS = 10  # deciles of the calibration
WARNING = (
    "A run with many defective parts differs from good parts too: scores alone cannot tell drift "
    "from defects. Compare runs of mostly good parts."
)
_ADVICE = "the stated rates may no longer hold. Calibrate again with today's good parts."
_SMOOTHING = 0.5  # added to the count of each bin, so that an empty one has a logarithm


@dataclass(frozen=True, slots=True)
class Share:
    """Today's pictures above a threshold, with the exact 95 % interval of their share.

    Source:
        Interval: see `share_interval`. p-value: the rate of a threshold of n good scores has a
        beta law (see `false_alarm_bound`), so the count is beta-binomial.
    """

    count: int
    share: float
    low: float
    high: float
    stated: float  # the calibrated rate: most that good pictures have on average
    p_value: float  # chance that good pictures give at least this count


@dataclass(frozen=True, slots=True)
class ProductDrift:
    """Today's scores of one product beside its calibration."""

    product: str
    n_good: int
    n_today: int
    level: Level
    ks: float  # largest distance of the two cumulative distributions, 0..1
    p_value: float  # of `ks`: chance of such a distance without a change
    psi: float  # 0 or more
    psi_without_drift: float  # 95 % of runs of this size stay below it without a change
    lower_p_value: float | None  # as `p_value`, scores up to the good median; None without any
    defects_needed: float  # share of defective parts that alone would explain the upper half
    median_good: float
    median_today: float
    ng: Share
    ng_or_review: Share
    edges: tuple[float, ...]  # upper ends of all bins but the last, rising
    shares_good: tuple[float, ...]  # of each bin
    shares_today: tuple[float, ...]
    words: str  # the finding in one or several sentences


@dataclass(frozen=True, slots=True)
class Drift:
    """Drift of every product of a run."""

    products: tuple[ProductDrift, ...]  # sorted by name
    absent: tuple[str, ...]  # calibrated products without a picture today
    warning: str = WARNING

    @property
    def level(self) -> Level:
        """Return the strongest level of any product."""
        return max((one.level for one in self.products), key=LEVELS.index)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {"level": self.level, **asdict(self)}


def measure_drift(scores_by_product: Mapping[str, np.ndarray], calibration: Calibration) -> Drift:
    """Compare today's scores of each product with its good scores.

    Args:
        scores_by_product: product -> (N,) scores in any order, N at least 1.
        calibration: good scores and thresholds; its rates are those compared with.

    Raises:
        ConfigError: a product that the calibration does not know.
        ValueError: no product, or scores that are empty or not finite.

    Source:
        Ours; KS test: scipy. The law of the PSI without drift: Yurdakul, "Statistical Properties
        of Population Stability Index", 2018.
    """
    if not scores_by_product:
        raise ValueError("there are no scores to compare with the calibration.")
    significance = SIGNIFICANCE / len(scores_by_product)  # Bonferroni
    measured = []
    for name in sorted(scores_by_product):
        key, today = calibration.check_product(name), np.asarray(scores_by_product[name], float)
        if today.ndim != 1 or not len(today) or not np.isfinite(today).all():
            raise ValueError(f"scores should be (n,) finite numbers, got {today.shape}.")
        good = calibration.products[key]
        measured.append(_measure(key, np.sort(today), good, calibration, significance))
    absent = sorted(set(calibration.products) - {one.product for one in measured})
    return Drift(tuple(measured), tuple(absent))


def decile_edges(good: np.ndarray) -> np.ndarray:
    """Return the scores that end the calibration's deciles; equal ones count once.

    `good` is (n,) in rising order. Bins end with their edge, and the last one has no end.

    Example:
        >>> decile_edges(np.arange(1.0, 21.0))
        array([ 2.,  4.,  6.,  8., 10., 12., 14., 16., 18.])
    """
    ranks = -(-np.arange(1, BINS) * len(good) // BINS)  # rounded up
    return np.unique(good[ranks - 1])


def stability_index(good: np.ndarray, today: np.ndarray) -> float:
    """Return the population stability index of two histograms.

    It is the sum over bins of (q - p) ln(q / p), with shares p of the good pictures and q of
    today's. Each count is raised by 0.5 first, because an empty bin has no logarithm.

    Args:
        good, today: (bins,) counts.

    Example:
        >>> round(stability_index(np.array([50, 50]), np.array([75, 25])), 3)
        0.269
    """
    p, q = ((c + _SMOOTHING) / (c + _SMOOTHING).sum() for c in (good, today))
    return float(((q - p) * np.log(q / p)).sum())


def lower_half(good: np.ndarray, today: np.ndarray) -> tuple[float | None, float]:
    """Compare the scores up to the good median alone; defective parts are hardly among them.

    Args:
        good, today: (n,) and (N,) scores in rising order.

    Returns:
        The p-value of the KS test of these scores, None where today has none of them; and the
        share of defective parts, all above the median, that would explain how few there are.
    """
    middle = good[(len(good) - 1) // 2]
    low_good, low_today = good[good <= middle], today[today <= middle]
    needed = 1 - len(low_today) / len(today) * len(good) / len(low_good)
    p_value = float(stats.ks_2samp(low_good, low_today).pvalue) if len(low_today) else None
    return p_value, max(0.0, needed)


def _measure(
    product: str,
    today: np.ndarray,
    known: GoodScores,
    calibration: Calibration,
    significance: float,
) -> ProductDrift:
    good, limits = known.scores, calibration.limits(product)
    edges = decile_edges(good)
    counts = [
        np.bincount(np.searchsorted(edges, scores), minlength=len(edges) + 1)
        for scores in (good, today)
    ]
    test, psi = stats.ks_2samp(good, today), stability_index(*counts)
    noise = float((1 / len(good) + 1 / len(today)) * stats.chi2.ppf(0.95, len(edges)))
    lower_p, needed = lower_half(good, today)
    level = _level(float(test.pvalue), psi, significance)
    medians = float(np.median(good)), float(np.median(today))
    ng = _share(today > limits.threshold, calibration.target_fpr, len(good))
    flagged = _share(today > limits.review_threshold, calibration.review_fpr, len(good))
    more = min(ng.p_value, flagged.p_value) < significance / 2
    return ProductDrift(
        product=product, n_good=len(good), n_today=len(today), level=level,
        ks=float(test.statistic), p_value=float(test.pvalue), psi=psi, psi_without_drift=noise,
        lower_p_value=lower_p, defects_needed=needed,
        median_good=medians[0], median_today=medians[1],
        ng=ng, ng_or_review=flagged,
        edges=tuple(edges.tolist()),
        shares_good=tuple((counts[0] / len(good)).tolist()),
        shares_today=tuple((counts[1] / len(today)).tolist()),
        words=_words(level, medians, lower_p, needed, noise, significance, more),
    )  # fmt: skip


def _level(p_value: float, psi: float, significance: float) -> Level:
    if p_value >= significance:
        return "none"
    if psi < MODERATE_PSI:
        return "slight"
    return "moderate" if psi < STRONG_PSI else "strong"


def _share(marked: np.ndarray, stated: float, n_good: int) -> Share:
    count, total, above = int(marked.sum()), len(marked), ranks_above(n_good, stated)
    low, high = share_interval(count, total)
    chance = stats.betabinom.sf(count - 1, total, above, n_good + 1 - above)
    return Share(count, count / total, low, high, stated, min(1.0, float(chance)))


def _words(
    level: Level,
    medians: tuple[float, float],
    lower_p: float | None,
    needed: float,
    noise: float,
    significance: float,
    more_alarms: bool,
) -> str:
    """Return the finding in words, with what defective parts could explain of it."""
    if level == "none" and more_alarms:
        return (
            "No difference was found over the whole of the scores, but more pictures are NG or "
            "REVIEW than good parts give. Look at them: they may be defective parts. If they are "
            f"good, {_ADVICE}"
        )
    if level == "none":
        few = f" The run is small: a PSI up to {noise:.2f} means nothing." * (noise > STRONG_PSI)
        return f"No difference from the good pictures was found.{few}"
    good, today = medians
    way = "lower" if today < good else "higher"
    found = f"There is a {level} difference: today's scores are {way}."
    if lower_p is not None and lower_p >= significance and way == "higher":
        return (
            f"{found} The lower half keeps its shape, so {100 * needed:.0f} % of defective parts "
            f"would explain it too. Look at the NG pictures first; if they are good, {_ADVICE}"
        )
    if lower_p is None:
        why = "No score is as low as the lower half of the good ones."
    elif lower_p < significance:
        why = "The lower half has another shape, which defective parts alone do not explain."
    else:
        why = "Defective parts do not explain lower scores."
    return f"{found} {why} Light, camera, focus or the parts may have changed: {_ADVICE}"
