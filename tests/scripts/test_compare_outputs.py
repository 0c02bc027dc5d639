"""Two recordings: what is a fault, what is only listed."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from scripts import compare_outputs
from scripts.compared.values import read_values


@pytest.fixture
def folders(tmp_path):
    """Return two equal recordings of one command."""
    both = tmp_path / "old", tmp_path / "new"
    for folder in both:
        out = folder / "predict" / "out"
        out.mkdir(parents=True)
        row = {"path": "a.png", "score": 0.5, "latency_ms": 3.0, "notes": []}
        (out / "results.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
        (out / "table.csv").write_text("path,score\na.png,0.5\n")
        (out / "table.md").write_text("# Results\n\n| set | AUROC |\n|---|---|\n| one | 81.2 |\n")
        (out / "page.html").write_text("<p>Good 1</p><tr><td>one</td><td><b>81.2</b></td></tr>")
        np.save(out / "map.npy", np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4))
        save_file({"weight": np.ones(3, dtype=np.float32)}, out / "model.safetensors")
        Image.fromarray(np.full((4, 4), 9, np.uint8)).save(out / "figure.png")
        Image.fromarray(np.full((4, 4), 900, np.uint16)).save(out / "map.png")
    return both


def judge(folders, capsys, **options):
    faults = compare_outputs.compare(*folders, (), **{"expected": (), "words": False} | options)
    return faults, capsys.readouterr().out


def edit(folder, name, old, new):
    path = folder / "predict" / "out" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_equal_recordings_have_no_faults(folders, capsys):
    assert judge(folders, capsys) == (0, "8 files, 8 of them equal; 0 faults\n")


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("results.jsonl", '"score": 0.5', '"score": 0.500001', "[0].score: 2.0e-06"),
        ("results.jsonl", '"score": 0.5', '"mark": 0.5', "[0].score: GONE"),
        ("results.jsonl", '"score": 0.5', '"score": null', "[0].score: 0.5 became 'None'"),
        ("table.csv", "a.png,0.5", "a.png,0.6", "row 0.score: 2.0e-01, 0.5 became 0.6"),
        ("table.csv", "a.png,0.5\n", "", "row 0.path: GONE"),
        ("table.md", "| 81.2", "| 81.3", "table row 'one' 1, number 0: 1.2e-03"),
        ("page.html", "<b>81.2</b>", "-", "table row 'one' 1, number 0: GONE"),
    ],
)
def test_numbers_and_keys_are_faults(folders, capsys, name, old, new, told):
    edit(folders[1], name, old, new)
    faults, printed = judge(folders, capsys)
    assert faults >= 1 and told in printed


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("results.jsonl", '"score": 0.5', '"score": 0.5000000001', "largest difference 2.0e-10"),
        ("results.jsonl", '"latency_ms": 3.0', '"latency_ms": 4.0', "of them equal"),
        ("results.jsonl", "a.png", "b.png", "path: reworded, 'a.png' -> 'b.png'"),
        ("page.html", "Good 1", "Bad 2", "words: reworded, 'Good 1' -> 'Bad 2'"),
    ],
)
def test_small_differences_times_and_words_are_not(folders, capsys, name, old, new, told):
    edit(folders[1], name, old, new)
    faults, printed = judge(folders, capsys)
    assert faults == 0 and told in printed


def test_arrays_and_deep_maps_count_and_other_pictures_are_listed(folders, capsys):
    out = folders[1] / "predict" / "out"
    Image.fromarray(np.full((4, 4), 8, np.uint8)).save(out / "figure.png")
    faults, printed = judge(folders, capsys)
    assert faults == 0 and "picture: pixels differ by up to 1 levels" in printed
    save_file({"weight": np.full(3, 1.1, dtype=np.float32)}, out / "model.safetensors")
    np.save(out / "map.npy", np.zeros((3, 5), dtype=np.float32))
    Image.fromarray(np.full((4, 4), 901, np.uint16)).save(out / "map.png")
    faults, printed = judge(folders, capsys)
    assert (
        faults == 3 and "weight: 1.0e-01" in printed and "(3, 4) became float32 (3, 5)" in printed
    )
    assert judge(folders, capsys, expected=["predict/out/m*"])[0] == 0


def test_missing_files_are_faults_and_cells_go_by_their_name_without_the_key(folders, capsys):
    for folder, key in zip(folders, ("0a1b2c3d", "99887766"), strict=True):
        cell = folder / "benchmark" / "out" / "cells" / f"clip__tiny__{key}"
        cell.mkdir(parents=True)
        (cell / "metrics.json").write_text('{"aupro": 0.5}')
    assert judge(folders, capsys)[0] == 0
    (folders[1] / "predict" / "out" / "table.csv").unlink()
    (folders[1] / "predict" / "out" / "more.csv").write_text("a\n1\n")
    faults, printed = judge(folders, capsys)
    assert faults == 1
    assert "predict/out/table.csv: GONE" in printed and "predict/out/more.csv: new" in printed


def test_tables_of_every_kind_are_read(tmp_path):
    (tmp_path / "t.tex").write_text("one & 81.2 & \\textbf{70.1} \\\\\nViT-L-14 & 5 \\\\\n")
    values = read_values(tmp_path / "t.tex")
    assert values["table row 'one' 1, number 1"] == 70.1
    assert values["table row 'ViT-L-14' 1, number 0"] == 5.0
