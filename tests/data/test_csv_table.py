"""Tables in every notation, the lists of four other projects, and every refusal."""

from __future__ import annotations

import json

import pytest

from faprompt.data import read_dataset, read_mask
from faprompt.data.csv_table import ANOMALY_WORDS, COLUMNS, NORMAL_WORDS, parse_label
from faprompt.errors import DatasetError
from tests.data.suite import ReaderSuite
from tests.helpers import folders


def listed(root):
    """(image, label, mask) of three normal and two anomalous pictures, all drawn."""
    rows = []
    for number in (8, 9, 10):
        place = folders.picture(root / f"pictures/n{number}.png").relative_to(root).as_posix()
        rows.append((place, "0", ""))
    for number in (8, 9):
        place = folders.picture(root / f"pictures/a{number}.png").relative_to(root).as_posix()
        truth = folders.mask(root / f"truth/a{number}.png").relative_to(root).as_posix()
        rows.append((place, "1", truth))
    return rows


def write(path, rows, separator=","):
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows))
    return path


def write_lines(path, objects):
    path.write_text("".join(json.dumps(item) + "\n" for item in objects))
    return path


HEADER = ("image_path", "anomaly", "mask_path")


class TestComma(ReaderSuite):
    name = "table"
    train_refused = "no 'train' rows"
    classes = {"data": (3, 2, 2)}

    def build(self, root):
        write(root / "list.csv", [HEADER, *listed(root)])


class TestSemicolon(TestComma):
    def build(self, root):
        write(root / "list.csv", [HEADER, *listed(root)], ";")


class TestTab(TestComma):
    def build(self, root):
        write(root / "list.tsv", [HEADER, *listed(root)], "\t")


class TestBlanks(ReaderSuite):
    """Blanks cannot hold an empty mask, so these are labels alone."""

    name = "table"
    train_refused = "no 'train' rows"
    classes = {"data": (3, 2, 0)}

    def build(self, root):
        rows = [row[:2] for row in listed(root)]
        write(root / "list.txt", [HEADER[:2], *rows], "   ")


class TestJsonLines(TestComma):
    """As AA-CLIP writes them: labels are fractions, normal rows have no mask."""

    classes = {"mug": (3, 2, 2)}

    def build(self, root):
        rows = [
            {"image_path": image, "label": float(label), "class_name": "mug"}
            | ({"mask_path": mask} if mask else {})
            for image, label, mask in listed(root)
        ]
        write_lines(root / "full-shot.jsonl", rows)


class TestJsonList(ReaderSuite):
    """As InCTRL writes them; its `type` is the class."""

    name = "table"
    train_refused = "no 'train' rows"
    classes = {"mug": (3, 2, 0)}

    def build(self, root):
        rows = [
            {"image_path": image, "target": int(label), "type": "mug"}
            for image, label, _ in listed(root)
        ]
        (root / "mug_test.json").write_text(json.dumps(rows))


def read(root, *rows, header=HEADER, **options):
    return read_dataset(write(root / "list.csv", [header, *rows]), **options)


def by_name(found):
    return {sample.image_path.name: sample for sample in found}


@pytest.fixture
def rows(tmp_path):
    return listed(tmp_path)


def test_fields(tmp_path, rows):
    samples = by_name(read(tmp_path, *rows))
    anomalous, normal = samples["a8.png"], samples["n8.png"]
    assert (anomalous.label, anomalous.class_name, anomalous.defect_type) == (
        1, tmp_path.name, "",
    )  # fmt: skip
    assert anomalous.mask_paths == (tmp_path / "truth/a8.png",)
    assert normal.defect_type == "good" and normal.has_pixel_label


@pytest.mark.parametrize("role", COLUMNS)
def test_every_name_of_a_column(tmp_path, rows, role):
    values = {"class": "mug", "split": "Test", "defect": "chip"}
    usual = {"image": "image_path", "label": "anomaly", "mask": "mask_path"}
    for name in COLUMNS[role]:
        header = [{**usual, role: name}[column] for column in usual]
        header += [] if role in usual else [f" {name.upper()} "]
        told = [(*row, values[role]) if role not in usual else row for row in rows]
        found = by_name(read(tmp_path, *told, header=header))["a8.png"]
        assert found.mask_paths and found.label == 1
        assert found.class_name == ("mug" if role == "class" else tmp_path.name)
        assert found.defect_type == ("chip" if role == "defect" else "")
        assert found.extra == {}


@pytest.mark.parametrize("words", [NORMAL_WORDS, ANOMALY_WORDS])
def test_every_label_word(words):
    for word in words:
        for spelling in (word, word.upper(), f"  {word} ", word.capitalize()):
            assert parse_label(spelling) == int(words is ANOMALY_WORDS)


