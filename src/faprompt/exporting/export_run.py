"""Export a detector into a folder, and refuse one whose results differ from the original's."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch

from faprompt import __version__
from faprompt.calibration import Calibration
from faprompt.config import Range, check_fields
from faprompt.detector import Detector
from faprompt.detector_setup import SETUP_FILES, DetectorSetup, check_kept, save_setup
from faprompt.errors import ConfigError, ModelError
from faprompt.exported_detector import (
    EXPORT,
    ONNX_FILES,
    OPENVINO_FILES,
    ExportedDetector,
    ExportRecord,
    is_exported,
)
from faprompt.exporting.check_pictures import draw_pictures, spread
from faprompt.exporting.detector_graph import DetectorGraph
from faprompt.exporting.equality_gate import Difference, measure_difference
from faprompt.exporting.graph_files import HINTS, Format, Precision, check_choice, write_graph
from faprompt.files import file_digest, write_atomically
from faprompt.folder_config import CARD, CONFIG, FORMAT
from faprompt.models import require_torch
from faprompt.picture_detector import PictureDetector
from faprompt.work import LOCK_NAME, ProgressCallback, lock_folder, logger, no_progress

TOLERANCES: dict[str, float] = {"fp32": 1e-4, "fp16": 5e-3, "int8": 5e-2}  # defaults
CALIBRATION_TOLERANCE = 1e-4  # most that scores may move if a calibration is to stay valid
_DRAFT = ".export-"  # start of the name of a folder in which an export is made
_PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}  # that run a format


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Hold the options of `export`.

    Args:
        format: "onnx" or "openvino".
        precision: "fp32", "fp16" or "int8", of the exported weights.
        check: paths of pictures to compare on; at most 64 of them are used, evenly spread. ()
            draws some.
        tolerance: largest difference of a score, a map value or a token, above 0 and at most 1;
            None takes 1e-4 at fp32, 5e-3 at fp16 and 5e-2 at int8.

    Raises:
        ValueError: a value is out of range.
    """

    format: Format = "onnx"
    precision: Precision = "fp32"
    check: tuple[str | os.PathLike[str], ...] = ()
    tolerance: Annotated[float, Range(above=0, high=1)] | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def allowed(self) -> float:
        """The tolerance, or the default of the precision."""
        return TOLERANCES[self.precision] if self.tolerance is None else self.tolerance


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """Hold the result of `export`.

    Attributes:
        folder: the exported folder.
        format: "onnx" or "openvino".
        precision: "fp32", "fp16" or "int8".
        files: name of each file of the model -> its size in bytes.
        difference: measured difference of the results to torch's.
        calibration: "none", "carried over", or why it was left out.
        seconds: duration of the export and the comparison.
    """

    folder: Path
    format: Format
    precision: Precision
    files: dict[str, int] = field(hash=False)
    difference: Difference
    calibration: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {
            "folder": str(self.folder), "difference": self.difference.to_dict()
        }  # fmt: skip

    def __str__(self) -> str:
        found = self.difference
        size = sum(self.files.values()) / 1e6
        lines = [
            f"{self.format} {self.precision}: {size:.1f} MB, {self.seconds:.0f} s",
            f"compared with torch on {found.pictures} pictures in batches of "
            f"{' and '.join(map(str, found.batches))}, and with a mask:",
            f"  score {found.score:.1e}, map {found.map:.1e}, tokens {found.tokens:.1e} "
            f"(tolerance {found.tolerance:g})",
            f"  other verdicts: {found.verdicts}, other regions: {found.regions}",
        ]
        if self.calibration != "none":
            lines.append(f"calibration: {self.calibration}")
        return "\n".join(lines)


