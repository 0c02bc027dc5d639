"""Memory of good pictures: patch tokens, and distances of other patches to the nearest. Ours.

    d      half the cosine distance of a patch to the nearest token, mean over the layers
    s      d / (d + typical), 0..1; 0.5 where a patch is as far away as those of good pictures
    map    (1 - weight) text map + weight s
    score  (1 - weight) text score + weight (mean of the highest 2 % of s)

`typical` makes distances comparable with probabilities: it is the median over the references of
the distance of their own strangest patches to the other references (leave-one-out). The idea of
a memory is that of PatchCore (Roth et al., CVPR 2022) and WinCLIP+ (Jeong et al., CVPR 2023).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from faprompt.config import Range, check_fields
from faprompt.errors import ConfigError, ModelError
from faprompt.files import write_atomically
from faprompt.scoring import grid_map, nearest_distance, unit, upsample

REFERENCES = "references.safetensors"
REFERENCE_WEIGHT = 0.5
MOST_TOKENS = 4096  # rows kept of one reference; 16 tiles of 256 patches
TOP_SHARE = 0.02  # share of the patches whose mean is the score of a map of distances
# what a damaged file can raise besides an error of safetensors
_UNUSABLE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
_LEAST_TYPICAL = 1e-4  # equal pictures have distance 0
_SUSPECT_SPREADS = 4.4478  # 3 standard deviations of a normal law, in median absolute deviations
_LEAST_SPREAD = 0.02  # of the median: equal distances are no reason to suspect a rounding error
_SUSPECT_COUNT = 4  # fewer references do not tell which one is odd


def farthest_first(features: Tensor, count: int) -> list[int]:
    """Return which pictures differ most: the most central one, then always the farthest one.

    Args:
        features: (n, D) one vector of any length for each picture.
        count: number wanted, 1 to n.

    Returns:
        Row numbers, in the order chosen; more of them begin with the same ones.

    Source:
        Gonzalez, Theoretical Computer Science 38, 1985 (k-center); the first one is ours.

    Example:
        >>> farthest_first(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), 2)
        [1, 2]
    """
    unit = torch.nn.functional.normalize(features.double(), dim=-1)
    if not 1 <= count <= len(unit):
        raise ConfigError(f"references should be 1 to {len(unit)} of the pictures, got {count}.")
    chosen = [int((unit @ unit.mean(dim=0)).argmax())]
    distance = 1 - unit @ unit[chosen[0]]
    while len(chosen) < count:
        distance[chosen] = -1.0  # a copy of a chosen picture has 0
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, 1 - unit @ unit[chosen[-1]])
    return chosen


def top_mean(values: Tensor) -> Tensor:
    """Return the mean (B,) of the highest 2 % of (B, N) values, at least of one."""
    count = max(1, round(TOP_SHARE * values.shape[-1]))
    return values.topk(count, dim=-1).values.mean(dim=-1)


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceBank:
    """Patch tokens of the references of one product.

    tokens: layer -> (R, D) float32, the same rows in every layer. owners: (R,) int64, the number
    of the picture that a row is from. names: of the pictures. typical: see the module.
    """

    tokens: Mapping[int, Tensor]
    owners: Tensor
    names: tuple[str, ...]
    typical: float

    @classmethod
    def of(cls, pictures: Mapping[str, Sequence[Mapping[int, Tensor]]]) -> ReferenceBank:
        """Build a bank: name of a picture -> its parts, each layer -> (N, D) tokens.

        Raises:
            ConfigError: a picture without tokens, because a mask leaves out all of its patches.
        """
        bank = cls(*_stack(pictures), tuple(pictures), typical=1.0)
        typical = max(_LEAST_TYPICAL, float(np.median(bank.leave_one_out())))
        return replace(bank, typical=typical)

    def extended(self, pictures: Mapping[str, Sequence[Mapping[int, Tensor]]]) -> ReferenceBank:
        """Return the bank with further pictures, given as in `of`.

        `typical` stays that of the first ones, so that the scale of scores stays too.
        """
        tokens, owners = _stack(pictures, first=len(self.names))
        joined = {k: torch.cat([own, tokens[k].to(own.device)]) for k, own in self.tokens.items()}
        owners = torch.cat([self.owners, owners.to(self.owners.device)])
        return replace(self, tokens=joined, owners=owners, names=(*self.names, *pictures))

    def distances(self, patch_tokens: Mapping[int, Tensor]) -> Tensor:
        """Return the distance (B, N), 0..1, of patches to the nearest; tokens as in the bank.

        Raises:
            ConfigError: the tokens lack a layer of the bank.
        """
        lacking = sorted(self.tokens.keys() - patch_tokens.keys())
        if lacking:
            raise ConfigError(f"The references are of layers {lacking}, which were not computed.")
        maps = [nearest_distance(patch_tokens[k], bank) for k, bank in self.tokens.items()]
        return torch.stack(maps).mean(dim=0)

    def surprise(self, patch_tokens: Mapping[int, Tensor]) -> Tensor:
        """Return the distances (B, N) on the scale 0..1 on which `typical` is 0.5."""
        distance = self.distances(patch_tokens)
        return distance / (distance + self.typical)

    def leave_one_out(self) -> list[float]:
        """Return the `top_mean` distance of each reference to the other ones.

        A single reference is compared with itself: every second patch with the others.
        """
        single = len(self.names) == 1
        owners = torch.arange(len(self.owners)) % 2 if single else self.owners.cpu()
        found = []
        for number in range(2 if single else len(self.names)):
            own = (owners == number).to(self.owners.device)
            if bool(own.all()):  # one patch in all
                return [0.0]
            own_tokens = {layer: bank[own][None] for layer, bank in self.tokens.items()}
            rest = replace(self, tokens={k: bank[~own] for k, bank in self.tokens.items()})
            found.append(float(top_mean(rest.distances(own_tokens))))
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

    def to(self, device: torch.device | str) -> ReferenceBank:
        """Return the bank on another device."""
        moved = {layer: bank.to(device) for layer, bank in self.tokens.items()}
        return replace(self, tokens=moved, owners=self.owners.to(device))


def _stack(
    pictures: Mapping[str, Sequence[Mapping[int, Tensor]]], *, first: int = 0
) -> tuple[dict[int, Tensor], Tensor]:
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
    found: dict[int, list[Tensor]] = {}
    owners = []
    for number, parts in enumerate(pictures.values(), first):
        kept = _spread(sum(map(_rows, parts)))
        owners.append(torch.full((len(kept),), number))
        for layer in sorted(parts[0]):
            found.setdefault(layer, []).append(torch.cat([part[layer] for part in parts])[kept])
    tokens = {layer: unit(torch.cat(each)).half().float() for layer, each in found.items()}
    return tokens, torch.cat(owners)


def _spread(rows: int) -> Tensor:
    """Return which of a picture's rows are kept: all, or evenly spread ones of many tiles."""
    if rows <= MOST_TOKENS:
        return torch.arange(rows)
    return torch.arange(MOST_TOKENS) * rows // MOST_TOKENS


