"""Train the parameters of one method on labelled samples.

The loop knows no method by name: it calls `forward` and `loss`, and updates
`method.parameters()`.

Source: train.py of mala-lab/FAPrompt and zqhang/AnomalyCLIP (batches, optimizer, shuffled
epochs with the last partial batch kept); the cache and the checkpoints are of this project.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from faprompt.config import to_mapping
from faprompt.methods.base import Method
from faprompt.records import Sample
from faprompt.token_cache import TokenRecipe
from faprompt.training.features import Encoder, feature_recipe, prepare_features
from faprompt.training.training_config import TrainingConfig, run_options
from faprompt.training.training_masks import (
    PackedMasks,
    choose_samples,
    learning_warnings,
    read_masks,
)
from faprompt.training.training_steps import TrainingReport, TrainingRun, TrainingTask
from faprompt.work import logger


def train_method(task: TrainingTask, samples: Sequence[Sample]) -> TrainingReport:
    """Train the parameters of a method in place.

    Args:
        task: the method and how it is trained.
        samples: pictures with labels and masks. Their order and content are part of the
            identity of the run.

    Returns:
        The result; its `warnings` say what cannot be learned from these pictures.

    Raises:
        TypeError: the method has nothing to train.
        ValueError: the backbone is not frozen.
        DatasetError, ImageReadError: samples without masks, or unreadable files.
        ConfigError: the checkpoint is of another run, an unfinished run would be overwritten,
            or cache=on and the cache is too large.
        FapromptError: a loss or gradient is not finite; the message names step and terms.
        KeyboardInterrupt: raised again after a checkpoint was written.
    """
    method, backbone, config = task.method, task.backbone, task.config
    if not method.learns:
        raise TypeError(f"{method.name!r} has no parameters to train.")
    thawed = [name for name, p in backbone.named_parameters() if p.requires_grad]
    if thawed:
        raise ValueError(
            f"The backbone should be frozen, but {len(thawed)} of its parameters ask for "
            f"gradients, such as {thawed[0]!r}; call backbone.requires_grad_(False)."
        )
    method.begin_epoch(0, config.epochs)  # refuses too few epochs before any work
    chosen, blank = choose_samples(samples, config.unmasked)
    if blank:
        logger.info(f"{blank} anomalous picture(s) without a mask: {config.unmasked}.")
    method.begin_training(sorted({sample.class_name for sample in chosen}))
    task.out_dir.mkdir(parents=True, exist_ok=True)
    backbone.to(config.device)
    method.to(config.device)
    pictures = task.pictures(chosen)
    masks = read_masks(
        chosen, task.transform.image_size, handling=pictures.handling, policy=config.mask_policy,
        readers=config.readers, progress=task.progress,
    )  # fmt: skip
    warnings = () if method.full_shot else learning_warnings(chosen, masks.marked())
    for line in warnings:
        logger.warning(line)
    recipe = feature_recipe(method, backbone, pictures, dtype=config.cache_dtype)
    identity = _run_identity(method, config, recipe, chosen, masks)
    run = TrainingRun(task, chosen, masks, identity)
    run.begin(resume=task.resume)
    try:
        if not run.finished:
            encoder = Encoder(method, backbone, pictures, config)
            run.work(prepare_features(encoder, recipe, config, progress=task.progress))
    finally:
        run.log.close()
    return replace(run.report(), warnings=warnings)


def _run_identity(
    method: Method,
    config: TrainingConfig,
    recipe: TokenRecipe,
    samples: Sequence[Sample],
    masks: PackedMasks,
) -> dict[str, Any]:
    """Return what a resumed run must share with its first session, as plain data."""
    named = [sample.class_name for sample in samples] if method.uses_class_names else []
    return {
        **run_options(config),
        **({"epochs": config.epochs} if method.staged else {}),
        "method": {"name": method.name, **to_mapping(method.config)},
        "features": recipe.about(),
        "data": {
            "pictures": len(samples),
            "picture_files": _digest(recipe.pictures),
            "labels": _digest([sample.label for sample in samples]),
            "masks": masks.fingerprint(),
            **({"class_names": _digest(named)} if named else {}),
        },
    }


def _digest(values: Sequence[Any]) -> str:
    return hashlib.sha256(repr(list(values)).encode()).hexdigest()
