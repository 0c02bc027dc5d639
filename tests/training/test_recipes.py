"""How a method is trained: its recipe between the defaults and what the user gave."""

import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from faprompt.cli.train_command import train_command
from faprompt.errors import ConfigError
from faprompt.methods.registry import METHODS, list_methods
from faprompt.training.training_config import (
    WORK_OPTIONS,
    TrainingConfig,
    describe_recipe,
    recipe_config,
)
from tests.helpers import small

SGD = {
    "optimizer": "sgd", "learning_rate": 0.002, "momentum": 0.9, "weight_decay": 5e-4,
    "schedule": "cosine", "warmup_epochs": 1, "warmup_rate": 1e-5,
}  # fmt: skip
TCP = {
    "optimizer": "adam", "learning_rate": 0.002, "betas": (0.9, 0.999), "eps": 1e-3,
    "weight_decay": 5e-4, "schedule": "cosine", "warmup_epochs": 1, "warmup_rate": 1e-5,
    "epochs": 50, "batch_size": 8,
}  # fmt: skip
ANOMALYCLIP = {
    "optimizer": "adam", "learning_rate": 1e-3, "betas": (0.5, 0.999), "eps": 1e-8,
    "weight_decay": 0.0, "schedule": "constant", "warmup_epochs": 0, "batch_size": 8,
    "epochs": 15,
}  # fmt: skip
FILO = {  # 15 epochs and 5
    **ANOMALYCLIP, "optimizer": "adamw", "weight_decay": 0.01, "batch_size": 1, "epochs": 20,
}  # fmt: skip
WANTED = {  # of the methods' public code
    ("coop", "paper"): {**SGD, "batch_size": 8, "epochs": 50},
    ("cocoop", "paper"): ANOMALYCLIP,
    ("cocoop", "original"): {**SGD, "batch_size": 1, "epochs": 10},
    ("anomalyclip", "paper"): ANOMALYCLIP,
    ("anomalyclip", "official"): ANOMALYCLIP,
    ("anomalyclip-ensemble", "paper"): ANOMALYCLIP,
    ("anomalyclip-ensemble", "official"): ANOMALYCLIP,
    ("tcp-v1", "paper"): TCP,
    ("tcp-v1", "image-only"): TCP,
    ("tcp-v2", "paper"): TCP,
    ("tcp-v2", "image-only"): TCP,
    ("april-gan", "paper"): ANOMALYCLIP,
    ("april-gan", "common"): ANOMALYCLIP,
    **dict.fromkeys([("filo", "paper"), ("filo", "common"), ("filo", "clean")], FILO),
    ("faprompt", "first-upload"): {**ANOMALYCLIP, "epochs": 15},
}  # fmt: skip
SHOWN = ("paper", "original", "first-upload")
NAMED = {key: recipe_config(*key, {}) for key in WANTED if key[1] in SHOWN}
NAMED["faprompt", "paper"] = TrainingConfig()


@pytest.mark.parametrize("key", WANTED, ids=" ".join)
def test_recipes_are_the_public_codes(key):
    config = recipe_config(*key, {})
    assert {name: getattr(config, name) for name in WANTED[key]} == WANTED[key]
    rest = {f.name for f in fields(TrainingConfig)} - set(WANTED[key])
    assert all(getattr(config, name) == getattr(TrainingConfig(), name) for name in rest)


def test_nothing_else_has_one_and_faprompt_is_the_default():
    methods = {name: cls for name, cls in METHODS.items() if not cls.full_shot}
    assert {(n, preset) for n, cls in methods.items() for preset in cls.recipes} == set(WANTED)
    for preset in set(METHODS["faprompt"].presets) - {"first-upload"}:
        assert recipe_config("faprompt", preset, {}) == TrainingConfig()


@pytest.mark.parametrize("name", list_methods())
def test_recipes_are_of_presets_and_say_what_is_learned(name):
    """Nothing of a machine or of the data stands in a recipe; `[training]` alone says that."""
    cls = METHODS[name]
    assert set(cls.recipes) <= set(cls.presets)
    options = {option for recipe in cls.recipes.values() for option in recipe}
    kept = {"seed", "cache_dtype", "bit_depth", "mask_policy", "unmasked", *WORK_OPTIONS}
    assert not options & (kept - {"epochs"})


