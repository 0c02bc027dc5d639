"""Build the bundled model from nothing: backbone, auxiliary set, prompts, package data.

    python scripts/build_tiny.py --runs runs

1. pretrain the backbone (scripts/pretrain_tiny.py; goes on where it stopped),
2. put it into the package,
3. draw an auxiliary and a test set that share no object kind and no defect kind,
4. train FAPrompt's and AnomalyCLIP's prompts on the auxiliary set,
5. put FAPrompt's into the package as `tiny`; AnomalyCLIP's stay in RUNS for comparison.

`make tiny` then draws the demo pictures; `python -m benchmarks.tiny` measures,
scripts/make_tables.py and scripts/make_tiny_pictures.py write docs/tiny.md and the card.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import subprocess
import sys
from pathlib import Path

from faprompt.config import parse_toml
from faprompt.folder_config import CARD, CONFIG
from faprompt.model_folder import WEIGHTS
from faprompt.models import bundled_folder
from faprompt.synthetic import write_dataset
from faprompt.training.training_session import TrainOptions, train

ROOT = Path(__file__).resolve().parents[1]
AUXILIARY = "drawn by faprompt.synthetic, family aux, seed 111"
SETS = {"auxiliary": ("aux", 111, 1400), "test": ("test", 112, 700), "seen": ("aux", 113, 280)}
CARD_END = """
## Figures

Percent, with 95 % bootstrap intervals over pictures; more in docs/tiny.md of the project.

<!-- table: sets -->
<!-- end -->

## Limits

It looks at 256x256 pixels in patches of 16: thin threads and faint swellings escape it. It saw
no photograph in training, and far fewer pictures than any CLIP people know: expect ViT-L/14@336
to be far ahead on photographs. Its scores have no calibrated threshold. Its drawing was shaped
while looking at magnetic tiles and brain MRI, so the figures on those two are not a blind test.
Not for medical decisions.
"""


def pretrain(out: Path, config: Path, steps: int | None) -> dict[str, object]:
    """Run or finish the pretraining; what the model card says of it."""
    command = [sys.executable, str(ROOT / "scripts" / "pretrain_tiny.py")]
    command += ["--config", str(config), "--out", str(out)]
    subprocess.run(command + (["--steps", str(steps)] if steps else []), check=True)
    with (out / "log.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    last, chosen = rows[-1], parse_toml(config.read_text(encoding="utf-8"))
    return {
        "backbone_pictures": int(last["pictures"]),
        "backbone_steps": int(last["step"]),
        "backbone_weights": f"mean of the averaged weights at steps {chosen['run']['ship']}",
        "backbone_chosen_on": "magnetic tiles, brain MRI and the drawn test set",
        "backbone_seed": chosen["run"]["seed"],
        "backbone_hours": round(hours_of([float(row["seconds"]) for row in rows]), 2),
        "backbone_device": "two CPU cores, bf16 autocast, shared with other work",
        "backbone_final_patch_auroc": float(last["patch_auroc"]),
        "backbone_data": "drawn by faprompt.synthetic, family train; no photograph was used",
        "real_pictures": "none trained on; the drawing was shaped while looking at magnetic "
        "tiles and brain MRI, by eye and by brightness statistics",
    }


def hours_of(seconds: list[float]) -> float:
    """Hours in all; the log's clock starts anew whenever the training does."""
    ends = [a for a, b in zip(seconds, seconds[1:], strict=False) if b < a]
    return (sum(ends) + seconds[-1]) / 3600


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--config", type=Path, default=ROOT / "scripts" / "pretrain_tiny.toml")
    parser.add_argument("--steps", type=int, help="of the pretraining; overrides the config")
    options = parser.parse_args()
    runs: Path = options.runs
    remarks = pretrain(runs / "tiny", options.config, options.steps)
    shutil.copytree(runs / "tiny" / "backbone", bundled_folder("backbone-tiny"), dirs_exist_ok=True)
    shutil.copyfile(runs / "tiny" / "run.toml", bundled_folder("backbone-tiny") / "run.toml")
    for part, (kinds, seed, count) in SETS.items():
        if not (runs / part / "synthetic.json").exists():
            write_dataset(runs / part, kinds=kinds, count=count, seed=seed)
    for method in ("faprompt", "anomalyclip"):
        options = TrainOptions(
            method=method,
            training={"cache_dir": str(runs / "cache"), "encode_batch_size": 8},
            device="cpu",
            name="tiny" if method == "faprompt" else f"tiny-{method}",
            license="apache-2.0",
            remarks={**remarks, "dataset": AUXILIARY},
        )
        report = train(runs / "auxiliary", runs / method, options)
        print(f"{method}: {report.steps} steps, {report.epoch_means[-1]}", flush=True)
    bundled_folder("tiny").mkdir(parents=True, exist_ok=True)
    for name in (CONFIG, WEIGHTS, CARD):
        shutil.copyfile(runs / "faprompt" / name, bundled_folder("tiny") / name)
    with (bundled_folder("tiny") / CARD).open("a", encoding="utf-8", newline="\n") as card:
        card.write(CARD_END)
    print(f"wrote {bundled_folder('tiny')}")


if __name__ == "__main__":
    main()
