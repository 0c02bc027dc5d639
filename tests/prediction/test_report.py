"""The report: counts, order, safety, and that it needs nothing from outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from faprompt.prediction import ResultRow, write_report
from faprompt.prediction import html_report as report_module
from faprompt.prediction.html_report import BINS, score_bin
from tests.prediction.fakes import RedScorer, part, parts, predict

SEPARATOR = "\x1f"  # between the texts of two tags


class Page(HTMLParser):
    """What a browser would find in the report."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data + SEPARATOR

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            attrs
            for name, attrs in self.tags
            if name == tag and all(attrs.get(key) == value for key, value in wanted.items())
        ]

    def cards(self) -> list[dict[str, str | None]]:
        return [attrs for attrs in self.all("article") if attrs.get("class") == "card"]


def scored(count: int, *, verdict="OK") -> list[ResultRow]:
    return [
        ResultRow(
            path=f"p{i}.png", model="m", score=(i + 0.5) / count, verdict=verdict, width=4, height=3
        )
        for i in range(count)
    ]


def page_of(tmp_path, rows, **options) -> Page:
    options = {"model": "m", "threshold": 0.5} | options
    write_report(tmp_path / "report.html", rows, **options)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def filter_counts(page: Page) -> dict[str, str]:
    names = [attrs["data-filter"] for attrs in page.all("button") if "data-filter" in attrs]
    numbers = re.findall(rf"{SEPARATOR}([\d,]+){SEPARATOR}", page.text[: page.text.index("Both")])
    return dict(zip(names, numbers[-len(names) :], strict=True))


def test_a_whole_run(tmp_path):
    paths = parts(tmp_path / "in")
    paths.append(tmp_path / "broken.png")
    paths[-1].write_bytes(b"")
    summary = predict(
        RedScorer(), paths, out_dir=tmp_path / "out", threshold=0.5, model_card="drawn & small"
    )
    page = Page(summary.report.read_text(encoding="utf-8"))
    verdicts = [card["data-verdict"] for card in page.cards()]
    assert verdicts == ["NG", "NG", "REVIEW", "OK", "OK", "OK", "OK"]  # highest score first
    assert filter_counts(page) == {"all": "8", "NG": "2", "REVIEW": "1", "OK": "4", "error": "1"}
    pictures = page.all("img")
    assert len(pictures) == 14
    assert all(img["src"].startswith("data:image/jpeg;base64,/9j/") for img in pictures)
    assert all("part_" in img["alt"] for img in pictures)
    assert len({img["src"] for img in pictures}) == 14
    assert "drawn & small" in page.text and "Could not be read (1)" in page.text
    assert "the file is empty (0 bytes)" in page.text
    links = [a["href"] for a in page.all("a", **{"class": "pair"})]
    assert len(links) == 7 and all((tmp_path / "out" / link).is_file() for link in links)


def test_histogram_counts_every_score_once(tmp_path):
    rows = scored(1000)
    page = page_of(tmp_path, rows)
    bars = [int(n) for n in re.findall(r"\d\.\d\d to \d\.\d\d: (\d+)", page.text)]
    assert sum(bars) == 1000 and len(bars) == BINS
    assert set(bars) == {20}
    assert page.all("svg")[0]["aria-label"].startswith("Histogram of 1,000 scores")


@pytest.mark.parametrize(
    ("score", "expected"),
    [(0.0, 0), (0.0199, 0), (0.0201, 1), (0.51, 25), (0.9999, 49), (1.0, 49), (1.2, 49), (-1, 0)],
)
def test_score_bin(score, expected):
    assert score_bin(score) == expected


@pytest.mark.parametrize("threshold", [0.0, 0.25, 1.0])
def test_the_threshold_line_stands_at_the_threshold(threshold, tmp_path):
    page = page_of(tmp_path, scored(3), threshold=threshold)
    (line,) = page.all("line")
    width = float(page.all("svg")[0]["viewbox"].split()[2])
    assert float(line["x1"]) == pytest.approx(threshold * width, abs=0.1)
    assert f"threshold {threshold:.4g}" in page.text


