"""WinCLIP+ by class: which pictures are drawn, whose memory is asked, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from faprompt.detector import Detector
from faprompt.errors import ConfigError, DatasetError, ImageReadError
from faprompt.imaging import read_image
from faprompt.methods.winclip import EVERY_CLASS, find_references, fingerprint, picture_parts
from faprompt.models import load_detector
from faprompt.records import Sample
from tests.helpers import folders, small

SIZE = (56, 56)
TRAIN = 5


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Two classes with five normal pictures each to refer to, 0.png to 4.png."""
    root = tmp_path_factory.mktemp("shelf")
    for name in ("mug", "nut"):
        folders.mvtec_class(root / name, normal={"good": ["8.png"]}, defects={"chip": ["0.png"]})
        for number in range(TRAIN):
            folders.picture(root / name / "train" / "good" / f"{number}.png", size=SIZE)
    return root


def train(shelf, class_name, number=0):
    return shelf / class_name / "train" / "good" / f"{number}.png"


def plus(shelf, **options):
    return small.method("winclip", references=[str(shelf)], **options)


def detect(shelf, **options):
    return Detector(small.backbone(), plus(shelf, **options), name="few")


def scores(detector, paths, names):
    images = [read_image(path).array for path in paths]
    return [result.score for result in detector.predict_batch(images, class_names=names)]


def listed(root, labels):
    """A train split by meta.json: pictures 0.png and on of the class mug."""
    rows = []
    for number, label in enumerate(labels):
        folders.picture(root / f"{number}.png")
        row = {"img_path": f"{number}.png", "mask_path": "", "specie_name": "x"}
        rows.append({**row, "cls_name": "mug", "anomaly": label})
    (root / "meta.json").write_text(json.dumps({"train": {"mug": rows}, "test": {}}))


def drawn(shelf, shots, seed=111):
    found = find_references([str(shelf)], shots=shots, seed=seed)
    return {name: [sample.image_path.name for sample in held] for name, held in found.items()}


class TestWhichPictures:
    def test_all_normal_pictures_of_the_train_split_by_class(self, shelf):
        found = find_references([str(shelf)])
        assert list(found) == ["mug", "nut"]
        for name, held in found.items():
            assert [s.image_path for s in held] == [train(shelf, name, k) for k in range(TRAIN)]
            assert {s.class_name for s in held} == {name}

    def test_shots_are_drawn_alike_from_a_seed_and_fewer_are_a_part_of_more(self, shelf):
        for shots in (1, 2, 4):
            held = drawn(shelf, shots)
            assert held == drawn(shelf, shots)
            assert all(len(set(names)) == shots for names in held.values())
            assert all(names == sorted(names) for names in held.values())
            more = drawn(shelf, shots + 1)
            assert all(set(held[name]) < set(more[name]) for name in held)
        assert len({tuple(drawn(shelf, 2, seed)["mug"]) for seed in range(12)}) > 3

    def test_anomalous_pictures_are_left_out(self, tmp_path):
        listed(tmp_path, [0, 1, 0, 1])
        found = find_references([str(tmp_path)])
        assert [s.image_path.name for s in found["mug"]] == ["0.png", "2.png"]

    def test_several_folders_are_one(self, shelf, tmp_path):
        folders.mvtec_class(
            tmp_path / "nut", normal={"good": ["8.png"]}, defects={"chip": ["0.png"]}
        )
        found = find_references([str(shelf), str(tmp_path)])
        assert {name: len(held) for name, held in found.items()} == {"mug": 5, "nut": 6}

    def test_files_stand_for_every_class(self):
        found = find_references(["a.png", "b.png"])
        assert [sample.image_path.name for sample in found[EVERY_CLASS]] == ["a.png", "b.png"]
        assert find_references([]) == {}


