"""Split text into CLIP's byte pairs, with the merges that open_clip ships.

A text is cleaned, lower-cased and cut into words, single digits and runs of signs. Each of them
starts as its UTF-8 bytes, the last one marked as the end of a word; neighbours are then merged,
the earliest merge of the list first.

    ids 0..255      a byte           512..49405   a merge, in the order of the list
    256..511        a last byte      49406, 49407 start and end of a text

Source: clip/simple_tokenizer.py of openai/CLIP, by way of open_clip/tokenizer.py, with which a
test compares it. Importing open_clip takes two seconds of CPU, so only its list is read.
"""

from __future__ import annotations

import gzip
import html
import importlib.util
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

import regex

from faprompt.errors import ModelError

START, END = 49406, 49407
_MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
_BYTES = 256
_FIRST_MERGE = 2 * _BYTES
_LAST_BYTE = "</w>"  # marks the end of a word
_SPECIAL = {"<start_of_text>": START, "<end_of_text>": END}
_WORDS = regex.compile(
    r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    regex.IGNORECASE,
)


def bpe_ids(text: str) -> list[int]:
    """Return CLIP's ids of `text` (lower-cased, cleaned), without start and end.

    Example:
        >>> bpe_ids("A damaged object.")
        [320, 13568, 14115, 269]
    """
    return [number for word in _WORDS.findall(_clean(text)) for number in _word_ids(word)]


def bpe_text(number: int) -> str:
    """Return the text of one id below `START`; a blank follows where the word ends."""
    if number < _FIRST_MERGE:
        symbol = [*_bytes()][number % _BYTES] + _LAST_BYTE * (number >= _BYTES)
    else:
        symbol = _merge_lines()[number - _FIRST_MERGE].replace(" ", "")
    word = symbol.removesuffix(_LAST_BYTE)
    text = bytes(_bytes()[letter] for letter in word).decode(errors="replace")
    return text + " " * (word != symbol)


def _clean(text: str) -> str:
    """Return the text without entities, damaged encoding, capitals and doubled blanks."""
    if "&" in text or not (text.isascii() and text.isprintable()):  # others ftfy leaves alone
        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


@lru_cache(maxsize=4096)
def _word_ids(word: str) -> tuple[int, ...]:
    if word in _SPECIAL:
        return (_SPECIAL[word],)
    merges = _merges()
    numbers = {byte: (letter, number) for number, (letter, byte) in enumerate(_bytes().items())}
    parts = [numbers[byte] for byte in word.encode()]
    parts[-1] = (parts[-1][0] + _LAST_BYTE, parts[-1][1] + _BYTES)
    while len(parts) > 1:
        pairs = [f"{left} {right}" for (left, _), (right, _) in pairwise(parts)]
        first = min(pairs, key=lambda pair: merges.get(pair, START))
        if first not in merges:
            break
        parts = _merge(parts, first, merges[first])
    return tuple(number for _, number in parts)


def _merge(parts: list[tuple[str, int]], pair: str, number: int) -> list[tuple[str, int]]:
    """Join every two neighbours that are `pair`, from left to right."""
    joined: list[tuple[str, int]] = []
    for symbol, own in parts:
        if joined and f"{joined[-1][0]} {symbol}" == pair:
            joined[-1] = (joined[-1][0] + symbol, number)
        else:
            joined.append((symbol, own))
    return joined


@cache
def _bytes() -> dict[str, int]:
    """Return letter -> the byte that it stands for in the list of merges, in the order of ids."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    shown += range(ord("®"), ord("ÿ") + 1)
    hidden = [byte for byte in range(_BYTES) if byte not in shown]
    letters = [*map(chr, shown), *(chr(_BYTES + place) for place in range(len(hidden)))]
    return dict(zip(letters, [*shown, *hidden], strict=True))


@cache
def _merges() -> dict[str, int]:
    """Return "first second" -> id of each merge; the lowest id is merged first."""
    return {line: _FIRST_MERGE + place for place, line in enumerate(_merge_lines())}


@cache
def _merge_lines() -> list[str]:
    package = importlib.util.find_spec("open_clip")
    if package is None or package.origin is None:
        raise ModelError("CLIP's words come with open_clip: pip install open_clip_torch.")
    packed = (Path(package.origin).parent / _MERGES_FILE).read_bytes()
    return gzip.decompress(packed).decode().split("\n")[1 : 1 + START - _FIRST_MERGE]
