"""A set of good pictures and drawn defects on disk."""

import csv

import numpy as np
import pytest
from PIL import Image

from faprompt.data import check_dataset, read_dataset
from faprompt.errors import ConfigError, DatasetError
from faprompt.synthetic import damaged_pictures
from faprompt.synthetic.damaged_set import write_damaged_set

OPTIONS = {"count": 9, "seed": 3, "kinds": ["hole", "missing part"], "sizes_px": [6, 12]}


@pytest.fixture(scope="module")
def goods(tmp_path_factory):
    folder = tmp_path_factory.mktemp("goods")
    random = np.random.default_rng(0)
    for number, shape in enumerate([(40, 60), (50, 30, 3), (9, 40, 3)]):
        pixels = random.integers(90, 140, shape).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"part-{number}.png")
    (folder / "part-9.png").write_bytes(b"no picture")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def written(goods, tmp_path_factory):
    root = tmp_path_factory.mktemp("set") / "parts"
    calls = []
    result = write_damaged_set(root, goods, **OPTIONS, progress=lambda *call: calls.append(call))
    assert calls == [("copy", n, 4) for n in range(1, 5)] + [("draw", n, 9) for n in range(1, 10)]
    return result


def rows_of(root):
    with open(root / "drawn.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def pixels_of(path):
    return np.asarray(Image.open(path))


def test_the_set_can_be_read(written):
    assert (written.n_good, written.n_drawn, written.n_unreadable) == (3, 9, 1)
    result = check_dataset(written.folder)
    assert result.usable and not result.problems and not result.warnings
    samples = read_dataset(written.folder).samples
    assert sum(sample.label for sample in samples) == 9 and len(samples) == 12


def test_the_table_says_what_was_drawn_where(written, goods):
    rows = rows_of(written.folder)
    assert {row["file"] for row in rows} == {
        path.relative_to(written.folder).as_posix() for path in written.folder.glob("test/*/*.png")
    }
    for row in rows:
        image, source = pixels_of(written.folder / row["file"]), pixels_of(row["source"])
        source = np.broadcast_to(source[..., None], image.shape) if source.ndim == 2 else source
        if row["kind"] == "good":
            assert np.array_equal(image, source) and not row["size_px"] + row["strength"]
            continue
        folder = row["kind"].replace(" ", "_")
        assert row["file"].startswith(f"test/{folder}/")
        name = row["file"].rpartition("/")[2].replace(".png", "_mask.png")
        mask = pixels_of(written.folder / "ground_truth" / folder / name)
        assert mask.shape == source.shape[:2] and set(np.unique(mask)) == {0, 255}
        assert not np.array_equal(image[mask > 0], source[mask > 0])
        assert float(row["size_px"]) == 6 or "part-2" not in row["source"], "12 px do not fit 9"
    assert [row["source"] for row in rows if row["kind"] == "good"] == [str(p) for p in goods[:3]]


def test_the_same_seed_writes_the_same_set(written, goods, tmp_path):
    again = write_damaged_set(tmp_path / "again", goods, **OPTIONS)
    files = [path for path in written.folder.rglob("*") if path.is_file()]
    for path in files:
        assert path.read_bytes() == (again.folder / path.relative_to(written.folder)).read_bytes()
    other = write_damaged_set(tmp_path / "other", goods[:2], **(OPTIONS | {"seed": 4}))
    assert rows_of(other.folder) != rows_of(written.folder)


def test_what_cannot_be_drawn_is_one_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(damaged_pictures, "_TRIES", 3)
    black = tmp_path / "black.png"
    Image.new("RGB", (20, 20)).save(black)
    options = OPTIONS | {"kinds": ["colour change"], "count": 1}
    result = write_damaged_set(tmp_path / "set", [black], **options)
    assert (result.n_good, result.n_drawn) == (1, 0)
    (record,) = caplog.records
    assert "black.png: No colour change of" in record.message


def test_refusals(goods, tmp_path):
    with pytest.raises(DatasetError, match="None of 1 pictures could be read"):
        write_damaged_set(tmp_path / "a", goods[3:], **OPTIONS)
    with pytest.raises(DatasetError, match="is not empty"):
        write_damaged_set(goods[0].parent, goods, **OPTIONS)
    with pytest.raises(ConfigError, match="kind 'rust'"):
        write_damaged_set(tmp_path / "b", goods, **(OPTIONS | {"kinds": ["rust"]}))
    with pytest.raises(ValueError, match="count"):
        write_damaged_set(tmp_path / "b", goods, **(OPTIONS | {"count": 0}))
    assert not (tmp_path / "b").exists()