def export(
    detector: PictureDetector,
    out: str | os.PathLike[str],
    options: ExportOptions | None = None,
    *,
    progress: ProgressCallback = no_progress,
) -> ExportReport:
    """Write an exported folder, which runs without torch, if it gives the same results.

    The folder is taken like a model folder by `load_detector` and by every command. The number
    of pictures in a batch is free, their size is the model's. A class name, tiles, mask,
    references and calibration of the detector are exported with it. A calibration stays only
    where no score moves by more than 1e-4 and no verdict changes; a warning says so otherwise.

    Args:
        detector: of torch, on the CPU, at fp32.
        out: folder to write; an exported folder that is there already is replaced.
        options: see `ExportOptions`.
        progress: called as progress("compare", done, total).

    Raises:
        ConfigError: the method has no graph of a fixed size, the combination of format and
            precision is not offered, or the folder holds something else.
        MissingExtraError: a package that writes or runs the format is not installed.
        ModelError: the graph cannot be converted, or its results differ by more than the
            tolerance; nothing is written.
    """
    began, options, folder = time.monotonic(), options or ExportOptions(), Path(out)
    original = require_torch(detector)
    check_choice(options.format, options.precision)
    check_kept(original.setup)
    pictures = spread(options.check) if options.check else draw_pictures()
    with lock_folder(folder):
        _check_target(folder)
        with tempfile.TemporaryDirectory(
            dir=folder,
            prefix=_DRAFT,
            ignore_cleanup_errors=True,  # Windows: a model may be open
        ) as place:
            draft = Path(place)
            graph = DetectorGraph(original)
            names = write_graph(
                graph, draft, file_format=options.format, precision=options.precision
            )
            record = _describe(graph, draft, names, options)
            _write_config(draft, original, record)
            exported = with_setup_of(ExportedDetector(draft, setup=DetectorSetup()), original)
            difference = measure_difference(
                original, exported, pictures, tolerance=options.allowed, progress=progress
            )
            _refuse_different(original, difference, options)
            calibration = _check_calibration(exported.setup.calibration, difference)
            record = replace(record, difference=difference.to_dict())
            _write_config(draft, original, record)
            write_atomically(draft / CARD, _card(original, record).encode())
            if calibration == "carried over":
                save_setup(exported.setup, draft)
            del exported  # which may hold files open
            sizes = {name: (draft / name).stat().st_size for name in names}
            _move(draft, folder)
    if calibration not in ("none", "carried over"):
        logger.warning("%s: the calibration was left out: %s", folder, calibration)
    return ExportReport(
        folder=folder, format=options.format, precision=options.precision, files=sizes,
        difference=difference, calibration=calibration, seconds=time.monotonic() - began,
    )  # fmt: skip


def _check_target(folder: Path) -> None:
    """Refuse a folder with other files than an export's; drafts of broken runs are removed."""
    for draft in folder.glob(f"{_DRAFT}*"):
        shutil.rmtree(draft, ignore_errors=True)
    held = [path.name for path in folder.iterdir() if path.name != LOCK_NAME]
    if held and not is_exported(folder):
        raise ConfigError(
            f"{folder} holds {held[0]} and is no exported folder; name a new folder, or empty it."
        )


def _describe(
    graph: DetectorGraph, folder: Path, names: tuple[str, ...], options: ExportOptions
) -> ExportRecord:
    package = _PACKAGES[options.format]
    geometry, method = graph.detector.geometry, graph.detector.method
    word = getattr(method.config, "class_word", None)
    shown = graph.detector.class_name or word or getattr(method.config, "classes", ("",))[0]
    return ExportRecord(
        format=options.format,
        precision=options.precision,
        runtime={
            "name": package,
            "version": str(importlib.import_module(package).__version__),
            "hints": dict(HINTS[options.format]),
        },
        files={name: file_digest(folder / name) for name in names},
        inputs=graph.input_names,
        outputs=graph.output_names,
        grid=graph.grid,
        sigma_px=float(geometry.sigma_px),
        keeps_aspect=geometry.keeps_aspect,
        tiled=geometry.tiled,
        stacks_squares=geometry.stacks_squares,
        class_names=(str(shown),) if method.uses_class_names else None,
        torch=torch.__version__,
        faprompt=__version__,
    )


