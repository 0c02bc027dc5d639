"""Methods by the names that scripts rely on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from faprompt.clip.backbone import Backbone
from faprompt.config import from_mapping
from faprompt.errors import ConfigError
from faprompt.methods.anomalyclip import AnomalyCLIP
from faprompt.methods.base import Method
from faprompt.methods.faprompt import FAPrompt, FAPromptConfig, count_parameters
from faprompt.methods.plain_clip import CLIPAC, PlainCLIP

METHODS: dict[str, type[Method]] = {
    "clip": PlainCLIP,
    "clip-ac": CLIPAC,
    "anomalyclip": AnomalyCLIP,
    "faprompt": FAPrompt,
}
KINDS = {"clip": "training-free", "clip-ac": "training-free"}


def list_methods() -> list[str]:
    """Names of all methods."""
    return list(METHODS)


def describe_methods() -> list[dict[str, Any]]:
    """A row a method: name, kind, presets, live and reported parameters at the paper's size."""
    counts = {
        "faprompt": asdict(count_parameters(FAPromptConfig())),
        "anomalyclip": {"live": 43_008, "reported": 5_555_200},  # spec 4.7, tested
    }
    return [
        {
            "name": name,
            "kind": KINDS.get(name, "learned"),
            "presets": list(cls.presets),
            "parameters": counts.get(name, {"live": 0})["live"],
            "reported_parameters": counts.get(name, {"reported": 0})["reported"],
        }
        for name, cls in METHODS.items()
    ]


def method_class(name: str) -> type[Method]:
    """The class behind a name.

    Raises:
        ConfigError: no such method; the known ones are listed.
    """
    if name not in METHODS:
        raise ConfigError(f"No method {name!r}; known: {', '.join(METHODS)}.")
    return METHODS[name]


def build_method(
    name: str,
    backbone: Backbone,
    options: Mapping[str, Any] | None = None,
    *,
    preset: str = "paper",
    seed: int = 111,
) -> Method:
    """A method with freshly drawn parameters.

    Args:
        name: one of `list_methods()`.
        backbone: it is read for sizes, tokens and the embeddings of fixed words.
        options: any field of the method's config; they go before the preset.
        preset: "paper", or "official" where a method's public code differs.
        seed: of the initial values; the global random state is left as it was.

    Raises:
        ConfigError: unknown method, preset or option, or values that do not fit, be it
            in themselves or to this backbone.
    """
    cls = method_class(name)
    if preset not in cls.presets:
        raise ConfigError(f"{name} has no preset {preset!r}; known: {', '.join(cls.presets)}.")
    values = {**cls.presets[preset], **(options or {})}
    config = from_mapping(cls.config_class, values, what=f"{name} options")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would reach every GPU's too
        try:
            return cls(config, backbone).to(backbone.device)
        except ValueError as error:  # options that this backbone cannot serve
            raise ConfigError(f"{name} on {backbone.name}: {error}") from error
