"""How the stored values of a picture become bytes: options that all readers share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from faprompt.config import check_whole_number
from faprompt.errors import ConfigError

MAX_PIXELS = 200_000_000
Window: TypeAlias = tuple[float, float] | Literal["auto"]  # (center, width) of the values shown


@dataclass(frozen=True, kw_only=True)  # with slots, what Ray derives from `BulkScorer` fails
class ReadingOptions:
    """Options that decide how the values of pictures are read.

    Raises:
        ConfigError: both a bit depth and a window are given.
        ValueError, TypeError: an option is out of range, or of another type.
    """

    bit_depth: int | None = None  # bits that 16-bit files really use; see `read_image`
    window: Window | None = None  # values shown as black to white; see `read_image`
    max_pixels: int = MAX_PIXELS  # refuse larger pictures

    def __post_init__(self) -> None:
        if self.bit_depth is not None:
            check_whole_number("bit_depth", self.bit_depth, low=1, high=32)
        check_whole_number("max_pixels", self.max_pixels, low=1)
        object.__setattr__(self, "window", _checked(self.window))
        if self.bit_depth is not None and self.window is not None:
            raise ConfigError(
                "bit_depth and window exclude each other: both say which values are black and "
                "white. Give one of them."
            )

    def arguments(self) -> dict[str, Any]:
        """Return these options by name, as arguments of `read_image`."""
        return {"bit_depth": self.bit_depth, "window": self.window, "max_pixels": self.max_pixels}


def _checked(window: Any) -> Window | None:
    if window is None or (isinstance(window, str) and window == "auto"):
        return window  # type: ignore[return-value]
    try:
        center, width = map(float, window)
        if isinstance(window, str) or not (math.isfinite(center) and 0 < width < math.inf):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"window should be (center, width) with a width above 0, or 'auto', got {window!r}."
        ) from None
    return center, width


def parse_window(text: str) -> Window:
    """Return the window that "CENTER,WIDTH" or "auto" means, as on the command line.

    Raises:
        ValueError: the text is neither.

    Example:
        >>> parse_window("-600,1500")
        (-600.0, 1500.0)
    """
    if text == "auto":
        return "auto"
    try:
        window = _checked([float(part) for part in text.split(",")])
    except ValueError:
        window = None
    if window is None:
        raise ValueError(
            "a window should be CENTER,WIDTH with a width above 0, such as 40,400, or auto; "
            f"got {text!r}."
        )
    return window


def window_text(window: Window) -> str:
    """Return a window as `parse_window` reads it."""
    return window if isinstance(window, str) else ",".join(map(repr, window))
