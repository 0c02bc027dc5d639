"""Our numbers beside those of the public code of AnoVL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from faprompt.clip.vision import ImageFeatures
from faprompt.imaging.picture_views import altered_views
from faprompt.imaging.transform import Transform
from faprompt.methods import anovl
from faprompt.methods.registry import preset_config
from faprompt.prompts import templates
from tests.golden import recipe
from tests.golden.rivals import recipe_rivals
from tests.helpers import golden
from tests.helpers.golden_drawn import (
    SEED,
    absolute,
    backbone,
    drawn_picture,
    encode,
    from_half,
    load,
    relative,
    rows_of,
)
from tests.helpers.golden_rows import Row

STEPS = 5  # of the adapter
# theirs turn from -45 to 45 degrees, and shift around the clock
AUTHORS_VIEWS = (0, 8, 6, 4, 2, 1, 3, 5, 7, 9, 11, 12, 10, 13, 15, 16, 14, 17, 18, 19, 20, 21)


def anovl_mvtec() -> Iterator[Row]:
    """Compare every array of `anovl.npz` with the presets `paper` and `adapted`."""
    yield from anovl_plain()
    yield from anovl_adapted("adapted", adapter="prompts")
    yield from anovl_adapted("linear", adapter="linear")
    yield from anovl_towers()


def anovl_plain(**options: Any) -> Iterator[Row]:
    """Compare `preprocess/...` and `plain/...`: no adapter, the position table as it is."""
    file = load("anovl")
    transform = Transform(image_size=(56, 56), interpolation="bilinear")
    pixels = torch.from_numpy(transform.to_pixels(drawn_picture()))
    yield Row("preprocess/picture", absolute(pixels, file["preprocess/picture"]), 1e-6)
    method, tower = anovl_method("paper", **options), backbone(12)
    features = encode(method, tower, anovl_pixels())
    values = {
        "plain/class_token_of_image_0": features.class_token[0],
        "plain/patch_tokens": features.patch_tokens[max(features.patch_tokens)],
        "plain/views_of_image_0_every_5th_pixel": anovl_views()[..., ::5, ::5],
    }
    for name in sorted(set(recipe_rivals.ANOVL_CLASSES)):
        values[f"plain/text/{name}"] = method.text_pairs(tower.text, [name])[0].T
    yield from rows_of(file, values, absolute, 1e-4)
    chances = anovl_chances("plain", method, features)
    chances["plain/anomaly_map"] = anovl_forward(method, features).patch_map
    yield from rows_of(file, chances, from_half, 1e-3)


def anovl_towers(**options: Any) -> Iterator[Row]:
    """Compare `resized/...`, at another grid, and `deep/...`, a tower of 24 blocks."""
    file, method = load("anovl"), anovl_method("paper", **options)
    for start, tower, seen in (
        ("resized", backbone(12), golden.pixels()),
        ("deep", backbone(24), anovl_pixels()),
    ):
        features = encode(method, tower, seen)
        yield from rows_of(file, anovl_chances(start, method, features), from_half, 1e-3)
        tokens = {
            f"{start}/patch_tokens_of_image_0": features.patch_tokens[max(features.patch_tokens)][0]
        }
        yield from rows_of(file, tokens, absolute, 1e-4)


def anovl_pixels() -> Tensor:
    """Return the four pictures of 56x56."""
    return torch.from_numpy(recipe.images(SEED, 4, 56))


def anovl_views() -> Tensor:
    """Return the 22 views of the first picture, in the authors' order."""
    first = anovl_pixels()[:1]
    return torch.cat([first, *altered_views(first)])[list(AUTHORS_VIEWS)]


@cache
def anovl_base() -> anovl.AnoVL:
    """Build the preset `paper`; its sentences are encoded once and serve all other options."""
    config = replace(preset_config("anovl", "paper"), image_size=56, class_word="metal_nut")
    assert isinstance(config, anovl.AnoVLConfig)
    return anovl.AnoVL(config, backbone(12))


def anovl_method(preset: str, **options: Any) -> anovl.AnoVL:
    """Return a method with a preset's options, changed by `options`, and no moments."""
    built = copy(anovl_base())
    own = {"image_size": 56, "class_word": "metal_nut"}
    built.config = replace(preset_config("anovl", preset), **{**own, **options})
    built.keeps_aspect = built.config.squares
    built.image_options = replace(
        built.image_options,
        value_blocks=built.config.value_blocks,
        position_filter=built.config.position_filter,
    )
    built._moments = {}
    return built


def anovl_forward(
    method: anovl.AnoVL,
    features: ImageFeatures,
    names: Sequence[str] = recipe_rivals.ANOVL_CLASSES,
) -> Any:
    """Run the method on encoded pictures; both towers have the same text side."""
    return method(features, backbone(12).text, class_names=names)


def anovl_chances(start: str, method: anovl.AnoVL, features: ImageFeatures) -> dict[str, Tensor]:
    """Return the probabilities of pictures, views and patches."""
    assert features.views is not None
    pair = method.text_pairs(backbone(12).text, recipe_rivals.ANOVL_CLASSES)
    tokens = features.patch_tokens[max(features.patch_tokens)]
    return {
        f"{start}/image_score": anovl_forward(method, features).score,
        f"{start}/view_scores": method.chance(features.views, pair)[:, list(AUTHORS_VIEWS)],
        f"{start}/patch_probability": method.chance(tokens, pair),
    }


