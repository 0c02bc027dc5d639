"""Write the inputs of the recorded commands: sets in several layouts, odd files, small models.

    python inputs.py OUT

The pictures come from the drawn set `drawn/out` in the working folder. The small models come from
the test helpers of the checkout that `faprompt` is imported from.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import faprompt

sys.path.insert(0, str(Path(faprompt.__file__).resolve().parents[2]))

from tests.golden import recipe  # noqa: E402
from tests.helpers import blip_files, clip_files, dino, golden  # noqa: E402

Pair = tuple[Path, Path | None]  # a picture and its mask


def drawn(name: str) -> tuple[list[Pair], list[Pair]]:
    """Return the normal and the anomalous pictures of a drawn set, each with its mask."""
    normal: list[Pair] = []
    anomalous: list[Pair] = []
    for picture in sorted(Path("drawn/out", name).glob("*/test/*/*.png")):
        if picture.parent.name == "good":
            normal.append((picture, None))
        else:
            folder = picture.parents[2] / "ground_truth" / picture.parent.name
            anomalous.append((picture, folder / f"{picture.stem}_mask.png"))
    return normal, anomalous


def copy(source: Path, target: Path) -> Path:
    """Copy a file and return its new path; another suffix converts the picture."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == target.suffix:
        shutil.copyfile(source, target)
    else:
        Image.open(source).convert("L").convert("RGB").save(target)
    return target


def mvtec_class(
    folder: Path, normal: list[Pair], defects: dict[str, list[Pair]], train: int
) -> None:
    """Write one class of an MVTec tree; the first `train` normal pictures are its train split."""
    for number, (picture, _) in enumerate(normal[:train]):
        copy(picture, folder / f"train/good/{number:03}.png")
    for number, (picture, _) in enumerate(normal[train:]):
        copy(picture, folder / f"test/good/{number:03}.png")
    for defect, pairs in defects.items():
        for number, (picture, mask) in enumerate(pairs):
            copy(picture, folder / f"test/{defect}/{number:03}.png")
            copy(mask, folder / f"ground_truth/{defect}/{number:03}_mask.png")


def flat_sets(out: Path, normal: list[Pair], anomalous: list[Pair]) -> None:
    """Write the layouts that are not MVTec trees: four normal and four anomalous pictures each."""
    rows, records, images, marks = ["image_path,label,mask_path,class_name"], [], [], []
    for number, (picture, mask) in enumerate([*normal[:4], *anomalous[:4]]):
        label, name = int(mask is not None), f"p{number}.png"
        for folder in ("table", "coco", "meta"):
            copy(picture, out / folder / "images" / name)
        tile = "MT_Crack" if mask else "MT_Free"
        copy(picture, out / "yes_no" / ("yes" if mask else "no") / f"{number}.jpg")
        copy(picture, out / "magnetic_tile" / tile / "Imgs" / f"exp1_num_{number}.jpg")
        copy(picture, out / "folder" / ("hole" if mask else "good") / name)
        images.append({"id": number, "file_name": name, "height": 128, "width": 128})
        if mask:
            copy(mask, out / "table/masks" / name)
            copy(mask, out / "meta/masks" / name)
            copy(mask, out / "folder/masks" / name)
            copy(mask, out / "magnetic_tile" / tile / "Imgs" / f"exp1_num_{number}.png")
            copy(picture, out / "kvasir/images" / f"{number}.jpg")
            copy(mask, out / "kvasir/masks" / f"{number}.jpg")
            box = Image.open(mask).convert("L").point(lambda value: 255 * (value > 0)).getbbox()
            left, top, right, bottom = box
            marks.append({
                "id": number, "image_id": number, "category_id": 1,
                "bbox": [left, top, right - left, bottom - top],
                "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
            })  # fmt: skip
        rows.append(f"images/{name},{label},{f'masks/{name}' if mask else ''},part")
        records.append({
            "img_path": f"images/{name}", "mask_path": f"masks/{name}" if mask else "",
            "cls_name": "part", "specie_name": "hole" if mask else "", "anomaly": label,
        })  # fmt: skip
    (out / "table/table.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    listed = {"train": {}, "test": {"part": records}}
    (out / "meta/meta.json").write_text(json.dumps(listed), encoding="utf-8")
    kinds = [{"id": 1, "name": "hole"}]
    content = {"images": images, "annotations": marks, "categories": kinds}
    (out / "coco/instances.json").write_text(json.dumps(content), encoding="utf-8")


def odd_files(out: Path, picture: Path) -> None:
    """Write files that `predict` reads with a note, or refuses with a reason."""
    out.mkdir(parents=True)
    image = Image.open(picture).convert("RGB")
    grey = np.asarray(image.convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 16 + 5).save(out / "deep.tiff")
    alpha = Image.fromarray(np.full_like(grey, 160))
    Image.merge("RGBA", (*image.split(), alpha)).save(out / "alpha.png")
    image.resize((60, 200)).save(out / "tall.jpg")
    image.quantize(16).save(out / "palette.png")
    image.convert("CMYK").save(out / "cmyk.jpg")
    turned = Image.Exif()
    turned[0x0112] = 6
    image.crop((0, 0, 128, 90)).save(out / "turned.jpg", exif=turned)
    (out / "broken.png").write_bytes(picture.read_bytes()[:900])
    (out / "empty.jpg").write_bytes(b"")
    (out / "readme.txt").write_text("not a picture", encoding="utf-8")


def checkpoints(out: Path) -> None:
    """Write a CLIP as a state dict and as an OpenAI archive, and a checkpoint of each project."""
    state = golden.clip_state()
    torch.save(state, out / "clip.pt")
    clip_files.write_openai_archive(out / "archive.pt", state)
    small = {"width": 64, "depth": 2}  # of the backbone test-tiny
    learners = {
        "checkpoint": recipe.faprompt_state(1, prompts=3, patches=4, **small),
        "faprompt": recipe.faprompt_state(golden.SEED, width=128),
        "anomalyclip": recipe.anomalyclip_state(golden.SEED, width=128),
    }
    for name, state in learners.items():
        learner = golden.tensors(state) | {"token_prefix_pos": torch.zeros(1, 1, 1, 64)}
        torch.save({"prompt_learner": learner}, out / f"{name}.pth")
    embed, width = golden.backbone().spec.embed_dim, golden.backbone().spec.vision.width
    draw = torch.Generator().manual_seed(7)
    layers = {
        f"fc.{number}.{part}": torch.randn(shape, generator=draw) / 8
        for number in range(4)
        for part, shape in (("weight", (embed, width)), ("bias", (embed,)))
    }
    torch.save({"trainable_linearlayer": layers}, out / "april-gan.pth")


def main(out: Path) -> None:
    """Write everything below `out`."""
    normal, anomalous = drawn("test")
    others, defects = drawn("auxiliary")
    kinds = {"hole": anomalous[:7], "tear": anomalous[7:12]}
    mvtec_class(out / "parts", [*others[:6], *normal[:12]], kinds, train=6)
    mvtec_class(out / "two/screw", others[6:14], {"dent": anomalous[12:16]}, train=4)
    mvtec_class(out / "two/basket", [*others[:4], *normal[12:16]], {"cut": defects[:4]}, train=4)
    flat_sets(out, normal, anomalous)
    odd_files(out / "files", anomalous[0][0])
    checkpoints(out)
    dino.write(out / "dino")
    torch.manual_seed(0)
    blip_files.write(out / "blip")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
