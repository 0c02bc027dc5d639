"""RD4AD: the suite, its parts against the published counts, map and loss against rivals."""

from copy import deepcopy
from functools import cache

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from faprompt.clip.weights import load_backbone
from faprompt.clip.wide_resnet import CELL, unpack_stages
from faprompt.detector import Detector
from faprompt.errors import ConfigError
from faprompt.methods.rd4ad import RD4AD, Student
from faprompt.methods.registry import (
    build_method,
    describe_methods,
    preset_config,
    preset_recipe,
)
from tests.helpers import large, small
from tests.methods.suite import LearnedSuite

pytest.importorskip("anomalib")
SIDE = 64


@cache
def backbone():
    return load_backbone("test-wide-resnet")


class TestSuite(LearnedSuite):
    name = "rd4ad"
    kind = "full-shot"
    options = {"image_size": SIDE, "classes": ("part",)}
    side, patch = SIDE, CELL
    parameters = (83_802_624, 83_802_624)
    class_name = "part"
    official = common = False
    pixel_map = True
    out_of_range = {"classes": "a,a"}
    steps = 4

    @classmethod
    def backbone(cls):
        return backbone()

    @classmethod
    def build(cls, **options):
        """Of another seed than a loaded one, and with norms that have seen pictures."""
        return cls.draw(**options) if options else deepcopy(cls.drawn())

    @classmethod
    @cache
    def drawn(cls):
        """One to copy: 84 million numbers are drawn more slowly."""
        return cls.draw()

    @classmethod
    def draw(cls, **options):
        options = {**cls.options, "sigma_px": 2.0, **options}
        built = build_method("rd4ad", backbone(), options, seed=7).train()
        with torch.no_grad():
            built(built.encode_image(backbone(), cls.pixels()), None)
        return built

    @classmethod
    def build_large(cls):
        return large.method(cls.name, large.wide_resnet(), classes=("part",))

    def test_it_is_in_the_list(self):
        """Its backbone is its own: nothing is in common."""
        row = next(row for row in describe_methods() if row["name"] == self.name)
        assert (row["kind"], row["presets"]) == (self.kind, ["paper"])
        assert row["backbones"] == {"paper": "wide_resnet50_2"}

    def test_no_part_of_the_backbone_is_the_methods_own(self, detector):
        method = detector.method
        frozen = {id(p) for p in backbone().parameters()}
        assert not frozen & {id(p) for p in method.parameters()}
        others = set(method.state_dict()) - {name for name, _ in method.named_parameters()}
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        assert others and all(name.endswith(statistics) for name in others)

    test_a_batch_of_one_kind_trains = None  # labels are not looked at

    @pytest.mark.slow
    def test_the_seed_decides_and_the_global_state_is_left_alone(self):
        super().test_the_seed_decides_and_the_global_state_is_left_alone()

    @pytest.mark.slow
    def test_saved_equals_loaded(self, detector, tmp_path):
        super().test_saved_equals_loaded(detector, tmp_path)

    @pytest.mark.slow
    def test_learning_lowers_the_loss(self, features):
        super().test_learning_lowers_the_loss(features)


def method() -> RD4AD:
    """Untrained, and shared by tests that do not change it."""
    return TestSuite.shared()[0].method


def seen():
    return TestSuite.shared()[1]


def forward(features):
    with torch.no_grad():
        return method()(features, backbone().text)


def test_the_published_parameters_are_trained():
    """Spec 7.1: 58,885,120 of the bottleneck and 24,917,504 of the decoder."""
    (student,) = large.method("rd4ad", large.wide_resnet(), classes=("part",)).models
    bottleneck, decoder = (
        sum(p.numel() for p in part.parameters()) for part in (student.bottleneck, student.decoder)
    )
    assert (bottleneck, decoder) == (58_885_120, 24_917_504)