def test_no_threshold_no_line(tmp_path):
    page = page_of(tmp_path, scored(2, verdict=None), threshold=None)
    assert page.all("line") == []
    assert filter_counts(page) == {"all": "2", "none": "2"}
    assert "no verdict" in page.text


HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


def test_user_text_is_escaped(tmp_path):
    rows = [
        ResultRow(path=HOSTILE, model="m", score=0.5, width=1, height=1, notes=(HOSTILE,)),
        ResultRow(path=HOSTILE, model="m", status="error", error=HOSTILE),
    ]
    options = {"model": HOSTILE, "title": HOSTILE, "model_card": HOSTILE}
    page = page_of(tmp_path, rows, gallery_size=1, **options)
    assert len(page.all("script")) == 1
    assert not any("onerror" in attrs for _, attrs in page.tags)
    assert page.cards()[0]["data-path"] == HOSTILE.lower()
    listed = page_of(tmp_path, rows, gallery_size=0, **options)
    assert len(listed.all("script")) == 1 and listed.all("img") == []


def test_a_file_named_like_a_script(tmp_path):
    path = part(tmp_path / "<script>.png", 90)
    summary = predict(RedScorer(), [path], out_dir=tmp_path / "out")
    page = Page(summary.report.read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    assert "<script>.png" in page.text
    assert len(page.cards()) == 1


def test_nothing_comes_from_outside(tmp_path):
    predict(RedScorer(), parts(tmp_path / "in", 2), out_dir=tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    page = Page(text)
    assert page.all("link") == [] and page.all("iframe") == []
    assert all("src" not in attrs for attrs in page.all("script"))
    assert all(img["src"].startswith("data:") for img in page.all("img"))
    assert not re.search(r"https?://|@import|url\(", text)
    assert "$" not in re.sub(r"base64,[^\"]*", "", text)  # every placeholder is filled


def test_no_picture_at_all(tmp_path):
    page = page_of(tmp_path, [])
    assert page.cards() == [] and "No picture could be scored" in page.text
    assert filter_counts(page) == {"all": "0"}


def test_only_errors(tmp_path):
    rows = [ResultRow(path=f"{i}", model="m", status="error", error=f"e{i}") for i in range(3)]
    page = page_of(tmp_path, rows)
    assert filter_counts(page) == {"all": "3", "error": "3"}
    assert len(page.all("li", **{"data-verdict": "error"})) == 3


def test_beyond_the_gallery_the_list_and_beyond_the_list_a_count(tmp_path, monkeypatch):
    monkeypatch.setattr(report_module, "LIST_SIZE", 7)
    monkeypatch.setattr(report_module, "ERROR_LIST_SIZE", 2)
    errors = [ResultRow(path=f"{i}", model="m", status="error", error="e") for i in range(3)]
    page = page_of(tmp_path, scored(10) + errors, gallery_size=4)
    assert [card["data-path"] for card in page.cards()] == ["p9.png", "p8.png", "p7.png", "p6.png"]
    lines = [attrs["data-path"] for attrs in page.all("tr") if "data-path" in attrs]
    assert lines == ["p5.png", "p4.png", "p3.png"]
    assert "The 4 highest of 10 scores with pictures" in page.text
    assert "And 3 lower scores, see results.jsonl." in page.text
    assert len(page.all("li")) == 2 and "And 1 more, see results.jsonl." in page.text
    assert filter_counts(page)["error"] == "3"


def test_missing_thumbnails_are_said_to_be_missing(tmp_path):
    page = page_of(tmp_path, scored(1))
    assert len(page.cards()) == 1 and page.all("img") == []
    assert page.text.count("no preview") == 2


def test_names_that_are_no_unicode(tmp_path):
    row = ResultRow(path="caf\udce9.png", model="m", score=0.5, width=1, height=1)
    assert len(page_of(tmp_path, [row]).cards()) == 1