@pytest.mark.parametrize(
    ("value", "label"), [(0, 0), (1, 1), (0.0, 0), (1.0, 1), ("1.0", 1), (True, 1), (False, 0)]
)
def test_labels_that_are_no_words(value, label):
    assert parse_label(value) == label


@pytest.mark.parametrize("value", ["scratched", "", "2", "0.5", "-1", None, "goods", [1]])
def test_other_labels_are_refused(value):
    with pytest.raises(ValueError, match="is none of 0, false, normal"):
        parse_label(value)


def test_a_label_outside_the_list_names_its_row(tmp_path, rows):
    rows[3] = (rows[3][0], "scratched", "")
    with pytest.raises(DatasetError, match=r"list.csv, line 5: label 'scratched' is none of"):
        read(tmp_path, *rows)


def test_the_first_name_of_a_meaning_wins_and_the_others_are_kept(tmp_path):
    """anomalib's tabular input has `label_index` and a `label` in words."""
    folders.picture(tmp_path / "a.png")
    header = ("image_path", "label_index", "label", "split", "mask_path")
    found = read(tmp_path, ("a.png", "1", "broken", "test", ""), header=header)
    (sample,) = found
    assert sample.label == 1 and sample.extra == {"label": "broken"}


def test_visas_own_list(tmp_path):
    """`split_csv/1cls.csv` names its files from the folder above."""
    folders.visa_own(tmp_path)
    by_list = read_dataset(tmp_path / "split_csv/1cls.csv")
    by_reader = read_dataset(tmp_path)
    assert by_list.name == by_reader.name == "visa"
    facts = [
        [(s.image_path, s.label, s.class_name, s.mask_paths, s.has_pixel_label) for s in found]
        for found in (by_list, by_reader)
    ]
    assert facts[0] == facts[1] and len(facts[0]) == 10
    assert "paths are taken from the folder above 1cls.csv's" in by_list.warnings
    train = read_dataset(tmp_path / "split_csv/1cls.csv", split="train")
    assert (train.normal, train.anomalous) == (2, 0)


def test_split_column(tmp_path, rows):
    names = ("train", "TEST", "", "test", "val")
    told = [(*row, name) for row, name in zip(rows, names, strict=True)]
    header = (*HEADER, "phase")
    assert set(by_name(read(tmp_path, *told, header=header))) == {"n9.png", "n10.png", "a8.png"}
    train = read(tmp_path, *told, header=header, split="train")
    assert [sample.split for sample in train] == ["train"]
    with pytest.raises(
        DatasetError, match="no 'valid' rows; its splits are 'test', 'train', 'val'"
    ):
        read(tmp_path, *told, header=header, split="valid")


def test_crops_become_regions(tmp_path):
    folders.picture(tmp_path / "strip.png")
    folders.mask(tmp_path / "truth.png")
    header = ("image", "label", "mask", "x0", "y0", "x1", "y1")
    told = [
        ("strip.png", 0, "", 8, 0, 14, 9),
        ("strip.png", 1, "truth.png", 0, 0, "8.0", 9),
        ("strip.png", 1, "truth.png", "", "", "", ""),
    ]
    found = read(tmp_path, *told, header=header)
    assert [(s.region, s.label) for s in found] == [
        (None, 1), ((0, 0, 8, 9), 1), ((8, 0, 14, 9), 0),
    ]  # fmt: skip
    assert [read_mask(sample).shape for sample in found] == [(9, 14), (9, 8), (9, 6)]
    assert [int(read_mask(sample).sum()) for sample in found] == [15, 15, 0]
    assert found.problems == () and found.warnings == ()


@pytest.mark.parametrize(
    "crop", [(0, 0, 0, 9), (-1, 0, 4, 9), (0, 5, 4, 5), (0, 0, 4, ""), (0, 0, "wide", 9),
             (0, 0, 4.5, 9), (0, 0, "nan", 9), (0, 0, "inf", 9)]
)  # fmt: skip
def test_crops_that_are_none_name_their_row(tmp_path, rows, crop):
    header = (*HEADER, "x0", "y0", "x1", "y1")
    with pytest.raises(DatasetError, match="line 2: x0, y0, x1, y1 should be whole pixels"):
        read(tmp_path, (*rows[0], *crop), header=header)


def test_half_a_crop_is_refused(tmp_path, rows):
    with pytest.raises(DatasetError, match="has x0, y0; a crop needs"):
        read(tmp_path, (*rows[0], 1, 1), header=(*HEADER, "x0", "y0"))


def test_paths_of_another_machine(tmp_path, rows):
    before = [(s.image_path, s.mask_paths, s.label) for s in read(tmp_path, *rows)]
    moved = [
        (f"/home/me/set/{image}", label, f"D:\\set\\{mask}" if mask else "")
        for image, label, mask in rows
    ]
    found = read(tmp_path, *moved)
    assert [(s.image_path, s.mask_paths, s.label) for s in found] == before
    assert any("7 paths of another machine" in line for line in found.warnings)


