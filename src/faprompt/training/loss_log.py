"""Log the losses of a training in loss.csv, loss.png and TensorBoard."""

from __future__ import annotations

import importlib
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from faprompt.errors import MissingExtraError
from faprompt.files import csv_table, write_atomically
from faprompt.work import can_draw

_DRAW_EVERY_SECONDS = 60.0


class LossLog:
    """Losses of every step: `rows` holds (weighted terms..., total, seconds).

    Checkpoints hold the rows, so that loss.csv of a resumed run has each step once.
    """

    def __init__(
        self, folder: Path, steps_per_epoch: int, tensorboard: bool | Literal["auto"]
    ) -> None:
        self.csv_path, self.png_path = folder / "loss.csv", folder / "loss.png"
        self._can_draw = can_draw("loss.png")
        self.steps_per_epoch = steps_per_epoch
        self.names: tuple[str, ...] = ()
        self.rows: list[tuple[float, ...]] = []
        self._tensorboard = tensorboard
        self._writer: Any = None
        self._drawn = time.monotonic()

    def start(self, names: tuple[str, ...] = (), rows: Tensor | None = None) -> None:
        """Start, or continue after the rows of a checkpoint; a longer loss.csv is cut."""
        self.names = names
        self.rows = [] if rows is None else [tuple(row) for row in rows.tolist()]
        self.save()
        self._writer = _tensorboard_writer(
            self._tensorboard, self.csv_path.parent / "tensorboard", len(self.rows)
        )

    def add(self, terms: Mapping[str, float], total: float, seconds: float) -> None:
        """Log the next step."""
        if not self.names:
            self.names = tuple(terms)
            self.save()
        assert tuple(terms) == self.names, "a method's loss terms should not change"
        self.rows.append((*terms.values(), total, seconds))
        with self.csv_path.open("a", newline="", encoding="utf-8") as file:
            file.write(csv_table([self._line(len(self.rows))]))
        if self._writer is not None:
            for name, value in {**terms, "total": total}.items():
                self._writer.add_scalar(f"loss/{name}", value, len(self.rows))

    def save(self) -> None:
        """Write the whole loss.csv."""
        lines = (self._line(step) for step in range(1, len(self.rows) + 1))
        text = csv_table([("epoch", "step", *self.names, "total", "seconds"), *lines])
        write_atomically(self.csv_path, text.encode())

    def draw(self, *, now: bool = False) -> None:
        """Write loss.png, at most once a minute unless `now`."""
        due = now or time.monotonic() - self._drawn > _DRAW_EVERY_SECONDS
        if self._can_draw and self.rows and due:
            picture = _draw_curves(self.names, self.rows, self.steps_per_epoch)
            write_atomically(self.png_path, picture)
            self._drawn = time.monotonic()

    def close(self) -> None:
        """Save and draw a last time, and close the TensorBoard file."""
        self.save()
        self.draw(now=True)
        if self._writer is not None:
            self._writer.close()

    def table(self) -> Tensor:
        """Return the rows, (steps, terms + 2) float64: terms, total, seconds."""
        return torch.tensor(self.rows, dtype=torch.float64).reshape(-1, len(self.names) + 2)

    def epoch_means(self) -> tuple[dict[str, float], ...]:
        """Return the mean of each term and of the total over the steps of each epoch."""
        names, values = (*self.names, "total"), self.table()[:, :-1]
        means = [chunk.mean(dim=0) for chunk in values.split(self.steps_per_epoch) if len(chunk)]
        return tuple(dict(zip(names, mean.tolist(), strict=True)) for mean in means)

    def _line(self, step: int) -> list[str]:
        *values, seconds = self.rows[step - 1]
        epoch = (step - 1) // self.steps_per_epoch + 1
        return [str(epoch), str(step), *(f"{value:.9g}" for value in values), f"{seconds:.4f}"]


def _tensorboard_writer(
    wanted: bool | Literal["auto"], folder: Path, steps_done: int
) -> Any | None:
    if wanted is False:
        return None
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except ImportError as error:
        if wanted is True:
            raise MissingExtraError(
                "TensorBoard is not installed: pip install 'faprompt[tensorboard]', "
                "or set tensorboard=false; loss.csv and loss.png are written either way."
            ) from error
        return None
    return module.SummaryWriter(str(folder), purge_step=steps_done + 1)


def _draw_curves(
    names: tuple[str, ...], rows: list[tuple[float, ...]], steps_per_epoch: int
) -> bytes:
    """Return a PNG: the total on the left, its terms on the right, over epochs."""
    from matplotlib.figure import Figure

    epochs = [(step + 1) / steps_per_epoch for step in range(len(rows))]
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [row[len(names)] for row in rows], color="black", linewidth=0.8)
    left.set(title="total", xlabel="epoch", ylabel="loss")
    for place, name in enumerate(names):
        right.plot(epochs, [row[place] for row in rows], linewidth=0.8, label=name)
    right.set(title="weighted terms", xlabel="epoch")
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
