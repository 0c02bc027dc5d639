"""FiLo beside the outputs of its authors' code, key by key.

`tests/golden/rivals/README-filo.md` says what the file holds.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from faprompt import losses
from faprompt.clip.backbone import Backbone, build_backbone
from faprompt.clip.spec import infer_spec
from faprompt.clip.vision import ImageFeatures
from faprompt.methods.filo import KERNELS, FiLo, FiLoOutput
from faprompt.methods.grounding import dim_outside
from faprompt.methods.registry import build_method
from faprompt.training.training_config import recipe_config
from faprompt.training.training_steps import build_optimizer, learning_rate_at, set_learning_rate
from tests.golden import recipe
from tests.helpers import golden
from tests.helpers.golden_rows import Row

sys.modules.setdefault("recipe", recipe)  # the recipes import it by its bare name
from tests.golden.rivals import recipe_filo  # noqa: E402

FORWARD, TRAINED = 1e-4, 1e-3  # limits: absolute, then relative to the length
LARGE = 1e-5  # the limit of values above 10, relative to the largest: tokens, heads, losses
STAGES = {"stage1": 0, "stage2": 5}  # the epoch that each stage is, of six
TAPS = ("value", "plain12", "plain18", "plain24")  # what the linear layers read
SHOWN = recipe_filo.CLASSES
Query = tuple[str, float, tuple[float, float, float, float]]  # phrase, chance, box
Values = dict[str, Tensor]


@cache
def load() -> dict[str, np.ndarray]:
    """Read the arrays of the golden file, by key."""
    return golden.load("rivals/filo")


@cache
def backbone() -> Backbone:
    """Build the drawn CLIP of the other files with exact GELU, as FiLo's code does."""
    state = golden.clip_state()
    return build_backbone(infer_spec(state, quick_gelu=False), state, name="golden-gelu")


def rename(key: str) -> str:
    """Return our name of one of their parameters."""
    for side in ("normal", "abnormal"):
        key = key.replace(f"{side}_prompt_learner.ctx", f"{side}_prompts.context")
        key = key.replace(f"{side}_prompt_learner.", f"{side}_prompts.")
    for shape, kernel in recipe_filo.KERNELS.items():
        for head in range(3):
            key = key.replace(
                f"decoder_cov.fc_{shape}.{head}.",
                f"shapes.{head}.branches.{KERNELS.index(kernel)}.",
            )
    key = key.replace("decoder_linear.fc.", "linears.")
    return key.replace("adapter.fc.0", "adapter.down").replace("adapter.fc.2", "adapter.up")


@cache
def start() -> Mapping[str, Tensor]:
    """Draw the parameters, under our names."""
    state = recipe_filo.filo_state(recipe_filo.SEED)
    return {rename(key): torch.from_numpy(value) for key, value in state.items()}


class Words:
    """A tokenizer that splits a caption at blanks and full stops."""

    def __init__(self) -> None:
        self.caption, self.words = "", [""]

    def __call__(self, caption: str, **_: Any) -> "Inputs":
        self.caption, self.words = caption, recipe_filo.caption_words(caption)
        return Inputs(input_ids=torch.arange(len(self.words))[None])

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self.words[place] for place in ids)


class Inputs(dict):
    """What a tokenizer returns, on any device."""

    def to(self, device: Any) -> "Inputs":
        return self


class Spoken:
    """In a Grounding DINO's place: it answers every caption with the same queries."""

    config = SimpleNamespace(max_text_len=256)

    def __init__(self, queries: Sequence[Query], words: Words) -> None:
        self.queries, self.words = queries, words

    def to(self, device: Any) -> "Spoken":
        return self

    def __call__(self, **_: Any) -> Any:
        logits, boxes = recipe_filo.dino_logits(self.queries, self.words.caption)
        return SimpleNamespace(
            logits=torch.from_numpy(logits)[None], pred_boxes=torch.from_numpy(boxes)[None]
        )


def build(*, queries: Sequence[Query] = (), preset: str = "paper", **options: Any) -> FiLo:
    """Build the method with the recipe's parameters, grounded where there are queries."""
    values = {"image_size": recipe_filo.IMAGE_SIZE, **options}
    if queries:
        values |= {"grounding": "dino", "grounding_model": "drawn/dino"}
    words = Words()
    with mock.patch("faprompt.methods.grounding._load") as load_model:
        load_model.return_value = (Spoken(queries, words), words)
        built: Any = build_method("filo", backbone(), values, preset=preset)
    built.load_state_dict(dict(start()))
    return built.eval()