class Adaptation:
    """What an adapter goes through, with the weights and the noise of the recipe.

    losses: of every step. weights: W and b of every picture, as they end. tokens: of every
    picture, adapted.
    """

    def __init__(self, adapter: anovl.Adapter) -> None:
        rows = 924 if adapter == "prompts" else 128
        drawn = recipe_rivals.anovl_adapter(SEED, embed_dim=128, rows=rows)
        order = authors_order() if adapter == "prompts" else torch.arange(rows)
        self.start = [torch.empty(0)] * 2
        for place, array in enumerate(drawn):
            self.start[place] = torch.empty(array.shape)
            self.start[place][order] = torch.from_numpy(array)
        self.order = order
        self.losses: list[Tensor] = []
        self.weights: list[list[Tensor]] = []
        self.tokens: list[Tensor] = []

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Replace what AnoVL draws, and keep what it computes."""
        loss, adapt = anovl.adaptation_loss, anovl.AnoVL.adapt

        def drawn_adapter(*_: Any) -> list[Tensor]:
            self.weights.append([tensor.clone() for tensor in self.start])
            return self.weights[-1]

        def drawn_noise(shape: Sequence[int], _: torch.Generator) -> Tensor:
            step = len(self.losses) % STEPS
            return torch.from_numpy(recipe_rivals.anovl_noise(SEED, step, tuple(shape)))

        def recorded_loss(*logits: Tensor) -> Tensor:
            value = loss(*logits)
            self.losses.append(value.detach())
            return value

        def recorded_adapt(*arguments: Any, **options: Any) -> Tensor:
            self.tokens.append(adapt(*arguments, **options))
            return self.tokens[-1]

        with (
            patch.object(anovl, "draw_adapter", drawn_adapter),
            patch.object(anovl, "draw_noise", drawn_noise),
            patch.object(anovl, "adaptation_loss", recorded_loss),
            patch.object(anovl.AnoVL, "adapt", recorded_adapt),
        ):
            yield

    def loss_table(self) -> Tensor:
        """Return the losses by picture and step, (B, STEPS)."""
        return torch.stack(self.losses).unflatten(0, (-1, STEPS))

    def after(self, image: int) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Return a picture's W (8 rows) and b, each beside where it began; the authors' order."""
        ends, starts = self.weights[image], self.start
        for name, end, start in zip(("weight", "bias"), ends, starts, strict=True):
            rows = self.order[: 8 if name == "weight" else None]
            yield name, end.detach()[rows], start[rows]


def authors_order() -> Tensor:
    """Return the places of the authors' 924 sentences among ours, (924,) int64.

    Theirs go template by template, and in each state by state. Ours go state by state, and in
    each template by template. For a noun, our templates have 11 patterns with "a", then the
    same with "the"; theirs have both of one pattern together, some with "the" first.
    """
    the_first = {0, 3, 5, 9, 10}  # cropped, dark, blurry, and the two aims
    pairs = [(11 + n, n) if n in the_first else (n, 11 + n) for n in range(11)]
    lines = [22 * noun + line for noun in range(3) for pair in pairs for line in pair]
    states = [len(side) for side in templates.ANOVL_STATES]
    return torch.tensor(
        [
            462 * side + 66 * state + line
            for side, count in enumerate(states)
            for line in lines
            for state in range(count)
        ]
    )


def anovl_adapted(start: str, *, adapter: anovl.Adapter, **options: Any) -> Iterator[Row]:
    """Compare `adapted/...` or `linear/...`: five steps a picture, moments carried."""
    file, chosen = load("anovl"), {"carry_moments": True, "views": False, **options}
    method = anovl_method("adapted", adapter=adapter, **chosen)
    features = encode(method, backbone(12), anovl_pixels())
    told = Adaptation(adapter)
    with told.recorded():
        patch_map = anovl_forward(method, features).patch_map
    yield Row(f"{start}/loss", absolute(told.loss_table(), file[f"{start}/loss"]), 1e-6)
    key = f"{start}/tokens_of_images_0_and_1"
    yield Row(key, absolute(torch.stack(told.tokens[:2]), file[key]), 5e-3)
    for image in (0, 1):
        for name, ours, begun in told.after(image):
            key = f"{start}/after/{name}_of_image_{image}"
            yield Row(key, relative(ours, file[key], origin=begun.numpy()), 0.05)
    yield from rows_of(file, {f"{start}/anomaly_map": patch_map}, from_half, 2e-3)


def anovl_visa(**options: Any) -> Iterator[Row]:
    """Compare every array of `anovl_visa.npz` with the presets `visa` and `visa-adapted`."""
    file, names, told = load("anovl_visa"), recipe_rivals.VISA_CLASSES, Adaptation("linear")
    pixels = torch.from_numpy(recipe_rivals.wide_images(SEED, 4, 56, 80))
    chosen = {"carry_moments": True, **options}
    plain, adapted = anovl_method("visa"), anovl_method("visa-adapted", **chosen)
    pairs = plain.text_pairs(backbone(12).text, names)
    texts = {f"visa/text/{name}": pair.T for name, pair in zip(names, pairs, strict=True)}
    yield from rows_of(file, texts, absolute, 1e-4)
    for start, method, limit in (("visa", plain, 1e-3), ("visa_adapted", adapted, 2e-3)):
        with told.recorded():
            out = anovl_forward(method, encode(method, backbone(12), pixels), names)
        chances = {f"{start}/image_score": out.score, f"{start}/anomaly_map": out.patch_map}
        yield from rows_of(file, chances, from_half, limit)
    yield from rows_of(file, {"visa_adapted/loss": told.loss_table()}, absolute, 1e-6)
