"""Train a method on a labelled set and write a model folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faprompt.clip.weights import load_backbone
from faprompt.data import Dataset, read_dataset
from faprompt.data.remarks import dataset_remarks, read_facts
from faprompt.detector import Detector
from faprompt.errors import ConfigError
from faprompt.methods.registry import (
    build_method,
    fit_to_backbone,
    method_class,
    own_backbone,
    preset_note,
)
from faprompt.training.full_shot_training import read_normal, train_classes
from faprompt.training.training_config import TrainingConfig, recipe_config
from faprompt.training.training_loop import train_method
from faprompt.training.training_steps import TrainingReport, TrainingTask
from faprompt.work import ProgressCallback, logger, no_progress, pick_device, pick_precision


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Hold the options of `train`, with the names and defaults of `faprompt train`.

    Args:
        method: name of a method that learns; see `list_methods`.
        preset: "paper", "common", "official" or another preset of the method.
        backbone: name or path; "" takes `tiny`, or that of a full-shot preset.
        options: options of the method, over those of its preset.
        training: options of the training, over the recipe: `epochs`, `batch_size`,
            `learning_rate` and so on; `faprompt train --help` lists them.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for the fastest one.
        precision: of the image tower's matrices, as in `load_detector`.
        name: name of the model; "" takes the name of the folder.
        resume: continue from the checkpoint in the folder.
        license: of the model, for its card.
        remarks: further facts for the card.
    """

    method: str = "faprompt"
    preset: str = "paper"
    backbone: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    training: Mapping[str, Any] = field(default_factory=dict, hash=False)
    device: str = "auto"
    precision: str = "auto"
    name: str = ""
    resume: bool = False
    license: str = "unknown"
    remarks: Mapping[str, Any] = field(default_factory=dict, hash=False)


def train(
    dataset: Dataset | str | Path,
    out: str | Path,
    options: TrainOptions | None = None,
    *,
    progress: ProgressCallback = no_progress,
) -> TrainingReport:
    """Train a method on a labelled set and write the model folder `out`.

    A full-shot method learns each class of the dataset from its normal pictures alone.
    The folder also holds the checkpoint and the loss curves.

    Args:
        dataset: a dataset, or the path of a labelled folder.
        out: model folder to write.
        options: see `TrainOptions`.
        progress: called with the stage ("masks", "images" or "steps"), done, and total.

    Returns:
        Counts, times in seconds, and the losses of each epoch.

    Raises:
        ConfigError: unknown options, or a method that needs no training.
        DatasetError, ImageReadError, FapromptError: as in `train_method`.
    """
    asked, out = options or TrainOptions(), Path(out)
    method, preset = asked.method, asked.preset
    backbone = asked.backbone or own_backbone(method, preset) or "tiny"
    device = pick_device(str(asked.training.get("device", asked.device)))
    config = recipe_config(method, preset, {**asked.training, "device": device})
    precision: Any = pick_precision(asked.precision, device)
    if not isinstance(dataset, Dataset):
        read = read_normal if method_class(method).full_shot else read_dataset
        dataset = read(Path(dataset))
    frozen = load_backbone(backbone)
    frozen.set_precision(precision)
    chosen = fit_to_backbone(method, frozen, asked.options, preset=preset)
    built = build_method(method, frozen, chosen, preset=preset, seed=config.seed)
    if not built.learns:
        raise ConfigError(f"{method!r} needs no training; use it with --method.")
    detector = Detector(
        frozen,
        built,
        name=asked.name or out.name,
        description={"backbone": {"source": str(backbone)}},
    )
    usable = dataset.require_usable()
    for line in dataset_remarks(usable, read_facts(usable, policy=config.mask_policy)):
        logger.info(f"{usable.name}: {line}")
    if note := preset_note(method, frozen, asked.options, preset=preset):
        logger.info(f"{method}: {note}")
    task = TrainingTask(
        method=built, backbone=frozen, transform=detector.transform, config=config, out_dir=out,
        resume=asked.resume, progress=progress,
    )  # fmt: skip
    report = train_classes(task, usable) if built.full_shot else train_method(task, usable.samples)
    detector.refresh()
    detector.description |= {
        "license": asked.license,
        "training": {
            **_training_record(dataset, preset, config, report, precision),
            **({"note": note} if note else {}),
            **({"warnings": " ".join(report.warnings)} if report.warnings else {}),
            **asked.remarks,
        },
    }
    detector.save_pretrained(out)
    return report


def _training_record(
    dataset: Dataset, preset: str, config: TrainingConfig, report: TrainingReport, precision: str
) -> dict[str, Any]:
    about = {
        "dataset": dataset.name,
        "split": dataset.split,
        "pictures": report.pictures,
        "normal": report.normal,
        "anomalous": report.anomalous,
        "preset": preset,
        "seed": config.seed,
        "device": config.device,
        "precision": precision,
    }
    if not report.epochs:  # PatchCore stores patches and takes no step
        return about
    return about | {
        "epochs": config.epochs,
        "batch_size": config.batch_size,
        "optimizer": config.optimizer,
        "learning_rate": config.learning_rate,
        "schedule": config.schedule,
        "final_losses": {
            key: round(value, 6) for key, value in (report.epoch_means or ({},))[-1].items()
        },
    }
