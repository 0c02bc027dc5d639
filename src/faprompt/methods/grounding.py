"""Where FiLo looks: the boxes of a Grounding DINO, or the peak of its own map.

    text       "anomaly . damage . broken . defect . contamination . {phrase} . {phrase} ."
    likely     queries with a chance above 0.25 and an area below 0.7; without any, the best one
    kept       those of them whose phrase, the tokens above 0.25, holds one of the text's entries
    position   the cell of the best kept box's centre, 3x3 cells of a picture of 518 pixels:
               0-172, 173-344, 345-517; between them none; the picture's centre without a box
    map        times 0.7 outside all kept boxes; a box holds the pixels int(left) to
               int(right) - 1 of int(top) to int(bottom) - 1

`box_slips` of FiLo keeps two slips of the authors' test.py. It compares chances cut to two
decimals, and of equal ones the last query is the best (lines 263 and 604). And a box that starts
left of or above the picture counts from the other end, so it is usually empty.

Other slips are not kept: phrases with a capital letter (pill, candle, macaroni1, macaroni2, all
pcb) never match there, nor does "uneven shape " (macaroni1) except before another word; and
pixels outside all boxes stay undimmed where the map is exactly 1. Its model sees the picture in
its proportions, ours the method's square. Any GroundingDino checkpoint of `transformers` will do.

Papers: Gu et al., FiLo, ACM MM 2024; Liu et al., Grounding DINO, ECCV 2024. Public code:
test.py of CASIA-IVA-Lab/FiLo at 36ff29c. `peak_cell` is ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from faprompt.clip.spec import torchvision_module
from faprompt.errors import ConfigError

GENERAL_WORDS = ("anomaly", "damage", "broken", "defect", "contamination")
LEAST_CHANCE, MOST_AREA = 0.25, 0.7
OUTSIDE_FACTOR = 0.7
SIDE_PX = 518  # of the picture whose pixels the cells count, and the shorter side the model sees
CELLS_PX = ((0, 172), (173, 344), (345, 517))  # first and last pixel, both inside
PIECES = {"[CLS]": 101, "[SEP]": 102, ".": 1012}  # the model splits the text at these numbers
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as the model wants them


def box_text(words: Sequence[str]) -> str:
    """Return the text the model searches for; it ends in a full stop, as in test.py.

    Example:
        >>> box_text(["damage", "Burn mark"])
        'damage . burn mark .'
    """
    return " . ".join(word.lower() for word in words) + " ."


def likely_boxes(chances: Tensor, boxes: Tensor, *, slips: bool = False) -> Tensor:
    """Choose the queries (K,) that may be boxes, best first; the best if none is good enough.

    Args:
        chances: (Q,) in 0..1, the largest of each query's tokens.
        boxes: (Q, 4): centre x, centre y, width, height, relative to the picture.
        slips: order them by chances cut to two decimals, the last of equal ones first.
    """
    order = chances.argsort(descending=True, stable=True)
    best = order[:1]
    if slips:
        cut = (chances.cpu().double() * 100).floor().flip(0)  # Apple's MPS has no float64
        order = (len(chances) - 1 - cut.argsort(descending=True, stable=True)).to(chances.device)
    good = (chances > LEAST_CHANCE) & (boxes[:, 2] * boxes[:, 3] < MOST_AREA)
    likely = order[good[order]]
    return likely if len(likely) else best


def says_one_of(phrase: str, words: Sequence[str]) -> bool:
    """Return whether a box's phrase contains one of the words or phrases searched for."""
    return any(word.lower() in phrase for word in words)


def box_position(boxes: Tensor) -> int | None:
    """Return the cell of the first of (K, 4) boxes, 0 to 8 row by row; None between two cells.

    Without a box it is the cell of the picture's centre.

    Example:
        >>> box_position(torch.tensor([[0.9, 0.1, 0.05, 0.05]])), box_position(torch.empty(0, 4))
        (2, 4)
    """
    x = y = SIDE_PX / 2
    if len(boxes):
        left, top, right, bottom = _corners(boxes[:1], (SIDE_PX, SIDE_PX))[0]
        x, y = ((left + right) / 2).item(), ((top + bottom) / 2).item()
    column, row = _cell(x), _cell(y)
    return None if column is None or row is None else 3 * row + column


def _cell(place_px: float) -> int | None:
    inside = (n for n, (first, last) in enumerate(CELLS_PX) if first <= place_px <= last)
    return next(inside, None)


def peak_cell(score_map: Tensor) -> int:
    """Return the cell of the highest pixel of a map (height, width), 0 to 8 row by row.

    At 518 pixels the cells are those of `box_position`, but without gaps.
    """
    height, width = score_map.shape
    row, column = divmod(int(score_map.argmax()), width)
    return (6 * row + 3) // (2 * height) * 3 + (6 * column + 3) // (2 * width)


def dim_outside(maps: Tensor, boxes: Sequence[Tensor], *, slips: bool = False) -> Tensor:
    """Multiply pixels of maps (B, height, width) outside all boxes by 0.7.

    `boxes` are (K, 4) for each picture as in `likely_boxes`; K = 0 dims the whole map. With
    `slips`, a box that starts left of or above the picture counts from the other end.
    """
    inside = torch.zeros_like(maps, dtype=torch.bool)
    for own, each in zip(inside, boxes, strict=True):
        places = _corners(each.to(maps), maps.shape[-2:]).int()
        for left, top, right, bottom in (places if slips else places.clamp(min=0)).tolist():
            own[top:bottom, left:right] = True
    return torch.where(inside, maps, OUTSIDE_FACTOR * maps)