@cache
@torch.no_grad()
def encode_images(preset: str = "paper", *, big: bool = False) -> ImageFeatures:
    """Encode the four pictures, or the big one, and keep the pixels."""
    drawn = recipe_filo.big_image() if big else recipe.images(recipe_filo.SEED, 4, 70)
    pixels = torch.from_numpy(drawn)
    features = build(preset=preset).encode_image(backbone(), pixels)
    return replace(features, pixels=pixels)


def pick(features: ImageFeatures, image: int) -> ImageFeatures:
    """Return the tokens of one picture, as a batch without pixels."""
    tokens = {key: each[image, None] for key, each in features.patch_tokens.items()}
    return replace(
        features, class_token=features.class_token[image, None], patch_tokens=tokens, pixels=None
    )


def run(built: FiLo, features: ImageFeatures, shown: Sequence[str]) -> FiLoOutput:
    return built(features, backbone().text, class_names=shown)


def forward_values(built: FiLo, features: ImageFeatures, shown: Sequence[str]) -> Values:
    """Return what every forward has in the file, by the last part of its key."""
    with torch.no_grad():
        out = run(built, features, shown)
        return {
            "class_token": features.class_token,
            "adapted": built.adapter(features.class_token),
            "text_pair": out.text_pair,
            "text_probs": out.image_logits * built.config.adapter_temperature,
            "map": out.patch_map,
            "score": out.score,
            "layer_peak": out.layer_maps.amax(dim=(2, 3)).T,
        }


@torch.no_grad()
def image1_values(built: FiLo) -> Values:
    """Return the tokens, heads, maps and sentences of picture 1."""
    features = pick(encode_images(), 1)
    tokens = [features.patch_tokens[tap][0] for tap in (48, 12, 18, 24)]
    context = built.abnormal_prompts(built.adapter(features.class_token))[0]
    text = backbone().text
    prefix = text.encode_prefix(torch.cat([built.start_word, context]))
    tree = built.words.trees(*built.name_classes(SHOWN[1:2], 1), None)[1]
    return {
        **{f"image1_{tap}_tokens": each for tap, each in zip(TAPS, tokens, strict=True)},
        "image1_heads": torch.cat(built._project(features)),
        "image1_layer_maps": run(built, features, SHOWN[1:2]).layer_maps[:, 0, ::2, ::2],
        "image1_abnormal_sentences_norm": text.encode_tree(prefix, tree).norm(dim=-1),
    }


def rows(values: Values, prefix: str) -> list[Row]:
    """Compare values with the keys below a prefix, absolutely."""
    found = []
    for key, value in values.items():
        wanted = load()[prefix + key]
        limit = max(FORWARD, LARGE * float(np.abs(wanted).max()))
        found.append(Row(prefix + key, golden.difference(value.detach(), wanted), limit))
    return found


def stored_rows(values: Values, prefix: str) -> list[Row]:
    """Compare values by our names with what the file has stored, relative to its length."""
    file, found = load(), []
    for key in file:
        name, _, part = key.removeprefix(prefix).partition("#")
        if key.startswith(prefix):
            ours = recipe_filo.stored(values[rename(name)].detach().numpy())
            mine = torch.from_numpy(np.asarray(ours["#" if key.endswith("#") else ""]))
            far = golden.relative_difference(mine, file[key])
            found.append(Row(key, far if file[key].any() else float(mine.norm()), TRAINED))
    return found


def map_terms(layer_maps: Tensor, mask: Tensor) -> Tensor:
    """(7, 3): focal, Dice of the abnormal and of the normal map, row by row of one picture."""
    found = []
    for each in layer_maps[:, 0]:
        overlaps = [
            losses.dice(side[:, None], truth[:, None])
            for side, truth in ((each, mask), (1 - each, 1 - mask))
        ]
        found.append([losses.focal(torch.where(mask > 0.5, each, 1 - each)), *overlaps])
    return torch.tensor(found)


