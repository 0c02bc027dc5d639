"""Damaged model folders, backbones and checkpoints: loaded, or refused with a sentence.

A few hundred seeded mutations of the bytes of each file. Nothing but an error of ours may come
out, whatever is damaged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from faprompt.clip.backbone import build_backbone
from faprompt.clip.spec import BackboneSpec, TextSpec, VisionSpec
from faprompt.clip.weights import load_backbone, save_backbone
from faprompt.config import read_json
from faprompt.errors import ConfigError, FapromptError, ModelError
from faprompt.methods.registry import build_method
from faprompt.model_folder import bounded_tensors, check_options, load_weights, read_config
from faprompt.training.checkpoint import load_checkpoint, restore
from faprompt.training.training_config import TrainingConfig
from faprompt.training.training_steps import build_optimizer
from tests.helpers import small
from tests.helpers.clip_files import write_open_clip_folder, write_transformers_folder
from tests.training import toys

WORDS = (b"NaN", b"1e999", b"99999", b"-", b"null", b"[", b'"', b"{", b"\xff", b"true", b"0.0")


def mutations(content: bytes, count: int, *, seed: int) -> Iterator[bytes]:
    """Bits turned, bytes replaced, lost and doubled, words of JSON put in, and the end cut."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        data = bytearray(content)
        for _ in range(draw.integers(1, 4)):
            place, length = int(draw.integers(0, len(data) + 1)), int(draw.integers(1, 30))
            kind = draw.integers(0, 6)
            if kind == 0 and place < len(data):
                data[place] ^= 1 << int(draw.integers(0, 8))
            elif kind == 1:
                data[place : place + 8] = draw.bytes(8)
            elif kind == 2:
                del data[place : place + length]
            elif kind == 3:
                data[place:place] = data[place : place + length]
            elif kind == 4:
                data[place:place] = WORDS[draw.integers(0, len(WORDS))]
            elif kind == 5 and draw.integers(0, 4) == 0:
                del data[place:]
        yield bytes(data)


def outcomes(path, call, count: int, *, seed: int) -> dict[str, int]:
    """How often each mutation of a file was loaded, and refused; any other error is raised."""
    content, found = path.read_bytes(), {"loaded": 0, "refused": 0}
    for data in mutations(content, count, seed=seed):
        path.write_bytes(data)
        try:
            call()
            found["loaded"] += 1
        except (ModelError, ConfigError) as error:
            assert str(error)
            found["refused"] += 1
    path.write_bytes(content)
    call()
    return found


@pytest.fixture
def folder(tmp_path):
    small.detector(threshold=0.4, prompts=3).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_config_of_a_model(folder):
    def call():
        check_options(read_config(folder), folder)

    assert outcomes(folder / "config.json", call, 400, seed=1)["refused"] > 300


def test_weights_of_a_model(folder):
    method = small.method(prompts=3)
    found = outcomes(
        folder / "model.safetensors", lambda: load_weights(method, folder), 300, seed=2
    )
    assert found["refused"] > 200
    assert all(torch.isfinite(parameter).all() for parameter in method.parameters())


def test_any_value_in_any_place_of_a_config(folder):
    """What a mutation of bytes hits too rarely: valid JSON, and another meaning."""
    values = (None, True, -1, 0, 2**62, 1e300, "", "a\x00", [], [[1]], {}, {"a": None}, "x" * 999)
    config = json.loads((folder / "config.json").read_text())
    places = [(config, key) for key in config]
    places += [(config[part], key) for part in ("options", "backbone") for key in config[part]]
    for holder, key in places:
        kept = holder[key]
        for value in values:
            holder[key] = value
            (folder / "config.json").write_text(json.dumps(config))
            try:
                read = read_config(folder)
                check_options(read, folder)
                with bounded_tensors(1 << 26):
                    build_method(read["method"], small.backbone(), read["options"])
            except (FapromptError, MemoryError, RuntimeError) as error:
                assert str(error)  # `load_detector` makes a ModelError of the latter two
        holder[key] = kept


@pytest.fixture(scope="module")
def stemmed():
    spec = BackboneSpec(
        embed_dim=16,
        quick_gelu=False,
        vision=VisionSpec(
            image_size=32, patch_size=8, width=32, layers=2, heads=1,
            stem_channels=(8, 16), stem_strides=(2, 2, 2),
        ),
        text=TextSpec(width=32, layers=1, heads=1, context_length=12, vocab_size=3),
        vocabulary=(14115, 49406, 49407),
    )  # fmt: skip
    return build_backbone(spec, name="stemmed")


