"""Thresholds, p-values and verdicts from the scores of good pictures alone. Ours.

With n good pictures and sorted scores s_(1) <= ... <= s_(n), the threshold of a rate a is s_(k)
with k = ceil((n + 1)(1 - a)). If the good pictures and a new one are exchangeable, the new one
scores strictly above s_(k) with probability at most a (split conformal prediction). A plain
quantile of the scores promises less: its rate is above a by about 1 / (n + 1).

This module needs numpy alone, so that a runtime without torch
can import it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from faprompt.array_files import read_arrays, to_bytes
from faprompt.errors import ConfigError, ModelError
from faprompt.files import is_url, write_atomically
from faprompt.records import Verdict

CALIBRATION = "calibration.safetensors"
FORMAT = 1
TARGET_FPR, REVIEW_FPR = 0.01, 0.05
ONE_PRODUCT = ""  # name of the product where a model has only one
_KINDS = ("scores", "map_maxima")  # the tensors of a product
# what a damaged file can raise
_UNUSABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, ConfigError)
_SLACK = 1e-9  # (n + 1) a is a whole number for 99 pictures and 1 %, but not in binary fractions


def pictures_needed(rate: float) -> int:
    """Return the least number of good pictures that can state a rate: ceil(1 / rate) - 1.

    Example:
        >>> pictures_needed(0.01), pictures_needed(0.05)
        (99, 19)
    """
    check_rate("rate", rate)
    return math.ceil((1 - _SLACK) / rate) - 1


def order_statistic(scores: np.ndarray, rate: float) -> float:
    """Return the threshold of a false-alarm rate: s_(k) with k = ceil((n + 1)(1 - rate)).

    Args:
        scores: (n,) scores of good pictures in rising order.
        rate: share of good pictures that may lie strictly above the threshold, in (0, 1).

    Raises:
        ConfigError: fewer pictures than the rate needs; the message has the numbers.

    Source:
        Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005.

    Example:
        >>> order_statistic(np.arange(1.0, 20.0), 0.05), order_statistic(np.arange(1.0, 20.0), 0.5)
        (19.0, 10.0)
    """
    return float(scores[len(scores) - ranks_above(len(scores), rate)])


def false_alarm_bound(count: int, rate: float, *, confidence: float = 0.95) -> float:
    """Return the upper bound of the true false-alarm rate of one threshold.

    The true rate of a threshold s_(k) of n independent continuous scores has the law
    Beta(n + 1 - k, k); ties make it lower.

    Args:
        count: number n of good pictures.
        rate: the stated rate.
        confidence: of the bound, one-sided, in (0, 1).

    Raises:
        ConfigError: fewer pictures than the rate needs, or a confidence outside 0..1.

    Source:
        Vovk, "Conditional validity of inductive conformal predictors", ACML 2012.

    Example:
        >>> round(false_alarm_bound(99, 0.01), 4)  # the largest of 99: 1 - 0.05 ** (1 / 99)
        0.0298
    """
    check_rate("confidence", confidence)
    above = ranks_above(count, rate)
    # Beta(a, n + 1 - a) is at most x as often as n draws of chance x give a hits or more.
    hits = np.arange(above)
    ways = np.array(
        [math.lgamma(count + 1) - math.lgamma(i + 1) - math.lgamma(count - i + 1) for i in hits]
    )
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        fewer = np.exp(ways + hits * math.log(middle) + (count - hits) * math.log1p(-middle)).sum()
        low, high = (middle, high) if fewer > 1 - confidence else (low, middle)
    return low


def p_value(scores: np.ndarray, score: float) -> float:
    """Return the share of good pictures at least this anomalous: (1 + #{s_i >= s}) / (n + 1).

    `scores` are (n,) in rising order; the result is in [1 / (n + 1), 1].

    Raises:
        ValueError: the score is NaN.

    Example:
        >>> p_value(np.array([0.1, 0.2, 0.3]), 0.2)
        0.75
    """
    _refuse_nan(score)
    count = len(scores)
    return float((1 + count - np.searchsorted(scores, score, side="left")) / (count + 1))


def parts_of(paths: Iterable[str | Path], group: str) -> list[str]:
    """Return the part that each path shows: what a regular expression finds in it.

    Args:
        paths: paths of pictures, in which folders are separated by "/".
        group: regular expression; its first group is the part, or all that it matches.

    Raises:
        ConfigError: the expression is wrong, or finds no part in a path.

    Example:
        >>> parts_of(["lot7/p12_top.png", "lot7/p12_side.png", "lot8/p3_top.png"], "p([0-9]+)_")
        ['12', '12', '3']
    """
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise ConfigError(f"group {group!r} is no regular expression: {error}.") from error
    parts = []
    for path in map(Path, paths):
        match = pattern.search(path.as_posix())
        part = match and match[1 if pattern.groups else 0]
        if not part:
            raise ConfigError(f"group {group!r} finds no part in the path {path.as_posix()!r}.")
        parts.append(part)
    return parts


def highest_by_part(parts: Sequence[str], values: np.ndarray) -> np.ndarray:
    """Return the highest value of each part, (parts,), in the order of their first pictures.

    The pictures of one part are not independent, so a part counts once. `values` are (n,), as
    many as `parts`.

    Example:
        >>> highest_by_part(["b", "a", "b"], np.array([0.2, 0.5, 0.3])).tolist()
        [0.3, 0.5]
    """
    highest: dict[str, float] = {}
    for part, value in zip(parts, values, strict=True):
        highest[part] = max(highest.get(part, -math.inf), float(value))
    return np.array(list(highest.values()))


def check_rate(name: str, rate: float) -> None:
    """Refuse a rate that is not above 0 and below 1, by 1e-9 at least, by a ConfigError."""
    number = isinstance(rate, int | float) and not isinstance(rate, bool)
    if not number or not _SLACK < rate < 1 - _SLACK:
        raise ConfigError(f"{name} should be a share above 0 and below 1, got {rate!r}.")


def ranks_above(count: int, rate: float) -> int:
    """Return how many of the n + 1 ranks lie above a threshold: n + 1 - k = floor((n + 1) rate).

    Raises:
        ConfigError: there is none; the message says how many pictures the rate needs.
    """
    check_rate("rate", rate)
    above = math.floor((count + 1) * rate + _SLACK)
    if above < 1:
        least = math.ceil(1e6 / (count + 1)) / 1e4  # percent, rounded up
        instead = f", or ask for {least:.6g} % or more" if count else ""
        raise ConfigError(
            f"A false-alarm rate of {100 * rate:.6g} % needs at least {pictures_needed(rate)} good "
            f"pictures, got {count}. Add pictures{instead}."
        )
    return above


def _refuse_nan(score: float) -> None:
    if math.isnan(score):
        raise ValueError("the score is NaN, so it has neither a p-value nor a verdict.")


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds of one product; a value strictly above them counts."""

    threshold: float  # of NG, at the target rate
    review_threshold: float  # of REVIEW, at the review rate
    map_threshold: float  # of a region's pixels, at the target rate of whole pictures

    def verdict(self, score: float) -> Verdict:
        """Return "NG" above the threshold, "REVIEW" above the review threshold, else "OK".

        ValueError: the score is NaN.
        """
        _refuse_nan(score)
        if score > self.threshold:
            return "NG"
        return "REVIEW" if score > self.review_threshold else "OK"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GoodScores:
    """Scores of the good pictures of one product, and the maxima of their maps.

    Both are (n,) float64 in rising order; the order of one says nothing about the other.
    """

    scores: np.ndarray
    map_maxima: np.ndarray

    def __post_init__(self) -> None:
        for name in _KINDS:
            values = np.asarray(getattr(self, name), np.float64)
            wrong = int((~np.isfinite(values)).sum())
            if values.ndim != 1 or not len(values) or wrong:
                raise ValueError(
                    f"{name} should be (n,) finite numbers, at least one, got {values.shape} with "
                    f"{wrong} that are not finite."
                )
            values = np.sort(values)
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        if len(self.scores) != len(self.map_maxima):
            raise ValueError(
                f"each picture has a score and a map maximum, got {len(self.scores)} and "
                f"{len(self.map_maxima)}."
            )

    def __len__(self) -> int:
        return len(self.scores)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GoodScores):
            return NotImplemented
        return all(np.array_equal(getattr(self, k), getattr(other, k)) for k in _KINDS)

    def __hash__(self) -> int:
        return hash(self.scores.tobytes())

    def __repr__(self) -> str:
        return f"<GoodScores {len(self)} from {self.scores[0]:.4g} to {self.scores[-1]:.4g}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Good scores of every product, and the rates at which verdicts are given.

    Raises:
        ConfigError: a rate outside 0..1, the review rate below the target rate, no product, or
            a product with fewer pictures than a rate needs.
    """

    products: Mapping[str, GoodScores] = field(hash=False)  # `ONE_PRODUCT` for the only one
    # everything that decides a score -> its value or digest
    decided_by: Mapping[str, str] = field(hash=False)
    target_fpr: float = TARGET_FPR
    review_fpr: float = REVIEW_FPR
    # product -> path of each picture -> SHA-256 of its file
    pictures: Mapping[str, Mapping[str, str]] = field(default_factory=dict, hash=False, repr=False)
    group: str = ""  # expression that names the part in a path; "" if each picture is a part
    _limits: Mapping[str, Limits] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_rate("target_fpr", self.target_fpr)
        check_rate("review_fpr", self.review_fpr)
        if self.review_fpr < self.target_fpr:
            raise ConfigError(
                f"review_fpr={self.review_fpr} should be at least target_fpr={self.target_fpr}: "
                "more pictures are reviewed than are NG."
            )
        if not self.products:
            raise ConfigError("A calibration needs good pictures of at least one product.")
        limits = {name: self._limits_of(name) for name in self.products}
        object.__setattr__(self, "_limits", limits)

    def _limits_of(self, product: str) -> Limits:
        good = self.products[product]
        try:
            return Limits(
                order_statistic(good.scores, self.target_fpr),
                order_statistic(good.scores, self.review_fpr),
                order_statistic(good.map_maxima, self.target_fpr),
            )
        except ConfigError as error:
            raise ConfigError(f"Product {product}: {error}" if product else str(error)) from None

    @property
    def fingerprint(self) -> str:
        """Return SHA-256 of all that decides a score."""
        return fingerprint_of(self.decided_by)

    @property
    def has_products(self) -> bool:
        """Whether thresholds differ by product, so that each picture's product must be known."""
        return set(self.products) != {ONE_PRODUCT}

    def check_product(self, product: str | None) -> str:
        """Return the key of a product in `products`.

        Raises:
            ConfigError: an unknown product, or none although thresholds differ by product.
        """
        if not self.has_products and not product:
            return ONE_PRODUCT
        if product is not None and product in self.products:
            return product
        found = f"product {product!r}" if product else "a picture of no known product"
        if not self.has_products:
            raise ConfigError(
                f"The model is calibrated for one product without a name, got {found}. Leave the "
                "name out, or calibrate with one folder for each product (--by-folder)."
            )
        raise ConfigError(
            f"The model is calibrated for the products {', '.join(sorted(self.products))}, got "
            f"{found}. Name one of them (--product), or calibrate with pictures of it."
        )

    def product_of(self, path: str | Path) -> str | None:
        """Return the product that a picture's path names: its nearest folder that is one."""
        if not self.has_products:
            return None
        named = str(path)
        parts = named.split("/")[2:] if is_url(named) else Path(path).absolute().parts
        products = {unicodedata.normalize("NFC", product): product for product in self.products}
        folders = (unicodedata.normalize("NFC", folder) for folder in reversed(parts[:-1]))
        return next((products[folder] for folder in folders if folder in products), None)

    def limits(self, product: str | None = None) -> Limits:
        """Return the thresholds of a product; raises as `check_product`."""
        return self._limits[self.check_product(product)]

    def p_value(self, score: float, product: str | None = None) -> float:
        """Return the p-value of a score; raises as `check_product`."""
        return p_value(self.products[self.check_product(product)].scores, score)

    def with_rates(
        self, *, target_fpr: float | None = None, review_fpr: float | None = None
    ) -> Calibration:
        """Return the same good scores at other rates.

        A review rate that is not given is raised to the target rate if it is below.
        """
        target = self.target_fpr if target_fpr is None else target_fpr
        check_rate("target_fpr", target)
        review = max(self.review_fpr, target) if review_fpr is None else review_fpr
        return replace(self, target_fpr=target, review_fpr=review)

    def check_decided_by(self, found: Mapping[str, str], *, where: str) -> None:
        """Refuse scores that other weights, options or settings made; ModelError names them."""
        names = sorted({*found, *self.decided_by})
        differ = [
            f"{name} was {_shown(self.decided_by.get(name))} and is {_shown(found.get(name))}"
            for name in names
            if found.get(name) != self.decided_by.get(name)
        ]
        if differ:
            raise ModelError(
                f"{where} was calibrated under other settings, so its thresholds mean nothing now: "
                f"{'; '.join(differ)}. Use the same settings, or calibrate again."
            )


