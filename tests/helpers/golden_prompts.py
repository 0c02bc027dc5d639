"""CoOp, CoCoOp and TCP beside the outputs of their authors' code, key by key.

`tests/golden/rivals/README-prompts.md` says what the files hold.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faprompt.clip.backbone import Backbone, build_backbone
from faprompt.clip.spec import infer_spec
from faprompt.clip.vision import ImageFeatures, ImageOptions
from faprompt.methods.registry import build_method
from faprompt.scoring import pair_logits, unit
from faprompt.training.training_config import recipe_config
from faprompt.training.training_steps import build_optimizer, learning_rate_at, set_learning_rate
from tests.golden import recipe
from tests.helpers import golden
from tests.helpers.golden_rows import Row

sys.modules.setdefault("recipe", recipe)  # the recipes import it by its bare name
from tests.golden.rivals import recipe_prompts  # noqa: E402

FEATURES, GRADIENTS, STEPS = 1e-4, 1e-3, 1e-4  # limits: absolute, then relative to the length
PLAIN = {"plain_path": True, "local_weight": 0.0}  # as the authors: CLIP's tokens, no masks
PLACEHOLDER = 343  # the token that stands for a learned vector in `token_ids`
STATES: Mapping[str, Callable[..., dict[str, np.ndarray]]] = {
    "coop": recipe_prompts.coop_state,
    "cocoop": recipe_prompts.cocoop_state,
    "tcp": recipe_prompts.tcp_state,
}


@dataclass(frozen=True)
class Case:
    """What the keys under one prefix were made with."""

    preset: str = "paper"
    options: Mapping[str, Any] = field(default_factory=dict)
    pictures: tuple[int, ...] = (0, 1, 2, 3)


TCP_CASES = {
    **dict.fromkeys(("one", "two", "wide"), Case(options=PLAIN)),
    "two_first_class": Case(options=PLAIN, pictures=(0, 1)),
    "harness": Case(),
}
CASES: Mapping[str, Mapping[str, Case]] = {
    "coop": dict.fromkeys(("one", "two", "wide", "harness"), Case()),
    "cocoop": {
        **dict.fromkeys(("one", "two", "wide"), Case("original")),
        "one_tau007": Case("original", {"temperature": 0.07}),
        "harness": Case(),
    },
    "tcp_v1": TCP_CASES,
    "tcp_v2": TCP_CASES,
}


@cache
def load(name: str) -> dict[str, np.ndarray]:
    """Read the arrays of a golden file, by key."""
    return golden.load(f"rivals/{name}")


@cache
def backbone(wide: bool = False) -> Backbone:
    """Build the drawn CLIP; the wide one has three different widths."""
    if not wide:
        return golden.backbone()
    arrays = recipe.clip_state_dict(recipe_prompts.WIDE_SEED, **recipe_prompts.WIDE_SHAPE)
    state = {key: torch.as_tensor(np.asarray(value)) for key, value in arrays.items()}
    return build_backbone(infer_spec(state, quick_gelu=True), state, name="golden-wide")


@cache
@torch.no_grad()
def encode_images(prefix: str, *, plain: bool) -> ImageFeatures:
    """Encode the four pictures of a prefix, on CLIP's own path or on the V-V path."""
    draw: Mapping[str, Callable[[], np.ndarray]] = {
        "harness": recipe_prompts.harness_images,
        "wide": partial(recipe_prompts.images, recipe_prompts.WIDE_SEED),
    }
    pixels = torch.from_numpy(draw.get(prefix, recipe_prompts.images)())
    tower = backbone(prefix == "wide")
    return tower.encode_image(pixels, ImageOptions(value_path=not plain, class_ln_post=plain))


