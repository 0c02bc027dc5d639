"""Compare what a rehearsal foretells with what is really found, on the magnetic tiles.

    python scripts/rehearsal_on_tiles.py DATA --scores DIR
    python scripts/rehearsal_on_tiles.py --table

DATA holds `magnetic_tile` and `magnetic_tile_more`. Every good, defective and drawn picture is
scored once (kept in DIR, so that a second run goes on), by `tiny` alone and with references. Then
the good pictures are split many times into 199 that calibrate, 20 that are drawn on, and others
that give false alarms. Writes docs/rehearsal-on-tiles.csv and the tables of docs/rehearsal.md;
`--table` writes the tables alone, from the CSV that is there.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from scipy import stats

from faprompt.calibration import order_statistic
from faprompt.errors import ConfigError
from faprompt.files import csv_table, write_atomically

ROOT = Path(__file__).resolve().parents[1]

sys.path.insert(0, str(ROOT))
from scripts.make_tables import fill  # noqa: E402

CSV, PAGE = ROOT / "docs" / "rehearsal-on-tiles.csv", ROOT / "docs" / "rehearsal.md"
# real kind -> the drawn kinds that look most like it, chosen before anything was measured
DRAWN_LIKE = {
    "blowhole": ("hole", "pore"),
    "crack": ("crack", "scratch"),
    "break": ("missing part", "tear"),
    "fray": ("stain", "colour change"),
}
DRAWN = tuple(kind for kinds in DRAWN_LIKE.values() for kind in kinds)
SIZES = (8.0, 16.0, 32.0, 64.0, 128.0)
STRENGTHS = (0.5, 1.0)
RATES = (0.01, 0.05)
CALIBRATE, HELD, SPLITS, SEED = 199, 20, 50, 14
REFERENCES, CANDIDATES, REFERENCE_SETS = 4, 16, 3
POOL = {"alone": 40, "references": 20}  # good pictures that are drawn on
LEAST = 5  # real pictures of a kind and size, for a row of the table


@dataclass(frozen=True, slots=True)
class Scored:
    """The score of one picture."""

    what: str  # good, aside (a reference or a candidate for one), real or drawn
    picture: str  # name of the file; of a drawn one, the good picture
    kind: str
    size_px: float  # longest extent of the defect, 0 for none
    strength: float
    score: float


def size_bin(size_px: float) -> float:
    """The drawn size nearest to a real one, by their ratio."""
    return min(SIZES, key=lambda size: abs(np.log(size / size_px)))


# --- scores -------------------------------------------------------------------------------------


def good_pictures(data: Path) -> list[Path]:
    """The defect-free tiles in an order of chance; the first ones are the pool."""
    paths = sorted(data.glob("magnetic_tile*/MT_Free/Imgs/*.jpg"), key=lambda path: path.name)
    order = np.random.default_rng(SEED).permutation(len(paths))
    return [paths[place] for place in order]


def real_defects(data: Path) -> Iterator[tuple[Path, str, float]]:
    """The defective tiles, with kind and the extent of the longest marked region."""
    from PIL import Image
    from scipy import ndimage

    from faprompt.synthetic.defect_shapes import longest_extent

    for kind in DRAWN_LIKE:
        for path in sorted(data.glob(f"magnetic_tile*/MT_{kind.capitalize()}/Imgs/*.png")):
            mask = np.array(Image.open(path).convert("L")) > 127  # its edges are noisy
            labels, count = ndimage.label(mask, np.ones((3, 3)))
            extents = [longest_extent(labels == number + 1) for number in range(count)]
            yield path.with_suffix(".jpg"), kind, max(extents)


def score_pictures(data: Path, variant: str) -> Iterator[Scored]:
    """Score every picture by `tiny`; variant is "alone" or "references-0", "references-1" ..."""
    from faprompt.imaging import read_image
    from faprompt.models import load_detector
    from faprompt.references import ReferenceBank, References, farthest_first
    from faprompt.synthetic import draw_defects
    from faprompt.synthetic.damaged_pictures import own_seed

    detector, good = load_detector("tiny"), good_pictures(data)
    pool, memory = good[: POOL[variant.split("-")[0]]], []
    if variant != "alone":
        rest = good[len(pool) :]
        some = np.random.default_rng([SEED, int(variant[-1])]).choice(
            len(rest), CANDIDATES, replace=False
        )
        memory = [rest[place] for place in some]  # set aside, as `calibrate` does
        features = [detector.image_feature(read_image(path).array) for path in memory]
        chosen = [memory[row] for row in farthest_first(np.stack(features), REFERENCES)]
        tokens = {p.name: detector.reference_tokens(read_image(p).array) for p in chosen}
        detector = detector.with_setup(references=References({"": ReferenceBank.of(tokens)}))
    for path in good:
        what = "aside" if path in memory else "good"
        yield Scored(what, path.name, "", 0, 0, detector.predict(path).score)
    for path, kind, size_px in real_defects(data):
        yield Scored("real", path.name, kind, size_px, 1, detector.predict(path).score)
    for number, path in enumerate(pool):
        image = read_image(path).array
        for kind in DRAWN:
            for size_px in SIZES:
                try:
                    drawn = [d for _, d in draw_defects(
                        [image], [kind], [size_px], STRENGTHS,
                        per_cell=1, seed=own_seed(SEED, number),
                    )]  # fmt: skip
                except ConfigError:
                    continue
                results = detector.predict_batch([one.image for one in drawn])
                for one, result in zip(drawn, results, strict=True):
                    yield Scored("drawn", path.name, kind, size_px, one.strength, result.score)


def kept_scores(folder: Path, data: Path | None, variant: str) -> list[Scored]:
    """The scores of a variant from its file, which is written first where there is none."""
    path = folder / f"{variant}.csv"
    if not path.exists():
        if data is None:
            raise SystemExit(f"{path} does not exist; name the folder of the tiles.")
        names = [field.name for field in fields(Scored)]
        rows = [astuple(one) for one in score_pictures(data, variant)]
        write_atomically(path, csv_table([names, *rows]).encode())
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Scored(r["what"], r["picture"], r["kind"], *(float(r[n]) for n in
                   ("size_px", "strength", "score")))
            for r in csv.DictReader(file)
        ]  # fmt: skip


# --- splits -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Split:
    """What one split foretold and what was found, as shares."""

    real: dict[tuple[str, float], float]  # kind and size -> share of the real pictures that is NG
    foretold: dict[tuple[str, float], dict[float, float]]  # the same, by strength, of drawn ones
    false_alarms: float  # of good pictures that neither calibrated nor were drawn on
    undrawn: float  # of the good pictures that were drawn on


def groups_of(scored: list[Scored]) -> dict[tuple[str, float], np.ndarray]:
    """Scores of the real pictures of each kind and size."""
    found: dict[tuple[str, float], list[float]] = {}
    for one in scored:
        if one.what == "real":
            found.setdefault((one.kind, size_bin(one.size_px)), []).append(one.score)
    order = list(DRAWN_LIKE)
    return {
        key: np.array(found[key]) for key in sorted(found, key=lambda k: (order.index(k[0]), k[1]))
    }


def split_once(scored: list[Scored], rate: float, rng: np.random.Generator) -> Split:
    """Calibrate on 199 good pictures, draw on 20 others; real pictures are resampled."""
    good = {one.picture: one.score for one in scored if one.what == "good"}
    drawn = [one for one in scored if one.what == "drawn"]
    pool = list(dict.fromkeys(one.picture for one in drawn))
    held = set(rng.permutation(pool)[:HELD].tolist())
    rest = rng.permutation([score for name, score in good.items() if name not in held])
    threshold = order_statistic(np.sort(rest[:CALIBRATE]), rate)
    hits: dict[tuple[str, float, float], list[bool]] = {}
    for one in drawn:
        if one.picture in held:
            key = one.kind, one.size_px, one.strength
            hits.setdefault(key, []).append(one.score > threshold)
    share = {key: float(np.mean(marks)) for key, marks in hits.items()}
    groups = groups_of(scored)
    return Split(
        real={
            key: float((rng.choice(scores, len(scores)) > threshold).mean())
            for key, scores in groups.items()
        },
        foretold={
            (kind, size): {
                strength: float(np.mean([share[like, size, strength] for like in DRAWN_LIKE[kind]]))
                for strength in STRENGTHS
            }
            for kind, size in groups
        },
        false_alarms=float((rest[CALIBRATE:] > threshold).mean()),
        undrawn=float(np.mean([good[name] > threshold for name in held])),
    )


def by_kind(shares: dict[tuple[str, float], float], counts: dict[tuple[str, float], int]) -> dict:
    """The share of each kind, its sizes weighted by their numbers of real pictures."""
    found = {}
    for kind in DRAWN_LIKE:
        own = [key for key in counts if key[0] == kind]
        found[kind, 0.0] = float(
            np.average([shares[k] for k in own], weights=[counts[k] for k in own])
        )
    return found


def agreement(real: dict, foretold: dict) -> tuple[float, float]:
    """Rank correlation of two sets of shares, and the mean of their absolute differences."""
    one, other = np.array(list(real.values())), np.array([foretold[key] for key in real])
    # equal shares everywhere have no order: no correlation
    even = len(set(one)) == 1 or len(set(other)) == 1
    rank = 0.0 if even else float(stats.spearmanr(one, other).statistic)
    return rank, float(np.abs(one - other).mean())


def measured_rows(variant: str, sets: list[list[Scored]], rate: float) -> list[dict[str, object]]:
    """The rows of the CSV for a variant and a rate."""
    counts = {key: len(scores) for key, scores in groups_of(sets[0]).items()}
    splits = [
        split_once(scored, rate, np.random.default_rng([SEED, number, place]))
        for place, scored in enumerate(sets)
        for number in range(SPLITS // len(sets))
    ]
    kept = [key for key in counts if counts[key] >= LEAST]
    tables: dict[str, list[dict[tuple[str, float], float]]] = {"real": [s.real for s in splits]}
    for strength in STRENGTHS:
        tables[f"foretold_{strength:g}"] = [
            {key: by_strength[strength] for key, by_strength in s.foretold.items()} for s in splits
        ]
    rows = []
    for what, keys, shown in (
        ("kind and size", kept, tables),
        ("kind", [(kind, 0.0) for kind in DRAWN_LIKE],
         {name: [by_kind(one, counts) for one in each] for name, each in tables.items()}),
    ):  # fmt: skip
        for key in keys:
            total = counts.get(key) or sum(n for (kind, _), n in counts.items() if kind == key[0])
            row = {"variant": variant, "rate": rate, "row": what, "kind": key[0],
                   "size_px": f"{key[1]:g}", "pictures": total}  # fmt: skip
            for name, each in shown.items():
                row |= _spread(name, [one[key] for one in each])
            rows.append(row)
        for place, name in enumerate(("rank correlation", "mean difference")):
            row = {"variant": variant, "rate": rate, "row": what, "kind": name}
            for strength in STRENGTHS:
                column = f"foretold_{strength:g}"
                row |= _spread(column, [
                    agreement({k: r[k] for k in keys}, f)[place]
                    for r, f in zip(shown["real"], shown[column], strict=True)
                ])  # fmt: skip
            rows.append(row)
    for name in ("false_alarms", "undrawn"):
        rows.append({"variant": variant, "rate": rate, "row": "good", "kind": name,
                     **_spread("real", [getattr(s, name) for s in splits])})  # fmt: skip
    return rows


def _spread(name: str, values: list[float]) -> dict[str, str]:
    """Mean of the splits, and the ends between which 95 % of them lie."""
    low, high = np.quantile(values, (0.025, 0.975))
    return {
        name: f"{np.mean(values):.4f}", f"{name}_low": f"{low:.4f}", f"{name}_high": f"{high:.4f}"
    }  # fmt: skip


# --- tables -------------------------------------------------------------------------------------

VARIANTS = {"alone": "`tiny` alone", "references": "with 4 references"}


def read_csv() -> list[dict[str, str]]:
    """The rows of docs/rehearsal-on-tiles.csv."""
    with CSV.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def foretold_table(rows: list[dict[str, str]]) -> str:
    """Real kinds and sizes down; the real share and the foretold one across, in %."""
    columns = [(variant, f"{rate:g}") for variant in VARIANTS for rate in RATES]
    heads = [f"{VARIANTS[v]}, {100 * float(r):g} %: real" for v, r in columns]
    lines = ["| kind | size | pictures | " + " | foretold | ".join(heads) + " | foretold |"]
    lines.append("|---|---:|---:|" + "---:|" * 2 * len(columns))
    cells = {(r["variant"], r["rate"], r["kind"], r["size_px"]): r for r in rows if r["pictures"]}
    for kind, size in dict.fromkeys((r["kind"], r["size_px"]) for r in rows if r["pictures"]):
        values = []
        for variant, rate in columns:
            row = cells[variant, rate, kind, size]
            values += [_with_ends(row, "real"), _with_ends(row, "foretold_1")]
        total = cells[(*columns[0], kind, size)]["pictures"]
        shown = "**all**" if size == "0" else f"{size} px" + " or more" * (float(size) == SIZES[-1])
        lines.append(f"| {kind} | {shown} | {total} | {' | '.join(values)} |")
    return "\n".join(lines)


def agreement_table(rows: list[dict[str, str]]) -> str:
    """How well the foretold shares agree with the real ones."""
    names = ("rank correlation", "mean difference")
    heads = [f"{name}, strength {s:g}" for name in names for s in reversed(STRENGTHS)]
    lines = [f"| model | rate | compared | {' | '.join(heads)} |"]
    lines.append("|---|---:|---|" + "---:|" * len(heads))
    cells = {(r["variant"], r["rate"], r["row"], r["kind"]): r for r in rows}
    for variant, rate, what in dict.fromkeys(
        (r["variant"], r["rate"], r["row"]) for r in rows if r["row"] != "good"
    ):
        values = []
        for name in names:
            for strength in reversed(STRENGTHS):
                row, column = cells[variant, rate, what, name], f"foretold_{strength:g}"
                values.append(
                    _with_ends(row, column) if name == names[1] else _with_ends(row, column, 1, 2)
                )
        lines.append(
            f"| {VARIANTS[variant]} | {100 * float(rate):g} % | {what} | {' | '.join(values)} |"
        )
    return "\n".join(lines)


def _with_ends(row: dict[str, str], name: str, factor: float = 100, digits: int = 0) -> str:
    mean, low, high = (factor * float(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def page_text() -> str:
    """docs/rehearsal.md with the tables that the CSV gives now."""
    text, rows = PAGE.read_text(encoding="utf-8"), read_csv()
    text = fill(text, "foretold", foretold_table(rows))
    return fill(text, "agreement", agreement_table(rows))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if not asked.table:
        if asked.scores is None:
            parser.error("--scores DIR is needed, or --table")
        asked.scores.mkdir(parents=True, exist_ok=True)
        names = {"alone": ["alone"]}
        names["references"] = [f"references-{number}" for number in range(REFERENCE_SETS)]
        rows = []
        for variant, files in names.items():
            sets = [kept_scores(asked.scores, asked.data, name) for name in files]
            for rate in RATES:
                rows += measured_rows(variant, sets, rate)
        header = max((list(row) for row in rows), key=len)
        table = [header, *([row.get(name) for name in header] for row in rows)]
        write_atomically(CSV, csv_table(table).encode())
    write_atomically(PAGE, page_text().encode())


if __name__ == "__main__":
    main()
