"""Find, load and build detectors: bundled models, model folders, Hugging Face ids."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, cast

from faprompt.calibration import CALIBRATION
from faprompt.clip.backbone import Backbone, Precision
from faprompt.clip.known_backbones import offline
from faprompt.clip.weights import load_backbone
from faprompt.detector import Detector
from faprompt.detector_setup import MASK, read_setup
from faprompt.errors import ConfigError, DatasetError, ImageReadError, ModelError
from faprompt.exported_detector import (
    ONNX_FILES,
    OPENVINO_FILES,
    ExportedDetector,
    is_exported,
    load_exported,
)
from faprompt.folder_config import CARD, CONFIG
from faprompt.methods.base import Method
from faprompt.methods.registry import build_method, fit_to_backbone, preset_note
from faprompt.model_folder import (
    WEIGHTS,
    bounded_tensors,
    check_options,
    load_weights,
    read_config,
)
from faprompt.picture_detector import PictureDetector
from faprompt.references import REFERENCES
from faprompt.work import pick_device, pick_precision

BUNDLED = ("small", "tiny")
DEFAULT_MODEL = "small"
_LARGEST_TENSOR = 1 << 30  # bytes of one tensor while a method is built, unless its file is larger


def bundled_folder(name: str) -> Path:
    """Return the folder of a model that ships with the package."""
    return Path(str(resources.files("faprompt") / "bundled" / name))


def list_models() -> list[dict[str, Any]]:
    """Return name, method, backbone and licence of each bundled model of this installation."""
    there = [name for name in BUNDLED if bundled_folder(name).is_dir()]
    return [
        {
            "name": name,
            "method": config["method"],
            "backbone": config["backbone"]["name"],
            "license": config["license"],
        }
        for name, config in ((name, read_config(bundled_folder(name))) for name in there)
    ]


def load_detector(
    model: str | Path = DEFAULT_MODEL,
    *,
    device: str = "auto",
    precision: str = "auto",
    backbone: str | Path | None = None,
    class_name: str | None = None,
) -> Detector | ExportedDetector:
    """Load a detector from a bundled name, a folder or a Hugging Face id.

    Args:
        model: "small", "tiny", a folder written by `save_pretrained`, `train` or `export`, or
            "owner/name".
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest one.
        precision: of the image tower's matrices: "fp32", "bf16", "fp16", "int8" (transformers
            on a CPU), or "auto" for bf16 on a CUDA device and fp32 elsewhere.
        backbone: path of the backbone, if its recorded name cannot be found; its weights must be
            the recorded ones.
        class_name: default class of the pictures, see `Detector`.

    A calibrated folder also fixes tiles, mask, bit depth, references, class name and precision
    (see `Detector.setup`): "auto" and None mean the calibrated ones, others are refused. So does
    an exported folder, which runs on the processor.

    Raises:
        ModelError: no model of that name, a damaged folder, another backbone's weights, or a
            calibration that was made under other settings.
        ConfigError: torch cannot use the device here, or int8 does not apply.
    """
    folder = find_model(model)
    if is_exported(folder):
        if backbone is not None:
            raise ConfigError(f"{folder} is an exported model, which holds its backbone; leave "
                              "the backbone out.")  # fmt: skip
        return load_exported(folder, device=device, precision=precision, class_name=class_name)
    config, setup = read_config(folder), read_setup(folder)
    check_options(config, folder)
    if setup.calibration is not None:
        decided = setup.calibration.decided_by
        precision = decided.get("precision", precision) if precision == "auto" else precision
        class_name = class_name or decided.get("class name") or None
    source = config["backbone"]["source"]
    try:
        frozen = load_backbone(backbone or source)
    except ModelError as error:
        hint = "" if backbone else " If it lies elsewhere on this machine, pass that as backbone."
        raise ModelError(f"{folder} wants the backbone {source!r}: {error}{hint}") from error
    _check_fingerprint(frozen, config["backbone"], folder)
    method = _build_recorded(config, frozen, folder)
    load_weights(method, folder)
    device = _place(frozen, device, precision)
    method.to(device).requires_grad_(False).eval()
    detector = Detector(
        frozen,
        method,
        name=config["name"],
        threshold=config["threshold"],
        class_name=class_name,
        description=config,
        setup=setup,
    )
    if config["transform"] != detector.transform.to_dict():
        raise ModelError(
            f"{folder / CONFIG} records the transform {config['transform']}, but its options "
            f"and backbone mean {detector.transform.to_dict()}; the folder was changed by hand."
        )
    return detector


def require_torch(detector: PictureDetector) -> Detector:
    """Return a detector that torch runs; ConfigError for an exported one."""
    if isinstance(detector, Detector):
        return detector
    raise ConfigError(
        f"{detector.name} is an exported model, and this needs one that torch runs; use the model "
        "folder that it was exported from."
    )


def build_detector(
    method: str,
    backbone: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    preset: str = "paper",
    device: str = "auto",
    precision: str = "auto",
    class_name: str | None = None,
) -> Detector:
    """Build a detector of a training-free method on any backbone.

    Its description holds the preset and its `preset_note`.

    Args:
        method: name of a method without training; see `list_methods`.
        backbone: name, or path of a weights file or folder.
        options: options of the method, over those of its preset.
        preset: "paper", "common", or another preset of the method.
        device, precision: as in `load_detector`.
        class_name: default class of the pictures, as in `Detector`.

    Raises:
        ConfigError: unknown method or option, or a device that torch cannot use here.
        ModelError: the method has parameters to learn, or the backbone cannot be loaded.
    """
    frozen = load_backbone(backbone)
    chosen = fit_to_backbone(method, frozen, options, preset=preset)
    built = build_method(method, frozen, chosen, preset=preset)
    if built.learns:
        raise ModelError(
            f"{method!r} has to be trained first: use `faprompt train`, "
            "then --model with the folder it writes."
        )
    device = _place(frozen, device, precision)
    note = preset_note(method, frozen, options, preset=preset)
    return Detector(
        frozen,
        built.to(device),
        name=f"{method}@{frozen.name}",
        class_name=class_name,
        description={"training": {"preset": preset, **({"note": note} if note else {})}},
    )


def _place(backbone: Backbone, device: str, precision: str) -> str:
    """Move a backbone to a device, set its precision, and return the device that was meant."""
    device = pick_device(device)
    backbone.to(device).set_precision(cast(Precision, pick_precision(precision, device)))
    return device


def find_model(model: str | Path) -> Path:
    """Return the folder of a bundled name, a path, or a hub id (downloaded to the hub's cache).

    Raises:
        ModelError: none of the three, or the download failed.
    """
    if str(model) in BUNDLED:
        return bundled_folder(str(model))
    if os.path.isdir(model):  # unlike Path.is_dir, never an error
        return Path(model)
    if isinstance(model, str) and re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", model):
        return _download(model)
    raise ModelError(
        f"No model {str(model)!r}: it is neither bundled ({', '.join(BUNDLED)}), nor a folder, "
        "nor a Hugging Face id (owner/name)."
    )


def _build_recorded(config: Mapping[str, Any], backbone: Backbone, folder: Path) -> Method:
    """Build the method of a config; options that ask for too much memory are refused."""
    largest = max(_LARGEST_TENSOR, (folder / WEIGHTS).stat().st_size)
    try:
        with bounded_tensors(largest):
            return build_method(config["method"], backbone, config["options"])
    except (ConfigError, DatasetError, ImageReadError) as error:  # it may name pictures
        raise ModelError(f"{folder / CONFIG}: {error}") from error
    except (RuntimeError, MemoryError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"{folder / CONFIG}: {config['method']} cannot be built with its options ({reason})."
        ) from error


def _check_fingerprint(backbone: Backbone, recorded: Mapping[str, Any], folder: Path) -> None:
    actual = backbone.state_fingerprint()
    if actual != recorded["fingerprint"]:
        raise ModelError(
            f"{folder} was trained on {recorded['name']!r} with weights "
            f"{recorded['fingerprint'][:12]}, but {backbone.name!r} here has {actual[:12]}; "
            "prompts of one backbone mean nothing to another. Pass the right one as backbone."
        )


def _download(repo_id: str) -> Path:
    from huggingface_hub import constants, snapshot_download

    forbidden = offline()
    wanted = [CONFIG, WEIGHTS, CARD, CALIBRATION, REFERENCES, MASK, *ONNX_FILES, *OPENVINO_FILES]
    try:
        return Path(
            snapshot_download(repo_id, allow_patterns=wanted, local_files_only=bool(forbidden))
        )
    except Exception as error:
        if forbidden:
            raise ModelError(
                f"{repo_id!r} is no folder here, and {forbidden} forbids to download it. Wanted: "
                f"{CONFIG} and {WEIGHTS} of {repo_id}, in the hub's cache {constants.HF_HUB_CACHE}"
                " or in a folder that is given instead; or unset the variable."
            ) from error
        raise ModelError(
            f"{repo_id!r} is no folder here and could not be downloaded from the Hugging Face hub: "
            f"{' '.join(str(error).split())}"
        ) from error
