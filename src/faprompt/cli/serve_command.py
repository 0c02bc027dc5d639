"""Define `faprompt serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from faprompt.cli import options as o


def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[ID=]MODEL...",
            help="Bundled names, model folders, exported folders or Hugging Face ids. Requests "
            "name a model by its id; default: its name, or that of its folder.",
        ),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token that requests must carry, on one line."),
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Serve other machines without a token.")
    ] = False,
    threshold: o.Threshold = None,
    bit_depth: o.BitDepth = None,
    window: o.Window = None,
    max_pixels: o.MaxPixels = 64_000_000,
    max_body_mib: Annotated[
        int, typer.Option(min=1, help="Largest body of a request, in MiB.")
    ] = 32,
    max_memory_mib: Annotated[
        int, typer.Option(min=1, help="Most bytes of all bodies together, in MiB.")
    ] = 512,
    max_batch: Annotated[int, typer.Option(min=1, help="Most pictures in one request.")] = 32,
    batch_size: o.BatchSize = 8,
    queue: Annotated[
        int, typer.Option(min=1, help="Most pictures that wait for a model; more: error 503.")
    ] = 64,
    timeout: Annotated[
        int, typer.Option(min=1, help="Seconds until a request without answer is an error 504.")
    ] = 30,
    receive_timeout: Annotated[
        int, typer.Option(min=1, help="Seconds for a client to send its headers, or its body.")
    ] = 20,
    max_connections: Annotated[int, typer.Option(min=1, help="Most open connections.")] = 256,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    access_log: Annotated[bool, typer.Option(help="Log one line for each request.")] = True,
) -> None:
    """Judge pictures over HTTP, and show an inspection page in the browser.

    SIGTERM or Ctrl-C ends the service after it has answered every accepted request.
    """
    import logging
    import warnings

    from faprompt.cli.terminal import load_model, note
    from faprompt.errors import ConfigError
    from faprompt.work import load_extra

    for module in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
        load_extra("serve", module)
    from faprompt.serving.server_run import build_server
    from faprompt.serving.service_limits import ServiceLimits, check_exposure, read_token

    token = read_token(token_file) if token_file else None
    check_exposure(host, token, no_token=no_token)
    try:
        limits = ServiceLimits(
            body_mib=max_body_mib, memory_mib=max_memory_mib, max_pixels=max_pixels,
            max_batch=max_batch, batch_size=batch_size, queue=queue, timeout_s=timeout,
            receive_s=receive_timeout, connections=max_connections,
        )  # fmt: skip
    except ValueError as error:
        raise ConfigError(str(error)) from error
    logging.getLogger().addHandler(logging.NullHandler())  # readers' warnings tell of content
    warnings.simplefilter("ignore")
    logging.getLogger("faprompt.access").setLevel(logging.INFO if access_log else logging.WARNING)
    detectors = {
        name: load_model(model, device=device, precision=precision)
        for name, model in named_models(models).items()
    }
    server = build_server(
        detectors, host=host, port=port, token=token, no_token=no_token, limits=limits,
        threshold=threshold, bit_depth=bit_depth, window=window,
        on_start=lambda: note(f"serving {', '.join(detectors)} at {_address(server, host)}"),
    )  # fmt: skip
    server.run()
    note("stopped; every accepted request was answered")


def named_models(models: list[str]) -> dict[str, str]:
    """Return id -> model of `[ID=]MODEL` arguments.

    Raises:
        ConfigError: two models have one id.
    """
    from faprompt.errors import ConfigError

    found: dict[str, str] = {}
    for text in models:
        name, sign, model = text.partition("=")
        if not sign:
            name, model = Path(text).name or text, text
        if name in found or not name or not model:
            raise ConfigError(
                f"{text}: each model needs an id of its own, as in left=models/left right=small."
            )
        found[name] = model
    return found


def _address(server: object, host: str) -> str:
    sockets = [s for each in server.servers for s in each.sockets]  # type: ignore[attr-defined]
    port = sockets[0].getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
