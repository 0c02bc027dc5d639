"""Define `faprompt doctor`."""

from __future__ import annotations

import json

from faprompt.cli import options as o


def doctor(as_json: o.Json = False) -> None:
    """Report versions, device, speed of the bundled model, and missing extras."""
    from faprompt.cli.diagnosis import diagnose

    found = diagnose()
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for heading, values in found.items():
        print(heading)
        for name, value in values.items():
            print(f"  {name:<22} {value}")