def test_missing_pictures_block_and_rows_without_one_are_told(tmp_path, rows):
    found = read(tmp_path, *rows, ("gone.png", 0, ""), ("", 1, ""))
    assert len(found) == 5
    assert found.problems == ("1 pictures named in list.csv are not below the folder: gone.png",)
    assert any("1 records without a picture" in line for line in found.warnings)


def test_repeats_are_told_and_contradictions_block(tmp_path, rows):
    assert any("more than once" in line for line in read(tmp_path, *rows, rows[0]).warnings)
    found = read(tmp_path, *rows, (rows[0][0], 1, ""))
    assert "listed as normal and as anomalous: pictures/n8.png" in found.problems


def test_a_lost_mask_leaves_one_picture_out_of_pixel_figures(tmp_path, rows):
    (tmp_path / "truth/a8.png").unlink()
    found = read(tmp_path, *rows)
    assert found.unmasked == (tmp_path / "pictures/a8.png",)
    assert not by_name(found)["a8.png"].has_pixel_label


def test_class_names_tell_the_dataset_only_where_they_are_written(tmp_path):
    root = tmp_path / "tile"
    told = [(*row, "tile") for row in listed(root)]
    assert read(root, *told, header=(*HEADER, "category")).name == "mvtec"
    assert read(root, *[row[:3] for row in told]).name == "table"


def test_a_known_dataset_is_read_from_a_table_by_name(tmp_path, rows):
    found = read(tmp_path, *rows, dataset="brainmri")
    assert found.name == "brainmri" and len(found) == 5


def test_quotes_byte_order_mark_and_empty_lines(tmp_path):
    folders.picture(tmp_path / "a, b.png")
    text = '\ufeff"Image", "Label"\n\n"a, b.png", "good"\n   \n'
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    (sample,) = read_dataset(tmp_path)
    assert sample.image_path.name == "a, b.png"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no column for the image"),
        ("image,label\n", "no column for the image|splits are"),
        ("a.png,0\nb.png,1\n", "no column for the image .*image_path.*its columns are a.png, 0"),
        ("image,score\na.png,0\n", "no column for the label .*its columns are image, score"),
        ("image,label\na.png\n", "line 2: 1 cells where the header has 2"),
        ("image,label\na.png,0,1\n", "line 2: 3 cells where the header has 2"),
        ("image,label,Label \na.png,0,1\n", "several columns label"),
        ("image,label\n" + "a" * 140_000 + ",0\n", "line 2 is no row of a table"),
    ],
)
def test_other_tables_are_refused(tmp_path, text, told):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DatasetError, match=told):
        read_dataset(tmp_path / "list.csv")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"image": "a.png", "label": 0}\n{', "line 2 is no JSON"),
        ("[1]\n", r"line 1: should be an object, got \[1\]"),
        ('{"image": ["a.png"], "label": 0}', "line 1: image should be text"),
        ('{"image": "a.png"}', "no column for the label"),
    ],
)
def test_other_json_lines_are_refused(tmp_path, text, told):
    folders.picture(tmp_path / "a.png")
    (tmp_path / "list.jsonl").write_text(text)
    with pytest.raises(DatasetError, match=told):
        read_dataset(tmp_path / "list.jsonl")


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "list.csv").write_bytes(b"image,label\n\xff\xfe\xff,0\n")
    with pytest.raises(DatasetError, match="cannot be read as a table"):
        read_dataset(tmp_path / "list.csv")


def test_several_tables_want_a_choice(tmp_path, rows):
    for name in ("one.csv", "two.csv"):
        write(tmp_path / name, [HEADER, *rows])
    with pytest.raises(DatasetError, match="one.csv, two.csv.*path of one"):
        read_dataset(tmp_path)
    assert len(read_dataset(tmp_path / "two.csv")) == 5


def test_other_tables_beside_it_do_not_matter(tmp_path, rows):
    write(tmp_path / "list.csv", [HEADER, *rows])
    (tmp_path / "scores.csv").write_text("image,score\na.png,0.5\n")
    (tmp_path / "notes.txt").write_text("nothing to see\n")
    (tmp_path / "big.csv").write_text("a" * 140_000 + ",b\n")
    assert len(read_dataset(tmp_path)) == 5


def test_folders_of_good_and_bad_come_first(tmp_path):
    for kind in ("good", "chip"):
        folders.picture(tmp_path / kind / "1.png")
    write(tmp_path / "list.csv", [HEADER[:2], ("good/1.png", 0)])
    assert read_dataset(tmp_path).name == "folder"
    assert len(read_dataset(tmp_path, dataset="table")) == 1
