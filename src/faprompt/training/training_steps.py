"""Run the steps of a training: batch, forward, loss, gradients, update, checkpoint.

The order of epoch e comes from a generator of its own, seeded by (seed, e), and the global
random state is not used. So a resumed run takes the same steps as an uninterrupted one.

Source: train.py of mala-lab/FAPrompt (Adam, one learning rate throughout).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone
from faprompt.clip.tensor_files import is_finite
from faprompt.clip.vision import ImageFeatures
from faprompt.errors import ConfigError, FapromptError
from faprompt.imaging.transform import Transform
from faprompt.methods.base import Method
from faprompt.records import Sample
from faprompt.training.checkpoint import (
    CHECKPOINT_NAME,
    CheckpointHeader,
    load_checkpoint,
    require_same_run,
    restore,
    save_checkpoint,
)
from faprompt.training.features import Features, Origin, Pictures
from faprompt.training.loss_log import LossLog
from faprompt.training.training_config import TrainingConfig
from faprompt.training.training_masks import PackedMasks
from faprompt.work import ProgressCallback, logger, no_progress


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTask:
    """What one training needs beside its pictures.

    method: training starts from its parameters; draw them under a seed of your own.
    backbone: frozen; its precision is the image tower's. Both move to `config.device`.
    transform: the method's; masks are resized to its `image_size`.
    out_dir: folder for loss.csv, loss.png, checkpoint.safetensors and TensorBoard files.
    resume: continue from the checkpoint there, if there is one.
    progress: called with the stage "masks", "images" or "steps".
    """

    method: Method
    backbone: Backbone
    transform: Transform
    config: TrainingConfig
    out_dir: Path
    resume: bool = False
    progress: ProgressCallback = no_progress

    def pictures(self, samples: Sequence[Sample]) -> Pictures:
        """Return samples as this training reads them."""
        config, handling = self.config, self.method.config.picture_handling
        return Pictures(
            samples, self.transform, handling=handling, bit_depth=config.bit_depth,
            readers=config.readers,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """Hold the result of a training; seconds and losses cover resumed sessions too.

    Attributes:
        epochs: number of epochs; 0 for a method that takes no step.
        steps: number of steps in all.
        resumed_at: number of steps done before this session.
        pictures, normal, anomalous: number of pictures in all, and by label.
        features: where the tokens of the image tower came from; None when no step was left.
        encoded: number of pictures that went through the image tower in this session.
        image_seconds: time for reading and encoding pictures.
        step_seconds: time for prompts, losses, gradients, updates and reading cached tokens.
        epoch_means: mean of each term of the loss and of "total", one entry per epoch.
        loss_csv, loss_png, checkpoint: paths of the files that were written.
        warnings: what could not be learned from these pictures.
    """

    epochs: int
    steps: int
    resumed_at: int
    pictures: int
    normal: int
    anomalous: int
    features: Origin | None
    encoded: int
    image_seconds: float
    step_seconds: float
    epoch_means: tuple[dict[str, float], ...] = field(hash=False)
    loss_csv: Path
    loss_png: Path
    checkpoint: Path
    warnings: tuple[str, ...] = ()


def epoch_order(count: int, *, seed: int, epoch: int) -> list[int]:
    """Return the order of `count` pictures in an epoch, counted from 0.

    Example:
        >>> sorted(epoch_order(5, seed=111, epoch=0))
        [0, 1, 2, 3, 4]
    """
    number = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:8]
    generator = torch.Generator().manual_seed(int.from_bytes(number, "big") >> 1)
    return torch.randperm(count, generator=generator).tolist()


def learning_rate_at(config: TrainingConfig, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0.

    After W epochs of `warmup_rate`, a cosine of E epochs is `0.5 r (1 + cos(pi (e - W) / E))`.
    As in KaiyangZhou/Dassl.pytorch (optim/lr_scheduler.py), E counts all epochs, so the cosine
    does not reach 0.

    Example:
        >>> config = TrainingConfig(
        ...     learning_rate=0.002, schedule="cosine", epochs=4, warmup_epochs=1
        ... )
        >>> [round(learning_rate_at(config, epoch), 6) for epoch in range(4)]
        [1e-05, 0.002, 0.001707, 0.001]
    """
    if epoch < config.warmup_epochs:
        return config.warmup_rate
    if config.schedule == "constant":
        return config.learning_rate
    turn = math.pi * (epoch - config.warmup_epochs) / config.epochs
    return 0.5 * config.learning_rate * (1 + math.cos(turn))


