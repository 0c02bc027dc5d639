"""Backbones by name. The network is played by a folder and by addresses that begin file://."""

import hashlib
import shutil
import socket
import urllib.error
from dataclasses import replace

import huggingface_hub.constants
import pytest
import torch

from faprompt.clip import known_backbones
from faprompt.clip.known_backbones import fetch_backbone, list_backbones
from faprompt.clip.spec import open_clip_module, spec_from_open_clip
from faprompt.clip.weights import load_backbone, save_backbone
from faprompt.errors import ConfigError, ModelError
from tests.helpers.clip_files import write_open_clip_folder

NAME = "ViT-small-14"
CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 28, "patch_size": 14, "width": 64, "layers": 2},
    "text_cfg": {"context_length": 77, "vocab_size": 300, "width": 64, "heads": 1, "layers": 2},
}
GREY = {"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3)}


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """No address is known; caches are empty."""

    def refuse(host, *_):
        raise socket.gaierror(-2, f"Name or service not known: {host}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    for name in known_backbones.OFFLINE:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # open_clip's own cache
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))


@pytest.fixture
def hub_weights(tmp_path, file_state):
    folder = write_open_clip_folder(tmp_path / "hub", file_state)
    return folder / "open_clip_model.safetensors"


@pytest.fixture
def small(monkeypatch, tmp_path, archive):
    """An architecture of open_clip's with two sets of weights, OpenAI's and a hub's."""
    open_clip = open_clip_module()
    folder = tmp_path / "openaipublic" / hashlib.sha256(archive.read_bytes()).hexdigest()
    folder.mkdir(parents=True)
    shutil.copy(archive, folder)
    records = {
        "openai": {"url": (folder / archive.name).as_uri(), "quick_gelu": True},
        "laion2b": {"url": "", "hf_hub": "someone/small/", **GREY},
        "quick": {"url": "", "hf_hub": "someone/quick/", "quick_gelu": True},
    }
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, NAME, CONFIG)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, NAME, records)
    return records


def play_hub(monkeypatch, path):
    """A hub that gives `path` for anything; what it was asked is returned as a list."""
    asked = []

    def give(record, *, prefer_hf_hub):
        asked.append((record, prefer_hf_hub))
        return str(path)

    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_: [])
    monkeypatch.setattr(open_clip_module().pretrained, "download_pretrained", give)
    return asked


@pytest.fixture(scope="module")
def rows():
    return {row["name"]: row for row in list_backbones()}


class TestList:
    def test_the_papers_backbone(self, rows):
        assert rows["ViT-L-14-336"] == {
            "name": "ViT-L-14-336", "kind": "open_clip", "tags": ["openai"], "embed_dim": 768,
            "image_size": 336, "patch_size": 14, "parameters": 427_944_193,
        }  # fmt: skip

    def test_only_plain_towers_that_have_weights(self, rows):
        assert not {"RN50", "ViT-SO400M-14-SigLIP", "coca_ViT-B-32", "ViT-S-16"} & set(rows)
        for name, row in rows.items():
            if row["kind"] == "open_clip":
                assert row["tags"]
                assert spec_from_open_clip(name).embed_dim == row["embed_dim"]

    def test_parameters_are_counted(self, rows):
        """Figures that OpenAI's models are known by."""
        assert rows["ViT-B-32"]["parameters"] == 151_277_313
        assert rows["ViT-B-16"]["parameters"] == 149_620_737

    def test_the_bundled_one_is_there_once_it_is_bundled(
        self, tmp_path, monkeypatch, file_backbone
    ):
        monkeypatch.setattr(known_backbones.resources, "files", lambda package: tmp_path / package)
        assert {row["kind"] for row in list_backbones()} == {
            "open_clip", "transformers", "torchvision",
        }  # fmt: skip
        save_backbone(file_backbone, tmp_path / "faprompt" / "bundled" / "backbone-tiny")
        count = sum(p.numel() for p in file_backbone.parameters()) + 1  # and the logit scale
        assert list_backbones()[0] == {
            "name": "tiny", "kind": "bundled", "tags": [], "embed_dim": 32,
            "image_size": 28, "patch_size": 14, "parameters": count,
        }  # fmt: skip


