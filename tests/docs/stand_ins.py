"""What stands in for the reader's pictures, models and machine when a printed block is run."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.docs.printed import ROOT
from tests.helpers.dicom_files import dicom_file

# What a test replaces or adds, so that a printed command takes seconds and no network.
REPLACED = (  # text that is printed -> text that is run
    (r"ViT-L-14-336\.pt|ViT-L-14-336|ViT-B-16-plus-240:laion400m_e31", "tiny"),  # no weights here
    (r"--check good/", "--check lot7/"),
    (r"http://line3:", "http://127.0.0.1:"),
    (r"TrainOptions\(", "TrainOptions(training={'epochs': 1}, "),
)
ADDED = (  # a command that matches -> options that make it small
    (r"faprompt train .*patchcore", "--backbone tiny"),
    (r"faprompt train (?!.*patchcore)", "--set epochs=1 --set batch_size=4"),
    (r"faprompt calibrate .*--rehearse", "--sizes 8 --kind hole"),
    (r"faprompt calibrate (?!.*--model)", "--model tiny"),
    (r"faprompt calibrate (?!-|.*--target-fpr)", "--target-fpr 0.05"),  # 19 pictures, not 99
    (r"faprompt datasets synth (?!.*--onto)", "--count 8 --size 64"),
    (r"faprompt datasets synth .*--onto", "--count 8 --sizes 8 --kind hole"),
    (r"faprompt evaluate ", "--replicates 0 --gallery 0"),
    (r"faprompt (benchmark|study (?!list|redraw))", "--dry-run"),  # they take hours to days
    (r"faprompt watch ", "--interval 0.1"),
    (r"faprompt models convert ", "--set image_size=256"),  # 518 does not go with tiny
)
MISSING_DATA = r"faprompt datasets table "  # exit status 3: most datasets are not here
CHECKED = (  # commands that install or build are looked up, not run: they need a network
    r"pip install|pip download|make |python3?\S* -m venv|source |git clone|cd "
)

_FOLDERS = {  # folders of pictures of good parts -> their number
    "good": 28, "many-good": 100, "good2": 8, "more-good": 8, "lot7": 4, "lot8": 4, "pictures": 3,
    "false-alarms": 1, "incoming": 1, "new": 2, "products/cap": 20,
    "products/body": 20, "lot9/cap": 1, "lot9/body": 1, "labelled/good": 3,
}  # fmt: skip


def build(folder: Path, run: Callable[[str], None]) -> None:
    """Write every file and folder that pages name: pictures of parts, models, labelled sets."""
    for first, (name, count) in enumerate(_FOLDERS.items()):
        for number in range(count):
            _save(folder / name / f"{number:03}.png", _part(1000 * first + number))
    for number in range(3):
        _save(folder / f"labelled/scratch/{number:03}.png", _part(number, damaged=True))
        _save(folder / f"lot7/damaged-{number}.png", _part(number, damaged=True))
    for person in range(21):
        _save(folder / f"healthy/{person:02}/scan.png", _part(500 + person))
    for name in ("part.png", "a.png", "b.png"):
        _save(folder / name, _part(17, damaged=True))
    if importlib.util.find_spec("pydicom"):
        (folder / "new/scan.dcm").write_bytes(dicom_file(_part(9)[..., 0].astype(np.int16)))
    mask = np.zeros((64, 64), np.uint8)
    mask[:8] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    run("faprompt datasets synth drawn")
    for name in ("mvtec", "visa"):
        shutil.copytree(folder / "drawn" / "test", folder / "data" / name)
        for one in sorted((folder / "data" / name).glob("*/test/good")):
            for number in range(4):
                _save(one.parents[1] / f"train/good/{number:03}.png", _part(700 + number))
    (folder / "data/visa/basket").rename(folder / "data/visa/pcb4")
    shutil.copytree(folder / "data/mvtec", folder / "mvtec")
    shutil.copytree(folder / "drawn" / "auxiliary", folder / "parts")
    for one in sorted((folder / "parts").glob("*/test")):
        _save(one.parent / "train/good/000.png", _part(800))
    _save_released_checkpoint(folder / "theirs.pth")
    shutil.copytree(ROOT / "configs", folder / "configs")
    shutil.copytree(ROOT / "docs/studies/ablation", folder / "results/ablation")
    run("faprompt calibrate many-good --model tiny --target-fpr 0.01 --out my-model")
    for name in ("line3", "calibrated", "models/left", "models/right"):
        shutil.copytree(folder / "my-model", folder / name)


def exported(folder: Path, run: Callable[[str], None]) -> None:
    """Add the exported model that some pages name."""
    run(f"faprompt export my-model --out {folder / 'exported'} --check lot7")


def python_names(folder: Path) -> dict[str, object]:
    """Return the names that snippets take as given, such as `paths`."""
    import torch

    mask = np.zeros((64, 64), bool)
    mask[:8] = True
    return {
        "__name__": "snippet",
        "paths": sorted((folder / "lot7").glob("*.png")),
        "good_paths": sorted((folder / "many-good").glob("*.png")),
        "pixels": torch.zeros(2, 3, 256, 256),
        "mask": mask,
    }


def local(code: str) -> str:
    """Return printed code with what stands in for weights and machines."""
    for printed, run in REPLACED:
        code = re.sub(printed, run, code)
    return code


def small(command: str) -> str:
    """Return a printed command as it is run."""
    command = local(command)
    for pattern, options in ADDED:
        if re.match(pattern, command):
            command += f" {options}"
    return command


def _save_released_checkpoint(path: Path) -> None:
    """Write the prompts of `tiny` under the names of the authors' code."""
    import torch

    from faprompt import load_detector

    state = load_detector("tiny").method.state_dict()
    learner = {
        "ctx_pos": state["prompts.normal_context"][None, None],
        "ctx_neg": state["prompts.abnormal_tokens"][None],
    }
    for layer, tokens in enumerate(state["prompts.deep_prompts"]):
        learner[f"compound_prompts_text.{layer}"] = tokens
    for part in ("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias"):
        learner[f"patch_meta_net.{part}"] = state[f"prior.{part}"]
    torch.save({"prompt_learner": learner}, path)


def _part(seed: int, *, damaged: bool = False) -> np.ndarray:
    """A (64, 64, 3) picture of an even surface, perhaps with a dark hole."""
    draw = np.random.default_rng(seed)
    picture = draw.normal(150, 6, (64, 64, 3))
    if damaged:
        picture[24:36, 28:40] = 20
    return picture.clip(0, 255).astype(np.uint8)


def _save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
