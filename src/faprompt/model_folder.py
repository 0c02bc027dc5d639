"""Model folders: `config.json`, `model.safetensors` and a model card. Never a pickle.

The folder holds the learned part only. Its config names the backbone and the fingerprint
of its weights, the method with every option, the transform, the threshold and what the
model was trained on, so that loading needs nothing else but the backbone.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faprompt.errors import ConfigError, ModelError
from faprompt.model_card import model_card

if TYPE_CHECKING:
    from faprompt.clip.backbone import Backbone, Precision
    from faprompt.detector import Detector

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FORMAT = 1
BUNDLED = ("tiny",)


def bundled_folder(name: str) -> Path:
    """Where a model that ships with the package lies."""
    return Path(str(resources.files("faprompt") / "bundled" / name))


def list_models() -> list[dict[str, Any]]:
    """The bundled models that this installation has: name, method, backbone, licence."""
    rows = []
    for name in BUNDLED:
        if not bundled_folder(name).is_dir():
            continue
        config = read_config(bundled_folder(name))
        rows.append(
            {
                "name": name,
                "method": config["method"],
                "backbone": config["backbone"]["name"],
                "license": config["license"],
            }
        )
    return rows


def load_detector(
    model: str | Path = "tiny",
    *,
    device: str = "cpu",
    precision: Precision = "fp32",
    backbone: str | Path | None = None,
    class_name: str | None = None,
) -> Detector:
    """A detector from a bundled name, a model folder or a Hugging Face id.

    Args:
        model: "tiny", a folder written by `save_pretrained` or `train`, or "owner/name".
        device: "cpu", "cuda", "cuda:1", "mps".
        precision: of the image tower's matrices: "fp32", "bf16" or "fp16".
        backbone: where the frozen backbone lies on this machine, if its recorded name
            cannot be found; its weights must be the recorded ones.
        class_name: what pictures show whose class is not told, see `Detector`.

    Raises:
        ModelError: nothing of that name, an incomplete folder, or another backbone's weights.
    """
    from faprompt.clip.weights import load_backbone
    from faprompt.detector import Detector
    from faprompt.methods.registry import build_method

    folder = find_model(model)
    config = read_config(folder)
    source = config["backbone"]["source"]
    try:
        frozen = load_backbone(backbone or source)
    except ModelError as error:
        hint = "" if backbone else " If it lies elsewhere on this machine, pass that as backbone."
        raise ModelError(f"{folder} wants the backbone {source!r}: {error}{hint}") from error
    _check_fingerprint(frozen, config["backbone"], folder)
    try:
        method = build_method(config["method"], frozen, config["options"])
    except ConfigError as error:
        raise ModelError(f"{folder / CONFIG}: {error}") from error
    _load_weights(method, folder)
    frozen.to(device).set_precision(precision)
    method.to(device).requires_grad_(False).eval()
    detector = Detector(
        frozen,
        method,
        name=config["name"],
        threshold=config["threshold"],
        class_name=class_name,
        description=config,
    )
    if config["transform"] != detector.transform.to_dict():
        raise ModelError(
            f"{folder / CONFIG} records the transform {config['transform']}, but its options "
            f"and backbone mean {detector.transform.to_dict()}; the folder was changed by hand."
        )
    return detector


def build_detector(
    method: str,
    backbone: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    preset: str = "paper",
    device: str = "cpu",
    precision: Precision = "fp32",
    class_name: str | None = None,
) -> Detector:
    """A detector of a training-free method on any backbone; `class_name` as in `Detector`.

    Its description holds what `fitting_note` says.

    Raises:
        ConfigError: unknown method or option.
        ModelError: the method has parameters to learn, or the backbone cannot be had.
    """
    from faprompt.clip.weights import load_backbone
    from faprompt.detector import Detector
    from faprompt.methods.registry import build_method

    frozen = load_backbone(backbone)
    chosen = fit_to_backbone(method, frozen, options, preset=preset)
    built = build_method(method, frozen, chosen, preset=preset)
    if built.learns:
        raise ModelError(
            f"{method!r} has to be trained first: use `faprompt train`, "
            "then --model with the folder it writes."
        )
    frozen.to(device).set_precision(precision)
    note = fitting_note(method, frozen, options, preset=preset)
    return Detector(
        frozen,
        built.to(device),
        name=f"{method}@{frozen.name}",
        class_name=class_name,
        description={"training": {"preset": preset, **({"note": note} if note else {})}},
    )


FITTED_OPTIONS = ("image_size", "sigma_px", "use_class_names")  # what `fit_to_backbone` sets


def fit_to_backbone(
    method: str,
    backbone: Backbone,
    options: Mapping[str, Any] | None,
    *,
    preset: str = "paper",
) -> dict[str, Any]:
    """Options whose preset suits one backbone only, set for the backbone at hand.

    The paper sees 518 pixels through patches of 14, a 37x37 grid, and smooths with sigma
    10 (or 4) of those pixels. Other patch sizes get the nearest multiple; `tiny`
    is read at the size it was trained at, with sigma scaled alike. A backbone with a part
    of CLIP's vocabulary has no words for most classes, so every picture shows `class_word`
    there. What the caller sets is kept.
    """
    from faprompt.methods.registry import preset_config

    chosen = dict(options or {})
    vision = backbone.spec.vision
    default = preset_config(method, preset)
    if "image_size" not in chosen:
        side = vision.image_size if vision.stem_strides else default.image_size
        chosen["image_size"] = max(1, round(side / vision.patch_size)) * vision.patch_size
    if "sigma_px" not in chosen and str(chosen["image_size"]).isdecimal():
        chosen["sigma_px"] = default.sigma_px * int(chosen["image_size"]) / default.image_size
    if backbone.spec.vocabulary is not None and hasattr(default, "use_class_names"):
        chosen.setdefault("use_class_names", False)
    return chosen


def fitting_note(
    method: str, backbone: Backbone, options: Mapping[str, Any] | None, *, preset: str = "paper"
) -> str:
    """What `fit_to_backbone` made of a preset, or a backbone that is not the preset's; see there.

    "" where the preset runs as it is. What the caller sets is his to say.
    """
    from faprompt.methods.registry import preset_note

    asked = options or {}
    chosen = fit_to_backbone(method, backbone, asked, preset=preset)
    fitted = {key: value for key, value in chosen.items() if key not in asked}
    return preset_note(method, preset, backbone, fitted)


def save_model(detector: Detector, folder: Path) -> None:
    """Write a model folder, each file whole or not at all."""
    from safetensors.torch import save as to_bytes

    from faprompt.config import to_mapping

    method, backbone = detector.method, detector.backbone
    described = detector.description
    config = {
        "format": FORMAT,
        "name": detector.name,
        "license": described.get("license", "unknown"),
        "method": method.name,
        "options": to_mapping(method.config),
        "backbone": {
            "name": backbone.name,
            "source": described.get("backbone", {}).get("source", backbone.name),
            "fingerprint": backbone.state_fingerprint(),
        },
        "transform": detector.transform.to_dict(),
        "threshold": detector.threshold,
        "training": described.get("training", {}),
    }
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in method.state_dict().items()}
    _write(folder / WEIGHTS, to_bytes(tensors))
    _write(folder / CARD, model_card(config).encode())
    _write(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def push_model(detector: Detector, repo_id: str, **options: Any) -> str:
    """Upload the model folder to the Hugging Face hub."""
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as temporary:
        save_model(detector, Path(temporary))
        api = HfApi()
        api.create_repo(repo_id, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=temporary, **options))


def find_model(model: str | Path) -> Path:
    """The folder of a bundled name, a path, or a hub id (downloaded to the hub's cache).

    Raises:
        ModelError: none of the three.
    """
    if str(model) in BUNDLED:
        return bundled_folder(str(model))
    if Path(model).is_dir():
        return Path(model)
    if isinstance(model, str) and model.count("/") == 1 and not model.startswith((".", "/")):
        return _download(model)
    raise ModelError(
        f"No model {str(model)!r}: it is neither bundled ({', '.join(BUNDLED)}), nor a folder, "
        "nor a Hugging Face id (owner/name)."
    )


def read_config(folder: Path) -> dict[str, Any]:
    """A model folder's config.

    Raises:
        ModelError: not a model folder, or of a format this version does not know.
    """
    path = folder / CONFIG
    if not path.is_file() or not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder} is not a model folder: it wants {CONFIG} and {WEIGHTS}.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds a {type(config).__name__}, wanted an object.")
    if config.get("format") != FORMAT:
        raise ModelError(
            f"{path} has format {config.get('format')!r}, this version reads {FORMAT}; "
            "upgrade faprompt, or train again."
        )
    faults = _config_faults(config)
    if faults:
        raise ModelError(f"{path}: {'; '.join(faults)}.")
    return config


def _config_faults(config: Mapping[str, Any]) -> list[str]:
    kinds: dict[str, tuple[type, ...]] = {
        "name": (str,), "license": (str,), "method": (str,), "options": (dict,),
        "backbone": (dict,), "transform": (dict,), "threshold": (float, int, type(None)),
        "training": (dict,),
    }  # fmt: skip
    faults = [f"{key} is missing" for key in kinds if key not in config]
    faults += [
        f"{key} should be {' or '.join(kind.__name__ for kind in kinds[key])}, got {config[key]!r}"
        for key in kinds
        if key in config and not isinstance(config[key], kinds[key])
    ]
    backbone = config.get("backbone")
    if isinstance(backbone, dict):
        parts = ("name", "source", "fingerprint")
        faults += [
            f"backbone's {p} is missing" for p in parts if not isinstance(backbone.get(p), str)
        ]
    return faults


def _load_weights(method: Any, folder: Path) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{folder / WEIGHTS} is no safetensors file: {error}") from error
    wanted = method.state_dict()
    faults = [f"missing {key}" for key in sorted(set(wanted) - set(state))]
    faults += [f"unknown {key}" for key in sorted(set(state) - set(wanted))]
    faults += [
        f"{key} is {tuple(state[key].shape)}, wanted {tuple(wanted[key].shape)}"
        for key in sorted(set(wanted) & set(state))
        if state[key].shape != wanted[key].shape
    ]
    if faults:
        raise ModelError(f"{folder / WEIGHTS} does not fit its config: {'; '.join(faults)}.")
    method.load_state_dict(state)


def _check_fingerprint(backbone: Backbone, recorded: Mapping[str, Any], folder: Path) -> None:
    actual = backbone.state_fingerprint()
    if actual != recorded["fingerprint"]:
        raise ModelError(
            f"{folder} was trained on {recorded['name']!r} with weights "
            f"{recorded['fingerprint'][:12]}, but {backbone.name!r} here has {actual[:12]}; "
            "prompts of one backbone mean nothing to another. Pass the right one as backbone."
        )


def _download(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, allow_patterns=[CONFIG, WEIGHTS, CARD]))
    except Exception as error:
        raise ModelError(
            f"{repo_id!r} is no folder here and could not be had from the Hugging Face hub: {error}"
        ) from error


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)
