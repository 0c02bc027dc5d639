"""`faprompt models`: what can be used, what a model is, and reference checkpoints in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import typer

from faprompt.cli import _options as o

app = typer.Typer(no_args_is_help=True, help="List, describe, fetch and import models.")


@app.command("list")
def list_(as_json: o.Json = False) -> None:
    """Methods, backbones and bundled models."""
    from faprompt.clip.weights import list_backbones
    from faprompt.methods.registry import describe_methods
    from faprompt.models import list_models

    found: dict[str, list[dict[str, Any]]] = {
        "methods": describe_methods(),
        "backbones": list_backbones(),
        "models": list_models(),
    }
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    for heading, rows in found.items():
        print(heading)
        for row in rows:
            rest = ", ".join(f"{key} {_words(row[key])}" for key in row if key != "name")
            print(f"  {row['name']:<28} {rest}")


def _words(value: Any) -> Any:
    """The presets of each backbone in words; anything else as it is."""
    if not isinstance(value, dict):
        return value
    keys = {name: [key for key in value if value[key] == name] for name in value.values()}
    return "; ".join(f"{name} ({', '.join(keys[name])})" for name in keys)


@app.command()
def info(
    model: Annotated[str, typer.Argument(help="A bundled name, a folder, or a hub id.")],
    as_json: o.Json = False,
) -> None:
    """What a model is made of and was trained on."""
    from faprompt.model_folder import check_options, model_card, read_config
    from faprompt.models import find_model

    folder = find_model(model)
    config = read_config(folder)
    check_options(config, folder)
    print(json.dumps(config, indent=2, ensure_ascii=False) if as_json else model_card(config))


@app.command()
def fetch(
    backbone: Annotated[str, typer.Argument(help="open_clip name, with :TAG for other weights.")],
) -> None:
    """Download a backbone for offline use, and print where it lies and its SHA-256."""
    from faprompt.cli._terminal import say
    from faprompt.clip.weights import fetch_backbone

    fetched = fetch_backbone(backbone)
    say(f"{fetched.path}\nsha256 {fetched.sha256}")


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="The authors' .pth.")],
    method: Annotated[
        Literal["faprompt", "anomalyclip", "april-gan"], typer.Option(help="Whose it is.")
    ],
    out: Annotated[Path, typer.Option(help="The model folder to write.")],
    backbone: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="The CLIP it was trained on; april-gan: ViT-L-14-336:gelu if not told."),
    ] = None,
    selection: Annotated[
        Optional[Literal["topk", "first"]],  # noqa: UP045
        typer.Option(help="FAPrompt: which patches feed the prior; the released code: first."),
    ] = None,
    rank_by: Annotated[
        Optional[Literal["similarity", "probability"]],  # noqa: UP045
        typer.Option(help="FAPrompt: what topk ranks by."),
    ] = None,
    assignments: o.Assignments = None,
) -> None:
    """Turn a reference checkpoint into a model folder that gives its numbers."""
    from faprompt.cli._terminal import hold_folders, say
    from faprompt.config import parse_assignments
    from faprompt.model_import import import_reference

    options: dict[str, Any] = parse_assignments(assignments or [])
    options |= {"selection": selection} if selection else {}
    options |= {"rank_by": rank_by} if rank_by else {}
    with hold_folders(out):
        left_behind = import_reference(
            checkpoint, method=method, backbone=backbone, out=out, options=options
        )
    say(f"wrote {out}; {len(left_behind)} tensors that no forward pass reads were left behind")
