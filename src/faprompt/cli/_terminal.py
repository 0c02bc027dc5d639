"""What all verbs share: progress bars, devices, and where a detector comes from."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def note(text: str) -> None:
    """A line for the person, not for the script."""
    print(text, file=sys.stderr, flush=True)


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
    from faprompt.model_card import recorded_note
    from faprompt.model_folder import build_detector, load_detector

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
