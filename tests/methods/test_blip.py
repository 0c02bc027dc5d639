"""Methods on BLIP in CLIP's place: the suites, and FAPrompt's sizes there."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")

from faprompt.errors import ModelError  # noqa: E402
from faprompt.methods.faprompt import FAPromptConfig, count_parameters  # noqa: E402
from faprompt.model_folder import read_config  # noqa: E402
from faprompt.models import load_detector  # noqa: E402
from faprompt.prompts.prompt_parts import sentence_tree, start_vector  # noqa: E402
from tests.helpers import blip_files, small  # noqa: E402
from tests.methods.suite import LearnedSuite, TrainingFreeSuite  # noqa: E402
from tests.methods.test_anomalyclip import AnomalyCLIPSuite  # noqa: E402
from tests.methods.test_coop import TCPSuite  # noqa: E402
from tests.methods.test_faprompt import FAPromptSuite  # noqa: E402


@pytest.fixture(autouse=True)
def _blip_in_clips_place(monkeypatch):
    monkeypatch.setattr(small, "backbone", blip_files.backbone)


class TestFAPrompt(FAPromptSuite):
    options = {"prompts": 3}
    prompts = 3

    def test_the_prior_goes_from_the_joint_space_to_berts_width(self, detector, features):
        """256 M -> 16 M -> 768 on the real one; 32 M -> 2 M -> 64 on this."""
        prior = detector.method.prior
        assert [tuple(weight.shape) for weight in prior.parameters()] == [
            (20, 320), (20,), (64, 20), (64,),
        ]  # fmt: skip
        with torch.no_grad():
            output = self.run(detector.method, features)
        assert output.prior.shape == (3, 64) and output.refined_text.shape == (3, 3, 32)
        counted = sum(p.numel() for p in detector.method.parameters())
        depth = detector.method.prompts.deep_prompts.shape[0] + 1  # as deep as the small tower
        config = FAPromptConfig(prompts=3, deep_depth=depth)
        assert counted == count_parameters(config, embed_dim=32, text_width=64).live

    def test_the_real_ones_size(self):
        assert count_parameters(FAPromptConfig(), embed_dim=256).live == 577_184

    def test_the_folder_names_its_backbone(self, detector, tmp_path):
        detector.save_pretrained(tmp_path / "model")
        recorded = read_config(tmp_path / "model")["backbone"]
        blip = small.backbone()
        assert recorded == {
            "name": blip.name, "source": blip.name, "fingerprint": blip.state_fingerprint(),
        }  # fmt: skip
        with pytest.raises(ModelError, match="prompts of one backbone mean nothing to another"):
            load_detector(tmp_path / "model", backbone="test-tiny")


class TestAnomalyCLIP(AnomalyCLIPSuite):
    pass


class TestTCP(LearnedSuite):
    """Writes each class's own vectors over its prompts."""

    name = "tcp-v1"
    parameters = TCPSuite.parameters
    official = False
    more_presets = TCPSuite.more_presets


def test_a_tree_of_sentences_says_what_they_say():
    """FiLo's; each is run whole here."""
    blip = small.backbone()
    lines = ["damaged object at top.", "object.", "damaged object at left."]
    prefix = blip.text.encode_prefix(start_vector(blip.text, blip.tokenizer))
    found = blip.text.encode_tree(prefix, sentence_tree(blip.tokenizer, lines))
    torch.testing.assert_close(found, blip.encode_texts(lines), rtol=0, atol=1e-5)


class TestPlain(TrainingFreeSuite):
    name = "clip"


class TestWinCLIP(TrainingFreeSuite):
    """Encodes windows of patches one by one."""

    name = "winclip"
    more_presets = ("common", "code")
