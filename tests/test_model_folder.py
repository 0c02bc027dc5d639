"""Model folders: what is written, what comes back, and what is turned away."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from faprompt import models
from faprompt.clip.backbone import build_backbone
from faprompt.clip.weights import save_backbone
from faprompt.config import to_mapping
from faprompt.errors import ConfigError, ModelError
from faprompt.folder_config import recorded_note, recorded_preset
from faprompt.methods.registry import fit_to_backbone, preset_note
from faprompt.model_folder import model_card, read_config
from faprompt.models import build_detector, find_model, list_models, load_detector
from tests.helpers import small


@pytest.fixture
def folder(tmp_path) -> Path:
    detector = small.detector(threshold=0.4, prompts=3)
    detector.description = {
        "license": "apache-2.0",
        "training": {"dataset": "toy", "pictures": 7},
    }
    detector.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change(folder: Path, **values) -> None:
    """Rewrite keys of config.json; None removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def refused(folder: Path, match: str, **options) -> None:
    with pytest.raises(ModelError, match=match):
        load_detector(folder, **options)


class TestSaving:
    def test_the_files_and_what_the_config_names(self, folder):
        assert sorted(p.name for p in folder.iterdir()) == [
            "README.md", "config.json", "model.safetensors",
        ]  # fmt: skip
        config = json.loads((folder / "config.json").read_text())
        method = small.method(prompts=3)
        assert config == {
            "format": 1,
            "name": "small-faprompt",
            "license": "apache-2.0",
            "method": "faprompt",
            "options": to_mapping(method.config),
            "backbone": {
                "name": "test-tiny",
                "source": "test-tiny",
                "fingerprint": small.backbone().state_fingerprint(),
            },
            "transform": {
                "image_size": [56, 56],
                "mean": list(small.backbone().spec.mean),
                "std": list(small.backbone().spec.std),
                "interpolation": "bicubic",
            },
            "threshold": 0.4,
            "training": {"dataset": "toy", "pictures": 7},
        }

    def test_the_weights_are_the_learned_part_alone(self, folder):
        state = load_file(folder / "model.safetensors")
        learned = dict(small.method(prompts=3).named_parameters())
        assert set(state) == set(learned)
        assert all(torch.equal(state[name], learned[name]) for name in state)

    def test_the_card_tells_what_it_is(self, folder):
        card = (folder / "README.md").read_text()
        assert card == model_card(read_config(folder))
        for part in ("license: apache-2.0", "# small-faprompt", "`test-tiny`", "- dataset: toy"):
            assert part in card

    def test_the_card_of_a_full_shot_model_names_what_it_knows(self, folder):
        config = read_config(folder)
        assert "tags: [anomaly-detection, zero-shot]" in model_card(config)
        assert "Full-shot" not in model_card(config)
        for method in ("patchcore", "rd4ad"):
            options = {"classes": ["mug", "steel nut"]}
            card = model_card({**config, "method": method, "options": options})
            assert "tags: [anomaly-detection, full-shot]" in card and "zero-shot" not in card
            assert "knows no others: `mug`, `steel nut`. `class_name`, or" in card
            assert "another name is refused" in card
            assert "load_detector(FOLDER, class_name='mug')" in card
            one = model_card({**config, "method": method, "options": {"classes": ["mug"]}})
            assert "`mug`. Pictures are taken to show it; another" in one
            assert "load_detector(FOLDER)" in one

    def test_loading_and_saving_again_changes_nothing(self, folder, tmp_path):
        load_detector(folder).save_pretrained(tmp_path / "again")
        for name in ("config.json", "model.safetensors", "README.md"):
            assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()

    def test_a_write_that_fails_leaves_the_old_file(self, folder, monkeypatch):
        before = (folder / "model.safetensors").read_bytes()
        monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            small.detector(stir=0.9, prompts=3).save_pretrained(folder)
        assert (folder / "model.safetensors").read_bytes() == before


