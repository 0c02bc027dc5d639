"""One small CLIP with random weights: ours, and open_clip's own with the same weights."""

import numpy as np
import pytest
import torch

from faprompt.clip.backbone import build_backbone
from faprompt.clip.spec import infer_spec
from tests.golden import recipe
from tests.helpers import naive
from tests.helpers.clip_files import build_open_clip, write_openai_archive

SHAPE = {
    "embed_dim": 48, "resolution": 56, "patch": 14, "vision_width": 128, "vision_layers": 6,
    "text_width": 128, "text_layers": 5,
}  # fmt: skip


@pytest.fixture(scope="session")
def state():
    drawn = recipe.clip_state_dict(3, **SHAPE)
    return {key: torch.as_tensor(np.asarray(value)) for key, value in drawn.items()}


@pytest.fixture(scope="session")
def slow_state(state):
    return naive.as_numpy(state)


@pytest.fixture(scope="session")
def spec(state):
    return infer_spec(state, quick_gelu=True)


@pytest.fixture(scope="session")
def backbone(spec, state):
    return build_backbone(spec, state, name="small")


@pytest.fixture(scope="session")
def rival(spec, state):
    """open_clip's CLIP, run by open_clip's own forward passes."""
    clip = build_open_clip(spec)
    clip.load_state_dict(state)
    return clip.requires_grad_(False).eval()


@pytest.fixture(scope="session")
def file_state():
    """Weights for file formats: two layers, 300 tokens, values that float16 holds exactly."""
    drawn = recipe.clip_state_dict(
        5, embed_dim=32, resolution=28, patch=14, vision_width=64, vision_layers=2,
        text_width=64, text_layers=2, vocab=300,
    )  # fmt: skip
    return {key: torch.as_tensor(np.asarray(value)).half().float() for key, value in drawn.items()}


@pytest.fixture(scope="session")
def file_backbone(file_state):
    """What every file of `file_state` with QuickGELU should become."""
    return build_backbone(infer_spec(file_state, quick_gelu=True), file_state, name="file")


@pytest.fixture(scope="session")
def archive(tmp_path_factory, file_state):
    """`file_state` as a TorchScript archive like OpenAI's."""
    return write_openai_archive(tmp_path_factory.mktemp("openai") / "ViT-small.pt", file_state)
