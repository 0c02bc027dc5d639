"""Print for people, and build the detector that the options name."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faprompt.errors import ConfigError, MissingExtraError
from faprompt.files import printable
from faprompt.work import ProgressCallback, logger, no_progress

if TYPE_CHECKING:
    from rich.progress import TaskID

    from faprompt.detector import Detector
    from faprompt.exported_detector import ExportedDetector


@contextmanager
def progress_bars() -> Iterator[ProgressCallback]:
    """Show progress on stderr where a terminal is attached: one bar for each stage."""
    if not sys.stderr.isatty():
        yield no_progress
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
        shown: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in shown:
                for finished in shown.values():
                    bars.remove_task(finished)
                shown.clear()
                shown[stage] = bars.add_task(printable(stage), total=None)
            bars.update(shown[stage], completed=done, total=total)

        yield show


def show_log() -> None:
    """Print the notes and warnings of the log `faprompt` on stderr, as plain lines."""
    logger.setLevel(logging.INFO)
    logger.handlers = [_StderrHandler()]


class _StderrHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


def note(text: str) -> None:
    """Print a line for people on stderr; scripts read stdout."""
    print(printable(text), file=sys.stderr, flush=True)


def say(text: object) -> None:
    """Print text of one or several lines on stdout, each line escaped."""
    print("\n".join(map(printable, str(text).split("\n"))), flush=True)


def result_line(row: Any) -> str:
    """Return the line of a row for people: verdict, score, path, and the error if there is one."""
    path = printable(row.path)
    if row.status == "error":
        return f"ERROR\t-\t{path}\t{printable(row.error)}"
    return f"{row.verdict or '-'}\t{row.score:.4f}\t{path}"


def note_left_out(left_out: Counter[str]) -> None:
    """Print which other files the input folders hold, if any."""
    from faprompt.prediction.input_paths import describe_left_out

    if left_out:
        note(f"left out: {describe_left_out(left_out)}")


def note_pictures(lines: Iterable[str]) -> None:
    """Print what the reader did to pictures; options are spelled as on the command line."""
    for line in lines:
        note(line.replace("bit_depth=", "--bit-depth ").replace("window=", "--window "))


def load_model(
    model: str | None, *, backbone: str | None = None, **options: Any
) -> Detector | ExportedDetector:
    """Return the detector of `--model`; an exported folder needs no torch.

    Args:
        model: as in `load_detector`; None: its default.
        backbone: as in `load_detector`.
        options: device, precision and class name of `load_detector`.

    Raises:
        MissingExtraError: another model where torch is not installed.
    """
    from faprompt.exported_detector import is_exported, load_exported

    if model is not None and backbone is None and is_exported(Path(model)):
        return load_exported(model, **options)
    try:
        from faprompt.models import DEFAULT_MODEL, load_detector
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{model or 'the default model'} needs the package {error.name}: pip install faprompt. "
            "Without it, give an exported folder (`faprompt export`)."
        ) from error
    return load_detector(model or DEFAULT_MODEL, backbone=backbone, **options)


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
) -> Detector | ExportedDetector:
    """Return the detector of `--model`, or of `--method` on `--backbone`.

    Raises:
        ConfigError: both were given, or options of a method for a model.
    """
    from faprompt.folder_config import recorded_note

    common: dict[str, Any] = {"device": device, "precision": precision}
    common |= {"class_name": class_name or None}
    if method is None:
        if options:
            raise ConfigError("--set needs --method; the options of a --model cannot be changed.")
        if preset != "paper":
            raise ConfigError("--preset needs --method; the preset of a --model is fixed.")
        return load_model(model, backbone=backbone, **common)
    if model is not None:
        raise ConfigError("Got both --model and --method; give --model, or --method --backbone.")
    from faprompt.models import build_detector

    source = backbone or "tiny"
    detector = build_detector(method, source, options=options, preset=preset, **common)
    if remark := recorded_note(detector.description):
        note(f"{method}: {remark}")
    return detector
