"""Typed options: dataclasses from plain data and back; all faults are reported at once."""

from __future__ import annotations

import json
import math
import re
import tomllib
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import islice
from numbers import Integral
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from faprompt.errors import ConfigError

Record = TypeVar("Record")
MOST_SHARDS = 99_999

MAX_JSON_BYTES = 16 << 20
MAX_JSON_DEPTH = 32  # objects and lists within one another
_LARGEST_INTEGER = 2**63 - 1  # of torch and numpy
_FAULTS_SHOWN = 6
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers a field may hold, as in `Annotated[int, Range(low=1)]`; see `check_fields`.

    `low` and `high` are included, `above` and `below` are not. NaN is never in range;
    `below=math.inf` also refuses infinity. Each number of a tuple is checked.
    """

    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, number: float) -> bool:
        return (
            not math.isnan(number)
            and (self.low is None or number >= self.low)
            and (self.high is None or number <= self.high)
            and (self.above is None or number > self.above)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        words = ("at least", "above", "at most", "below")
        bounds = zip(words, (self.low, self.above, self.high, self.below), strict=True)
        parts = [f"{word} {bound:g}" for word, bound in bounds if bound is not None]
        return " and ".join(parts).replace("below inf", "finite")


Count = Annotated[int, Range(low=1)]
Natural = Annotated[int, Range(low=0)]
Positive = Annotated[float, Range(above=0, below=math.inf)]
Weight = Annotated[float, Range(low=0, below=math.inf)]


def check_fields(record: Any, faults: Iterable[str] = ()) -> None:
    """Check a dataclass, in its `__post_init__`, against the ranges and choices of its fields.

    `faults` are what else is wrong, such as two fields that contradict each other.

    Raises:
        ValueError: one or more values are out of range; all of them in one message.
    """
    found, kind = [], cast(Any, type(record))
    for name, hint in _checked_fields(kind).items():
        value = getattr(record, name)
        if isinstance(hint, Range):
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(number is None or number in hint for number in numbers):
                found.append(f"{name} should be {hint}, got {value}")
        elif value not in hint:
            found.append(f"{name} should be one of {', '.join(map(str, hint))}, got {value!r}")
    found += faults
    if found:
        raise ValueError("; ".join(found))


@cache
def _checked_fields(record: type) -> dict[str, Range | tuple[Any, ...]]:
    """Return the range or the choices of each field that has some."""
    hints = get_type_hints(record, include_extras=True)
    found = {f.name: _constraint(hints[f.name]) for f in fields(record)}
    return {name: constraint for name, constraint in found.items() if constraint is not None}


def _constraint(hint: Any) -> Range | tuple[Any, ...] | None:
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(hint) is Annotated:
        return next((extra for extra in hint.__metadata__ if isinstance(extra, Range)), None)
    inner = (_constraint(part) for part in get_args(hint))
    return next((found for found in inner if isinstance(found, Range)), None)


def from_mapping(record: type[Record], values: Mapping[str, Any], *, what: str) -> Record:
    """Build a config dataclass from plain data.

    Lists become tuples, text becomes a number or a boolean if the field is one (so
    `--set prompts=5` works), and closed choices are checked. `what` is named in the error,
    such as "faprompt options".

    Raises:
        ConfigError: unknown options or unfit values; all of them in one message.
    """
    hints = get_type_hints(record)
    known = {f.name for f in fields(record)}  # type: ignore[arg-type]
    faults = [f"unknown option {name!r}" for name in values if name not in known]
    clean: dict[str, Any] = {}
    for name in known & set(values):
        try:
            clean[name] = _fit(values[name], hints[name])
        except (ValueError, TypeError, OverflowError) as error:
            faults.append(f"{name}: {error}")
    if not faults:
        try:
            return record(**clean)
        except (ValueError, TypeError) as error:
            faults.append(str(error).rstrip("."))
    raise ConfigError(f"{what}: {'; '.join(sorted(faults))}. Known: {', '.join(sorted(known))}.")


def to_mapping(record: Any) -> dict[str, Any]:
    """Return a config dataclass as plain data for JSON."""
    return asdict(record)


def parse_assignments(pairs: list[str]) -> dict[str, str]:
    """Turn `["a=1", "b=x"]`, as `--set` gives them, into {"a": "1", "b": "x"}.

    Raises:
        ConfigError: a pair without "=" or a name given twice.
    """
    parsed: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set wants name=value, got {pair!r}.")
        if name in parsed:
            raise ConfigError(f"--set {name} is given twice.")
        parsed[name] = value
    return parsed


def _fit(value: Any, hint: Any) -> Any:
    origin = get_origin(hint)
    if origin is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{value!r} is none of {', '.join(map(str, get_args(hint)))}")
        return value
    if origin in (Union, types.UnionType):
        return _fit_union(value, get_args(hint))
    if origin is tuple:
        items = [i for i in value.split(",") if i] if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            raise TypeError(f"should be a list, got {value!r}, a {type(value).__name__}")
        inner = get_args(hint)[0]
        return tuple(_fit(item, inner) for item in items)
    if hint is bool:
        if str(value).lower() not in _BOOLEANS:
            raise ValueError(f"{value!r} is neither true nor false")
        return _BOOLEANS[str(value).lower()]
    if hint is int:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError(f"{value!r} is not a whole number")
        whole = int(value)
        if abs(whole) > _LARGEST_INTEGER:
            raise ValueError(f"{value} does not fit into 64 bits")
        return whole
    if hint is float:
        if isinstance(value, bool) or math.isnan(number := float(value)):
            raise ValueError(f"{value!r} is not a number")
        return number
    if hint is str and not isinstance(value, str):
        raise ValueError(f"{value!r} is not text")
    return value


def _fit_union(value: Any, choices: tuple[Any, ...]) -> Any:
    if type(None) in choices and (value is None or value == "none"):
        return None
    faults = []
    for choice in choices:
        if choice is type(None):
            continue
        try:
            return _fit(value, choice)
        except (ValueError, TypeError, OverflowError) as error:
            faults.append(str(error).rstrip("."))
    raise ValueError(" and ".join(faults))


def check_whole_number(name: str, value: Any, *, low: int, high: int | None = None) -> None:
    """Check that an argument is a whole number in a range; NumPy's integers are accepted.

    Raises:
        TypeError: not an integer, or a bool.
        ValueError: below `low` or above `high`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(
            f"{name} should be a whole number, got {value!r} of type {type(value).__name__}."
        )
    if int(value) not in (wanted := Range(low=low, high=high)):
        raise ValueError(f"{name} should be {wanted}, got {value}.")


