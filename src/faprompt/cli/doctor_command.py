"""Define `faprompt doctor`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from faprompt.cli import options as o


def doctor(
    pictures: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders or globs on which precisions are compared."),
    ] = None,
    model: o.Model = None,
    as_json: o.Json = False,
) -> None:
    """Report versions, device, speed of the bundled model, and missing extras.

    With PICTURES, also how fast the model is on them at fp32, bf16 and int8, and by how much
    each precision changes scores and maps.
    """
    from faprompt.cli.diagnosis import diagnose
    from faprompt.errors import ConfigError

    if model and not pictures:
        raise ConfigError("--model is what precisions are compared with; give PICTURES as well.")
    found = diagnose()
    if pictures:
        from faprompt.cli.diagnosis import compare_on

        found["precision"] = compare_on(pictures, model)
    if as_json:
        print(json.dumps(found))
        return
    for heading, values in found.items():
        print(heading)
        for name, value in values.items():
            print(f"  {name:<22} {value}")
