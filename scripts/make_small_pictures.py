"""Draw docs/small/hits.jpg and failures.jpg: verdicts of `small` after calibration.

    python scripts/make_small_pictures.py [--small DIR] [--textile DIR]

Simulated textile (PyPI package conformal-clip-data, MIT licence) and our drawn examples alone:
the photographs of the other sets may not be shown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from faprompt import AnomalyResult, Detector, load_detector  # noqa: E402
from faprompt.evaluation.contact_sheet import Entry, draw_sheet, picture_panels  # noqa: E402
from faprompt.files import write_atomically  # noqa: E402
from faprompt.imaging import encode_jpeg, read_image  # noqa: E402
from faprompt.inspection import CalibrateOptions, calibrate  # noqa: E402
from scripts.measured_sets import read_textile, textile_root  # noqa: E402

FOLDER = ROOT / "docs" / "small"
CALIBRATING, RATE = 200, 0.05
EACH = 2  # pictures of a kind of textile
DRAWN = 4  # drawn pictures of each sheet
SHEETS = {
    "hits": ("Hits", "Defective pictures called NG, each beside its score map. Textile: the "
             "highest scores of each kind. Drawn: farthest above the threshold, one a product."),
    "failures": ("Failures", "Good pictures called NG and defective pictures called OK, each "
                 "beside its score map. The worst of each kind."),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judged:
    """A picture, the truth, and the verdict on it."""

    path: Path
    name: str  # shown below it
    group: str  # textile kind, or "drawn"
    product: str
    defective: bool
    result: AnomalyResult

    @property
    def margin(self) -> float:
        """Score less threshold."""
        return self.result.score - (self.result.threshold or 0.0)


def judge_textile(small: Detector, root: Path) -> list[Judged]:
    """Calibrate on nominal textile, then judge the rest."""
    samples = read_textile(root).samples
    good = [s.image_path for s in samples if not s.label][:CALIBRATING]
    rest = [s for s in samples if s.image_path not in set(good)]
    judge = _calibrated(small, good, by_folder=False)
    results = judge.stream([s.image_path for s in rest], batch_size=8)
    return [
        Judged(s.image_path, f"textile, {s.defect_type or 'nominal'}", s.defect_type or "nominal",
               "textile", bool(s.label), result)
        for s, result in zip(rest, results, strict=True)
    ]  # fmt: skip


def judge_examples(small: Detector) -> list[Judged]:
    """Calibrate on examples/good by product, then judge examples/lot."""
    good = sorted((ROOT / "examples" / "good").rglob("*.jpg"))
    judge = _calibrated(small, good, by_folder=True)
    found = []
    for folder in sorted((ROOT / "examples" / "lot").iterdir()):
        paths = sorted(folder.glob("*.jpg"))
        for path, result in zip(paths, judge.stream(paths, product=folder.name), strict=True):
            name, is_bad = path.stem.rpartition("-")[0], "-good-" not in path.stem
            found.append(Judged(path, f"drawn, {name}", "drawn", folder.name, is_bad, result))
    return found


def _calibrated(small: Detector, good: Sequence[Path], *, by_folder: bool) -> Detector:
    options = CalibrateOptions(target_fpr=RATE, review_fpr=RATE, by_folder=by_folder)
    with tempfile.TemporaryDirectory() as folder:
        return calibrate(small, [str(path) for path in good], folder, options).detector


def hits(judged: Sequence[Judged]) -> list[Judged]:
    """Defective pictures called NG: some of each kind of textile, one of each drawn product."""
    right = [one for one in judged if one.defective and one.result.verdict == "NG"]
    right.sort(key=lambda one: -one.margin)
    products = {one.product: one for one in reversed(right) if one.group == "drawn"}
    return [*_first(right, ("local", "global")), *list(products.values())[:DRAWN]]


def failures(judged: Sequence[Judged]) -> list[Judged]:
    """Wrong verdicts, the farthest from the threshold first."""
    wrong = [one for one in judged if one.defective != (one.result.verdict == "NG")]
    wrong.sort(key=lambda one: -abs(one.margin))
    drawn = [one for one in wrong if one.group == "drawn"]
    return [*_first(wrong, ("nominal", "local", "global")), *drawn[:DRAWN]]


def _first(ranked: Sequence[Judged], groups: Sequence[str]) -> list[Judged]:
    return [one for g in groups for one in [o for o in ranked if o.group == g][:EACH]]


def draw(name: str, shown: Sequence[Judged]) -> None:
    """Write one sheet."""
    entries = []
    for one in shown:
        panels = picture_panels(read_image(one.path).array, one.result.score_map, None)[:2]
        facts = f"score {one.result.score:.3f}, threshold {one.result.threshold or 0:.3f}"
        entries.append(Entry(panels, (f"{one.name}: {one.result.verdict}", facts)))
    sheet = draw_sheet(*SHEETS[name], ("picture", "map"), entries, beside=2)
    FOLDER.mkdir(parents=True, exist_ok=True)
    write_atomically(FOLDER / f"{name}.jpg", encode_jpeg(sheet))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", default="small", help="a bundled name or a model folder")
    parser.add_argument("--textile", type=Path, help="default: the installed package")
    asked = parser.parse_args()
    small = load_detector(asked.small, device="cpu")
    judged = judge_textile(small, textile_root(asked.textile)) + judge_examples(small)
    draw("hits", hits(judged))
    draw("failures", failures(judged))


if __name__ == "__main__":
    main()