def _corners(boxes: Tensor, image_size: Sequence[int]) -> Tensor:
    """(K, 4) as in `likely_boxes` -> left, top, right, bottom in pixels, in test.py's order."""
    height, width = image_size
    scaled = boxes.float() * boxes.new_tensor([width, height, width, height], dtype=torch.float32)
    start = scaled[:, :2] - scaled[:, 2:] / 2
    return torch.cat([start, start + scaled[:, 2:]], dim=1)


class GroundingDino:
    """A frozen GroundingDino of `transformers`; no module, so nothing of it is saved or trained.

    Args:
        source: a folder as `save_pretrained` writes it, or a hub name; safetensors only.
        side_px: the shorter side of the picture the model sees.
        mean, std: normalisation of the pixels it is given, by channel.
        slips: see `likely_boxes`.

    Raises:
        ConfigError: `transformers` is not installed, or the source is no such checkpoint.
    """

    def __init__(
        self,
        source: str,
        *,
        side_px: int,
        mean: Sequence[float],
        std: Sequence[float],
        slips: bool = False,
    ) -> None:
        self.model, self.tokenizer = _load(source)
        self.side_px, self.mean, self.std, self.slips = side_px, mean, std, slips

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names and values of all weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def find(self, pixels: Tensor, phrases: Sequence[str]) -> Tensor:
        """Find boxes (K, 4) as in `likely_boxes`, best first, in pixels (3, height, width).

        `phrases` are possible defects of its class, besides the general words. K may be 0.
        """
        words = (*GENERAL_WORDS, *phrases)
        model = self.model.to(pixels.device)
        inputs = self.tokenizer(
            box_text(words), truncation=True, max_length=model.config.max_text_len,
            return_tensors="pt",
        ).to(pixels.device)  # fmt: skip
        output = model(pixel_values=self.prepare(pixels)[None], **inputs)
        chances, boxes = output.logits[0].float().sigmoid(), output.pred_boxes[0].float()
        matching = [
            place
            for place in likely_boxes(chances.amax(dim=-1), boxes, slips=self.slips).tolist()
            if says_one_of(self._phrase(chances[place], inputs["input_ids"][0]), words)
        ]
        return boxes[matching]

    def prepare(self, pixels: Tensor) -> Tensor:
        """Resize the shorter side to `side_px` and normalise as ImageNet."""
        mean, std, own_mean, own_std = (
            pixels.new_tensor(each)[:, None, None] for each in (MEAN, STD, self.mean, self.std)
        )
        picture = (pixels * own_std + own_mean).clamp(0, 1)
        scale = self.side_px / min(picture.shape[1:])
        size = [round(scale * length) for length in picture.shape[1:]]
        resized = F.interpolate(
            picture[None], size=size, mode="bilinear", align_corners=False, antialias=True
        )[0]
        return (resized - mean) / std

    def _phrase(self, chances: Tensor, ids: Tensor) -> str:
        """Decode a query's tokens above the threshold, without the first one."""
        places = (chances[: len(ids)] > LEAST_CHANCE).nonzero()[:, 0].tolist()
        return self.tokenizer.decode([int(ids[place]) for place in places if place])


def _load(source: str) -> tuple[Any, Any]:
    torchvision_module()  # repairs torchvision, which transformers needs
    try:
        from transformers import AutoTokenizer, GroundingDinoConfig, GroundingDinoForObjectDetection
    except ImportError as error:
        raise ConfigError(
            f"grounding=dino runs a Grounding DINO through transformers, which is not here "
            f"({error}); pip install 'faprompt[baselines]', or set grounding=self or "
            "grounding=none."
        ) from error
    local = Path(source).is_dir()
    try:
        if not local and (source.count("/") != 1 or source.startswith((".", "/", "~"))):
            raise ValueError("no such folder, and no hub name (owner/name)")
        config, _ = GroundingDinoConfig.get_config_dict(source, local_files_only=local)
        if config.get("model_type") != GroundingDinoConfig.model_type:
            raise ValueError(f"its config.json has model_type {config.get('model_type')!r}")
        loaded: Any = GroundingDinoForObjectDetection.from_pretrained(
            source, dtype=torch.float32, use_safetensors=True, local_files_only=local,
            output_loading_info=True,
        )  # fmt: skip
        model, found = loaded
        if found["missing_keys"]:
            raise ValueError(f"its weights lack {', '.join(sorted(found['missing_keys'])[:3])}")
        tokenizer = AutoTokenizer.from_pretrained(
            source, local_files_only=local, trust_remote_code=False
        )
        pieces = tokenizer.convert_tokens_to_ids(list(PIECES))
        if pieces != list(PIECES.values()):  # an empty one, where the files are missing
            raise ValueError(f"its tokenizer numbers {' '.join(PIECES)} as {pieces}")
    except Exception as error:  # transformers, safetensors and the hub each have their own
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ConfigError(
            f"grounding_model={source!r} cannot be read: {reason}. Wanted a folder with a "
            "GroundingDino's config.json, model.safetensors and tokenizer, as transformers "
            "writes it, or a hub name such as IDEA-Research/grounding-dino-tiny; or set "
            "grounding=self or grounding=none."
        ) from error
    return model.requires_grad_(False).eval(), tokenizer
