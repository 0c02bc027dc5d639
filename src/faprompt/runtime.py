"""Run exported models with numpy, Pillow and onnxruntime alone: no torch.

    import faprompt.runtime
    detector = faprompt.runtime.load("exported")
    result = detector.predict("part.png")

    python -m faprompt.runtime exported pictures/

The detector, its results and its errors are those of the full package (`PictureDetector`). The
command prints the lines of `results.jsonl` on stdout and writes no file.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from faprompt.detector_setup import setup_changes
from faprompt.errors import FapromptError
from faprompt.exported_detector import ExportedDetector
from faprompt.imaging.reading_options import MAX_PIXELS, parse_window
from faprompt.prediction.bulk_run import PredictOptions
from faprompt.prediction.input_paths import list_inputs
from faprompt.prediction.picture_scoring import PictureScoring
from faprompt.prediction.result_pictures import Artifacts
from faprompt.storage import LocalFolder

__all__ = ["load", "main"]


def load(folder: str | Path) -> ExportedDetector:
    """Load an exported folder; `predict`, `stream` and `with_setup` are as for any detector.

    Raises:
        ModelError: the folder is damaged, or no exported one.
        MissingExtraError: the package that runs its format is not installed.
    """
    return ExportedDetector(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Score pictures and print a line of JSON for each.

    Returns:
        Exit status: 0 done, 1 failed, 3 some files could not be read.
    """
    asked = _parser().parse_args(arguments)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    failed = 0
    try:
        options = PredictOptions(
            threshold=asked.threshold, batch_size=asked.batch_size, bit_depth=asked.bit_depth,
            window=None if asked.window is None else parse_window(asked.window),
            max_pixels=asked.max_pixels, product=asked.product,
        )  # fmt: skip
        masks = [asked.mask] if asked.mask is not None and asked.mask.is_dir() else []
        paths = list(list_inputs(asked.pictures, exclude=masks))
        detector = load(asked.model).with_setup(**setup_changes(asked.tiles, asked.mask))
        detector.setup.reading(options)
        if options.product is not None:
            detector.setup.check_product(options.product)
        scoring = PictureScoring(
            detector=detector,
            artifacts=Artifacts(LocalFolder(Path()), overlays=False, thumbnails=False),
            threshold=options.threshold, batch_size=options.batch_size,
            reading=options, product=options.product,
            pixel_budget=options.pixel_budget,
        )  # fmt: skip
        for row in scoring.rows(paths):
            failed += row.status == "error"
            sys.stdout.buffer.write(row.to_line())
            sys.stdout.buffer.flush()
    except (FapromptError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 3 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m faprompt.runtime",
        description="Score pictures with an exported model, and print a line of JSON for each.",
    )
    parser.add_argument("model", help="exported folder, as `faprompt export` writes it")
    parser.add_argument("pictures", nargs="+", help="files, folders, patterns, lists and URLs")
    parser.add_argument("--threshold", type=float, help="score from which a picture is NG, 0 to 1")
    parser.add_argument("--tiles", help="auto, off, or tiles along the longer side")
    parser.add_argument("--mask", type=Path, help="mask file or folder of masks")
    parser.add_argument("--product", help="whose thresholds count, where they differ by product")
    parser.add_argument("--batch-size", type=int, default=8, help="pictures scored together")
    parser.add_argument("--bit-depth", type=int, help="bits that 16-bit files really use")
    parser.add_argument("--window", help="as --window=CENTER,WIDTH or --window=auto")
    parser.add_argument("--max-pixels", type=int, default=MAX_PIXELS, help="larger: refused")
    return parser


if __name__ == "__main__":
    sys.exit(main())