class TestLoading:
    def test_scores_regions_and_threshold_come_back(self, folder):
        loaded, saved = load_detector(str(folder)), small.detector(threshold=0.4, prompts=3)
        result, wanted = loaded.predict(small.picture()), saved.predict(small.picture())
        assert result.score == wanted.score and result.threshold == 0.4
        assert (result.score_map == wanted.score_map).all()
        assert (result.verdict, result.regions) == (wanted.verdict, wanted.regions)
        assert loaded.name == "small-faprompt" and not loaded.method.training

    def test_lower_precision_stays_near(self, folder):
        exact, rounded = load_detector(folder), load_detector(folder, precision="bf16")
        assert rounded.backbone.precision == "bf16"
        first, second = (d.predict(small.picture()).score for d in (exact, rounded))
        assert first != second and first == pytest.approx(second, abs=0.02)

    def test_the_backbone_may_lie_elsewhere(self, folder, tmp_path):
        save_backbone(small.backbone(), tmp_path / "backbone")
        moved = load_detector(folder, backbone=tmp_path / "backbone")
        assert moved.predict(small.picture()).score == pytest.approx(
            load_detector(folder).predict(small.picture()).score, abs=1e-6
        )
        moved.save_pretrained(tmp_path / "again")
        assert read_config(tmp_path / "again")["backbone"]["source"] == "test-tiny"

    def test_what_pictures_show_is_told_at_loading_and_not_kept(self, folder, tmp_path):
        assert load_detector(folder).class_name is None
        told = load_detector(folder, class_name="mug")
        told.save_pretrained(tmp_path / "again")
        assert told.class_name == "mug" and load_detector(tmp_path / "again").class_name is None
        built = build_detector("clip", "test-tiny", options={"image_size": 56}, class_name="nut")
        assert built.class_name == "nut"

    def test_a_method_without_parameters_has_a_folder_too(self, tmp_path):
        build_detector("clip", "test-tiny", options={"image_size": 56}).save_pretrained(tmp_path)
        assert load_detector(tmp_path).method.name == "clip"

    def test_hub_ids_are_downloaded(self, folder, monkeypatch):
        asked = []

        def download(repo_id, **options):
            asked.append((repo_id, sorted(options["allow_patterns"])))
            return str(folder)

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        assert load_detector("someone/model").name == "small-faprompt"
        wanted = ["README.md", "calibration.safetensors", "config.json", "mask.png"]
        wanted += ["model.bin", "model.onnx", "model.onnx.data", "model.safetensors", "model.xml"]
        assert asked == [("someone/model", [*wanted, "references.safetensors"])]

    def test_a_download_that_fails_says_so(self, monkeypatch):
        def download(repo_id, **_):
            raise OSError("no network")

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        with pytest.raises(ModelError, match="'someone/model' is no folder here .*: no network"):
            load_detector("someone/model")

    @pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
    def test_where_the_network_is_forbidden_only_the_cache_is_asked(
        self, folder, monkeypatch, variable
    ):
        from huggingface_hub.errors import LocalEntryNotFoundError

        cached = [folder]

        def download(repo_id, *, local_files_only, **_):
            assert local_files_only
            if not cached:
                raise LocalEntryNotFoundError("nothing in the cache")
            return str(cached.pop())

        monkeypatch.setenv(variable, "1")
        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        assert load_detector("someone/model").name == "small-faprompt"
        told = f"{variable}=1 forbids to download it. Wanted: config.json and model.safetensors of"
        with pytest.raises(ModelError, match=f"'someone/model' is no folder here, and {told}"):
            load_detector("someone/model")

    def test_pushing_uploads_the_folder(self, monkeypatch):
        seen = {}

        class Hub:
            def create_repo(self, repo_id, exist_ok):
                seen["created"] = (repo_id, exist_ok)

            def upload_folder(self, *, repo_id, folder_path, **options):
                seen["files"] = sorted(p.name for p in Path(folder_path).iterdir())
                seen["options"] = options
                return "https://hub/commit"

        monkeypatch.setattr("huggingface_hub.HfApi", Hub)
        address = small.detector().push_to_hub("someone/model", commit_message="first")
        assert address == "https://hub/commit"
        assert seen == {
            "created": ("someone/model", True),
            "files": ["README.md", "config.json", "model.safetensors"],
            "options": {"commit_message": "first"},
        }


