"""Summarise the notes of many pictures: one line for each kind of note, with a count."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from faprompt.errors import ImageReadError
from faprompt.imaging.decoding import open_picture

_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_DEPTH_HINT = re.compile(r"bit[_-]depth[= ]\d+")
_DEEP_ENDINGS = (".png", ".tif", ".tiff")  # the other kinds store 8 bits


@dataclass(slots=True)
class _Kind:
    text: str
    count: int = 0
    largest: list[str] = field(default_factory=list)


class NoteTally:
    """Count notes that differ only in their numbers, and keep the largest numbers.

    With `open_others` the pictures without a hint on their bit depth are opened at the end.
    """

    def __init__(self, *, open_others: bool = True) -> None:
        self._open_others = open_others
        self._kinds: dict[str, _Kind] = {}
        self._others: list[str] = []  # pictures that may be deep and have no hint

    def add(self, path: str, notes: tuple[str, ...]) -> None:
        """Count the notes of one picture that was read."""
        for note in notes:
            kind = self._kinds.setdefault(_NUMBER.sub("0", note), _Kind(note))
            numbers = _NUMBER.findall(note)
            pairs = zip(kind.largest, numbers, strict=True) if kind.count else ()
            kind.largest = [max(pair, key=_value) for pair in pairs] or numbers
            kind.count += 1
        deep = self._open_others and path.lower().endswith(_DEEP_ENDINGS)
        if deep and not any(map(_DEPTH_HINT.search, notes)):
            self._others.append(path)

    def lines(self) -> tuple[str, ...]:
        """Return one line for each kind, in the order of its first picture.

        The largest numbers are shown, so that a suggested bit depth fits all pictures with the
        note. If another picture may use more bits, the line says so.
        """
        return tuple(self._line(kind) for kind in self._kinds.values())

    def _line(self, kind: _Kind) -> str:
        numbers = iter(kind.largest)
        text = _NUMBER.sub(lambda _: next(numbers), kind.text)
        line = f"{kind.count} picture{'s' if kind.count > 1 else ''}: {text}"
        if _DEPTH_HINT.search(text) and any(map(_is_deep, self._others)):
            line += " for these alone; other pictures of this run may use more bits"
        return line


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _is_deep(path: str) -> bool:
    """Return whether a file stores more than 8 bits a value, by its header."""
    try:
        with open(path, "rb") as stream:
            picture = open_picture(stream, max_pixels=2**62)
            tiles = getattr(picture, "tile", None) or ()
            return picture.mode.startswith("I") or any(";16" in str(tile[3]) for tile in tiles)
    except (ImageReadError, OSError):  # gone since
        return False
    except Exception:  # a kind whose header Pillow does not know, such as float colours
        return True