class TestMemory:
    def test_a_picture_that_is_remembered_scores_lower_than_others_of_its_class(self, shelf):
        (known,) = drawn(shelf, 1)["mug"]
        paths = [train(shelf, "mug", number) for number in range(TRAIN)]
        words = scores(small.detector("winclip"), paths, ["mug"] * TRAIN)
        found = scores(detect(shelf, shots=1), paths, ["mug"] * TRAIN)
        for path, score, word in zip(paths, found, words, strict=True):
            if path.name == known:
                assert score == pytest.approx(word / 2, abs=1e-5)
            else:
                assert score > word / 2 + 1e-3

    def test_each_class_is_compared_with_its_own_pictures_as_with_a_flat_list(self, shelf):
        """In a mixed batch, each picture equals a method that knows its class's files alone."""
        detector = detect(shelf, use_class_names=False)
        names = ["nut", "mug", "nut", "mug"]
        paths = [shelf / name / "test" / kind for name, kind in zip(
            names, ("chip/0.png", "chip/0.png", "good/8.png", "good/8.png"), strict=True
        )]  # fmt: skip
        images = [read_image(path).array for path in paths]
        found = detector.predict_batch(images, class_names=names)
        for image, name, result in zip(images, names, found, strict=True):
            files = [str(train(shelf, name, number)) for number in range(TRAIN)]
            flat = small.method("winclip", references=files, use_class_names=False)
            wanted = Detector(small.backbone(), flat, name="flat").predict(image)
            assert result.score == pytest.approx(wanted.score, abs=1e-5)
            np.testing.assert_allclose(result.score_map, wanted.score_map, atol=1e-5)

    def test_another_class_name_is_another_memory(self, shelf):
        detector = detect(shelf, use_class_names=False)  # so that the words stay the same
        path = [train(shelf, "mug")]
        (own,), (other,) = (scores(detector, path, [name]) for name in ("mug", "nut"))
        assert other > own + 1e-3

    def test_words_follow_the_class_only_where_they_should(self, shelf):
        named, unnamed = plus(shelf, shots=1), plus(shelf, shots=1, use_class_names=False)
        assert named.uses_class_names and unnamed.uses_class_names
        features = named.encode_image(small.backbone(), small.pixels(1))
        text = small.backbone().text
        assert torch.equal(unnamed.text_pairs(text, ["mug"]), unnamed.text_pair)
        assert named.text_pairs(text, ["mug"]).shape == (1, 2, 64)
        with torch.no_grad():
            scores = [m(features, text, class_names=["mug"]).score for m in (named, unnamed)]
        assert (scores[0] - scores[1]).abs() > 1e-6

    def test_a_single_class_need_not_be_told(self, shelf):
        detector = detect(shelf / "mug", use_class_names=False)
        image = read_image(train(shelf, "mug")).array
        told, untold = (
            detector.predict_batch([image], class_names=names)[0] for names in (["mug"], None)
        )
        assert untold.score == told.score and np.array_equal(untold.score_map, told.score_map)

    def test_a_region_is_remembered_alone(self, tmp_path):
        path = folders.picture(tmp_path / "wide.png", size=(56, 112))
        image = read_image(path).array
        sample = Sample(path, 0, "mug", region=(56, 0, 112, 56))
        (part,) = picture_parts(sample, tiled=True)
        assert np.array_equal(part, image[:, 56:])
        assert fingerprint(sample) != fingerprint(Sample(path, 0, "mug"))


class TestIdentity:
    def test_nothing_of_it_is_saved_and_saved_equals_loaded(self, shelf, tmp_path):
        detector = detect(shelf, shots=2, seed=5)
        assert not detector.method.state_dict()
        detector.save_pretrained(tmp_path / "model")
        loaded = load_detector(tmp_path / "model")
        for number in range(2):
            ours, theirs = (d.method.memory.tokens(number, 2) for d in (detector, loaded))
            assert torch.equal(ours, theirs)
        assert loaded.fingerprint() == detector.fingerprint()

    def test_the_pictures_and_their_class_decide_the_fingerprint(self, tmp_path):
        def sources(**seeds):
            for name, seed in seeds.items():
                path = tmp_path / name / "train" / "good" / "0.png"
                small.picture_file(path, height=56, width=56, seed=seed)
                folders.picture(tmp_path / name / "test" / "good" / "8.png")
            return plus(tmp_path).sources

        first = sources(mug=1, nut=2)
        assert len(first) == 2 and first == sources(mug=1, nut=2)
        swapped = sources(mug=2, nut=1)
        assert not set(first) & set(swapped)
        assert sources(mug=1, nut=3)[0] == first[0]


class TestRefusals:
    def test_a_class_without_references(self, shelf):
        told = "winclip has no references of bolt; known: mug, nut. Add normal pictures of them"
        with pytest.raises(ConfigError, match=told):
            scores(detect(shelf, shots=1), [train(shelf, "mug")], ["bolt"])

    def test_a_class_that_is_not_told(self, shelf):
        told = "references for each of 2 classes and was not told .*class-name. Known: mug, nut"
        with pytest.raises(ConfigError, match=told):
            detect(shelf, shots=1).predict(small.picture())

    def test_too_few_pictures(self, shelf):
        with pytest.raises(ConfigError, match="shots=6 wants .* but mug has 5, nut has 5; take"):
            plus(shelf, shots=6)

    def test_files_and_folders_together(self, shelf):
        both = [str(shelf), str(train(shelf, "mug"))]
        with pytest.raises(ConfigError, match="or folders of datasets; got .*which are both"):
            small.method("winclip", references=both)

    def test_shots_of_files_of_nothing_and_below_zero(self, shelf):
        file = str(train(shelf, "mug"))
        with pytest.raises(ConfigError, match="shots=2 are drawn of the classes of a folder"):
            small.method("winclip", references=[file], shots=2)
        with pytest.raises(ConfigError, match="nowhere does not exist; give a folder"):
            small.method("winclip", references=["nowhere"], shots=2)
        with pytest.raises(ConfigError, match="shots=2 wants references, a folder"):
            small.method("winclip", shots=2)
        with pytest.raises(ConfigError, match="shots should be at least 0, got -1"):
            small.method("winclip", references=[str(shelf)], shots=-1)

    def test_folders_without_normal_pictures_to_refer_to(self, tmp_path):
        folders.magnetic_tile(tmp_path / "tiles")
        with pytest.raises(DatasetError, match="'train'.*References are normal pictures that are"):
            plus(tmp_path / "tiles")
        listed(tmp_path / "bad", [1])
        with pytest.raises(DatasetError, match="no normal picture in its train split. Ref"):
            plus(tmp_path / "bad")

    def test_a_reference_that_cannot_be_read(self, tmp_path):
        folders.mvtec_class(
            tmp_path / "mug", normal={"good": ["8.png"]}, defects={"chip": ["0.png"]}
        )
        (tmp_path / "mug" / "train" / "good" / "0.png").write_bytes(b"no picture")
        with pytest.raises(ImageReadError, match=r"0\.png"):
            plus(tmp_path)
