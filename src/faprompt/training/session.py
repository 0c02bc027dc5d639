"""From a labelled set and a few names to a model folder: what `faprompt train` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faprompt.clip.weights import load_backbone
from faprompt.data.base import Dataset
from faprompt.data.remarks import dataset_remarks, read_facts
from faprompt.detector import Detector
from faprompt.errors import ConfigError
from faprompt.methods.full_shot import FullShotMethod
from faprompt.methods.registry import build_method, fit_to_backbone, preset_note
from faprompt.training.config import TrainingConfig
from faprompt.training.full_shot import train_classes
from faprompt.training.loop import train
from faprompt.training.progress import Notify, ProgressCallback, log_note
from faprompt.training.run import TrainingReport


def train_model(
    dataset: Dataset,
    *,
    method: str,
    preset: str,
    backbone: str,
    options: Mapping[str, Any],
    config: TrainingConfig,
    out: str | Path,
    name: str,
    precision: Any = "fp32",
    resume: bool = False,
    progress: ProgressCallback | None = None,
    notify: Notify | None = None,
    model_license: str = "unknown",
    remarks: Mapping[str, Any] | None = None,
) -> TrainingReport:
    """Train a method on a dataset and write the model folder `out`.

    A full-shot method learns each class of the dataset from its normal pictures alone.
    The folder also holds the checkpoint and the loss curves. Arguments as in
    `faprompt train`; errors as in `training.loop.train`. `model_license` and `remarks` go
    into the config and the model card.
    """
    out = Path(out)
    frozen = load_backbone(backbone)
    frozen.set_precision(precision)
    chosen = fit_to_backbone(method, frozen, options, preset=preset)
    built = build_method(method, frozen, chosen, preset=preset, seed=config.seed)
    if not built.learns:
        raise ConfigError(f"{method!r} has nothing to train; it is used as it is, by --method.")
    detector = Detector(
        frozen, built, name=name, description={"backbone": {"source": str(backbone)}}
    )
    usable, transform = dataset.require_usable(), detector.transform
    for line in dataset_remarks(usable, read_facts(usable, policy=config.mask_policy)):
        (notify or log_note)(f"{usable.name}: {line}")
    note = preset_note(method, frozen, options, preset=preset)
    if note and notify:
        notify(f"{method}: {note}")
    where: dict[str, Any] = {"out_dir": out, "resume": resume}
    where |= {"progress": progress, "notify": notify}
    if isinstance(built, FullShotMethod):
        report = train_classes(built, frozen, usable, transform, config, **where)
    else:
        report = train(built, frozen, usable.samples, transform, config, **where)
    detector.refresh()
    detector.description |= {
        "license": model_license,
        "training": {
            **_training_record(dataset, preset, config, report, precision),
            **({"note": note} if note else {}),
            **({"warnings": " ".join(report.warnings)} if report.warnings else {}),
            **(remarks or {}),
        },
    }
    detector.save_pretrained(out)
    return report


def _training_record(
    dataset: Dataset,
    preset: str,
    config: TrainingConfig,
    report: TrainingReport,
    precision: str,
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
    if not report.epochs:  # remembered, without a step
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