class TestLoadByName:
    def test_no_tag_means_openai_and_quick_gelu(self, small, file_backbone):
        """Though the architecture's own config says GELU."""
        assert not spec_from_open_clip(NAME).quick_gelu
        loaded = load_backbone(NAME)
        assert loaded.spec == file_backbone.spec
        assert loaded.state_fingerprint() == file_backbone.state_fingerprint()
        assert loaded.name == NAME
        assert load_backbone(f"{NAME}:openai").spec == file_backbone.spec
        assert load_backbone("ViT/small-14").spec == file_backbone.spec

    def test_the_record_of_a_tag_decides(self, small, monkeypatch, hub_weights, file_backbone):
        play_hub(monkeypatch, hub_weights)
        laion, quick = (load_backbone(f"{NAME}:{tag}") for tag in ("laion2b", "quick"))
        assert laion.spec == replace(file_backbone.spec, quick_gelu=False, **GREY)
        assert quick.spec == file_backbone.spec
        assert laion.name == f"{NAME}:laion2b"

    def test_the_record_can_be_overridden(self, small):
        loaded = load_backbone(f"{NAME}:openai:gelu")
        assert not loaded.spec.quick_gelu
        assert not load_backbone(loaded.name).spec.quick_gelu

    def test_a_name_wins_over_a_file_of_that_name(self, small, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        (tmp_path / NAME).touch()
        assert load_backbone(NAME).name == NAME
        with pytest.raises(ModelError, match="cannot be read as weights"):
            load_backbone(f"./{NAME}")

    def test_unknown_tags_list_the_known_ones(self, small):
        with pytest.raises(ModelError, match=f"no weights {NAME}:x. Known: {NAME}:openai, "):
            load_backbone(f"{NAME}:x")
        with pytest.raises(ModelError, match="ViT-B-16-plus-240:openai. Known: .*:laion400m_e31"):
            load_backbone("ViT-B-16-plus-240")
        with pytest.raises(ModelError, match="no weights ViT-S-16:openai. Known: none; give a loc"):
            load_backbone("ViT-S-16")

    def test_other_architectures_are_refused_before_the_download(self):
        for source in (load_backbone, fetch_backbone):
            with pytest.raises(ConfigError, match="'RN50' is not a plain CLIP"):
                source("RN50")


class TestFetch:
    def test_reports_path_and_hash_and_downloads_only_once(self, small, archive, tmp_path):
        for _ in range(2):
            fetched = fetch_backbone(NAME)
            assert fetched.name == NAME
            assert fetched.path == tmp_path / "home" / ".cache" / "clip" / archive.name
            assert fetched.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
            shutil.rmtree(tmp_path / "openaipublic", ignore_errors=True)

    def test_a_wrong_hash_is_refused(self, small, tmp_path):
        path = next((tmp_path / "openaipublic").rglob("*.pt"))
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        with pytest.raises(ModelError, match="could not be downloaded .*checksum does not"):
            fetch_backbone(NAME)

    def test_the_hub_is_asked_where_the_address_has_no_hash(self, small, monkeypatch, hub_weights):
        asked = play_hub(monkeypatch, hub_weights)
        fetched = fetch_backbone(f"{NAME}:laion2b")
        assert asked == [(small["laion2b"], True)]
        assert fetched.path == hub_weights

    def test_what_the_hubs_cache_holds_needs_no_network(self, small, hub_weights, tmp_path):
        cache = tmp_path / "hub-cache" / "models--someone--small"
        snapshot = cache / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text("abc")
        shutil.copy(hub_weights, snapshot)
        fetched = fetch_backbone(f"{NAME}:laion2b")
        assert fetched.path == snapshot / "open_clip_model.safetensors"

    def test_without_a_network_it_says_what_to_do(self):
        for act in (fetch_backbone, load_backbone):
            with pytest.raises(
                ModelError,
                match=r"ViT-L-14-336:openai are not on this machine .*openaipublic.*then gaierror.*"
                r"`faprompt models fetch ViT-L-14-336:openai` and copy .* FILE:quickgelu",
            ):
                act("ViT-L-14-336")

    def test_the_second_address_is_tried(self, small, monkeypatch, hub_weights):
        small["openai"]["hf_hub"] = "someone/openai/"

        def only_hub(record, *, prefer_hf_hub):
            if not prefer_hf_hub:
                raise urllib.error.URLError("blocked")
            return str(hub_weights)

        play_hub(monkeypatch, hub_weights)
        monkeypatch.setattr(open_clip_module().pretrained, "download_pretrained", only_hub)
        assert fetch_backbone(NAME).path == hub_weights

    def test_the_bundled_one_is_already_here(self, tmp_path, monkeypatch, file_backbone):
        monkeypatch.setattr(known_backbones.resources, "files", lambda package: tmp_path / package)
        folder = tmp_path / "faprompt" / "bundled" / "backbone-tiny"
        save_backbone(file_backbone, folder)
        fetched = fetch_backbone("tiny")
        assert fetched.path == folder / "model.safetensors"
        assert fetched.sha256 == hashlib.sha256(fetched.path.read_bytes()).hexdigest()

    def test_an_unknown_name_is_refused(self):
        with pytest.raises(ModelError, match="No backbone 'ViT-Z'"):
            fetch_backbone("ViT-Z")

    def test_torch_draws_nothing_while_loading(self, small):
        before = torch.get_rng_state()
        load_backbone(NAME)
        assert torch.equal(torch.get_rng_state(), before)


class TestOffline:
    """A variable forbids the network, and the network is not even looked up."""

    @pytest.fixture(autouse=True, params=["HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=true"])
    def forbidden(self, request, monkeypatch):
        name, _, value = request.param.partition("=")
        monkeypatch.setenv(name, value)

        def never(*_, **__):
            raise AssertionError("the network was used")

        for place in ("socket.getaddrinfo", "socket.socket", "urllib.request.urlopen"):
            monkeypatch.setattr(place, never)
        monkeypatch.setattr(open_clip_module().pretrained, "download_pretrained", never)
        return request.param

    def test_the_file_and_its_place_are_named(self, small, forbidden, tmp_path):
        for source in (load_backbone, fetch_backbone):
            with pytest.raises(ModelError) as caught:
                source(NAME)
            told = str(caught.value)
            assert f"{forbidden} forbids to download them" in told
            assert f"as {tmp_path / 'home' / '.cache' / 'clip' / 'ViT-small.pt'}" in told
            assert "FILE:quickgelu" in told
        with pytest.raises(ModelError, match="open_clip_model.safetensors or .* of someone/small"):
            load_backbone(f"{NAME}:laion2b")

    def test_the_papers_and_others_backbones(self, forbidden):
        for name, file in (
            ("ViT-B-32", "ViT-B-32.pt"),
            ("ViT-B-16-plus-240:laion400m_e32", "vit_b_16_plus_240-laion400m_e32-699c4b84.pt"),
            ("wide_resnet50_2", "wide_resnet50_2-95faca4d.pth"),
        ):
            with pytest.raises(ModelError, match=f"{forbidden} forbids .*{file}"):
                load_backbone(name)
        with pytest.raises(ModelError, match=f"{forbidden} forbids .*Salesforce/blip-itm-base"):
            fetch_backbone("BLIP-ViT-B-16")

    def test_a_file_at_that_place_is_taken_if_it_is_whole(self, small, archive, tmp_path):
        place = tmp_path / "home" / ".cache" / "clip" / archive.name
        place.parent.mkdir(parents=True)
        shutil.copy(archive, place)
        assert load_backbone(NAME).name == NAME
        place.write_bytes(archive.read_bytes()[:-1])
        with pytest.raises(ModelError, match="forbids to download"):
            load_backbone(NAME)

    def test_words_that_mean_no(self, monkeypatch):
        for name in known_backbones.OFFLINE:
            monkeypatch.setenv(name, "0")
        assert known_backbones.offline() == ""


class TestReach:
    def test_a_server_that_answers_and_one_that_does_not(self, monkeypatch):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            place = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [place])
            known_backbones.reach(f"http://somewhere:{port}/file")
        with pytest.raises(OSError, match="somewhere does not answer"):
            known_backbones.reach(f"http://somewhere:{port}/file")

    def test_a_proxy_is_what_has_to_answer(self, monkeypatch):
        monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "proxy.local:3128"})
        monkeypatch.setattr("urllib.request.proxy_bypass", lambda host: host == "here")
        with pytest.raises(socket.gaierror, match="not known: proxy.local"):
            known_backbones.reach("https://somewhere/file")
        with pytest.raises(socket.gaierror, match="not known: here"):
            known_backbones.reach("https://here/file")

    def test_other_addresses_need_no_network(self):
        known_backbones.reach("file:///tmp/x.pt")
        known_backbones.reach("")
        with pytest.raises(ModelError, match="could not be downloaded .*not known"):
            fetch_backbone("wide_resnet50_2")  # its address is torch's
