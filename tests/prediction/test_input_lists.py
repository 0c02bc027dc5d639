"""Lists of pictures: text, CSV and Parquet files, local or in an object storage."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from faprompt.errors import ConfigError, ImageReadError, MissingExtraError
from faprompt.prediction import expand_inputs
from faprompt.prediction.input_lists import list_of
from faprompt.prediction.input_paths import describe_left_out, list_inputs

NAMES = ["b/10.png", "a b,c.png", "s3://lot/x#1.png", "検査.png", "gone.png"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(*inputs, **options):
    return [file.path for file in list_inputs(inputs, **options)]


def parquet(path, columns, **options):
    pyarrow, table = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table.write_table(pyarrow.table(columns), path, **options)


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_text_file_has_one_path_a_line(home, coding, end):
    (home / "lot.txt").write_bytes(end.join(["", *NAMES, "  "]).encode(coding))
    assert listed("@lot.txt") == NAMES
    assert listed(f"@{home}/lot.txt") == NAMES


def test_names_that_are_no_unicode_are_kept(home):
    (home / "lot.txt").write_bytes(b"a\xff.png\n")
    assert listed("@lot.txt") == ["a\udcff.png"]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_csv_table_has_a_column(home, mark):
    rows = [["number", "path", "file"], *([str(n), name, "x.png"] for n, name in enumerate(NAMES))]
    text = "\r\n".join(mark.join(f'"{cell}"' for cell in row) for row in rows)
    (home / "lot.CSV").write_text(text, encoding="utf-8-sig")
    assert listed("@lot.CSV") == NAMES
    assert listed("@lot.CSV", column="file") == ["x.png"]


def test_a_parquet_table_has_a_column(home):
    names = NAMES + [f"{number}.png" for number in range(70_000)]
    parquet(home / "lot.parquet", {"path": names, "n": [*range(len(names))]}, row_group_size=999)
    assert listed("@lot.parquet") == names
    parquet(home / "coded.parquet", {"file name": NAMES}, use_dictionary=True)
    assert listed("@coded.parquet", column="file name") == NAMES


def test_rows_without_a_path_are_counted(home):
    (home / "lot.csv").write_text("n,path\n1,a.png\n2,\n3\n\n4,b.png\n")
    left_out = Counter()
    assert listed("@lot.csv", left_out=left_out) == ["a.png", "b.png"]
    assert describe_left_out(left_out) == "2 list rows without a path"
    parquet(home / "lot.parquet", {"path": [None, "a.png", ""]})
    left_out = Counter()
    assert listed("@lot.parquet", left_out=left_out) == ["a.png"]
    assert left_out.total() == 2


def test_each_picture_once_over_all_inputs(home):
    for name in ("in/1.png", "in/2.png"):
        (home / name).parent.mkdir(exist_ok=True)
        (home / name).write_bytes(b"x")
    (home / "lot.txt").write_text(f"in/2.png\nin/../in/2.png\n{home}/in/1.png\nin/3.png\n")
    assert listed("@lot.txt", "in", "in/1.png") == ["in/2.png", f"{home}/in/1.png", "in/3.png"]
    assert listed("in", "@lot.txt") == ["in/1.png", "in/2.png", "in/3.png"]


def test_file_urls_of_a_list_are_local_paths(home):
    (home / "lot.txt").write_text(f"{(home / 'a b.png').as_uri()}\nfile://server/c.png\n")
    assert listed("@lot.txt") == [str(home / "a b.png"), "file://server/c.png"]


def test_a_list_may_be_a_url_and_names_urls():
    pytest.importorskip("fsspec")
    from faprompt.storage import open_folder

    lists = open_folder("memory://input-lists")
    lists.write("lot.txt", b"memory://x/1.png\nhere.png\n")
    lists.write("lot.csv", b"url\nmemory://x/2.png\n")
    assert listed("@memory://input-lists/lot.txt") == ["memory://x/1.png", "here.png"]
    assert listed("@memory://input-lists/lot.csv", column="url") == ["memory://x/2.png"]
    with pytest.raises(ImageReadError, match="there is no such list"):
        listed("@memory://input-lists/none.txt")


def test_files_whose_names_begin_with_at(home):
    (home / "@part.png").write_bytes(b"x")
    (home / "@lot.txt").mkdir()
    (home / "@lot.txt/a.png").write_bytes(b"x")
    assert listed("@part.png") == ["@part.png"]
    assert listed("@lot.txt") == ["@lot.txt/a.png"]
    (home / "lot.txt").write_text("b.png\n")
    assert listed("@lot.txt") == ["b.png"]
    assert list_of("part.png") is None


@pytest.mark.parametrize(
    ("named", "column", "kind", "reason"),
    [
        ("@none.txt", None, ImageReadError, "there is no such list; check the path"),
        ("@lot.xlsx", None, ConfigError, r"\.txt .*\.csv or \.parquet, got '\.xlsx'"),
        ("@lot", None, ConfigError, "got 'no ending'"),
        ("@lot.txt", "path", ConfigError, "a .txt has no columns"),
        ("@lot.csv", "x", ConfigError, "no column 'x'; it has n, path. Choose one by --column"),
        ("@empty.csv", None, ConfigError, "no column 'path'; it has none"),
        ("@empty.txt", None, ImageReadError, "@empty.txt: this list names no picture"),
        ("@bare.csv", None, ImageReadError, r"names no picture \(1 list row without a path\)"),
        ("@folder.txt", None, ImageReadError, "the list cannot be read"),
        ("@broken.parquet", None, ImageReadError, "this is no Parquet file"),
        ("@n.parquet", "n", ConfigError, "'n' should be text, got int64"),
        ("@n.parquet", None, ConfigError, "no column 'path'; it has n"),
        ("lot", "x", ConfigError, "--column x: .* no input is a list"),
    ],
)
def test_what_is_refused(home, named, column, kind, reason):
    (home / "lot.txt").write_text("a.png\n")
    (home / "lot.csv").write_text("n,path\n1,a.png\n")
    (home / "bare.csv").write_text("n,path\n1,\n")
    (home / "empty.csv").touch()
    (home / "empty.txt").touch()
    (home / "folder.txt").mkdir()
    (home / "broken.parquet").write_bytes(b"PAR1 no table")
    if named.endswith(".parquet"):
        parquet(home / "n.parquet", {"n": [1, 2]})
    with pytest.raises(kind, match=reason):
        listed(named, column=column)


def test_parquet_without_pyarrow(home, monkeypatch):
    (home / "lot.parquet").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"faprompt\[parquet\]"):
        listed("@lot.parquet")


def test_local_callers_refuse_urls(home):
    (home / "lot.txt").write_text("a.png\ns3://b/c.png\n")
    for named in ("s3://b/c.png", "@lot.txt"):
        with pytest.raises(ConfigError, match="no URLs; `faprompt predict`"):
            expand_inputs([named])
    (home / "lot.txt").write_text("a.png\n")
    assert [path.name for path in expand_inputs(["@lot.txt"])] == ["a.png"]
