"""Folders of good pictures, and a detector whose scores are known in advance."""

from __future__ import annotations

import numpy as np
from PIL import Image

from faprompt.detector import Detector
from faprompt.inspection import CalibrateOptions
from faprompt.results import AnomalyResult
from tests.helpers import small

RATES = {"target_fpr": 0.05, "review_fpr": 0.1}  # 19 pictures


class Levels(Detector):
    """Scores a picture by its red, and its map by its green; both over 255."""

    def _score(self, pictures, with_prompt_scores, *, map_size=None):
        results = []
        for picture in pictures:
            red, green, _ = picture.image[0, 0] / 255
            size = map_size or picture.size
            score_map = np.full(size, green, np.float32)
            if picture.left_out is not None:
                score_map[picture.left_out] = 0
            results.append(AnomalyResult(score=float(red), score_map=score_map, image_size=size,
                                         model=self.name))  # fmt: skip
        return results


def levels() -> Levels:
    return Levels(small.backbone(), small.method("clip"), name="levels")


def level_file(path, red, green=100, blue=0, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((*size, 3), (red, green, blue), np.uint8)
    Image.fromarray(picture).save(path)
    return str(path)


def level_folder(folder, reds, **options):
    return [level_file(folder / f"{i}.png", red, **options) for i, red in enumerate(reds)]


def picture_folder(folder, count, *, first=0):
    return [
        str(small.picture_file(folder / f"{i}.png", height=40, width=48, seed=first + i))
        for i in range(count)
    ]


def asked(**options) -> CalibrateOptions:
    return CalibrateOptions(**{**RATES, **options})
