"""Define `faprompt models`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from faprompt.cli import options as o

app = typer.Typer(no_args_is_help=True, help="List, describe, fetch and import models.")


@app.command("list")
def list_(as_json: o.Json = False) -> None:
    """List methods, backbones and bundled models."""
    from faprompt.clip.known_backbones import list_backbones
    from faprompt.methods.registry import describe_methods
    from faprompt.models import list_models

    found: dict[str, list[dict[str, Any]]] = {
        "methods": describe_methods(),
        "backbones": list_backbones(),
        "models": list_models(),
    }
    if as_json:
        print(json.dumps(found))
        return
    for heading, rows in found.items():
        print(heading)
        for row in rows:
            rest = ", ".join(f"{key} {_words(row[key])}" for key in row if key != "name")
            print(f"  {row['name']:<28} {rest}")


def _words(value: Any) -> Any:
    """Return the presets of each backbone in words, and any other value unchanged."""
    if not isinstance(value, dict):
        return value
    keys = {name: [key for key in value if value[key] == name] for name in value.values()}
    return "; ".join(f"{name} ({', '.join(keys[name])})" for name in keys)


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="A bundled name, a folder, or a hub id.")],
    as_json: o.Json = False,
) -> None:
    """Describe a model: its method, options, backbone and training."""
    from faprompt.exported_detector import is_exported, read_export
    from faprompt.model_folder import check_options, model_card, read_config
    from faprompt.models import find_model

    folder = find_model(model)
    if is_exported(folder):
        config, _ = read_export(folder)
        text = (folder / "README.md").read_text(encoding="utf-8") if not as_json else ""
        print(json.dumps(config, indent=2) if as_json else text)
        return
    config = read_config(folder)
    check_options(config, folder)
    print(json.dumps(config, indent=2) if as_json else model_card(config))


@app.command()
def fetch(
    backbone: Annotated[
        str, typer.Argument(help="Backbone: an open_clip name, with :TAG for other weights.")
    ],
) -> None:
    """Download a backbone for offline use, and print its path and SHA-256."""
    from faprompt.cli.terminal import say
    from faprompt.clip.known_backbones import fetch_backbone

    fetched = fetch_backbone(backbone)
    say(f"{fetched.path}\nsha256 {fetched.sha256}")


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint (.pth) of the authors' code.")],
    method: Annotated[
        Literal["faprompt", "anomalyclip", "april-gan"],
        typer.Option(help="Method that the checkpoint belongs to."),
    ],
    out: Annotated[Path, typer.Option(help="Model folder to write.")],
    backbone: Annotated[
        str | None,
        typer.Option(help="CLIP that it was trained on. Default for april-gan: ViT-L-14-336:gelu."),
    ] = None,
    selection: Annotated[
        Literal["topk", "first"] | None,
        typer.Option(
            help="FAPrompt: patches that the prior is computed from. Released code: first."
        ),
    ] = None,
    rank_by: Annotated[
        Literal["similarity", "probability"] | None,
        typer.Option(help="FAPrompt: value by which topk ranks patches."),
    ] = None,
    assignments: o.Assignments = None,
) -> None:
    """Convert a checkpoint of the authors' code into a model folder with the same scores."""
    from faprompt.cli.terminal import say
    from faprompt.config import parse_assignments
    from faprompt.model_import import import_reference
    from faprompt.work import hold_folders

    options: dict[str, Any] = parse_assignments(assignments or [])
    options |= {"selection": selection} if selection else {}
    options |= {"rank_by": rank_by} if rank_by else {}
    with hold_folders(out):
        left_behind = import_reference(
            checkpoint, method=method, backbone=backbone, out=out, options=options
        )
    say(f"wrote {out}; {len(left_behind)} tensors were dropped, because no forward pass reads them")