class Rebuilt:
    """A method with the parameters of its file, and the batch of one prefix."""

    def __init__(self, name: str, prefix: str, **options: Any) -> None:
        self.name, self.prefix, self.case = name, prefix, CASES[name][prefix]
        self.backbone = backbone(prefix == "wide")
        method: Any = build_method(
            name.replace("_", "-"), self.backbone,
            {"image_size": 70 if prefix == "harness" else 56, **self.case.options, **options},
            preset=self.case.preset,
        )  # fmt: skip
        self.classes = recipe_prompts.PLAIN if prefix[:3] == "one" else recipe_prompts.CLASSES
        self.method = method.train()
        drawn = STATES[name.partition("_")[0]](*self._seed_and_shape())
        self.start = {self.rename(key): torch.from_numpy(value) for key, value in drawn.items()}
        method.load_state_dict(self.start)
        method.begin_training(sorted(self.classes))

    def _seed_and_shape(self) -> tuple[int, dict[str, int]]:
        if self.prefix == "wide":
            return recipe_prompts.WIDE_SEED, recipe_prompts.WIDE_SHAPE
        return recipe_prompts.SEED, recipe_prompts.SHAPE

    def rename(self, key: str) -> str:
        """Return our name of one of their parameters."""
        ours = "context" if key == "ctx" else key
        return f"learner.{ours}" if self.name == "cocoop" else ours

    def parameters(self, kind: str) -> dict[str, str]:
        """Return the keys of the file below `kind` (grad or after), with our parameter names."""
        start = f"{self.prefix}/{kind}/"
        named = {key: self.rename(key.removeprefix(start)) for key in load(self.name)}
        return {key: name for key, name in named.items() if name in self.start}

    def features(self, pictures: Sequence[int] | None = None) -> ImageFeatures:
        """Return the tokens of some pictures; None for those of the case."""
        chosen = list(self.case.pictures if pictures is None else pictures)
        whole = encode_images(self.prefix, plain=self.method.config.plain_path)
        tokens = {layer: each[chosen] for layer, each in whole.patch_tokens.items()}
        return replace(whole, class_token=whole.class_token[chosen], patch_tokens=tokens)

    def losses(self, pictures: Sequence[int] | None = None) -> tuple[Any, dict[str, Tensor]]:
        """Run a batch forward: the output and the loss terms."""
        chosen = list(self.case.pictures if pictures is None else pictures)
        shown = [self.classes[min(recipe_prompts.SHOWN[i], len(self.classes) - 1)] for i in chosen]
        output = self.method(self.features(chosen), self.backbone.text, class_names=shown)
        mask = torch.zeros(4, 56, 56)
        if self.prefix == "harness":
            mask = torch.from_numpy(recipe_prompts.harness_masks())
        label = torch.tensor(recipe_prompts.LABELS)[chosen]
        return output, self.method.loss(output, label, mask[chosen])

    def texts(self) -> Tensor:
        """Encode both states of all classes: (2 C, D), or (4, 2 C, D) where images decide."""
        text, method = self.backbone.text, self.method
        names = method.name_classes(self.classes, len(self.classes))
        if self.name != "cocoop":
            pairs = method.encode_pairs(text, names)
            return (pairs if self.name == "coop" else pairs[0]).flatten(0, 1)
        features = self.features()
        pairs = [method.text_pair(features, text, None, [name] * 4).pair for name in names]
        return torch.cat(pairs, dim=1)

    def meta_net(self) -> Tensor:
        """Return what CoCoOp's net makes of the images, or TCP's of its knowledge."""
        if self.name == "cocoop":
            return self.method.learner.meta_net(unit(self.features().class_token))
        return self.method.meta_net(self.knowledge())

    def knowledge(self) -> Tensor:
        """Return TCP's frozen features of both states of all classes, (2 C, D)."""
        names = self.method.name_classes(self.classes, len(self.classes))
        return self.method.encode_pairs(self.backbone.text, names)[1].flatten(0, 1)

    def prompts(self) -> tuple[Tensor, Tensor]:
        """Return token ids (2 C, 24) and the vectors of positions 0 to 15 of every prompt."""
        method, text = self.method, self.backbone.text
        words, _ = method.encode_words(text, method.name_classes(self.classes, len(self.classes)))
        words = words.flatten(0, 1)
        table = text.token_embedding.weight
        said = torch.cdist(words, table).argmin(dim=-1)
        count = method.config.context_tokens
        start = torch.cdist(method.start_word, table).argmin(dim=-1)
        ids = torch.zeros(len(words), 24, dtype=torch.int64)
        ids[:, : 1 + count] = torch.tensor([int(start), *[PLACEHOLDER] * count])
        ids[:, 1 + count : 1 + count + said.shape[1]] = said
        context = method.learner(self.features().class_token) if self.name == "cocoop" else (
            method.context[None]
        )  # fmt: skip
        vectors = table[ids[:, :16]].expand(len(context), -1, -1, -1).clone()
        vectors[:, :, 1 : 1 + count] = context[:, None]
        return ids, vectors if self.name == "cocoop" else vectors[0]

    @torch.no_grad()
    def forward_values(self) -> dict[str, Tensor]:
        """Return all values of one forward, by the last part of their key."""
        features, texts = self.features(), self.texts()
        image = features.class_token
        output, terms = self.losses()
        temperature = self.method.config.temperature
        ids, vectors = self.prompts()
        values = {
            "text_features": texts,
            "text_features_unit": unit(texts),
            "image_features": image,
            "image_features_unit": unit(image),
            "logits": pair_logits(image[:, None], texts, temperature=temperature)[:, 0],
            "own_logits": output.image_logits,
            "image_logits": output.image_logits,
            "patch_features": next(iter(features.patch_tokens.values())),
            "patch_probability": output.patch_map.flatten(1),
            "token_ids": ids,
            "prompts_tokens_0_to_15": vectors,
            "loss_total": torch.stack(list(terms.values())).sum(),
            **{f"loss_{term}": value for term, value in terms.items()},
        }
        if self.name != "coop":
            values["meta_net"] = self.meta_net()
        if self.name.startswith("tcp"):
            values["knowledge_features"] = self.knowledge()
        return values


