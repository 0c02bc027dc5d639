"""Typed options: dataclasses from plain data and back, with every fault told at once."""

from __future__ import annotations

import tomllib
import types
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from faprompt.errors import ConfigError

Record = TypeVar("Record")


def from_mapping(record: type[Record], values: Mapping[str, Any], *, what: str) -> Record:
    """Build a config dataclass from plain data.

    Lists become tuples, text becomes numbers or booleans where the field wants them
    (so `--set prompts=5` works), and closed choices are checked.

    Args:
        record: the dataclass.
        values: option -> value; missing ones keep their default.
        what: named in the error, such as "faprompt options".

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
        except (ValueError, TypeError) as error:
            faults.append(f"{name}: {error}")
    if not faults:
        try:
            return record(**clean)
        except (ValueError, TypeError) as error:
            faults.append(str(error))
    raise ConfigError(f"{what}: {'; '.join(sorted(faults))}. Known: {', '.join(sorted(known))}.")


def to_mapping(record: Any) -> dict[str, Any]:
    """A config dataclass as plain data for JSON."""
    assert is_dataclass(record) and not isinstance(record, type)
    return asdict(record)


def parse_assignments(pairs: list[str]) -> dict[str, str]:
    """`["a=1", "b=x"]` -> {"a": "1", "b": "x"}, as `--set` gives them.

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
        inner = get_args(hint)[0]
        return tuple(_fit(item, inner) for item in items)
    if hint is bool:
        return _fit_bool(value)
    if hint is int:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError(f"{value!r} is not a whole number")
        return int(value)
    if hint is float:
        if isinstance(value, bool):
            raise ValueError(f"{value!r} is not a number")
        number = float(value)
        if number != number:
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
        except (ValueError, TypeError) as error:
            faults.append(str(error))
    raise ValueError(" and ".join(faults))


def _fit_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in words:
        raise ValueError(f"{value!r} is neither true nor false")
    return words[str(value).lower()]


def parse_toml(text: str) -> dict[str, Any]:
    """TOML into plain data.

    Raises:
        ValueError: the text is no TOML.
    """
    return tomllib.loads(text)