def _write_config(folder: Path, detector: Detector, record: ExportRecord) -> None:
    config = {"format": FORMAT, **detector.model_config(), EXPORT: asdict(record)}
    write_atomically(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def with_setup_of(exported: ExportedDetector, detector: Detector) -> ExportedDetector:
    """Return the exported detector with the original's setup; its calibration is restated.

    The restated calibration says that it was made with the exported model. That is true as far
    as both give the same scores, which the caller measures.
    """
    setup, changes = detector.setup, {}
    for name in ("tiles", "bit_depth", "window", "mask", "mask_folder", "references"):
        changes[name] = getattr(setup, name)
    placed = exported.with_setup(**changes)
    if setup.calibration is None:
        return placed
    decided = placed.decided_by()
    if setup.needs_mask_folder:
        decided["mask"] = setup.calibration.decided_by["mask"]
    return placed.with_setup(calibration=replace(setup.calibration, decided_by=decided))


def _refuse_different(detector: Detector, found: Difference, options: ExportOptions) -> None:
    exact = options.precision == "fp32"
    if found.within and not (exact and (found.verdicts or found.regions)):
        return
    raise ModelError(
        f"{detector.name}: {options.format} {options.precision} gives other results than torch. "
        f"Score {found.score:.2e}, map {found.map:.2e}, tokens {found.tokens:.2e} apart "
        f"(tolerance {found.tolerance:g}), {found.verdicts} verdicts and {found.regions} pictures' "
        f"regions differ; most on {found.worst}. Nothing was written. "
        + ("Please report this." if exact else "Take fp32, or a larger --tolerance.")
    )


def _check_calibration(calibration: Calibration | None, found: Difference) -> str:
    """Return what happens to a calibration; see `ExportReport.calibration`."""
    if calibration is None:
        return "none"
    if found.largest <= CALIBRATION_TOLERANCE and not found.verdicts:
        return "carried over"
    return (
        f"scores moved by {found.score:.1e} and maps by {found.map:.1e}, {found.verdicts} verdicts "
        "changed, so the thresholds are not those of this model. References and mask were left "
        "out with it; run `faprompt calibrate` with the exported folder as --model"
    )


def _card(detector: Detector, record: ExportRecord) -> str:
    """Return the text of the folder's README.md, in the form the Hugging Face hub reads."""
    config, found = detector.model_config(), record.difference
    names = f", for the class {record.class_names[0]}" if record.class_names else ""
    return (
        f"---\nlibrary_name: faprompt\ntags: [anomaly-detection, {record.format}]\n"
        f"license: {config['license']}\n---\n\n# {config['name']} ({record.format} "
        f"{record.precision})\n\n`{config['method']}` on the frozen backbone "
        f"`{config['backbone']['name']}`, exported from torch {record.torch}{names}. Compared on "
        f"{found['pictures']} pictures, scores differ from torch by at most {found['score']:.1e} "
        f"and maps by {found['map']:.1e} ({found['machine']}, {record.runtime['name']} "
        f"{record.runtime['version']}).\n\n"
        "```python\nimport faprompt.runtime\n\ndetector = faprompt.runtime.load(FOLDER)\n"
        'result = detector.predict("part.png")\n```\n'
    )


def _move(draft: Path, folder: Path) -> None:
    """Move the files of a draft into place: the old config first goes, the new one comes last."""
    (folder / CONFIG).unlink(missing_ok=True)
    for name in (*ONNX_FILES, *OPENVINO_FILES, *SETUP_FILES, CARD):
        (folder / name).unlink(missing_ok=True)
    for path in sorted(draft.iterdir(), key=lambda path: path.name == CONFIG):
        shutil.move(path, folder / path.name)
