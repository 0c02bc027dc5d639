"""Announce what is to go: functions, arguments and options of the command line.

The policy is in docs/versions.md. A name stays at least one minor version after the version that
announces its removal. `DEPRECATIONS` lists every announcement; a test fails once the version is
reached that should have removed one of them.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Deprecation:
    """What is to go, and what takes its place.

    Raises:
        ValueError: the removal is not at least one minor version after the announcement.
    """

    what: str  # as users write it: "faprompt.read()", "--fast"
    since: str  # version that announces it, such as "0.2"
    removed_in: str  # first version without it
    instead: str = ""  # what to write in its place; "" if nothing takes its place

    def __post_init__(self) -> None:
        if _release(self.removed_in) <= _release(self.since):
            raise ValueError(
                f"{self.what}: removed_in should be at least one minor version after since "
                f"{self.since}, got {self.removed_in}."
            )

    def __str__(self) -> str:
        advice = f"Use {self.instead}." if self.instead else "Nothing takes its place."
        return (
            f"{self.what} is deprecated since faprompt {self.since} and will be removed in "
            f"{self.removed_in}. {advice}"
        )

    def warn(self, *, stacklevel: int = 2) -> None:
        """Warn by a DeprecationWarning at the line of the caller.

        Args:
            stacklevel: as in `warnings.warn`: 2 names the line that called the function which
                calls this.
        """
        warnings.warn(str(self), DeprecationWarning, stacklevel=stacklevel + 1)

    def is_due(self, version: str) -> bool:
        """Return whether a version should no longer have it."""
        return _release(version) >= _release(self.removed_in)


DEPRECATIONS: tuple[Deprecation, ...] = ()  # every announcement of this version


def deprecated(
    notice: Deprecation,
) -> Callable[[Callable[_Arguments, _Result]], Callable[_Arguments, _Result]]:
    """Return a decorator whose function warns at every call.

    Example:
        @deprecated(Deprecation("read()", since="0.2", removed_in="0.3", instead="read_image()"))
        def read(path): ...
    """

    def decorate(function: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
        @functools.wraps(function)
        def warned(*args: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
            notice.warn()
            return function(*args, **options)

        return warned

    return decorate


def deprecated_argument(
    notice: Deprecation, name: str, *, renamed_to: str | None = None
) -> Callable[[Callable[..., _Result]], Callable[..., _Result]]:
    """Return a decorator whose function warns when a keyword argument is given.

    Args:
        notice: what the warning says.
        name: the old argument. Without `renamed_to` the function must still take it.
        renamed_to: the argument that gets its value.

    The decorated function raises TypeError when both names are given.
    """

    def decorate(function: Callable[..., _Result]) -> Callable[..., _Result]:
        known = inspect.signature(function).parameters
        assert (renamed_to or name) in known, f"{function.__name__} takes no {renamed_to or name}"

        @functools.wraps(function)
        def warned(*args: Any, **options: Any) -> _Result:
            if name in options:
                notice.warn()
                if renamed_to is not None:
                    if renamed_to in options:
                        raise TypeError(f"Got both {name} and {renamed_to}; give {renamed_to}.")
                    options[renamed_to] = options.pop(name)
            return function(*args, **options)

        return warned

    return decorate


def deprecated_option(notice: Deprecation) -> Callable[[Any, Any, Any], Any]:
    """Return a `callback` for `typer.Option` that warns when the option is given.

    The command line prints the warning as a line on stderr.
    """
    from faprompt.work import logger

    def check(context: Any, param: Any, value: Any) -> Any:
        source = context.get_parameter_source(param.name)
        if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT"):
            logger.warning("%s", notice)
        return value

    # typer passes what the annotations name; they are resolved here, where typer is at hand
    import typer

    check.__annotations__ = {"context": typer.Context, "param": typer.CallbackParam}
    return check


def _release(version: str) -> tuple[int, int]:
    """Return major and minor number of a version such as "0.2" or "1.0.0rc1"."""
    major, minor, *_ = version.split(".")
    return int(major), int(minor)