def build_optimizer(method: Method, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return the optimizer, with one group of named parameters for each `Method.rate_factors`."""
    factors: dict[float, list[tuple[str, torch.nn.Parameter]]] = {}
    for name, parameter in method.named_parameters():
        found = (f for prefix, f in method.rate_factors.items() if name.startswith(prefix))
        factors.setdefault(next(found, 1.0), []).append((name, parameter))
    groups = [{"params": named, "rate_factor": factor} for factor, named in factors.items()]
    common: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, **common)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, betas=config.betas, eps=config.eps, **common)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of each group to `rate` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]


class TrainingRun:
    """State of a training: parameters, optimizer, losses, and steps done."""

    def __init__(
        self,
        task: TrainingTask,
        samples: Sequence[Sample],
        masks: PackedMasks,
        identity: dict[str, Any],
    ) -> None:
        self.method, self.backbone, self.config = task.method, task.backbone, task.config
        config, out_dir = task.config, task.out_dir
        self.labels = torch.tensor([sample.label for sample in samples])
        self.class_names = [sample.class_name for sample in samples]
        self.masks, self.identity, self.progress = masks, identity, task.progress
        self.optimizer = build_optimizer(task.method, config)
        self.steps_per_epoch = -(-len(samples) // config.batch_size)
        self.steps = config.epochs * self.steps_per_epoch
        self.log = LossLog(out_dir, self.steps_per_epoch, config.tensorboard)
        self.path = out_dir / CHECKPOINT_NAME
        self.started = self.done = self.resumed_at = 0  # steps
        self.seconds = {"images": 0.0, "steps": 0.0}
        self.order: list[int] = []  # of the pictures in `epoch`
        self.epoch = -1
        self.origin: Origin | None = None
        self.encoded = 0

    @property
    def finished(self) -> bool:
        """True when no step is left."""
        return self.done >= self.steps

    def begin(self, *, resume: bool) -> None:
        """Start from the parameters as they are, or from the checkpoint."""
        if not self.path.exists():
            if resume:
                logger.info(f"There is no {self.path} to resume from; training starts anew.")
            self.log.start()
            return
        header, tensors = load_checkpoint(self.path)
        if not resume:
            if header.step < header.steps:
                raise ConfigError(
                    f"{self.path} is an unfinished run ({header.step} of {header.steps} steps); "
                    "resume it, train into another folder, or delete it."
                )
            self.log.start()
            return
        require_same_run(header.identity, self.identity, self.path)
        if header.step > self.steps:
            raise ConfigError(
                f"{self.path} has done {header.step} steps and epochs={self.config.epochs} are "
                f"only {self.steps}; resume with as many epochs or more."
            )
        restore(tensors, self.method, self.optimizer)
        self.started = self.done = self.resumed_at = header.step
        self.seconds = dict(header.seconds)
        self.log.start(header.loss_names, tensors["losses"])
        logger.info(f"Resumed after step {self.done} of {self.steps}.")

    def work(self, features: Features) -> None:
        """Take the remaining steps; save a checkpoint also when the user interrupts."""
        self.method.train()
        self.seconds["images"] += features.encoder.seconds  # spent on filling the cache
        try:
            while not self.finished:
                self.take_step(features)
                self._keep()
        except KeyboardInterrupt:
            if self.started == self.done and not self._broken():  # not in the middle of an update
                self.save()
            raise
        finally:
            self.method.eval()
            self.origin, self.encoded = features.origin, features.encoder.encoded
            features.close()

    def take_step(self, features: Features) -> None:
        """Train on one batch: forward, loss, gradients, update.

        Raises:
            FapromptError: scores, a loss or a gradient are not finite; after the last update
                also parameters and the scores of this batch.
        """
        epoch, place = divmod(self.done, self.steps_per_epoch)
        if epoch != self.epoch:
            self.method.begin_epoch(epoch, self.config.epochs)
            self.order = epoch_order(len(self.labels), seed=self.config.seed, epoch=epoch)
            self.epoch = epoch
        began, encoding = time.perf_counter(), features.encoder.seconds
        indices = self.order[place * self.config.batch_size :][: self.config.batch_size]
        device = self.backbone.device
        names: dict[str, Any] = {}
        if self.method.uses_class_names:
            names["class_names"] = [self.class_names[index] for index in indices]
        tokens = features.batch(indices)
        output = self.method(tokens, self.backbone.text, **names)
        self._require_finite_output(output, "scores or maps before the update", self.done + 1)
        terms = self.method.loss(
            output, self.labels[indices].to(device), self.masks.batch(indices).to(device)
        )
        total = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad()
        total.backward()
        values = self._finite_values(terms, total)
        set_learning_rate(self.optimizer, learning_rate_at(self.config, epoch))
        self.started = self.done + 1
        self.optimizer.step()
        seconds, encoding = time.perf_counter() - began, features.encoder.seconds - encoding
        self.seconds["images"] += encoding
        self.seconds["steps"] += seconds - encoding
        self.log.add(values, float(total.detach()), seconds)
        self.done = self.started
        if self.finished:
            self._require_finite_parameters()
            self._require_finite_scores(tokens, names)
        self.progress("steps", self.done, self.steps)

    def save(self) -> None:
        """Write the checkpoint and the whole loss.csv.

        Raises:
            FapromptError: a parameter is not finite; the former checkpoint is kept.
        """
        self._require_finite_parameters()
        header = CheckpointHeader(
            self.done, self.steps, self.identity, dict(self.seconds), self.log.names
        )
        save_checkpoint(self.path, header, self.method, self.optimizer, self.log.table())
        self.log.save()

    def report(self) -> TrainingReport:
        """Return the result, after the last step."""
        anomalous = int(self.labels.sum())
        return TrainingReport(
            epochs=self.config.epochs,
            steps=self.done,
            resumed_at=self.resumed_at,
            pictures=len(self.labels),
            normal=len(self.labels) - anomalous,
            anomalous=anomalous,
            features=self.origin,
            encoded=self.encoded,
            image_seconds=self.seconds["images"],
            step_seconds=self.seconds["steps"],
            epoch_means=self.log.epoch_means(),
            loss_csv=self.log.csv_path,
            loss_png=self.log.png_path,
            checkpoint=self.path,
        )

    def _keep(self) -> None:
        every = self.config.checkpoint_every_steps
        if self.done % self.steps_per_epoch == 0:
            self.save()
            self.log.draw()
        elif every and self.done % every == 0:
            self.save()

    def _finite_values(self, terms: dict[str, Tensor], total: Tensor) -> dict[str, float]:
        """Return the terms as numbers after one wait for the device; refuse non-finite ones."""
        named = [(n, p.grad) for n, p in self.method.named_parameters() if p.grad is not None]
        sound = [gradient.isfinite().all().to(total.dtype) for _, gradient in named]
        flags = torch.stack([*(t.detach() for t in terms.values()), *sound]).tolist()
        values = dict(zip(terms, flags, strict=False))
        bad_gradients = [
            name for (name, _), ok in zip(named, flags[len(terms) :], strict=True) if not ok
        ]
        if bad_gradients or not all(abs(value) < float("inf") for value in values.values()):
            losses = ", ".join(f"{name}={value:.4g}" for name, value in values.items())
            gradients = ", ".join(bad_gradients) or "none"
            raise self._not_finite(f"{losses}; gradients of {gradients}", self.done + 1)
        return values

    def _broken(self) -> list[str]:
        """Return the names of the method's tensors that hold NaN or infinity."""
        return [name for name, value in self.method.state_dict().items() if not is_finite(value)]

    def _require_finite_parameters(self) -> None:
        broken = self._broken()
        if broken:
            raise self._not_finite(f"parameters {', '.join(broken)} after it", self.done)

    @torch.no_grad()
    def _require_finite_scores(self, tokens: ImageFeatures, names: dict[str, Any]) -> None:
        """Check the scores after the last update, because no loss follows it."""
        self.method.eval()
        output = self.method(tokens, self.backbone.text, **names)
        self.method.train()
        self._require_finite_output(output, "scores or maps after it", self.done)

    def _require_finite_output(self, output: Any, what: str, step: int) -> None:
        # checked before the loss, because some losses fail without a clear message
        if not (is_finite(output.score) and is_finite(output.patch_map)):
            raise self._not_finite(what, step)

    def _not_finite(self, what: str, step: int) -> FapromptError:
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        return FapromptError(
            f"Step {step} (epoch {epoch + 1}, batch {place + 1}) is not finite: {what}. Nothing "
            "was written after it. A lower learning_rate often helps."
        )
