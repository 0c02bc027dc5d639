"""Write the pages of docs/reference from the commands, the JSON Schemas and the dataset catalog.

    python scripts/make_reference.py            writes them
    python scripts/make_reference.py --check    fails if a page differs from what it would write

torch is not imported: the commands' options are declared without it.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from types import NoneType
from typing import Any

import typer

from faprompt.cli.main import app
from faprompt.data.known_readers import dataset_info, list_datasets

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "reference"
MADE = "<!-- Written by scripts/make_reference.py; do not edit. -->\n"
WORDS = {str: "TEXT", Path: "PATH", int: "N", float: "X"}  # of an option's value, by its type

COMMANDS = """\
# Command line

Every command explains itself: `faprompt COMMAND --help`. `python -m faprompt` is the same as
`faprompt`.

| exit status | means |
|---:|---|
| 0 | Done. |
| 1 | Failed; the last line on stderr says why. |
| 2 | The command line or an option is wrong. Nothing was done. |
| 3 | Finished, but some inputs could not be read. The results name them. |
| 130 | Ended by Ctrl-C. |

Results are printed on stdout, everything else on stderr. `--json` prints the results for scripts,
where a command has it. Progress bars appear only on a terminal.
"""
FORMATS = """\
# File formats

Scripts may rely on these files. Each format is a [JSON Schema](https://json-schema.org) (draft
2020-12) in the package, which the tests check against files that the commands wrote. Later
versions of faprompt may add fields, and read files of earlier ones. A schema of the installed
version:

```python
import json
from importlib.resources import files

schema = json.loads((files("faprompt") / "schemas" / "result_row.json").read_text("utf-8"))
print(schema["title"], list(schema["properties"]))
```

A field without "optional" is always there. Numbers are never NaN or infinite.
"""
SHARD_FILES = """\
## Files of shards

`faprompt predict --shard I/N` writes them for itself and for `faprompt merge`, below
`shards/00007-of-00040/`. They have no schema. Read the merged results instead: parts may hold rows
that no longer count.

| file | format |
|---|---|
| `parts/part-00000-DIGITS.parquet` | up to 1,000 result rows and the column `stamp`, by which a \
later run sees that a picture has changed. `.jsonl` without pyarrow. DIGITS: the first 8 of \
`fingerprint`, and 8 random ones |
| `done.json` | `fingerprint`: SHA-256 of the settings in `run.json`. `parts`: rows and digest of \
each part that counts. `pictures`, `listed`, `listing`: number and digest of the pictures with \
rows, of those that the inputs named for this shard, and of those for all shards. `errors`, \
`seconds`, `version`, `finished`, `command` |
| `manifest.jsonl.gz` | after `--shard plan/N`: one line `["PATH", "STAMP"]` for each picture of \
the shard |
| `plan.json`, beside `run.json` | after `--shard plan/N`: `shards`, `inputs`, `listing`, \
`seconds`, `version` |

