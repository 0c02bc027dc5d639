"""Define `faprompt watch`."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from faprompt.cli import options as o


def watch(
    folder: Annotated[
        Path, typer.Argument(help="Folder that pictures appear in, also below it.", metavar="DIR")
    ],
    model: o.Model = None,
    out: o.Out = Path("faprompt-watch"),
    post: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Send each result to this http or https address."),
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(help="File with the secret that signs what --post sends; 16 bytes or more."),
    ] = None,
    move: Annotated[
        bool,
        typer.Option("--move", help="Move judged pictures into OUT/OK, OUT/REVIEW and OUT/NG."),
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.05, max=3600, help="Seconds between two looks into DIR.")
    ] = 1.0,
    overlays: Annotated[
        bool, typer.Option(help="Write each picture with its score map on top.")
    ] = True,
    threshold: o.Threshold = None,
    tiles: o.Tiles = None,
    mask: o.Mask = None,
    product: o.Product = None,
    batch_size: o.BatchSize = 8,
    bit_depth: o.BitDepth = None,
    window: o.Window = None,
    max_pixels: o.MaxPixels = o.MAX_PIXELS,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    as_json: o.Json = False,
) -> None:
    """Judge each picture that appears in a folder, until Ctrl-C or SIGTERM.

    A picture is judged when it has not changed between two looks, and only once, also after a
    restart. Prints one line for each picture: verdict, score, path. Writes watch.sqlite,
    results.jsonl and overlays into OUT. A receiver that is down gets every result later.
    """
    from faprompt.cli.terminal import note, pick_detector, result_line
    from faprompt.detector_setup import setup_changes
    from faprompt.errors import ConfigError
    from faprompt.watching import WatchOptions, Webhook, read_secret, watch_folder
    from faprompt.work import hold_folders

    if (post is None) != (secret_file is None):
        raise ConfigError("--post and --secret-file belong together: deliveries are signed.")
    webhook = Webhook(post, read_secret(secret_file)) if post and secret_file else None
    options = WatchOptions(
        batch_size=batch_size, threshold=threshold, overlays=overlays, product=product,
        bit_depth=bit_depth, window=window, max_pixels=max_pixels, move=move,
        interval_s=interval,
    )  # fmt: skip
    with _stop_on_signals() as stop, hold_folders(out):
        detector = pick_detector(
            model=model, method=None, backbone=None, options={}, device=device,
            precision=precision,
        ).with_setup(**setup_changes(tiles, mask))  # fmt: skip

        def show(row: Any) -> None:
            with suppress(OSError):  # stdout is closed; the row is recorded
                print(json.dumps(row.to_dict()) if as_json else result_line(row), flush=True)

        note(f"watching {folder}; Ctrl-C ends it")
        judged = watch_folder(
            detector, folder, out, options, stop=stop, webhook=webhook, on_result=show,
            settings={"detector": detector.fingerprint(), "decided_by": detector.decided_by()},
            lock=False,
        )  # fmt: skip
    note(f"ended; {judged} judged; results are in {out}")


@contextmanager
def _stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C and SIGTERM set; the second one ends the program at once.

    Windows has no SIGTERM between programs: Ctrl-Break is what another one can send.
    """
    stop = threading.Event()
    numbers = [signal.SIGINT, signal.SIGTERM]
    numbers += [signal.SIGBREAK] if hasattr(signal, "SIGBREAK") else []

    def end(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