def test_the_papers_size_and_blur():
    config = preset_config("rd4ad", "paper")
    assert (config.image_size, config.sigma_px) == (256, 4.0)
    built = build_method("rd4ad", backbone(), {"classes": ("part",)}).eval()
    detector = Detector(backbone(), built, name="papers")
    assert detector.transform.image_size == (256, 256)
    pixels = small.pixels(1, 256, 256)
    with torch.no_grad():
        output = detector.encode(pixels)
        maps = detector(pixels)[1]
    assert output.patch_map.shape == maps.shape == (1, 256, 256)
    smooth = gaussian_filter(output.patch_map[0].numpy(), 4.0)
    np.testing.assert_allclose(maps[0], smooth, atol=1e-5)


def test_the_loss_is_of_whole_flattened_maps():
    output = forward(seen())
    shapes = [planes.shape for planes in unpack_stages(seen()).values()]
    assert [planes.shape for planes in output.student] == shapes
    loss = float(method().loss(output, None, None)["distillation"])
    wanted = 0.0
    for ours, theirs in zip(output.teacher, output.student, strict=True):
        a, b = (m.numpy().astype(np.float64).reshape(3, -1) for m in (ours, theirs))
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        wanted += np.mean(1 - cosine)
    assert loss == pytest.approx(wanted, abs=1e-4) and loss > 0.1


def test_equal_maps_have_no_loss_and_no_anomaly(monkeypatch):
    monkeypatch.setattr(Student, "forward", lambda self, maps: tuple(m.clone() for m in maps))
    output = forward(seen())
    assert float(method().loss(output, None, None)["distillation"]) == pytest.approx(0, abs=1e-5)
    assert output.patch_map.max() < 1e-5 and output.score.max() < 1e-5


def test_map_and_score_equal_the_formula():
    output = forward(seen())
    assert output.patch_map.shape == (3, SIDE, SIDE)
    total = np.zeros((3, SIDE, SIDE))
    for ours, theirs in zip(output.teacher, output.student, strict=True):
        a, b = (m.double() for m in (ours, theirs))
        far = 1 - (a * b).sum(1) / a.norm(dim=1) / b.norm(dim=1)
        total += torch.nn.functional.interpolate(
            far[:, None], size=(SIDE, SIDE), mode="bilinear", align_corners=True
        )[:, 0].numpy()
    np.testing.assert_allclose(output.patch_map, total / 3, atol=1e-5)
    smooth = [gaussian_filter(one, 2.0) for one in total / 3]
    np.testing.assert_allclose(output.score, [one.max() for one in smooth], atol=1e-5)
    detector = Detector(backbone(), method(), name="student")
    with torch.no_grad():
        scores, maps = detector(small.pixels(3, SIDE, SIDE))
    np.testing.assert_allclose(maps, smooth, atol=1e-5)
    torch.testing.assert_close(scores, maps.amax(dim=(1, 2)))


def test_the_sum_is_anomalibs():
    """Away from the border, where the two smooth alike."""
    module = pytest.importorskip("anomalib.models.image.reverse_distillation.anomaly_map")
    output = forward(seen())
    rival = module.AnomalyMapGenerator(image_size=(SIDE, SIDE), sigma=2, mode="add")
    theirs = rival(list(output.teacher), list(output.student))[:, 0] / 3
    ours = np.stack([gaussian_filter(one, 2.0) for one in output.patch_map.numpy()])
    np.testing.assert_allclose(ours[:, 10:-10, 10:-10], theirs[:, 10:-10, 10:-10], atol=1e-5)


def test_its_recipe():
    assert preset_recipe("rd4ad", "paper") == {
        "epochs": 200, "batch_size": 16, "learning_rate": 0.005, "betas": (0.5, 0.999),
    }  # fmt: skip


def test_a_clip_is_refused():
    with pytest.raises(ConfigError, match="rd4ad on test-tiny: it rebuilds the feature maps of"):
        build_method("rd4ad", small.backbone())


def test_it_learns_in_steps():
    with pytest.raises(TypeError, match="'rd4ad' learns in steps"):
        method().remember("part", [seen()], seed=1)