@pytest.mark.parametrize(("file", "seed"), [("backbone.json", 3), ("model.safetensors", 4)])
def test_own_backbones(stemmed, tmp_path, file, seed):
    save_backbone(stemmed, tmp_path)
    found = outcomes(tmp_path / file, lambda: load_backbone(tmp_path), 150, seed=seed)
    assert found["refused"] > 75


@pytest.mark.parametrize(
    "change",
    [
        {"embed_dim": 0}, {"embed_dim": "16"}, {"embed_dim": 1e300}, {"quick_gelu": 1},
        {"mean": [0, 0]}, {"std": [1, 1, 0]}, {"std": "abc"}, {"vision": []}, {"text": 3},
        {"vision.layers": 10**9}, {"vision.layers": True}, {"vision.heads": 0},
        {"vision.heads": 5}, {"vision.patch_size": 0}, {"vision.mlp_ratio": -1},
        {"vision.stem_strides": [2, 2]}, {"vision.stem_strides": 8}, {"vision.value_blocks": "x"},
        {"vision.stem_channels": [7, 16]}, {"vision.image_size": -32}, {"text.width": 2**40},
        {"text.context_length": 0}, {"text.layers": 0}, {"vocabulary": 5}, {"vision.width": "x"},
        {"vocabulary": ["a", "b", "c"]}, {"vocabulary": [14115, 49407, 49408]},
    ],
)  # fmt: skip
def test_descriptions_of_what_cannot_be_built(stemmed, tmp_path, change):
    save_backbone(stemmed, tmp_path)
    spec = json.loads((tmp_path / "backbone.json").read_text())
    for name, value in change.items():
        *above, last = name.split(".")
        holder = spec[above[0]] if above else spec
        holder[last] = value
    (tmp_path / "backbone.json").write_text(json.dumps(spec))
    with pytest.raises(ModelError):
        load_backbone(tmp_path)


@pytest.mark.parametrize(
    ("write", "file", "seed"),
    [
        (write_open_clip_folder, "open_clip_config.json", 5),
        (write_transformers_folder, "config.json", 6),
    ],
)
def test_other_peoples_backbones(write, file, seed, tmp_path, drawn):
    write(tmp_path / "b", drawn)
    outcomes(tmp_path / "b" / file, lambda: load_backbone(tmp_path / "b"), 100, seed=seed)


@pytest.fixture(scope="module")
def drawn():
    from tests.golden import recipe

    state = recipe.clip_state_dict(
        5, embed_dim=32, resolution=28, patch=14, vision_width=64, vision_layers=2,
        text_width=64, text_layers=2, vocab=300,
    )  # fmt: skip
    return {key: torch.as_tensor(np.asarray(value)) for key, value in state.items()}


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("visual.conv1.weight", torch.zeros(()), "visual.conv1.weight is"),
        ("visual.positional_embedding", torch.zeros(0, 64), "none of them empty"),
        ("ln_final.weight", torch.zeros(64, 2), "wanted 1 axes"),
        ("visual.proj", torch.zeros(64, 32, dtype=torch.int32), "visual.proj is stored as int32"),
        ("visual.proj", torch.full((64, 32), float("nan")), "visual.proj holds values that are"),
    ],
)
def test_tensors_of_a_backbone(key, value, told, tmp_path, drawn):
    torch.save({**drawn, key: value}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match=told):
        load_backbone(f"{tmp_path / 'w.pt'}:gelu")


def test_checkpoints_of_a_training(tmp_path):
    samples = toys.draw_samples(tmp_path)
    options = {"epochs": 1, "tensorboard": False}
    report = toys.run(toys.faprompt(), samples, tmp_path, options=options)
    method = toys.faprompt()
    optimizer = build_optimizer(method, TrainingConfig())

    def call():
        restore(load_checkpoint(report.checkpoint)[1], method, optimizer)

    assert outcomes(report.checkpoint, call, 300, seed=7)["refused"] > 150


def test_tensors_above_a_bound_are_refused_while_the_block_runs():
    with bounded_tensors(4000):
        assert torch.empty(1000).nbytes == 4000
        for build in (lambda: torch.empty(1001), lambda: torch.nn.Linear(100, 100)):
            with pytest.raises(MemoryError, match="a tensor"):
                build()
    assert torch.empty(1001).nbytes == 4004


def test_a_settings_file_that_is_too_long(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b" " * (16 << 20) + b"{}")
    with pytest.raises(ValueError, match="longer than 16 MiB"):
        read_json(path)