def train(built: FiLo, **training: Any) -> list[Row]:
    """Compare three steps of either stage, by the method's own recipe."""
    config = recipe_config("filo", "paper", training)
    optimizer = build_optimizer(built, config)
    set_learning_rate(optimizer, learning_rate_at(config, 0))
    found: list[Row] = []
    built.train()
    for stage, epoch in STAGES.items():
        built.begin_epoch(epoch, 6)
        for step, image in enumerate(recipe_filo.TRAINED):
            found += train_step(built, optimizer, image, f"{stage}/step{step}/")
            if step == 0:
                gradients = {n: p.grad for n, p in built.named_parameters() if p.grad is not None}
                found += stored_rows(gradients, f"{stage}/grad/")
            optimizer.step()
        moved = {name: p.detach() - start()[name] for name, p in built.named_parameters()}
        found += stored_rows(moved, f"{stage}/after/")
    built.eval()
    return found


def train_step(built: FiLo, optimizer: Any, image: int, prefix: str) -> list[Row]:
    """Take the loss and the gradients of one picture; compare the loss."""
    label = torch.tensor([recipe_filo.LABELS[image]])
    mask = torch.from_numpy(recipe.masks(recipe_filo.SEED, 4, 70))[image, None]
    out = run(built, pick(encode_images(), image), SHOWN[image : image + 1])
    loss = torch.stack(list(built.loss(out, label, mask).values())).sum()
    optimizer.zero_grad()
    loss.backward()
    beside = {"logits": out.image_logits[0]} if prefix[:6] == "stage2" else {
        "terms": map_terms(out.layer_maps.detach(), mask[0])
    }  # fmt: skip
    return rows({"loss": loss, **beside}, prefix)


def compare_clean() -> list[Row]:
    """Compare the preset whose layers are those it names, and whose Dice is of whole masks."""
    built, features = build(preset="clean"), encode_images("clean")
    with torch.no_grad():
        out = run(built, replace(features, pixels=None), SHOWN)
        built.train().begin_epoch(0, 6)
        masks = torch.from_numpy(recipe.masks(recipe_filo.SEED, 4, 70))
        taught = []
        for image in range(4):
            each = run(built, pick(features, image), SHOWN[image : image + 1])
            terms = built.loss(each, torch.tensor([0]), masks[image, None])
            taught.append(terms["local"])
    values = {"map": out.patch_map[1], "score": out.score, "loss_whole_mask": torch.stack(taught)}
    return rows(values, "clean/")


def ground(case: str, queries: Sequence[Query], **options: Any) -> Values:
    """Run the big picture with a made-up Grounding DINO's answers."""
    built = build(queries=queries, image_size=recipe_filo.BIG, **options)
    with torch.no_grad():
        out = run(built, encode_images(big=True), [recipe_filo.DINO_CASES[case][0]])
    white = torch.ones_like(out.patch_map)
    inside = dim_outside(white, out.boxes, slips=built.config.box_slips)[0] == 1
    places = inside.nonzero()
    span = [place for axis in places.T for place in (axis.min(), axis.max())] if len(places) else []
    return {
        "position": torch.tensor(-1.0 if out.positions[0] is None else out.positions[0]).float(),
        "score": out.score[0],
        "map": out.patch_map[0, :: recipe_filo.STRIDE, :: recipe_filo.STRIDE],
        "inside_count": inside.sum().float(),
        "inside_span": torch.tensor(span or [-1] * 4).float(),
    }


def asked(case: str) -> Sequence[Query]:
    """Return a case's queries; that of "capital" speaks, as in test.py, of nothing asked for.

    There its phrase is compared with "Uneven coating", and never equal; ours are.
    """
    queries = recipe_filo.DINO_CASES[case][1]
    return [(".", *query[1:]) for query in queries] if case == "capital" else queries


@cache
def compare() -> tuple[Row, ...]:
    """Compare every number of the file."""
    built, features = build(), encode_images()
    plain = replace(features, pixels=None)
    forced = build(queries=[("defect", 0.5, recipe_filo.FORCED_BOX)])
    found = rows(forward_values(built, plain, SHOWN) | image1_values(built), "eval/")
    found += rows(forward_values(forced, features, SHOWN), "box/")
    found += train(built)
    found += rows(forward_values(built, pick(features, 1), SHOWN[1:2]), "after/")
    found += compare_clean()
    for case in recipe_filo.DINO_CASES:
        found += rows(ground(case, asked(case)), f"big/{case}/")
    return tuple(found)


COMPARISONS: dict[str, Callable[[], Iterable[Row]]] = {"filo": compare}