def compare_forward(rebuilt: Rebuilt, start: str) -> list[Row]:
    """Compare the values of one forward that the file holds below `start`."""
    file = load(rebuilt.name)
    ours = {f"{start}{key}": value for key, value in rebuilt.forward_values().items()}
    return [
        Row(key, golden.difference(value, file[key]), 0 if "token_ids" in key else FEATURES)
        for key, value in ours.items()
        if key in file
    ]


def compare_gradients(rebuilt: Rebuilt) -> list[Row]:
    """Compare the gradients of the whole loss, relative to their length."""
    _, terms = rebuilt.losses()
    torch.stack(list(terms.values())).sum().backward()
    found = {name: p.grad.clone() for name, p in rebuilt.method.named_parameters()}
    rebuilt.method.zero_grad()
    return [
        Row(key, golden.relative_difference(found[name], load(rebuilt.name)[key]), GRADIENTS)
        for key, name in rebuilt.parameters("grad").items()
    ]


def take_steps(rebuilt: Rebuilt, **training: Any) -> dict[str, float]:
    """Train for three epochs of one step, by the method's own recipe; learning rates and losses."""
    config = recipe_config(rebuilt.name.replace("_", "-"), rebuilt.case.preset, training)
    optimizer = build_optimizer(rebuilt.method, config)
    found: dict[str, float] = {}
    for epoch in range(3):
        _, terms = rebuilt.losses((epoch,) if config.batch_size == 1 else None)
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        total.backward()
        rate = learning_rate_at(config, epoch)
        set_learning_rate(optimizer, rate)
        optimizer.step()
        found |= {f"step{epoch}/learning_rate": rate, f"step{epoch}/loss_total": total.item()}
    rest = load(rebuilt.name)["one/learning_rates_from_epoch_3"]
    rates = [learning_rate_at(config, epoch) for epoch in range(3, config.epochs)]
    found["learning_rates_from_epoch_3"] = (
        float(np.abs(np.array(rates) - rest).max()) if len(rates) == len(rest) else float("inf")
    )
    return found


def compare_steps(rebuilt: Rebuilt, **training: Any) -> list[Row]:
    """Compare three steps and what they made of the parameters; see `take_steps`."""
    file, found = load(rebuilt.name), take_steps(rebuilt, **training)
    rows = [Row("one/learning_rates_from_epoch_3", found.pop("learning_rates_from_epoch_3"), 1e-9)]
    for key, value in found.items():
        limit = 1e-9 if key.endswith("rate") else FEATURES
        rows.append(Row(f"one/{key}", abs(value - float(file[f"one/{key}"])), limit))
    after = dict(rebuilt.method.named_parameters())
    for key, name in rebuilt.parameters("after").items():
        start = rebuilt.start[name]
        moved = golden.relative_difference(after[name] - start, file[key] - start.numpy())
        rows.append(Row(key, moved, STEPS))
    return rows + compare_forward(rebuilt, "one/after/")


@cache
def compare(name: str) -> tuple[Row, ...]:
    """Compare every number of a file."""
    rows: list[Row] = []
    for prefix in CASES[name]:
        rebuilt = Rebuilt(name, prefix)
        rows += compare_forward(rebuilt, f"{prefix}/") + compare_gradients(rebuilt)
        if prefix == "one":
            rows += compare_steps(rebuilt)
    return tuple(rows)


COMPARISONS: dict[str, Callable[[], Iterable[Row]]] = {
    name: partial(compare, name) for name in CASES
}
