"""A drawn set on disk: the tree, the masks, the record, the refusals."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from faprompt.errors import DatasetError
from faprompt.synthetic import defects_of, objects_of, write_dataset

OPTIONS = {"kinds": "test", "count": 20, "size": 40, "seed": 7}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    calls = []
    root = tmp_path_factory.mktemp("drawn") / "set"
    write_dataset(root, **OPTIONS, progress=lambda _, done, total: calls.append((done, total)))
    return root, calls


def files_of(root):
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def hashes_of(root):
    return {name: hashlib.sha256((root / name).read_bytes()).hexdigest() for name in files_of(root)}


def test_the_tree_is_mvtec_like(drawn):
    root, _ = drawn
    known = {kind.name.replace(" ", "_") for kind in objects_of("test")}
    defects = {kind.name.replace(" ", "_") for kind in defects_of("test")}
    pictures = sorted(root.glob("*/test/*/*.png"))
    assert len(pictures) == 20
    for path in pictures:
        kind, name = path.parent.name, path.parents[2].name
        assert name in known and kind in defects | {"good"}
        mask = root / name / "ground_truth" / kind / f"{path.stem}_mask.png"
        assert mask.is_file() == (kind != "good")
    expected = 20 + sum(path.parent.name != "good" for path in pictures) + 2
    assert len(files_of(root)) == expected  # pictures, masks, licence, record; nothing half-done


def test_pictures_and_masks_are_what_readers_expect(drawn):
    root, _ = drawn
    for path in root.glob("*/ground_truth/*/*.png"):
        mask = np.asarray(Image.open(path))
        assert mask.shape == (40, 40) and set(np.unique(mask)) == {0, 255}
        twin = root / path.parents[2].name / "test" / path.parent.name / f"{path.stem[:-5]}.png"
        assert np.asarray(Image.open(twin)).shape == (40, 40, 3)


def test_each_kind_has_sound_and_damaged_pictures(drawn):
    root, _ = drawn
    for folder in (path for path in root.iterdir() if path.is_dir()):
        kinds = {path.name for path in (folder / "test").iterdir()}
        assert "good" in kinds and len(kinds) > 1


def test_the_record_and_the_licence(drawn):
    root, _ = drawn
    record = json.loads((root / "synthetic.json").read_text())
    assert {key: record[key] for key in OPTIONS} == OPTIONS
    assert record["generator"] and record["license"] == "CC0-1.0"
    for name, counts in record["counts"].items():
        for kind, number in counts.items():
            assert len(list((root / name / "test" / kind).iterdir())) == number
    assert sum(sum(counts.values()) for counts in record["counts"].values()) == 20
    assert "CC0" in (root / "LICENSE.txt").read_text()


def test_progress_counts_every_picture(drawn):
    _, calls = drawn
    assert calls == [(done, 20) for done in range(1, 21)]


def test_the_same_seed_writes_the_same_bytes(drawn, tmp_path):
    again = write_dataset(tmp_path / "again", **OPTIONS)
    assert hashes_of(again) == hashes_of(drawn[0])
    other = write_dataset(tmp_path / "other", **{**OPTIONS, "count": 2, "seed": 8})
    assert hashes_of(other)["wood/test/good/000.png"] != hashes_of(again)["wood/test/good/000.png"]


def test_families_of_two_sets_do_not_meet(drawn, tmp_path):
    aux = write_dataset(tmp_path / "aux", kinds="aux", count=4, size=32, seed=1)
    assert not {p.name for p in aux.iterdir() if p.is_dir()} & {p.name for p in drawn[0].iterdir()}


def test_few_pictures_go_to_few_kinds(tmp_path):
    root = write_dataset(tmp_path / "few", kinds="aux", count=5, size=32, seed=1)
    assert len(list(root.glob("*/test/*/*.png"))) == 5
    assert len([path for path in root.iterdir() if path.is_dir()]) == 2


def test_an_existing_set_is_never_written_over(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(DatasetError, match="is not empty; name a new or an empty folder"):
        write_dataset(tmp_path, **OPTIONS)
    with pytest.raises(DatasetError, match="is a file"):
        write_dataset(tmp_path / "note.txt", **OPTIONS)
    assert files_of(tmp_path) == {"note.txt"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 1}, "count should be at least 2"),
        ({"size": 16}, "size should be at least 32 pixels, got 16"),
        ({"kinds": "real"}, "kinds should be one of"),
    ],
)
def test_refusals_leave_nothing_behind(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_dataset(tmp_path / "set", **{**OPTIONS, **options})
    assert not (tmp_path / "set").exists()
