"""Call the Python interface as a user would, and write the results.

python calls.py OUT
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import faprompt
from faprompt.metrics import AnomalyMetrics

PICTURES = sorted(Path("inputs/out/parts/test/hole").glob("*.png"))[:4]


def write(out: Path, name: str, results: list[faprompt.AnomalyResult]) -> None:
    """Write the results as JSON lines, and their maps."""
    names = ("score", "verdict", "threshold", "image_size", "notes", "model")
    rows = [{name: getattr(result, name) for name in names} for result in results]
    for row, result in zip(rows, results, strict=True):
        row["regions"] = [asdict(region) for region in result.regions]
    lines = [json.dumps(row) for row in rows]
    (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    np.save(out / f"{name}.npy", np.stack([result.score_map for result in results]))


def metrics(mode: str) -> dict[str, float]:
    """Return the metrics of drawn scores and maps."""
    draw = np.random.default_rng(3)
    measured = AnomalyMetrics(mode=mode, fpr_limit=0.3)
    for _ in range(3):
        masks = np.zeros((4, 24, 32), dtype=bool)
        masks[2:, 5:12, 6:20] = True
        maps = np.clip(draw.normal(0.4, 0.1, masks.shape) + 0.15 * masks, 0, 1)
        maps = maps.astype(np.float32)
        labels = np.array([0, 0, 1, 1])
        measured.update(maps.max((1, 2)), labels, score_maps=maps, masks=masks)
    return dict(measured.compute().items())


def main(out: Path) -> None:
    """Write everything below `out`."""
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    detector = faprompt.load_detector("tiny")
    write(out, "predict", [detector.predict(path, threshold=0.5) for path in PICTURES])
    write(out, "stream", list(detector.stream(PICTURES, batch_size=3)))
    image = Image.open(PICTURES[0])
    as_array, as_bytes = np.asarray(image.convert("RGB")), PICTURES[0].read_bytes()
    forms = [detector.predict(form) for form in (image, as_array, as_array[..., 0], as_bytes)]
    write(out, "forms", forms)
    side = detector.transform.image_size[0]
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 3, side, side, generator=generator)
    with torch.no_grad():
        scores, maps = detector(pixels)
    np.save(out / "tensor_scores.npy", scores.numpy())
    np.save(out / "tensor_maps.npy", maps.numpy())
    detector.save_pretrained(out / "saved")
    again = faprompt.load_detector(str(out / "saved"))
    write(out, "reloaded", [again.predict(path) for path in PICTURES])
    (out / "metrics.json").write_text(
        json.dumps({mode: metrics(mode) for mode in ("exact", "binned")}), encoding="utf-8"
    )
    read = faprompt.read_image("inputs/out/files/alpha.png")
    np.save(out / "read.npy", read.array)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
