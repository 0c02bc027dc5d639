"""Memory of good pictures: patch tokens, and distances of other patches to the nearest. Ours.

    d      half the cosine distance of a patch to the nearest token, mean over the layers
    s      d / (d + typical), 0..1; 0.5 where a patch is as far away as those of good pictures
    map    (1 - weight) text map + weight s
    score  (1 - weight) text score + weight (mean of the highest 2 % of s)

`typical` makes distances comparable with probabilities: it is the median over the references of
the distance of their own strangest patches to the other references (leave-one-out). The idea of
a memory is that of PatchCore (Roth et al., CVPR 2022) and WinCLIP+ (Jeong et al., CVPR 2023).

All of it is numpy. The distances alone are heavy: a detector on a GPU hands in its own function.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np

from faprompt.array_files import read_arrays, to_bytes
from faprompt.config import Range, check_fields
from faprompt.errors import ConfigError, ModelError
from faprompt.files import write_atomically
from faprompt.imaging.map_rendering import TOP_SHARE, resize_map

REFERENCES = "references.safetensors"
REFERENCE_WEIGHT = 0.5
MOST_TOKENS = 4096  # rows kept of one reference; 16 tiles of 256 patches
# what a damaged file can raise
_UNUSABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_LEAST_TYPICAL = 1e-4  # equal pictures have distance 0
_SUSPECT_SPREADS = 4.4478  # 3 standard deviations of a normal law, in median absolute deviations
_LEAST_SPREAD = 0.02  # of the median: equal distances are no reason to suspect a rounding error
_SUSPECT_COUNT = 4  # fewer references do not tell which one is odd
_ROWS_AT_ONCE = 4096  # of a memory, when patches are compared with it

# given a layer and what is known of its patch tokens: distances (B, N) to that layer's memory
LayerDistances: TypeAlias = Callable[[int, Any], np.ndarray]


def farthest_first(features: np.ndarray, count: int) -> list[int]:
    """Return which pictures differ most: the most central one, then always the farthest one.

    Args:
        features: (n, D) one vector of any length for each picture.
        count: number wanted, 1 to n.

    Returns:
        Row numbers, in the order chosen; more of them begin with the same ones.

    Source:
        Gonzalez, Theoretical Computer Science 38, 1985 (k-center); the first one is ours.

    Example:
        >>> farthest_first(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), 2)
        [1, 2]
    """
    rows = _unit(np.asarray(features, np.float64))
    if not 1 <= count <= len(rows):
        raise ConfigError(f"references should be 1 to {len(rows)} of the pictures, got {count}.")
    chosen = [int((rows @ rows.mean(axis=0)).argmax())]
    distance = 1 - rows @ rows[chosen[0]]
    while len(chosen) < count:
        distance[chosen] = -1.0  # a copy of a chosen picture has 0
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, 1 - rows @ rows[chosen[-1]])
    return chosen


def highest_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean (B,) of the highest 2 % of (B, N) values, at least of one."""
    count = max(1, round(TOP_SHARE * values.shape[-1]))
    mean: np.ndarray = np.sort(values, axis=-1)[..., -count:].mean(axis=-1)
    return mean


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors of the last axis with length 1; zeros stay."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(length, 1e-12)
    return unit


