"""What all verbs share: progress bars, devices, and where a detector comes from."""

from __future__ import annotations

import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faprompt.errors import ConfigError

if TYPE_CHECKING:
    from faprompt.detector import Detector

Advance = Callable[[int, int], None]


@contextmanager
def progress_bar(what: str) -> Iterator[Advance]:
    """A bar on stderr when a terminal looks on, nothing otherwise; call it with (done, total)."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Remaining(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(printable(what), total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def printable(text: object) -> str:
    """Escape what would act on a terminal, so that a file name stays one line of plain text.

    Control characters, line and paragraph separators, halves of surrogate pairs, and marks
    that turn the direction of writing or cannot be seen become \\n, \\x1b, \\u202e and the like.
    The two joiners that scripts and emoji need are kept.

    Example:
        >>> printable("a\\tb\\x1b[2J.png")
        'a\\\\tb\\\\x1b[2J.png'
    """
    return "".join(map(_escape, str(text)))


def _escape(character: str) -> str:
    plain = unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")
    if plain or character in "\u200c\u200d":
        return character
    return character.encode("unicode_escape").decode("ascii")


def note(text: str) -> None:
    """Print a line for the person on stderr; scripts read stdout."""
    print(printable(text), file=sys.stderr, flush=True)


def say(text: object) -> None:
    """Print text of one or several lines on stdout, each line escaped."""
    print("\n".join(map(printable, str(text).split("\n"))), flush=True)


def note_left_out(left_out: Counter[str]) -> None:
    """Tell which other files the input folders hold, if any."""
    from faprompt.prediction.inputs import describe_left_out

    if left_out:
        note(f"left out: {describe_left_out(left_out)}")


def note_pictures(lines: Iterable[str]) -> None:
    """Tell what was done to the pictures; options are spelled as on the command line."""
    for line in lines:
        note(line.replace("bit_depth=", "--bit-depth "))


@contextmanager
def hold_folders(*folders: Path) -> Iterator[None]:
    """Lock the folders that a run writes into, each once.

    Raises:
        FolderInUseError: another run is writing into one of them.
    """
    from faprompt.files import lock_folder

    with ExitStack() as held:
        for folder in dict.fromkeys(folder.resolve() for folder in folders):
            held.enter_context(lock_folder(folder))
        yield


def pick_device(device: str) -> str:
    """ "auto" becomes the best there is.

    Raises:
        ConfigError: a device this torch cannot use.
    """
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {device} cannot be used here: {error}") from error
    return device


def pick_detector(
    *,
    model: str | None,
    method: str | None,
    backbone: str | None,
    options: dict[str, Any],
    device: str,
    precision: str,
    preset: str = "paper",
    class_name: str = "",
) -> Detector:
    """`--model`, or a training-free `--method` on a `--backbone`; "" is no class name.

    Says where a preset does not run as it is.

    Raises:
        ConfigError: both or parts of both were given.
    """
    from faprompt.clip.backbone import pick_precision
    from faprompt.model_folder import recorded_note
    from faprompt.models import build_detector, load_detector

    device = pick_device(device)
    common: dict[str, Any] = {
        "device": device,
        "precision": pick_precision(precision, device),
        "class_name": class_name or None,
    }
    if method is None:
        if options:
            raise ConfigError("--set belongs to --method; a --model has its options fixed.")
        if preset != "paper":
            raise ConfigError("--preset belongs to --method; a --model has its options fixed.")
        return load_detector(model or "tiny", backbone=backbone, **common)
    if model is not None:
        raise ConfigError("Give --model, or --method with --backbone, not both.")
    source = backbone or "tiny"
    detector = build_detector(method, source, options=options, preset=preset, **common)
    if told := recorded_note(detector.description):
        note(f"{method}: {told}")
    return detector
