"""The four files, read back by other means."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from faprompt.reproduce import table_notes as notes
from faprompt.reproduce.table_files import (
    TABLE_FILES,
    ResultPage,
    as_csv,
    as_latex,
    as_markdown,
    write_tables,
)
from faprompt.reproduce.table_grid import build_tables
from tests.reproduce import toys


def squeezed(text):
    """The lines of a Markdown text, without the padding of its tables."""
    return [re.sub(" +", " ", line) for line in text.splitlines()]


PAIRS = {"metrics": [["image_auroc", "image_ap"]]}


@pytest.fixture
def plan():
    return toys.plan(
        methods=[{"name": "clip", "label": "C|_&<"}, "anomalyclip", "faprompt"],
        datasets=["visa"], published=[4], table=PAIRS,
    )  # fmt: skip


@pytest.fixture
def results(plan):
    first, second, _ = plan.cells
    intervals = {"image_auroc": [0.612, 0.7], "image_ap": [0.5, 0.6]}
    return [
        toys.done(first, {"image_auroc": 0.65, "image_ap": 0.55}, intervals=intervals),
        toys.done(second, {"image_auroc": 0.8336, "image_ap": 0.5}),
    ]


def test_markdown_pairs_marks_and_differences(plan, results, tmp_path):
    text = write_tables(plan, results, tmp_path)
    assert text == (tmp_path / "table.md").read_text()
    lines = squeezed(text)
    assert "| | C\\|_&&lt; | anomalyclip | faprompt |" in lines
    row = next(line for line in lines if line.startswith("| VisA"))
    assert row.replace("\\|", "").strip("| ").split(" | ") == [
        "VisA",
        "(<u>65.0</u>, **55.0**)<br>[61.2, 70.0] [50.0, 60.0]",
        "(**83.4**, <u>50.0</u>)<br>(82.1, 85.4) (+1.3, -35.4)",
        "-<br>(84.5, 86.8)",
    ]
    assert "- Brackets: 95 % bootstrap interval over the pictures." in lines
    assert lines[-1] == "- faprompt on visa: no data root: give --data-root"
    assert "/tmp" not in text


def test_precision_and_presets_stand_under_every_table_of_every_file(tmp_path):
    methods = [
        "clip", {"name": "faprompt", "label": "released", "preset": "official"},
        {"name": "faprompt", "label": "described", "published": False},
        {"name": "faprompt", "label": "K_1", "preset": "official", "options": {"prompts": 1}},
        {"name": "faprompt", "label": "bundled", "model": "tiny"},
    ]  # fmt: skip
    plan = toys.plan(
        methods=methods, datasets=["visa"], published=[4], precision="fp32",
        table={"metrics": [["image_auroc"], ["image_ap"]]},
    )  # fmt: skip
    under = (
        "Precision of the image tower: fp32. Presets: paper (clip, described); official "
        "(released); official with prompts=1 (K_1); not recorded (bundled). No published number "
        "stands beside described."
    )
    write_tables(plan, [], tmp_path)
    assert (tmp_path / "table.md").read_text().splitlines().count(under) == 2
    assert (tmp_path / "table.html").read_text().count(f"<p class=under>{under}</p>") == 2
    latex = under.replace("_", r"\_")
    assert (tmp_path / "table.tex").read_text().count(f"{{\\footnotesize {latex}}}") == 2
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert {(r["column"], r["preset"], r["options"], r["precision"]) for r in rows} == {
        ("clip", "paper", "", "fp32"), ("released", "official", "", "fp32"),
        ("described", "paper", "", "fp32"), ("K_1", "official", "prompts=1", "fp32"),
        ("bundled", "", "", "fp32"),
    }  # fmt: skip
    assert {r["column"] for r in rows if r["published"]} == {"released", "K_1", "bundled"}


def test_what_ran_goes_before_what_the_file_says(tmp_path):
    plan = toys.plan(
        methods=["clip", {"name": "faprompt", "model": "tiny", "label": "bundled"}],
        datasets=["visa"], table=PAIRS,
    )  # fmt: skip
    ran = [{"precision": "bf16", "preset": "paper"}, {"precision": "fp32", "preset": "official"}]
    results = [toys.done(cell, {}, **parts) for cell, parts in zip(plan.cells, ran, strict=True)]
    assert (
        "Precision of the image tower: bf16 (clip); fp32 (bundled). Presets: paper (clip); "
        "official (bundled)."
    ) in write_tables(plan, results, tmp_path).splitlines()


def test_presets_that_did_not_run_as_they_are_stand_beneath(tmp_path):
    plan = toys.plan(
        methods=["winclip", "anovl", "faprompt"], datasets=["visa", "mvtec"], backbones=["tiny"]
    )
    notes = {"winclip": "is one thing", "anovl": "is another", "faprompt": "is one thing"}
    results = [
        toys.done(c, {"image_auroc": 0.5}, environment={"note": notes[c.column.method.name]})
        for c in plan.cells
    ]
    lines = write_tables(plan, results, tmp_path).splitlines()
    assert [line for line in lines if "is one thing" in line or "is another" in line] == [
        "- winclip, faprompt: is one thing.",
        "- anovl: is another.",
    ]


def test_csv_has_all_digits(plan, results):
    rows = list(csv.DictReader(io.StringIO(as_csv(build_tables(plan, results)))))
    assert len(rows) == 6
    row = next(r for r in rows if r["method"] == "anomalyclip" and r["metric"] == "image_auroc")
    assert (row["value"], row["published"], row["rank"]) == ("0.8336", "0.821", "1")
    assert float(row["difference"]) == pytest.approx(0.8336 - 0.821)
    assert (row["dataset"], row["class"], row["kind"], row["backbone"]) == (
        "visa", "", "dataset", "test-tiny",
    )  # fmt: skip
    last = rows[-1]
    assert (last["value"], last["rank"], last["reason"]) == (
        "",
        "",
        "no data root: give --data-root",
    )
    assert (rows[0]["low"], rows[0]["high"]) == ("0.612", "0.7")


def test_latex_is_escaped_and_balanced(plan, results):
    text = as_latex(ResultPage("", build_tables(plan, results), ["said"], ["lacking"]))
    assert r"C|\_\&<" in text and r"(\textbf{83.4}, \underline{50.0})" in text
    assert "% said" in text and "% empty: lacking" in text
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert "".join(body).count("{") == "".join(body).count("}")
    (row,) = [line for line in body if line.startswith("VisA")]
    assert row.count(" & ") == 3 and row.endswith(r" \\")
    assert r"\shortstack{- \\ {\scriptsize (84.5, 86.8)}}" in row


def test_spread_over_seeds_in_all_files():
    plan = toys.plan(methods=["faprompt"], seeds=[1, 2], datasets=["visa"], table=PAIRS)
    given = [
        toys.done(c, {"image_auroc": v, "image_ap": v})
        for c, v in zip(plan.cells, (0.5, 0.7), strict=True)
    ]
    tables = build_tables(plan, given)
    assert "(60.0, 60.0)<br>± 14.1 ± 14.1" in as_markdown(ResultPage("", tables))
    assert r"{\scriptsize $\pm$ 14.1 $\pm$ 14.1}" in as_latex(ResultPage("", tables))


class Cells(HTMLParser):
    """The text of every table cell."""

    def __init__(self):
        super().__init__()
        self.rows, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            marks = "".join(tag[0] for tag in self.open if tag in ("strong", "u"))
            self.rows[-1][-1] += f"{marks}{data}"


def test_html_holds_the_same(plan, results, tmp_path):
    write_tables(plan, results, tmp_path)
    page = (tmp_path / "table.html").read_text()
    cells = Cells()
    cells.feed(page[page.index("<h2>") : page.index("</body>")])
    assert cells.rows[0] == ["", "C|_&<", "anomalyclip", "faprompt"]
    assert cells.rows[1] == [
        "VisA",
        "(u65.0, s55.0)[61.2, 70.0] [50.0, 60.0]",
        "(s83.4, u50.0)(82.1, 85.4) (+1.3, -35.4)",
        "-(84.5, 86.8)",
    ]
    assert "://" not in page and "Empty places" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(TABLE_FILES)


def test_methods_go_down_where_groups_are_compared():
    plan = toys.plan(
        methods=["anomalyclip", "tcp-v1"], datasets=["visa", "btad"], published=[5],
        table={"rows": "groups", **PAIRS},
    )  # fmt: skip
    text = as_markdown(ResultPage("T", build_tables(plan)))
    head, _, *lines = [line for line in squeezed(text) if line.startswith("|")]
    assert head == "| | industrial (mean of 2): image AUROC, image AP |"
    assert lines == ["| anomalyclip | - |", "| tcp-v1 | - |"]


class TestStatements:
    def said(self, plan, results, folder):
        return write_tables(plan, results, folder).split("\n\n")[-1].splitlines()

    def test_a_column_that_reads_as_public_code_does_says_so(self, tmp_path):
        plan = toys.plan(methods=["clip", toys.FAPROMPT], datasets=[toys.entry("shelf")])
        about = {"picture_handling": "released"}
        given = [
            toys.done(plan.cells[0], {"aupro": 0.5}),
            toys.done(plan.cells[1], {"aupro": 0.5}, environment=about),
        ]
        lines = write_tables(plan, given, tmp_path).splitlines()
        told = [line for line in lines if "public code reads" in line]
        assert told == [f"- faprompt: {notes.RELEASED}"]

    def test_how_pixels_were_measured(self, tmp_path):
        plan = toys.plan(
            methods=["clip"], datasets=[toys.entry("shelf")], published=[4],
            evaluation={"resolution": "picture", "fpr_limit": 0.2, "pro_200": True},
            table={"metrics": [["aupro"], ["pro_200"]]},
        )  # fmt: skip
        given = [toys.done(plan.cells[0], {"aupro": 0.5, "pro_200": 0.6})]
        text = "\n".join(self.said(plan, given, tmp_path))
        assert "pixel metrics at the picture's size; masks by the any-channel policy" in text
        assert "false-positive rate of 0.2, divided by 0.2" in text and "not comparable" in text
        assert "PRO: the authors' own" in text
        assert "Pictures, normal + anomalous: shelf 3 + 4." in text

    def test_what_trained_what(self, tmp_path):
        plan = toys.plan(methods=["faprompt"], datasets=["mvtec", "visa", "btad"])
        text = write_tables(plan, [], tmp_path)
        assert "- faprompt: trained on VisA's test split for MVTec AD.\n" in text
        assert "- faprompt: trained on MVTec AD's test split for VisA, BTAD.\n" in text
        own = toys.plan(methods=[{**toys.FAPROMPT, "train_on": "shelf"}])
        text = write_tables(own, [], tmp_path)
        assert "- faprompt: on shelf tested on the very pictures it was trained on.\n" in text

    def test_the_papers_count(self, tmp_path):
        plan = toys.plan(methods=["clip"], datasets=["visa", "btad"])
        given = [toys.done(cell, {"image_auroc": 0.5}) for cell in plan.cells]
        given[0].record["matches_paper"], given[1].record["matches_paper"] = True, False
        text = write_tables(plan, given, tmp_path)
        assert "VisA 3 + 4 (the paper's count); BTAD 3 + 4 (not the paper's count)." in text


class TestReasons:
    def told(self, plan, results, folder):
        text = write_tables(plan, results, folder)
        return text.split("Empty places:\n\n")[1].splitlines() if "Empty" in text else []

    def test_a_cell_that_is_not_done_is_named_once(self, tmp_path):
        """Not again for every class, and also where only its group is printed."""
        for rows, lines in (("classes", 2), ("groups", 2), ("datasets", 2)):
            plan = toys.plan(
                tmp_path, methods=["clip", "cap"], datasets=["visa", "btad"],
                table={"rows": rows, **PAIRS},
            )  # fmt: skip
            told = self.told(plan, [], tmp_path)
            assert len(told) == 2 * lines
            assert told[0] == "- clip on visa: no folder visa below the data root"
            assert told[2].startswith("- cap on visa: this version has no method 'cap'; no folder")

    def test_what_is_undefined_is_named_also_where_only_its_group_is_printed(self, tmp_path):
        for rows in ("groups", "datasets"):
            plan = toys.plan(
                methods=["clip"], datasets=["visa", "btad"], table={"rows": rows, **PAIRS}
            )
            undefined = {"image_ap": "one class only: all images are normal"}
            given = [
                toys.done(plan.cells[0], {"image_auroc": 0.5, "image_ap": 0.5}),
                toys.done(plan.cells[1], {"image_auroc": 0.5}, undefined=undefined),
            ]
            assert self.told(plan, given, tmp_path) == [
                "- clip on btad: one class only: all images are normal"
            ], rows

    def test_remarks_on_a_dataset_stand_under_the_table(self, tmp_path):
        plan = toys.plan(methods=["clip", "anomalyclip"], datasets=["visa"])
        given = [
            toys.done(cell, {"image_auroc": 0.5}, remarks=["1 unreadable, left out: a.png"])
            for cell in plan.cells
        ]
        lines = write_tables(plan, given, tmp_path).splitlines()
        assert lines.count("- VisA: 1 unreadable, left out: a.png.") == 1

    def test_what_is_undefined_is_named_by_its_place(self, tmp_path):
        classes = {"01": {"image_auroc": 0.5, "image_ap": 0.5, "undefined": {}}}
        plan = toys.plan(methods=["clip"], datasets=["btad"], table={"rows": "classes", **PAIRS})
        mean = {"image_auroc": 0.5}
        given = [
            toys.done(
                plan.cells[0], mean, classes=classes, undefined={"image_ap": "one class only"}
            )
        ]
        assert self.told(plan, given, tmp_path) == [
            "- clip on btad/02: the data has no class '02'",
            "- clip on btad/03: the data has no class '03'",
            "- clip on btad: one class only",
        ]


def test_level_figures_carry_their_sign_and_its_meaning(plan, results, tmp_path):
    drawn = np.linspace(0.4, 0.9, 200)
    given = [
        replace(results[0], replicates={"image_auroc": drawn[::-1]}),
        replace(results[1], replicates={"image_auroc": drawn}),
    ]
    text = write_tables(plan, given, tmp_path)
    assert "| (<u>65.0</u>≈, **55.0**)<br>" in text
    meaning = "≈: not significantly different from the best (95 %, paired bootstrap over pictures)."
    assert f"- {meaning}" in text.splitlines()
    assert "<u>65.0</u>≈" in (tmp_path / "table.html").read_text()
    assert r"(\underline{65.0}$\approx$, \textbf{55.0})" in (tmp_path / "table.tex").read_text()
    rows = csv.DictReader((tmp_path / "table.csv").read_text().splitlines())
    assert [row["level"] for row in rows] == ["yes", "", "", "", "", ""]