`faprompt evaluate --shard` has [files of its own](../bulk.md#evaluate-in-shards).
"""
FORMAT_ORDER = (
    "result_row", "run", "summary", "metrics", "config", "webhook", "service_models", "problem",
)  # fmt: skip
DATASETS = """\
# Datasets

`faprompt datasets list` prints this table. No dataset is downloaded: get it from its source, under
its licence, and name the folder. `faprompt datasets check FOLDER` says what faprompt sees in it,
and `faprompt datasets table --data-root DIR` compares all with the numbers of pictures in the
paper. The pictures counted here are those of the paper's test split. The official page on the day
of the download is the authority on the licence.
"""
LAYOUTS = """\
## Layouts of your own pictures

Any folder in one of these layouts can be trained on and evaluated. `--dataset NAME` chooses the
reader where the folder does not show which it is.
"""


def command_line() -> str:
    """Return the page of all commands with their arguments, options and defaults."""
    parts = [COMMANDS]
    for name, command in commands(typer.main.get_command(app), "faprompt"):
        parts += [f"## `{name}`\n", *help_text(command.help or ""), *usage(name, command)]
        for title, kind in (("argument", "argument"), ("option", "option")):
            rows = [row(param, command.callback) for param in shown(command, kind)]
            if rows:
                parts.append("\n".join([f"| {title} | |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the full name of each command that does something, with the command."""
    below = getattr(command, "commands", None)
    if below is None:
        yield name, command
        return
    for word, one in below.items():
        yield from commands(one, f"{name} {word}")


def help_text(text: str) -> Iterator[str]:
    """Yield the paragraphs of a help text; those after a \\b keep their lines."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            yield f"```text\n{paragraph[1:].strip()}\n```\n"
        else:
            yield f"{escaped(' '.join(paragraph.split()))}\n"


def usage(name: str, command: Any) -> list[str]:
    arguments = [argument(param) for param in shown(command, "argument")]
    return [f"```text\n{' '.join([name, *arguments, '[OPTIONS]'])}\n```\n"]


def argument(param: Any) -> str:
    name = param.metavar or param.name.upper()
    several = "..." if param.nargs == -1 and not name.endswith("...") else ""
    return f"{name}{several}" if param.required else f"[{name}{several}]"


def shown(command: Any, kind: str) -> list[Any]:
    """Return the arguments or options of a command that its help shows."""
    return [
        param
        for param in command.params
        if param.param_type_name == kind and param.name != "help" and not param.hidden
    ]


def row(param: Any, function: Callable[..., Any]) -> str:
    """Return the row of an argument or option: its name and value; its help and default."""
    told = escaped(param.help or "")
    if param.param_type_name == "argument":
        return f"| `{argument(param)}` | {told} |"
    value = value_of(param, function)
    name = " ".join([", ".join(param.opts), value]).strip()
    if param.secondary_opts:
        name += f" / {', '.join(param.secondary_opts)}"
    default = param.default
    if param.required:
        told += " Required."
    elif isinstance(default, bool):
        told += f" Default: {'yes' if default else 'no'}." if param.secondary_opts else ""
    elif param.show_default and default not in (None, "") and "Default:" not in told:
        told += f" Default: `{default}`."
    name = name.replace("|", "\\|")
    return f"| `{name}` | {told} |"


def value_of(param: Any, function: Callable[..., Any]) -> str:
    """Return the word for the value of an option, "" for a switch."""
    if param.metavar:
        return str(param.metavar)
    kind = typing.get_type_hints(function)[param.name]
    while typing.get_origin(kind) is not typing.Literal and typing.get_args(kind):
        kind = next(one for one in typing.get_args(kind) if one is not NoneType)
    if typing.get_origin(kind) is typing.Literal:
        return "|".join(map(str, typing.get_args(kind)))
    return "" if kind is bool else WORDS[kind]


def file_formats() -> str:
    """Return the page of all file formats, field by field."""
    folder = files("faprompt") / "schemas"
    names = {entry.name.removesuffix(".json") for entry in folder.iterdir() if "json" in entry.name}
    parts = [FORMATS]
    for name in sorted(names, key=FORMAT_ORDER.index):
        schema = json.loads((folder / f"{name}.json").read_text("utf-8"))
        parts += [f"## {schema['title']}\n", f"{schema['description']}\n"]
        parts += [f"Schema: `faprompt/schemas/{name}.json`\n"]
        rows = [f"| `{path}` | {kind} | {told} |" for path, kind, told in fields(schema)]
        parts.append("\n".join(["| field | type | |", "|---|---|---|", *rows]) + "\n")
        if name == "summary":
            parts.append(SHARD_FILES)
    return "\n".join(parts)


def fields(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield path, type and meaning of each field of a schema, those of inner objects after it."""
    kind = schema.get("type")
    if kind == "array" and "properties" in schema.get("items", {}):
        yield from fields(schema["items"], f"{path}[]")
    for name, field in schema.get("properties", {}).items():
        place = f"{path}.{name}" if path else name
        told = escaped(field["description"])
        if name not in schema.get("required", ()):
            told = f"Optional. {told}"
        yield place, type_of(field), told
        yield from fields(field, place)
    more = schema.get("additionalProperties")
    if isinstance(more, Mapping) and "properties" in more:
        yield from fields(more, f"{path}.NAME")


def type_of(field: Mapping[str, Any]) -> str:
    """Return the type of a field in words."""
    if "$ref" in field:
        return "object"
    if "const" in field:
        return json.dumps(field["const"])
    if "enum" in field:
        return ", ".join(json.dumps(value) for value in field["enum"])
    kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
    text = " or ".join(kinds)
    if "minimum" in field and "maximum" in field:
        text += f", {field['minimum']} to {field['maximum']}"
    return text


def datasets() -> str:
    """Return the page of the datasets that can be read, and of other layouts."""
    infos = [dataset_info(name) for name in list_datasets()]
    rows = [
        f"| `{i.name}` | {i.title} | {'' if i.normal is None else f'{i.normal} + {i.anomalous}'} "
        f"| {i.facts.labelled} | {i.facts.licence} | {sentence(i.facts.source, i.facts.remark)} |"
        for i in infos
        if i.facts
    ]
    head = "| name | dataset | normal + anomalous | labels | licence | source |"
    own = [f"| `{i.name}` | {i.layout} |" for i in infos if not i.facts]
    return "\n".join(
        [DATASETS, head, "|---|---|---:|---|---|---|", *rows, "", LAYOUTS]
        + ["| name | layout |", "|---|---|", *own, ""]
    )


def sentence(*parts: str) -> str:
    """Return the parts that are not empty, joined."""
    return "; ".join(part for part in parts if part)


def escaped(text: str) -> str:
    """Return text of one line for a Markdown cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


PAGES = {
    "command-line.md": command_line,
    "file-formats.md": file_formats,
    "datasets.md": datasets,
}


def stale_pages(folder: Path = FOLDER) -> list[str]:
    """Return the names of the pages that differ from what would be written."""
    stale = []
    for name, page in PAGES.items():
        path = folder / name
        if not path.is_file() or path.read_text("utf-8") != MADE + page():
            stale.append(name)
    return stale


def main() -> None:
    """Write the pages, or check them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    if parser.parse_args().check:
        if stale := stale_pages():
            sys.exit(f"{', '.join(stale)} differ; run python scripts/make_reference.py")
        return
    for name, page in PAGES.items():
        (FOLDER / name).write_text(MADE + page(), encoding="utf-8", newline="\n")
        print("wrote", FOLDER / name)


if __name__ == "__main__":
    main()