def fingerprint_of(decided_by: Mapping[str, str]) -> str:
    """Return SHA-256 of named values, whatever their order."""
    return hashlib.sha256(json.dumps(dict(sorted(decided_by.items()))).encode()).hexdigest()


def _shown(value: str | None) -> str:
    if value is None:
        return "absent"
    return f"{value[:12]}..." if len(value) == 64 else value


def save_calibration(calibration: Calibration, folder: Path) -> None:
    """Write `calibration.safetensors` into a model folder, whole or not at all."""
    tensors = {
        f"{kind}/{number}": np.asarray(getattr(good, kind))
        for number, good in enumerate(calibration.products.values())
        for kind in _KINDS
    }
    values = {
        "format": FORMAT,
        "products": list(calibration.products),  # a folder's name need not be Unicode
        "target_fpr": calibration.target_fpr,
        "review_fpr": calibration.review_fpr,
        "decided_by": dict(calibration.decided_by),
        "pictures": {name: dict(each) for name, each in calibration.pictures.items()},
        "group": calibration.group,
    }
    text = json.dumps(values, sort_keys=True)
    write_atomically(folder / CALIBRATION, to_bytes(tensors, {"calibration": text}))


def read_calibration(folder: Path) -> Calibration | None:
    """Read a model folder's calibration; None if it has none.

    Raises:
        ModelError: the file is damaged, or of a format that this version does not know.
    """
    path = folder / CALIBRATION
    if not path.is_file():
        return None
    try:
        tensors, metadata = read_arrays(path)
        values = json.loads(metadata.get("calibration", "{}"))
        if values.get("format") != FORMAT:
            raise ValueError(f"format {values.get('format')!r}, this version reads {FORMAT}")
        return _from_file(values, tensors)
    except _UNUSABLE as error:
        raise ModelError(
            f"{path} cannot be used ({error}); calibrate again, or remove the file."
        ) from error


def _from_file(values: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Calibration:
    names = [str(name) for name in values["products"]]
    wanted = {f"{kind}/{number}" for number in range(len(names)) for kind in _KINDS}
    if odd := wanted ^ set(tensors):
        raise ValueError(f"a tensor is missing or unknown: {', '.join(sorted(odd))}")
    if any(tensor.dtype != np.float64 for tensor in tensors.values()):
        raise ValueError("the tensors should be float64")
    return Calibration(
        products={
            name: GoodScores(tensors[f"scores/{number}"], tensors[f"map_maxima/{number}"])
            for number, name in enumerate(names)
        },
        decided_by={str(k): str(v) for k, v in values["decided_by"].items()},
        target_fpr=values["target_fpr"],
        review_fpr=values["review_fpr"],
        pictures={
            str(name): {str(path): str(digest) for path, digest in each.items()}
            for name, each in values["pictures"].items()
        },
        group=str(values["group"]),
    )