def test_shares_of_the_rate_are_of_parameters_there_are():
    shares = {name: cls.rate_factors for name, cls in METHODS.items() if cls.rate_factors}
    assert shares == {"filo": {"linears.": 0.1, "shapes.": 0.1, "adapter.": 0.01}}
    names = [name for name, _ in small.method("filo").named_parameters()]
    parts = {name.partition(".")[0] + "." for name in names}
    assert parts == {"normal_prompts.", "abnormal_prompts.", *shares["filo"]}


class TestMerging:
    def test_what_is_given_goes_before_the_recipe_and_that_before_the_defaults(self):
        config = recipe_config("tcp-v1", "paper", {"epochs": "3", "seed": 5}, device="cpu")
        assert (config.epochs, config.seed, config.device) == (3, 5, "cpu")
        assert (config.learning_rate, config.eps, config.batch_size) == (0.002, 1e-3, 8)

    def test_what_is_fixed_goes_before_all(self):
        assert recipe_config("coop", "paper", {"seed": 5, "epochs": 3}, seed=7).seed == 7

    def test_momentum_goes_with_its_optimizer(self):
        config = recipe_config("coop", "paper", {"optimizer": "adamw"})
        assert (config.optimizer, config.momentum, config.learning_rate) == ("adamw", 0.0, 0.002)
        same = recipe_config("coop", "paper", {"optimizer": "sgd"})
        assert same.momentum == 0.9
        own = recipe_config("faprompt", "paper", {"optimizer": "sgd", "momentum": 0.5})
        assert (own.optimizer, own.momentum) == ("sgd", 0.5)

    def test_all_alike(self):
        alike = {f.name: getattr(TrainingConfig(), f.name) for f in fields(TrainingConfig)}
        for name, preset in WANTED:
            assert recipe_config(name, preset, alike) == TrainingConfig()

    @pytest.mark.parametrize(
        ("method", "preset", "given", "told"),
        [
            ("magic", "paper", {}, "No method 'magic'"),
            ("coop", "official", {}, "coop has no preset 'official'; known: paper"),
            ("coop", "paper", {"epoch": 3}, "^training options: unknown option 'epoch'"),
            ("coop", "paper", {"epochs": 0}, "epochs should be at least 1, got 0"),
            ("coop", "paper", {"optimizer": "lion"}, "'lion' is none of adam, adamw, sgd"),
            ("coop", "paper", {"schedule": "step"}, "'step' is none of constant, cosine"),
            (
                "coop", "paper", {"optimizer": "adam", "momentum": 0.9},
                "momentum=0.9 is of sgd, and optimizer is adam; leave one of them out",
            ),
            ("faprompt", "paper", {"momentum": "0.9"}, "momentum=0.9 is of sgd"),
        ],
    )  # fmt: skip
    def test_refusals(self, method, preset, given, told):
        with pytest.raises(ConfigError, match=told):
            recipe_config(method, preset, given)


def lines_of(text):
    return [" ".join(line.replace("|", " ").replace("`", "").split()) for line in text.splitlines()]


def test_the_help_names_every_recipe():
    lines = lines_of(inspect.getdoc(train_command) or "")
    for (name, preset), config in NAMED.items():
        shown = {"tcp-v1": "tcp-v1, tcp-v2", "tcp-v2": "tcp-v1, tcp-v2"}.get(name, name)
        own = f"{shown}, {preset}" if preset != "paper" else shown
        assert f"{own} {describe_recipe(config)}" in lines


def test_the_docs_name_every_recipe():
    page = Path(__file__).resolve().parents[2] / "docs" / "methods.md"
    text = page.read_text(encoding="utf-8")
    rows = lines_of("\n".join(line for line in text.splitlines() if line.startswith("| `")))
    for (name, preset), config in NAMED.items():
        own = f"{name} {preset}" if preset != "paper" else name
        assert [row for row in rows if row.startswith(f"{own} {describe_recipe(config)}")], own