@dataclass(frozen=True, slots=True)
class ShardNumber:
    """Which of `count` parts of some work, counted from 1.

    Raises:
        ConfigError: the numbers are not 1 <= index <= count <= 99999.
    """

    index: int
    count: int
    forms: ClassVar[str] = "I/N, such as 2/3"

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count <= MOST_SHARDS:
            raise ConfigError(
                f"shard should be I/N with 1 <= I <= N <= {MOST_SHARDS}, "
                f"got {self.index}/{self.count}."
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "I/N".

        Raises:
            ConfigError: another form, or I is not in 1..N.

        Example:
            >>> ShardNumber.parse("2/3")
            ShardNumber(index=2, count=3)
        """
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if found is None:
            raise ConfigError(f"--shard should be {cls.forms}; got {text!r}.")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def name(self) -> str:
        """Name of its folder, such as "00002-of-00003"."""
        return f"{self.index:05}-of-{self.count:05}"


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML into plain data; ValueError if it is none."""
    return tomllib.loads(text)


def read_json(path: Path) -> Any:
    """Read a JSON file of settings, at most `MAX_JSON_BYTES` long; see `parse_json`.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is too long, or its content is refused by `parse_json`.
    """
    with path.open("rb") as file:
        content = file.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"it is longer than {MAX_JSON_BYTES >> 20} MiB")
    return parse_json(content.decode("utf-8-sig"))


def parse_json(text: str) -> Any:
    """Parse JSON into plain data that can be written as JSON again.

    Raises:
        ValueError: the text is no JSON, names a key twice in one object, is nested deeper
            than `MAX_JSON_DEPTH`, or holds a number that is not finite or does not fit into
            64 bits, or half a surrogate pair. The message names the fields.

    Example:
        >>> parse_json('{"threshold": 0.5}')
        {'threshold': 0.5}
        >>> parse_json('{"threshold": NaN}')
        Traceback (most recent call last):
        ValueError: threshold is nan, wanted a finite number
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys)
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {MAX_JSON_DEPTH} levels") from error
    faults = list(islice(_json_faults(value, "", 0), _FAULTS_SHOWN))
    if faults:
        raise ValueError("; ".join(faults))
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} occurs more than once in one object")
    return found


def _json_faults(value: Any, place: str, depth: int) -> Iterator[str]:
    """List the faults of a value and all within it; `place` is such as "training.seed"."""
    where = place or "the content"
    if isinstance(value, (dict, list)):
        if depth == MAX_JSON_DEPTH:
            yield f"{where} is nested deeper than {MAX_JSON_DEPTH} levels"
            return
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            name = str(key).encode("utf-8", "backslashreplace").decode()
            if name != str(key):
                yield f"{where} has a key with half a surrogate pair, {name}"
            yield from _json_faults(inner, f"{place}.{name}" if place else name, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{where} is {value}, wanted a finite number"
    elif isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
        yield f"{where} is a number of more than 64 bits"
    elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
        yield f"{where} holds half a surrogate pair"