class TestRefusals:
    @pytest.mark.parametrize("model", ["tinny", "./nowhere", "/nowhere/else", "a/b/c"])
    def test_unknown_models(self, model):
        with pytest.raises(ModelError, match=r"No model .*neither bundled \(tiny\), nor a folder"):
            find_model(model)

    def test_folders_that_hold_no_model(self, folder):
        (folder / "model.safetensors").unlink()
        refused(folder, "is not a model folder: it wants config.json and model.safetensors")

    def test_another_backbones_weights(self, folder, tmp_path):
        other = {
            key.removeprefix("vision.").removeprefix("text."): value.clone()
            for key, value in small.backbone().state_dict().items()
        }
        other["visual.proj"][0, 0] += 1e-3
        other["logit_scale"] = small.backbone().logit_scale
        changed = build_backbone(small.backbone().spec, other, name="changed")
        save_backbone(changed, tmp_path / "other")
        refused(
            folder, "was trained on 'test-tiny' .*prompts of one backbone mean nothing to another",
            backbone=tmp_path / "other",
        )  # fmt: skip

    def test_the_right_weights_with_the_wrong_activation(self, folder):
        refused(folder, "prompts of one backbone mean nothing", backbone="test-tiny:gelu")
        assert load_detector(folder, backbone="test-tiny:quickgelu").threshold == 0.4

    def test_a_backbone_that_is_not_here(self, folder):
        backbone = {**read_config(folder)["backbone"], "source": "weights/gone.pt"}
        change(folder, backbone=backbone)
        refused(folder, "wants the backbone 'weights/gone.pt': .*pass that as backbone")
        assert load_detector(folder, backbone="test-tiny").name == "small-faprompt"
        refused(folder, "wants the backbone .*gone2.pt'", backbone="weights/gone2.pt")

    def test_missing_unknown_and_misshapen_tensors_all_at_once(self, folder):
        state = load_file(folder / "model.safetensors")
        del state["prior.linear1.bias"]
        state["prior.linear3.bias"] = torch.zeros(3)
        state["prompts.normal_context"] = torch.zeros(4, 64)
        save_file(state, folder / "model.safetensors")
        with pytest.raises(ModelError) as caught:
            load_detector(folder)
        for told in (
            "missing: prior.linear1.bias",
            "unknown: prior.linear3.bias",
            "prompts.normal_context is (4, 64), wanted (5, 64)",
        ):
            assert told in str(caught.value)

    @pytest.mark.parametrize("number", [2, "1", None, True, [1]])
    def test_unknown_formats(self, folder, number):
        change(folder, format=number)
        refused(folder, "has format .*, this version reads 1")

    @pytest.mark.parametrize(
        ("text", "told"), [("{", "is not JSON"), ("[1]", "holds a list, wanted an object")]
    )
    def test_configs_that_are_none(self, folder, text, told):
        (folder / "config.json").write_text(text)
        refused(folder, told)

    def test_every_fault_of_a_config_is_told(self, folder):
        change(
            folder, name=7, options=None, training=None, threshold="0.5",
            backbone={"name": "test-tiny", "source": "test-tiny"},
        )  # fmt: skip
        with pytest.raises(ModelError) as caught:
            load_detector(folder)
        for told in (
            "name should be str, got 7",
            "options is missing",
            "training is missing",
            "threshold should be float or int or NoneType, got '0.5'",
            "backbone's fingerprint is missing",
        ):
            assert told in str(caught.value)

    def test_options_and_methods_this_version_does_not_know(self, folder):
        options = read_config(folder)["options"]
        change(folder, options={**options, "prompst": 3})
        refused(folder, "config.json: faprompt options: unknown option 'prompst'. Known: ")
        change(folder, options=options, method="faprompt2")
        refused(folder, "config.json: No method 'faprompt2'; known: ")

    def test_a_transform_that_is_not_the_models(self, folder):
        transform = {**read_config(folder)["transform"], "interpolation": "bilinear"}
        change(folder, transform=transform)
        refused(folder, "records the transform .*bilinear.*the folder was changed by hand")

    @pytest.mark.parametrize("content", [b"", b"not a file of tensors", b"\xff" * 64])
    def test_broken_weights(self, folder, content):
        (folder / "model.safetensors").write_bytes(content)
        refused(folder, "model.safetensors is no safetensors file")

    @pytest.mark.parametrize(
        ("value", "told"),
        [
            (
                lambda t: t.fill_(float("nan")),
                "prior.linear1.bias holds values that are not finite",
            ),
            (lambda t: t.int(), "prior.linear1.bias is stored as int32, wanted float32"),
            (lambda t: t.bool(), "prior.linear1.bias is stored as bool, wanted float32"),
            (lambda t: t.cfloat(), "prior.linear1.bias is stored as complex64, wanted float32"),
        ],
    )
    def test_values_and_types_of_tensors(self, folder, value, told):
        state = load_file(folder / "model.safetensors")
        state["prior.linear1.bias"] = value(state["prior.linear1.bias"])
        save_file(state, folder / "model.safetensors")
        refused(folder, f"model.safetensors does not fit its config: {told}")

    def test_tensors_in_half_precision_are_floating_point_too(self, folder):
        state = {k: v.half() for k, v in load_file(folder / "model.safetensors").items()}
        save_file(state, folder / "model.safetensors")
        loaded = load_detector(folder).method.state_dict()
        assert all(torch.equal(loaded[key], state[key].float()) for key in state)

    @pytest.mark.parametrize(
        ("written", "told"),
        [
            ('"threshold": NaN', "threshold is nan, wanted a finite number"),
            ('"threshold": -Infinity', "threshold is -inf, wanted a finite number"),
            ('"threshold": 1e999', "threshold is inf, wanted a finite number"),
            ('"threshold": 1.5', r"threshold should lie in 0\.\.1, got 1\.5"),
            ('"threshold": -0.1', r"threshold should lie in 0\.\.1, got -0\.1"),
            ('"threshold": true', "threshold should be float or int or NoneType, got True"),
            ('"threshold": 9' + "0" * 30, "threshold is a number of more than 64 bits"),
            ('"threshold": 9' + "0" * 9999, "cannot be read"),
            ('"threshold": 0.4, "threshold": 0.5', "key 'threshold' occurs more than once"),
            ('"threshold": ' + "[" * 40 + "]" * 40, "nested deeper than 32 levels"),
            ('"threshold": ' + "[" * 99999 + "]" * 99999, "nested deeper than 32 levels"),
            ('"name": "\\ud800", "threshold": 0.4', "name holds half a surrogate pair"),
            ('"treshold": 1, "threshold": 0.4', "'treshold' is unknown"),
        ],
    )
    def test_what_json_lets_through_and_a_config_does_not(self, folder, written, told):
        path = folder / "config.json"
        text = path.read_text()
        if '"name"' in written:
            text = text.replace('"name": "small-faprompt",', "")
        path.write_text(text.replace('"threshold": 0.4', written))
        refused(folder, told)

    @pytest.mark.parametrize(
        "content", [b"\xff\xfe{}", b"\x00", b"", b'{"a": "\xff"}', b'"text"', b"null", b"7"]
    )
    def test_bytes_that_are_no_config(self, folder, content):
        (folder / "config.json").write_bytes(content)
        refused(folder, "config.json")

    def test_a_byte_order_mark_is_no_fault(self, folder):
        path = folder / "config.json"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        assert load_detector(folder).threshold == 0.4

    @pytest.mark.parametrize(
        ("option", "value", "told"),
        [
            ("prompts", "3", 'options.prompts should be 3, got "3"'),
            ("prompts", True, "prompts: True is not a whole number"),
            ("prompts", 2**70, "a number of more than 64 bits"),
            ("prompts", 10**7, "faprompt cannot be built with its options"),
            ("prompts", 10**12, "faprompt cannot be built with its options"),
            ("patches", 10**9, "config.json: "),
            ("prompts", -1, "prompts should be at least 1"),
            ("refine", 1, "options.refine should be true, got 1"),
            ("class_word", ["a"], r"class_word: \['a'\] is not text"),
        ],
    )
    def test_options_of_another_type_or_size(self, folder, option, value, told):
        change(folder, options={**read_config(folder)["options"], option: value})
        refused(folder, told)

    @pytest.mark.parametrize(
        ("part", "told"),
        [
            ({"fingerprint": "abc"}, "fingerprint should be 64 hex digits, got 'abc'"),
            ({"colour": 1}, "backbone's 'colour' is unknown"),
            ({"source": "x" * 300}, "wants the backbone"),
            ({"source": "a\x00b"}, "wants the backbone"),
        ],
    )
    def test_backbones_that_cannot_be(self, folder, part, told):
        change(folder, backbone={**read_config(folder)["backbone"], **part})
        refused(folder, told)

    @pytest.mark.parametrize("model", ["x" * 300, "a\x00b", "a/" + "b" * 300, "\ud800"])
    def test_names_that_no_folder_can_have(self, model, monkeypatch):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(ModelError):
            find_model(model)

    def test_a_model_that_is_not_finite_is_not_written(self, tmp_path):
        detector = small.detector()
        with torch.no_grad():
            next(detector.method.parameters())[0] = float("inf")
        with pytest.raises(ModelError, match=r"is not finite: prompts\.\S+ hold NaN.*Nothing was"):
            detector.save_pretrained(tmp_path / "m")
        assert not (tmp_path / "m").exists()

    @pytest.mark.parametrize("writer", ["pickle", "torch"])
    def test_a_pickle_in_place_of_the_weights_is_never_run(self, folder, tmp_path, writer):
        planted = Planted(tmp_path / "ran")
        if writer == "pickle":
            (folder / "model.safetensors").write_bytes(pickle.dumps(planted))
        else:
            torch.save({"weights": planted}, folder / "model.safetensors")
        refused(folder, "model.safetensors is no safetensors file")
        assert not (tmp_path / "ran").exists()