def _rows(part: Mapping[int, Tensor]) -> int:
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
        self, score: Tensor, patch_map: Tensor, surprise: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Return score (B,) and map (B, rows, columns) of text and references together.

        `surprise` is (B, N) over `grid`; it is upsampled to the map where that is finer.
        """
        strange, size = grid_map(surprise, grid), (patch_map.shape[-2], patch_map.shape[-1])
        if size != grid:
            strange = upsample(strange, size)
        own = 1 - self.weight
        return (
            own * score + self.weight * top_mean(surprise),
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
                digest.update(str(layer).encode() + tokens.cpu().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> References:
        """Return the references on another device."""
        return replace(self, banks={name: bank.to(device) for name, bank in self.banks.items()})


def save_references(references: References, folder: Path) -> None:
    """Write `references.safetensors` into a model folder, tokens in half precision."""
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    described = {}
    for number, (product, bank) in enumerate(sorted(references.banks.items())):
        described[product] = {"number": number, "names": bank.names, "typical": bank.typical}
        tensors[f"{number}/owners"] = bank.owners.to("cpu", torch.int32).contiguous()
        for layer, tokens in bank.tokens.items():
            tensors[f"{number}/{layer}"] = tokens.cpu().half().contiguous()
    text = json.dumps({"format": 1, "weight": references.weight, "products": described})
    write_atomically(folder / REFERENCES, save(tensors, metadata={"references": text}))


def read_references(folder: Path) -> References | None:
    """Read a model folder's references; None if it has none.

    Raises:
        ModelError: the file is damaged, or of a format that this version does not know.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / REFERENCES
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {}).get("references", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if values.get("format") != 1:
            raise ValueError(f"format {values.get('format')!r}, this version reads 1")
        banks = {name: _bank(one, tensors) for name, one in values["products"].items()}
        return References(banks, float(values["weight"]))
    except _UNUSABLE + (SafetensorError,) as error:
        raise ModelError(f"{path} cannot be used ({error}); calibrate again.") from error


def _bank(described: Mapping[str, object], tensors: Mapping[str, Tensor]) -> ReferenceBank:
    start, names = f"{described['number']}/", described["names"]
    own = {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
    owners = own.pop("owners").long()
    typical = float(str(described["typical"]))
    if not isinstance(names, list) or not own or not 0 < typical < math.inf:
        raise ValueError("a product without names or tokens, or with a typical distance of 0")
    if owners.unique().tolist() != list(range(len(names))):
        raise ValueError("its rows belong to other pictures than it names")
    if any(t.ndim != 2 or len(t) != len(owners) or not t.isfinite().all() for t in own.values()):
        raise ValueError("tokens of another shape, or not finite")
    tokens = {int(layer): tensor.float() for layer, tensor in own.items()}
    return ReferenceBank(tokens, owners, tuple(map(str, names)), typical)
