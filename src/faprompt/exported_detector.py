"""A detector that was exported: the same pictures and results, run without torch.

An exported folder holds `model.onnx` (with `model.onnx.data` where it is large) or `model.xml`
and `model.bin`, a model card, the files of a setup, and `config.json`: that of the model folder
with the entry "export" (`ExportRecord`). Files are checked by SHA-256 before they are loaded.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np

from faprompt.config import check_fields, from_mapping
from faprompt.detector_parts import check_patch_tokens, kept_rows, kept_windows
from faprompt.detector_setup import DetectorSetup, check_kept, read_setup, save_setup
from faprompt.errors import ConfigError, ModelError
from faprompt.files import file_digest, replace_file, temporary_name, write_atomically
from faprompt.folder_config import CARD, CONFIG, FORMAT, read_config_file
from faprompt.graph_session import open_session
from faprompt.imaging.transform import Transform
from faprompt.picture_detector import PictureDetector
from faprompt.picture_model import EncodedPicture, ModelGeometry, ModelIdentity, ScoredBatch

ONNX_FILES = ("model.onnx", "model.onnx.data")
OPENVINO_FILES = ("model.xml", "model.bin")
EXPORT = "export"  # entry of the config
_FILES = {"onnx": ONNX_FILES, "openvino": OPENVINO_FILES}
_TOKENS = re.compile(r"tokens_(\d+)")
_KEPT = re.compile(r"kept(?:_(\d+))?")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRecord:
    """What an export wrote and measured; the entry "export" of a config.

    Raises:
        ValueError: files, inputs or outputs that do not belong to such a folder.
    """

    format: Literal["onnx", "openvino"]
    precision: Literal["fp32", "fp16", "int8"]
    runtime: dict[str, Any]  # name, version, and hints: settings that the model is loaded with
    files: dict[str, str]  # name -> SHA-256
    inputs: tuple[str, ...]  # pixels, and kept, kept_2 ... where patches can be left out
    outputs: tuple[str, ...]  # score, patch_map, class_token, tokens_<layer>, prompt_scores
    grid: tuple[int, ...]  # (rows, columns) of patches
    sigma_px: float  # see `ModelGeometry`, also for the next three
    keeps_aspect: bool
    tiled: bool
    stacks_squares: bool
    class_names: tuple[str, ...] | None = None  # what its texts name; None: texts name no class
    batch: str = "dynamic"
    difference: dict[str, Any] = field(default_factory=dict)  # to torch, as measured by the export
    torch: str = ""  # versions that exported it
    faprompt: str = ""

    def __post_init__(self) -> None:
        faults = []
        known: tuple[str, str] = _FILES.get(self.format, ONNX_FILES)
        files = self.files
        if not isinstance(files, dict) or known[0] not in files or not {*files} <= {*known}:
            faults.append(f"files should be {known[0]}, perhaps with {known[1]}, got {files!r}")
        elif any(not _DIGEST.fullmatch(str(digest)) for digest in files.values()):
            faults.append("files should have a SHA-256 each")
        odd = [name for name in self.inputs if name != "pixels" and not _KEPT.fullmatch(name)]
        if "pixels" not in self.inputs or odd:
            faults.append(f"inputs should be pixels and kept, got {', '.join(self.inputs)}")
        if lacking := {"score", "patch_map"} - {*self.outputs}:
            faults.append(f"outputs lack {', '.join(sorted(lacking))}")
        if len(self.grid) != 2 or min(self.grid) < 1:
            faults.append(f"grid should be rows and columns, got {self.grid}")
        if not isinstance(self.runtime, dict) or not isinstance(self.runtime.get("hints"), dict):
            faults.append("runtime should have name, version and hints")
        check_fields(self, faults)

    @property
    def layers(self) -> dict[int, str]:
        """Return layer -> name of the output with its patch tokens."""
        found = (_TOKENS.fullmatch(name) for name in self.outputs)
        return {int(match[1]): match[0] for match in found if match}


def is_exported(folder: Path) -> bool:
    """Return whether a folder holds an exported model."""
    return any((folder / files[0]).is_file() for files in _FILES.values())


def read_export(folder: Path) -> tuple[dict[str, Any], ExportRecord]:
    """Read and check the config of an exported folder, and its files by their digests.

    Raises:
        ModelError: no exported folder, a damaged config, or a file that is missing or changed.
    """
    path = folder / CONFIG
    if not path.is_file() or not is_exported(folder):
        raise ModelError(
            f"{folder} is not an exported folder: it wants {CONFIG}, and {ONNX_FILES[0]} or "
            f"{OPENVINO_FILES[0]}; `faprompt export` writes it."
        )
    config = read_config_file(path, more=(EXPORT,))
    if not isinstance(config.get(EXPORT), dict):
        raise ModelError(f"{path} has no entry {EXPORT!r}; export the model again.")
    try:
        record = from_mapping(ExportRecord, config[EXPORT], what=EXPORT)
    except ConfigError as error:
        raise ModelError(f"{path}: {error} Export the model again.") from error
    for name, digest in record.files.items():
        if not (folder / name).is_file() or file_digest(folder / name) != digest:
            raise ModelError(
                f"{folder / name} is missing or was changed after the export; export the model "
                "again."
            )
    return config, record


class ExportedDetector(PictureDetector):
    """Score pictures with an exported model; many threads may share it.

    Args:
        folder: exported folder.
        setup: tiles, mask, references and calibration; default: those of the folder.

    Raises:
        ModelError: the folder is damaged, or its calibration was made under other settings.
        MissingExtraError: onnxruntime or openvino is not installed.
    """

    def __init__(self, folder: str | Path, *, setup: DetectorSetup | None = None) -> None:
        self.folder = Path(folder)
        self.description, self.record = read_export(self.folder)
        self.name: str = self.description["name"]
        self.threshold: float | None = self.description["threshold"]
        try:
            transform = Transform.from_dict(self.description["transform"])
        except ConfigError as error:
            raise ModelError(f"{self.folder / CONFIG}: {error}") from error
        record = self.record
        self._geometry = ModelGeometry(
            transform=transform, sigma_px=record.sigma_px, keeps_aspect=record.keeps_aspect,
            tiled=record.tiled, stacks_squares=record.stacks_squares,
        )  # fmt: skip
        self._session = open_session(self.folder / _FILES[record.format][0], record.runtime)
        self._set(read_setup(self.folder) if setup is None else setup)

    @property
    def geometry(self) -> ModelGeometry:
        """How the model takes pictures."""
        return self._geometry

    @property
    def identity(self) -> ModelIdentity:
        """What was exported, and what runs it here."""
        backbone, runtime = self.description["backbone"], self.record.runtime
        return ModelIdentity(
            method=self.description["method"], backbone=backbone["name"],
            backbone_fingerprint=backbone["fingerprint"], precision=self.record.precision,
            runtime=(str(runtime.get("name")), self._session.version), device="cpu",
        )  # fmt: skip

    @property
    def class_name(self) -> str | None:
        """The class that the exported texts name; None where there is none, or several."""
        names = self.record.class_names or ()
        return names[0] if len(names) == 1 else None

    def decided_by(self) -> dict[str, str]:
        """Return the name and value, or digest, of everything that decides a score."""
        files = json.dumps(self.record.files, sort_keys=True).encode()
        geometry, record = self._geometry, self.record
        return {
            "method": self.description["method"],
            "model": hashlib.sha256(files).hexdigest(),
            "runtime": f"{record.format} {record.precision}",
            "transform": repr(geometry.transform.to_dict()),
            "maps": repr((geometry.sigma_px, geometry.keeps_aspect, geometry.tiled)),
            **self.setup.decided_by(),
        }

    def run_model(
        self,
        pixels: np.ndarray,
        *,
        masks: Sequence[np.ndarray | None],
        products: Sequence[str],
        class_names: Sequence[str] | None = None,
        with_prompt_scores: bool = False,
    ) -> ScoredBatch:
        self._check_class_names(class_names)
        record, grid = self.record, (self.record.grid[0], self.record.grid[1])
        prompts = ["prompt_scores"] if "prompt_scores" in record.outputs else []
        layers = record.layers if self.setup.references is not None else {}
        wanted = ["score", "patch_map", *(prompts if with_prompt_scores else ()), *layers.values()]
        found = dict(zip(wanted, self._run_session(pixels, masks, wanted), strict=True))
        score = found["score"]
        alone = found.get("prompt_scores", score[:, None])  # as methods with one prompt say
        tokens = {layer: found[name] for layer, name in layers.items()}
        return ScoredBatch(
            score=score,
            patch_map=found["patch_map"],
            grid=grid,
            prompt_scores=alone if with_prompt_scores else None,
            surprise=self._surprise(tokens, products),
        )

    def _surprise(
        self, tokens: Mapping[int, np.ndarray], products: Sequence[str]
    ) -> np.ndarray | None:
        if self.setup.references is None:
            return None
        check_patch_tokens(tokens)
        banks = [self.setup.references.bank(product) for product in products]
        rows = [{layer: each[row : row + 1] for layer, each in tokens.items()}
                for row in range(len(banks))]  # fmt: skip
        return np.concatenate([bank.surprise(own) for bank, own in zip(banks, rows, strict=True)])

    def encode_picture(self, pixels: np.ndarray) -> EncodedPicture:
        layers = self.record.layers
        if "class_token" not in self.record.outputs:
            raise ConfigError(
                f"{self.name} was exported without its tokens, so it cannot choose references; "
                "calibrate without them, or export the model again."
            )
        token, *rest = self._run_session(pixels[None], [None], ["class_token", *layers.values()])
        return EncodedPicture(
            class_token=token[0],
            patch_tokens={layer: each[0] for layer, each in zip(layers, rest, strict=True)},
            grid=(self.record.grid[0], self.record.grid[1]),
        )

    def _run_session(
        self, pixels: np.ndarray, masks: Sequence[np.ndarray | None], wanted: Sequence[str]
    ) -> list[np.ndarray]:
        size = self._geometry.transform.image_size
        if pixels.shape[-2:] != size:
            raise ConfigError(
                f"{self.name} was exported for pictures that it sees at {size[0]}x{size[1]} "
                f"(height x width), got {pixels.shape[-2]}x{pixels.shape[-1]}: it keeps the aspect "
                "ratio. Use square pictures, or the model folder it was exported from."
            )
        inputs = {"pixels": np.ascontiguousarray(pixels, np.float32)}
        if "kept" in self.record.inputs:
            inputs |= self._kept_inputs(masks)
        found = self._session.run(inputs, wanted)
        return [np.asarray(each, np.float32) for each in found]

    def _kept_inputs(self, masks: Sequence[np.ndarray | None]) -> dict[str, np.ndarray]:
        """Return the rows that replace patches and windows, under the names of the inputs."""
        grid = (self.record.grid[0], self.record.grid[1])
        kept = kept_rows(masks, grid)
        if kept is None:
            kept = np.tile(np.arange(grid[0] * grid[1]), (len(masks), 1))
        found = {"kept": kept}
        for name in self.record.inputs:
            match = _KEPT.fullmatch(name)
            if match and match[1]:
                found[name] = kept_windows(kept, grid, int(match[1]))
        return found

    def _check_class_names(self, class_names: Sequence[str] | None) -> None:
        known = self.record.class_names
        if known is None or class_names is None:
            return
        if strange := sorted({*class_names} - {*known}):
            raise ConfigError(
                f"{self.name} was exported for the class {', '.join(known)}, got "
                f"{', '.join(strange)}; export the model again with --class-name."
            )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write an exported folder with this model and setup; files are copied, never linked.

        Raises:
            ConfigError: settings that are kept with a calibration only, and there is none.
            ModelError: the folder that this model was loaded from is gone or was changed.
        """
        check_kept(self.setup)
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        if not target.samefile(self.folder):
            read_export(self.folder)
            for name in (*self.record.files, CARD):
                if (self.folder / name).is_file():
                    temporary = temporary_name(target / name)
                    shutil.copyfile(self.folder / name, temporary)
                    replace_file(temporary, target / name)
        config = {"format": FORMAT, **self.description, "threshold": self.threshold}
        write_atomically(target / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
        save_setup(self.setup, target)

    def explain(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: the parts of a score are not exported."""
        self._refuse("its score cannot be taken apart")

    def to(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: an exported model runs on the processor."""
        self._refuse("it cannot move to another device")

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: there is no tensor interface."""
        self._refuse("it takes pictures, no tensors")

    def _refuse(self, what: str) -> NoReturn:
        raise ConfigError(
            f"{self.name} is an exported model ({self.record.format} {self.record.precision}): "
            f"{what}. Use the model folder that it was exported from."
        )


def load_exported(
    folder: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    class_name: str | None = None,
) -> ExportedDetector:
    """Load an exported folder; the options of `load_detector` can only confirm what it is.

    Raises:
        ConfigError: a device, a precision or a class name that it was not exported for.
        ModelError, MissingExtraError: see `ExportedDetector`.
    """
    detector = ExportedDetector(folder)
    record = detector.record
    wanted = {
        "device": (device, ("auto", "cpu")),
        "precision": (precision, ("auto", record.precision)),
        "class_name": (class_name, (None, *(record.class_names or ()))),
    }
    faults = [
        f"{name}={value!r}" for name, (value, allowed) in wanted.items() if value not in allowed
    ]
    if faults:
        raise ConfigError(
            f"{detector.name} is an exported model ({record.format} {record.precision}, run on the "
            f"processor), got {' and '.join(faults)}; leave that out, or export the model again."
        )
    return detector
