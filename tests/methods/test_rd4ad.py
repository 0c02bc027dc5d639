"""RD4AD: its parts against the published counts, its map and loss against rivals."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from faprompt.clip.weights import load_backbone
from faprompt.clip.wide_resnet import unpack_stages
from faprompt.detector import Detector
from faprompt.errors import ConfigError
from faprompt.methods.rd4ad import PARAMETERS, RD4AD, Student
from faprompt.methods.registry import build_method, describe_methods, preset_recipe
from faprompt.model_folder import load_detector
from tests.helpers import small

pytest.importorskip("anomalib")
SIDE = 64


@cache
def backbone():
    return load_backbone("test-wide-resnet")


@cache
def method() -> RD4AD:
    """Untrained, and shared by tests that do not change it."""
    options = {"image_size": SIDE, "sigma_px": 2.0, "classes": ("part",)}
    return build_method("rd4ad", backbone(), options).eval()


@cache
def seen():
    return method().encode_image(backbone(), small.pixels(3, SIDE, SIDE))


def forward(features):
    with torch.no_grad():
        return method()(features, backbone().text)


def test_the_published_parameters_are_trained():
    """Spec 7.1: 58,885,120 of the bottleneck and 24,917,504 of the decoder."""
    with torch.device("meta"):
        student = Student()
    sizes = {name: p.numel() for name, p in student.named_parameters()}
    bottleneck = sum(n for name, n in sizes.items() if name.startswith("bottleneck."))
    assert (bottleneck, sum(sizes.values())) == (58_885_120, 83_802_624)
    row = next(row for row in describe_methods() if row["name"] == "rd4ad")
    assert (row["kind"], row["parameters"], row["presets"]) == ("full-shot", PARAMETERS, ["paper"])


def test_every_parameter_is_used():
    teacher = list(unpack_stages(seen()).values())
    module = method()
    module.train()
    try:
        output = module(seen(), backbone().text)
        sum(module.loss(output, None, None).values()).backward()
        assert all(p.grad is not None for p in module.parameters())
        assert all(p.grad is None and not p.requires_grad for p in backbone().parameters())
        assert [tuple(m.shape) for m in output.student] == [tuple(m.shape) for m in teacher]
    finally:
        module.zero_grad()
        module.eval()


def test_the_loss_is_of_whole_flattened_maps():
    output = forward(seen())
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


def test_alone_equals_in_a_batch():
    together = forward(seen())
    pixels = small.pixels(3, SIDE, SIDE)
    alone = [forward(method().encode_image(backbone(), one[None])) for one in pixels]
    for name in ("score", "patch_map"):
        rows = torch.cat([getattr(one, name) for one in alone])
        torch.testing.assert_close(getattr(together, name), rows, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_steps_lower_the_loss_and_leave_the_teacher_alone():
    options = {"image_size": SIDE, "classes": ("part",)}
    module = build_method("rd4ad", backbone(), options)
    before = {key: value.clone() for key, value in backbone().state_dict().items()}
    optimizer = torch.optim.Adam(module.parameters(), lr=0.005, betas=(0.5, 0.999))
    values = []
    module.train()
    for _ in range(4):
        optimizer.zero_grad()
        loss = module.loss(module(seen(), backbone().text), None, None)["distillation"]
        values.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
    assert values[-1] < 0.9 * values[0]
    assert all(torch.equal(v, before[k]) for k, v in backbone().state_dict().items())


@pytest.mark.slow
def test_saved_equals_loaded(tmp_path):
    detector = Detector(backbone(), method(), name="student")
    detector.save_pretrained(tmp_path / "model")
    loaded = load_detector(tmp_path / "model")
    with torch.no_grad():
        ours, theirs = (d(small.pixels(2, SIDE, SIDE)) for d in (detector, loaded))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_its_recipe():
    assert preset_recipe("rd4ad", "paper") == {
        "epochs": 200, "batch_size": 16, "learning_rate": 0.005, "betas": (0.5, 0.999),
    }  # fmt: skip


def test_a_clip_is_refused():
    with pytest.raises(ConfigError, match="rd4ad on test-tiny: it rebuilds the feature maps of"):
        build_method("rd4ad", small.backbone())
    with pytest.raises(ConfigError, match="classes should differ"):
        build_method("rd4ad", backbone(), {"classes": "a,a"})


def test_it_learns_in_steps():
    with pytest.raises(TypeError, match="'rd4ad' learns in steps"):
        method().remember("part", [seen()], seed=1)