class Planted:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_the_planted_pickle_would_work(tmp_path):
    pickle.loads(pickle.dumps(Planted(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


class TestBuilding:
    def test_training_free_methods_are_ready_at_once(self):
        detector = build_detector("clip-ac", "test-tiny", options={"image_size": "70"})
        assert detector.name == "clip-ac@test-tiny"
        assert detector.predict(small.picture()).score_map.shape == (60, 80)

    def test_methods_that_learn_are_refused(self):
        with pytest.raises(ModelError, match="'anomalyclip' has to be trained first"):
            build_detector("anomalyclip", "test-tiny")

    def test_options_are_checked(self):
        with pytest.raises(ConfigError, match="unknown option 'sigma'"):
            build_detector("clip", "test-tiny", options={"sigma": 3})
        with pytest.raises(ConfigError, match="image_size: .*'large'"):
            build_detector("clip", "test-tiny", options={"image_size": "large"})


class TestFitToBackbone:
    @staticmethod
    def fit(method="faprompt", options=None, **vision):
        spec = small.backbone().spec
        spec = replace(spec, vision=replace(spec.vision, **vision))
        return fit_to_backbone(method, SimpleNamespace(spec=spec), options)

    def test_the_papers_backbone_keeps_the_papers_sizes(self):
        assert self.fit(patch_size=14) == {"image_size": 518, "sigma_px": 10}
        assert self.fit("anomalyclip", patch_size=14) == {"image_size": 518, "sigma_px": 4}

    def test_other_patches_get_the_nearest_multiple_and_sigma_follows(self):
        assert self.fit(patch_size=16)["image_size"] == 512
        assert self.fit(patch_size=16)["sigma_px"] == pytest.approx(10 * 512 / 518)
        assert self.fit(patch_size=32)["image_size"] == 512

    def test_a_backbone_of_ours_is_read_at_its_own_size(self):
        ours = {"patch_size": 16, "image_size": 256, "stem_strides": (2, 2, 2, 2)}
        assert self.fit(**ours)["image_size"] == 256
        assert self.fit(**ours)["sigma_px"] == pytest.approx(10 * 256 / 518)

    def test_what_the_caller_sets_is_kept(self):
        assert self.fit(options={"image_size": "280", "prompts": 3}, patch_size=14) == {
            "image_size": "280", "prompts": 3, "sigma_px": pytest.approx(10 * 280 / 518),
        }  # fmt: skip
        assert self.fit(options={"sigma_px": 3}, patch_size=14)["sigma_px"] == 3

    def test_a_preset_brings_its_own_size(self):
        backbone = SimpleNamespace(spec=small.backbone().spec)  # patches of 14
        sizes = {
            preset: fit_to_backbone("winclip", backbone, None, preset=preset)["image_size"]
            for preset in ("paper", "common")
        }
        assert sizes == {"paper": 238, "common": 518}
        detector = build_detector("winclip", "test-tiny", preset="code", options={"image_size": 56})
        assert detector.method.config.temperature == 0.07
        with pytest.raises(ConfigError, match="no preset 'mine'; known: paper, common, code"):
            build_detector("winclip", "test-tiny", preset="mine")

    def test_a_part_of_the_vocabulary_is_not_asked_for_class_names(self):
        spec = replace(small.backbone().spec, vocabulary=(1, 2))
        backbone = SimpleNamespace(spec=spec)
        assert fit_to_backbone("winclip", backbone, None)["use_class_names"] is False
        assert fit_to_backbone("winclip", backbone, {"use_class_names": True})["use_class_names"]
        assert "use_class_names" not in fit_to_backbone("faprompt", backbone, None)
        whole = SimpleNamespace(spec=small.backbone().spec)
        assert "use_class_names" not in fit_to_backbone("winclip", whole, None)

    def test_a_size_that_is_none_is_left_for_the_config_to_refuse(self):
        assert self.fit(options={"image_size": "large"}) == {"image_size": "large"}


class TestFittingNote:
    def test_a_size_that_was_fitted_is_told_and_one_that_was_asked_for_is_not(self):
        backbone = small.backbone()  # patches of 14
        assert preset_note("faprompt", backbone, None) == ""
        assert preset_note("winclip", backbone, None) == (
            "Preset `paper` was published for ViT-B-16-plus-240:laion400m_e31 at 240 px. You run "
            "it on `test-tiny` at 238 px: results are not comparable with published ones"
        )
        asked = preset_note("winclip", backbone, {"image_size": 56}, preset="code")
        assert "for ViT-B-16-plus-240:laion400m_e31. You run it on `test-tiny`: " in asked
        assert preset_note("winclip", backbone, {"image_size": 56}, preset="common") == ""

    def test_a_detector_carries_it_through_its_folder(self, tmp_path):
        options = {"image_size": 56}
        detector = build_detector("winclip", "test-tiny", options=options)
        note = recorded_note(detector.description)
        assert note == preset_note("winclip", small.backbone(), options) != ""
        detector.save_pretrained(tmp_path / "model")
        assert recorded_note(load_detector(tmp_path / "model").description) == note
        assert f"- note: {note}" in (tmp_path / "model" / "README.md").read_text()
        plain = build_detector("winclip", "test-tiny", options=options, preset="common")
        assert recorded_note(plain.description) == ""

    def test_a_detector_names_its_preset(self, tmp_path):
        detector = build_detector("winclip", "test-tiny", preset="common")
        detector.save_pretrained(tmp_path / "model")
        for each in (detector, load_detector(tmp_path / "model"), load_detector("tiny")):
            wanted = "paper" if each.name == "tiny" else "common"
            assert recorded_preset(each.description) == wanted
        assert recorded_preset(small.detector().description) is None


def test_only_models_that_are_there_are_listed(folder, monkeypatch):
    monkeypatch.setattr(models, "BUNDLED", ("here", "gone"))
    monkeypatch.setattr(
        models, "bundled_folder", lambda name: folder if name == "here" else folder / "gone"
    )
    assert list_models() == [
        {"name": "here", "method": "faprompt", "backbone": "test-tiny", "license": "apache-2.0"}
    ]
    assert find_model("here") == folder