def _nearest_distance(tokens: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """Return half the cosine distance (B, N) of tokens (B, N, D) to the nearest of (R, D)."""
    own, rows = _unit(np.asarray(tokens, np.float32)), _unit(memory)
    nearest = np.full(own.shape[:-1], -1, np.float32)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        cosines = own @ rows[start : start + _ROWS_AT_ONCE].T
        np.maximum(nearest, cosines.max(axis=-1), out=nearest)
    return np.clip((1 - nearest) / 2, 0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceBank:
    """Patch tokens of the references of one product.

    tokens: layer -> (R, D) float32, the same rows in every layer. owners: (R,) int64, the number
    of the picture that a row is from. names: of the pictures. typical: see the module.
    """

    tokens: Mapping[int, np.ndarray]
    owners: np.ndarray
    names: tuple[str, ...]
    typical: float

    @classmethod
    def of(cls, pictures: Mapping[str, Sequence[Mapping[int, np.ndarray]]]) -> ReferenceBank:
        """Build a bank: name of a picture -> its parts, each layer -> (N, D) tokens.

        Raises:
            ConfigError: a picture without tokens, because a mask leaves out all of its patches.
        """
        bank = cls(*_stack(pictures), tuple(pictures), typical=1.0)
        typical = max(_LEAST_TYPICAL, float(np.median(bank.leave_one_out())))
        return replace(bank, typical=typical)

    def extended(self, pictures: Mapping[str, Sequence[Mapping[int, np.ndarray]]]) -> ReferenceBank:
        """Return the bank with further pictures, given as in `of`.

        `typical` stays that of the first ones, so that the scale of scores stays too.
        """
        tokens, owners = _stack(pictures, first=len(self.names))
        joined = {k: np.concatenate([own, tokens[k]]) for k, own in self.tokens.items()}
        owners = np.concatenate([self.owners, owners])
        return replace(self, tokens=joined, owners=owners, names=(*self.names, *pictures))

    def distances(
        self, patch_tokens: Mapping[int, Any], measure: LayerDistances | None = None
    ) -> np.ndarray:
        """Return the distance (B, N), 0..1, of patches to the nearest; tokens as in the bank.

        `measure` compares the tokens of one layer with that layer of the bank, (B, N) in 0..1;
        default: numpy does, and the tokens are arrays (B, N, D) of any length.

        Raises:
            ConfigError: the tokens lack a layer of the bank.
        """
        lacking = sorted(self.tokens.keys() - patch_tokens.keys())
        if lacking:
            raise ConfigError(f"The references are of layers {lacking}, which were not computed.")
        measured = measure or (lambda layer, own: _nearest_distance(own, self.tokens[layer]))
        maps = [measured(layer, patch_tokens[layer]) for layer in self.tokens]
        mean: np.ndarray = np.stack(maps).mean(axis=0)
        return mean

    def surprise(
        self, patch_tokens: Mapping[int, Any], measure: LayerDistances | None = None
    ) -> np.ndarray:
        """Return the distances (B, N) on the scale 0..1 on which `typical` is 0.5."""
        distance = self.distances(patch_tokens, measure)
        return distance / (distance + self.typical)

    def leave_one_out(self) -> list[float]:
        """Return the `highest_mean` distance of each reference to the other ones.

        A single reference is compared with itself: every second patch with the others.
        """
        single = len(self.names) == 1
        owners = np.arange(len(self.owners)) % 2 if single else self.owners
        found = []
        for number in range(2 if single else len(self.names)):
            own = owners == number
            if own.all():  # one patch in all
                return [0.0]
            own_tokens = {layer: bank[own][None] for layer, bank in self.tokens.items()}
            rest = replace(self, tokens={k: bank[~own] for k, bank in self.tokens.items()})
            found.append(float(highest_mean(rest.distances(own_tokens))[0]))
        return [max(found)] if single else found

    def suspects(self) -> tuple[str, ...]:
        """Return the names of references that look defective beside the other ones.

        Their leave-one-out distance is more than 3 robust standard deviations above the median;
        fewer than 4 references name none.
        """
        if len(self.names) < _SUSPECT_COUNT:
            return ()
        values = np.array(self.leave_one_out())
        median = np.median(values)
        spread = max(np.median(np.abs(values - median)), _LEAST_SPREAD * median)
        odd = values > median + _SUSPECT_SPREADS * spread
        return tuple(name for name, is_odd in zip(self.names, odd, strict=True) if is_odd)


def _stack(
    pictures: Mapping[str, Sequence[Mapping[int, np.ndarray]]], *, first: int = 0
) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Return the tokens of pictures, rounded as a file stores them, and the owner of each row.

    A picture of many tiles keeps `MOST_TOKENS` rows, so that comparing stays affordable. They
    have unit length, so that large values do not overflow in half precision; rounding now makes
    a loaded bank give the same scores.
    """
    if bare := [name for name, parts in pictures.items() if not sum(map(_rows, parts))]:
        raise ConfigError(
            f"{bare[0]} cannot be a reference, because its mask leaves out all of its patches; "
            "leave the picture out, or use a smaller mask."
        )
    found: dict[int, list[np.ndarray]] = {}
    owners = []
    for number, parts in enumerate(pictures.values(), first):
        kept = _spread(sum(map(_rows, parts)))
        owners.append(np.full(len(kept), number))
        for layer in sorted(parts[0]):
            joined = np.concatenate([part[layer] for part in parts])
            found.setdefault(layer, []).append(joined[kept].astype(np.float32))
    tokens = {layer: _unit(np.concatenate(each)) for layer, each in found.items()}
    rounded = {k: rows.astype(np.float16).astype(np.float32) for k, rows in tokens.items()}
    return rounded, np.concatenate(owners)


def _spread(rows: int) -> np.ndarray:
    """Return which of a picture's rows are kept: all, or evenly spread ones of many tiles."""
    if rows <= MOST_TOKENS:
        return np.arange(rows)
    return np.arange(MOST_TOKENS) * rows // MOST_TOKENS


def _rows(part: Mapping[int, np.ndarray]) -> int:
    return len(next(iter(part.values())))


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """Banks of all products, and the share they have in the score.

    Raises:
        ValueError: the weight is not above 0 and at most 1, or there is no bank.
    """

    banks: Mapping[str, ReferenceBank]  # product -> bank
    weight: Annotated[float, Range(above=0, high=1)] = REFERENCE_WEIGHT

    def __post_init__(self) -> None:
        check_fields(self, [] if self.banks else ["banks should have at least one product"])

    def join(
        self, score: np.ndarray, patch_map: np.ndarray, surprise: np.ndarray, grid: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return score (B,) and map (B, rows, columns) of text and references together.

        `surprise` is (B, N) over `grid`; it is upsampled to the map where that is finer.
        """
        strange, size = surprise.reshape(-1, *grid), (patch_map.shape[-2], patch_map.shape[-1])
        if size != grid:
            strange = np.stack([resize_map(one, size) for one in strange])
        own = 1 - self.weight
        return (
            own * score + self.weight * highest_mean(surprise),
            own * patch_map + self.weight * strange,
        )

    def check_product(self, product: str | None) -> str:
        """Return the key of a product; ConfigError for one without references."""
        name = product or ""
        if name in self.banks:
            return name
        if set(self.banks) == {""}:
            return ""
        raise ConfigError(
            f"The model has references of {', '.join(sorted(self.banks))}, got "
            f"{repr(name) if name else 'no name'}; name the product (--product)."
        )

    def bank(self, product: str) -> ReferenceBank:
        """Return the bank of a product; raises as `check_product`."""
        return self.banks[self.check_product(product)]

    def digest(self) -> str:
        """Return SHA-256 of the tokens and of the weight."""
        digest = hashlib.sha256(repr(self.weight).encode())
        for product, bank in sorted(self.banks.items()):
            digest.update(f"{product} {bank.typical!r}".encode())
            for layer, tokens in sorted(bank.tokens.items()):
                digest.update(str(layer).encode() + tokens.tobytes())
        return digest.hexdigest()


def save_references(references: References, folder: Path) -> None:
    """Write `references.safetensors` into a model folder, tokens in half precision."""
    tensors: dict[str, np.ndarray] = {}
    described = {}
    for number, (product, bank) in enumerate(sorted(references.banks.items())):
        described[product] = {"number": number, "names": bank.names, "typical": bank.typical}
        tensors[f"{number}/owners"] = bank.owners.astype(np.int32)
        for layer, tokens in bank.tokens.items():
            tensors[f"{number}/{layer}"] = tokens.astype(np.float16)
    text = json.dumps({"format": 1, "weight": references.weight, "products": described})
    write_atomically(folder / REFERENCES, to_bytes(tensors, {"references": text}))


def read_references(folder: Path) -> References | None:
    """Read a model folder's references; None if it has none.

    Raises:
        ModelError: the file is damaged, or of a format that this version does not know.
    """
    path = folder / REFERENCES
    if not path.is_file():
        return None
    try:
        tensors, metadata = read_arrays(path)
        values = json.loads(metadata.get("references", "{}"))
        if values.get("format") != 1:
            raise ValueError(f"format {values.get('format')!r}, this version reads 1")
        banks = {name: _bank(one, tensors) for name, one in values["products"].items()}
        return References(banks, float(values["weight"]))
    except _UNUSABLE as error:
        raise ModelError(f"{path} cannot be used ({error}); calibrate again.") from error


def _bank(described: Mapping[str, object], tensors: Mapping[str, np.ndarray]) -> ReferenceBank:
    start, names = f"{described['number']}/", described["names"]
    own = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
    owners = own.pop("owners").astype(np.int64)
    typical = float(str(described["typical"]))
    if not isinstance(names, list) or not own or not 0 < typical < math.inf:
        raise ValueError("a product without names or tokens, or with a typical distance of 0")
    if np.unique(owners).tolist() != list(range(len(names))):
        raise ValueError("its rows belong to other pictures than it names")
    if any(t.ndim != 2 or len(t) != len(owners) or not np.isfinite(t).all() for t in own.values()):
        raise ValueError("tokens of another shape, or not finite")
    tokens = {int(layer): tensor.astype(np.float32) for layer, tensor in own.items()}
    return ReferenceBank(tokens, owners, tuple(map(str, names)), typical)
