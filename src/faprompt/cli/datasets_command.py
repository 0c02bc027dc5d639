"""Define `faprompt datasets`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faprompt.cli import options as o

if TYPE_CHECKING:
    from faprompt.data import DatasetInfo

_INDENT = " " * 30

app = typer.Typer(no_args_is_help=True, help="List, check and draw labelled sets.")


@app.command("list")
def list_(as_json: o.Json = False) -> None:
    """List the datasets and layouts that can be read: name, counts, source, licence, labels."""
    from faprompt.data import dataset_info, list_datasets

    infos = [dataset_info(name) for name in list_datasets()]
    if as_json:
        print(json.dumps([_as_row(info) for info in infos]))
        return
    for info in infos:
        counts = "" if info.normal is None else f"{info.normal} + {info.anomalous}"
        print(f"{info.name:<15} {counts:>12}  {info.title}: {info.layout}")
        if info.facts:
            remark = f"; {info.facts.remark}" if info.facts.remark else ""
            print(f"{_INDENT}{info.facts.labelled}; {info.facts.licence}")
            print(f"{_INDENT}from {info.facts.source}{remark}")


def _as_row(info: DatasetInfo) -> dict[str, Any]:
    """Return one flat record; layouts of your own pictures have None for every fact."""
    row = {name: getattr(info, name) for name in ("name", "title", "layout", "normal", "anomalous")}
    facts = ("labels", "source", "licence", "remark")
    return row | {name: getattr(info.facts, name, None) for name in facts}


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A labelled folder, or a list of pictures.")],
    dataset: o.DatasetName = "auto",
    split: Annotated[
        str, typer.Option(help="Split: test, or train where the dataset has one.")
    ] = "test",
    subset: o.Subset = "paper",
    as_json: o.Json = False,
) -> None:
    """Check a labelled folder: counts, lost masks, unreadable files, copies.

    Exits with 1 when the folder cannot be evaluated.
    """
    from faprompt.cli.terminal import progress_bars, say
    from faprompt.data import check_dataset, describe
    from faprompt.files import printable

    with progress_bars() as progress:
        result = check_dataset(
            folder, dataset=dataset, split=split, subset=subset, progress=progress
        )
    if as_json:
        print(json.dumps(result.to_dict()))
    else:
        problems = tuple(map(printable, result.problems))
        warnings = tuple(map(printable, result.warnings))
        say(describe(replace(result, problems=problems, warnings=warnings)))
    if not result.usable:
        raise typer.Exit(1)


@app.command()
def table(data_root: o.DataRoot = None, as_json: o.Json = False) -> None:
    """Print Tables 1 and 2 of the paper beside the counts of the datasets here.

    A dataset that is missing or cannot be read is "-" with the reason; the exit status is
    then 3.
    """
    from faprompt.cli.terminal import progress_bars
    from faprompt.reproduce.dataset_tables import count_rows, describe_rows

    with progress_bars() as progress:
        rows = count_rows(data_root, progress=progress)
    if as_json:
        told = [asdict(row) | {"matches": row.matches} for row in rows]
        print(json.dumps({"rows": told}))
    else:
        print(describe_rows(rows))
    if any(row.reasons for row in rows):
        raise typer.Exit(3)


@app.command()
def synth(
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder in which auxiliary/ and test/ are written; with --onto, the set itself."
        ),
    ],
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[GOOD]...", help="More pictures for --onto.")
    ] = None,
    onto: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GOOD",
            help="Draw defects onto these good pictures: files, folders or globs; repeatable.",
        ),
    ] = None,
    count: Annotated[
        int,
        typer.Option(
            min=8,
            help="Number of pictures in each of the two sets; with --onto, number of pictures "
            "with a defect, beside the good ones.",
        ),
    ] = 400,
    size: Annotated[
        int | None,
        typer.Option(
            min=64, help="Side of the pictures, in pixels. Default: 256. Not with --onto."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the random numbers; the same seed draws the same pictures.")
    ] = 111,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="With --onto: longest extents of the defects in pixels of your pictures, "
            "separated by commas. Default: 4,8,16,32,64."
        ),
    ] = None,
    strengths: Annotated[
        str | None,
        typer.Option(
            help="With --onto: shares of the full contrast, above 0 to 1, separated by commas. "
            "Default: 0.25,0.5,1."
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="With --onto: draw this kind of defect only, such as scratch or hole; "
            "repeatable. Default: all.",
        ),
    ] = None,
    bit_depth: o.BitDepth = None,
    window: o.Window = None,
    max_pixels: o.MaxPixels = o.MAX_PIXELS,
) -> None:
    """Draw labelled sets with masks, or defects onto your own good pictures (--onto).

    Without --onto it draws two sets: one for training, one with other objects and defects. With
    --onto it writes one set: your pictures, copies with drawn defects, and drawn.csv, which lists
    them. Exits with 3 when some pictures could not be read.
    """
    from faprompt.errors import ConfigError
    from faprompt.work import hold_folders

    only_onto = {"more pictures": more, "--sizes": sizes, "--strengths": strengths, "--kind": kind}
    if onto is None and any(only_onto.values()):
        given = ", ".join(name for name, value in only_onto.items() if value)
        raise ConfigError(f"Got {given} without --onto; name good pictures with --onto GOOD.")
    if onto is not None and size is not None:
        raise ConfigError("Got --size and --onto; defects are drawn in the size of your pictures.")
    with hold_folders(folder):
        if onto is None:
            _draw_two_sets(folder, count, 256 if size is None else size, seed)
        else:
            _damage_pictures(
                folder, [*onto, *(more or ())], count=count, seed=seed, sizes=sizes,
                strengths=strengths, kinds=kind, bit_depth=bit_depth, window=window,
                max_pixels=max_pixels,
            )  # fmt: skip


def _draw_two_sets(folder: Path, count: int, size: int, seed: int) -> None:
    from faprompt.cli.terminal import progress_bars, say
    from faprompt.synthetic import write_dataset
    from faprompt.synthetic.kinds import KindSet

    parts: tuple[tuple[KindSet, str, int], ...] = (
        ("aux", "auxiliary", seed),
        ("test", "test", seed + 1),
    )
    for kinds, part, own_seed in parts:
        with progress_bars() as progress:
            write_dataset(
                folder / part, kinds=kinds, count=count, size=size, seed=own_seed,
                progress=progress,
            )  # fmt: skip
        say(f"wrote {folder / part}")


def _damage_pictures(
    folder: Path,
    goods: list[str],
    *,
    sizes: str | None,
    strengths: str | None,
    kinds: list[str] | None,
    **options: Any,
) -> None:
    from faprompt.cli.terminal import note, note_left_out, note_pictures, progress_bars, say
    from faprompt.prediction.input_paths import expand_inputs
    from faprompt.synthetic.damaged_set import write_damaged_set

    if sizes is not None:
        options["sizes_px"] = o.parse_numbers("--sizes", sizes)
    if strengths is not None:
        options["strengths"] = o.parse_numbers("--strengths", strengths)
    if kinds:
        options["kinds"] = [name.replace("_", " ") for name in kinds]
    left_out: Counter[str] = Counter()
    pictures = expand_inputs(goods, exclude=[folder], left_out=left_out)
    note_left_out(left_out)
    with progress_bars() as progress:
        written = write_damaged_set(folder, pictures, progress=progress, **options)
    note_pictures(written.notes)
    note(
        f"{written.n_good} good, {written.n_drawn} with a drawn defect, "
        f"{written.n_unreadable} unreadable"
    )
    say(f"wrote {written.folder}")
    if written.n_unreadable:
        raise typer.Exit(3)
