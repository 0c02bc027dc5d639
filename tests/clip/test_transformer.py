"""The modules that hold weights, against open_clip's own."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from faprompt.clip.backbone import build_backbone, build_clip
from tests.helpers.clip_files import build_open_clip

HEAVY = ("open_clip", "torchvision", "transformers", "timm", "huggingface_hub", "tabulate",
         "torch._dynamo", "sympy")  # fmt: skip


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_names_shapes_and_drawn_weights_are_open_clips(spec, quick_gelu):
    """Draws come in the same order, so that a seed gives the same weights, bit by bit."""
    spec = replace(spec, quick_gelu=quick_gelu)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        wanted = build_open_clip(spec).state_dict()
        torch.manual_seed(3)
        ours = build_clip(spec).state_dict()
    assert ours.keys() == wanted.keys()
    assert [key for key in wanted if not torch.equal(ours[key], wanted[key])] == []


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_the_activation_is_open_clips(spec, quick_gelu):
    values = torch.linspace(-5, 5, 101)
    spec = replace(spec, quick_gelu=quick_gelu)
    with torch.device("meta"):
        ours, theirs = build_clip(spec), build_open_clip(spec)
    for tower in ("visual.transformer", "transformer"):
        found, wanted = (
            clip.get_submodule(f"{tower}.resblocks.0.mlp.gelu")(values) for clip in (ours, theirs)
        )
        assert torch.equal(found, wanted)


def test_the_meta_device_draws_nothing(spec, state):
    before = torch.get_rng_state()
    backbone = build_backbone(spec, state, name="x")
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(tensor.is_meta for tensor in backbone.state_dict().values())


def test_bundled_models_import_no_library_that_they_do_not_use():
    code = (
        "import sys\nfrom faprompt.models import *\nload_detector('tiny')\n"
        "build_method('relations', load_backbone('efficientnet-lite0'))\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]", run.stdout
