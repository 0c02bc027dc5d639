"""The report in Chromium: slider, filter, order, search, zoom, keys, print, alone in a folder."""

from __future__ import annotations

import re
import shutil

import pytest

from faprompt.prediction import write_report
from tests.prediction.report_data import calibration, judged, scored, write_pictures

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
COUNT = 80
TWO_FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Reports without anything beside them, as a mail attachment lies in a folder."""
    known, lines = calibration(), calibration(nut=100, bolt=130)
    made, mailed = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("mailed")
    lots = {
        "one": ([judged(f"lot/p{i}.png", i / COUNT, known) for i in range(COUNT)], None, known),
        "two": ([judged(f"{p}/{i}.png", i / 20, lines, p) for i in range(20)
                 for p in ("nut", "bolt")], None, lines),
        "score": (scored(10, verdict="OK", threshold=0.97), 0.97, None),
        "none": (scored(10, verdict=None), None, None),
    }  # fmt: skip
    for name, (rows, threshold, judge) in lots.items():
        write_pictures(made / name, rows)
        path = made / name / "report.html"
        write_report(path, rows, model="m", threshold=threshold, calibration=judge, title="Lot 7")
        shutil.copy(path, mailed / f"{name}.html")
    return mailed


@pytest.fixture
def visit(chromium, reports):
    """Open a report by name; nothing may be fetched and no script may fail."""
    pages, faults = [], []

    def go(name: str, **options):
        page = chromium.new_page(viewport={"width": 1400, "height": 1000}, **options)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
        page.on(
            "request",
            lambda asked: faults.append(asked.url) if asked.url.startswith("http") else None,
        )
        page.goto((reports / f"{name}.html").as_uri())
        page.wait_for_selector("body[data-ready]")
        pages.append(page)
        return page

    yield go
    for page in pages:
        page.close()
    assert faults == []


def names(page) -> list[str]:
    return page.locator(".card:not([hidden]) .name").all_text_contents()


def count(page, verdict: str) -> int:
    shown = page.locator(f"#counts [data-count={verdict}] b").inner_text()
    return int(shown) if page.locator(f"#counts [data-count={verdict}]").is_visible() else 0


def slide(page, step: int) -> None:
    page.locator("#slider").evaluate(
        "(slider, step) => { slider.value = step; slider.dispatchEvent(new Event('input')); }", step
    )
    page.evaluate(TWO_FRAMES)


def test_pictures_are_there_where_the_file_is_alone(visit):
    page = visit("one")
    image = page.locator(".card .plain").first
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 90
    layer = page.locator(".card .layer").first
    assert layer.evaluate("image => image.decode().then(() => image.naturalHeight)") == 60
    assert page.title() == page.locator("h1").inner_text() == "Lot 7"


def test_the_slider_judges_as_the_calibration_does(visit):
    page, known = visit("one"), calibration()
    last = int(page.locator("#slider").get_attribute("max"))
    for step in (0, 3, last // 2, last):
        slide(page, step)
        rate = float(page.locator("#value").inner_text().split()[0]) / 100
        judge = known.with_rates(target_fpr=round(rate * 121) / 121).limits()
        verdicts = [judge.verdict(i / COUNT) for i in range(COUNT)]
        assert [count(page, name) for name in ("NG", "REVIEW", "OK")] == [
            verdicts.count(name) for name in ("NG", "REVIEW", "OK")
        ]
        chips = page.locator(".card .chip").all_text_contents()
        assert chips.count("NG") == verdicts.count("NG")
        said = page.locator("#said").inner_text()
        assert f"{verdicts.count('NG')} of 80 pictures of this lot are NG" in said
        assert re.search(r"About [\d.]+ % of good parts would be NG \(at most [\d.]+ % with", said)
    page.locator("#reset").click()
    assert count(page, "NG") == sum(known.limits().verdict(i / COUNT) == "NG" for i in range(COUNT))
    assert page.locator("#value").inner_text() == "1 %" and page.locator("#reset").is_disabled()


def test_the_slider_moves_by_keys(visit):
    page = visit("one")
    page.locator("#slider").focus()
    page.keyboard.press("End")
    page.evaluate(TWO_FRAMES)
    assert page.locator("#value").inner_text() == "49.6 %"
    assert count(page, "NG") > count(page, "REVIEW") == 0


def test_products_are_judged_by_their_own_good_parts(visit):
    page, known = visit("two"), calibration(nut=100, bolt=130)
    slide(page, int(page.locator("#slider").get_attribute("max")) // 2)
    rate = float(page.locator("#value").inner_text().split()[0]) / 100
    judge = known.with_rates(target_fpr=round(rate * 131) / 131)
    expected = {
        name: sum(judge.limits(name).verdict(i / 20) == "NG" for i in range(20))
        for name in ("nut", "bolt")
    }
    assert count(page, "NG") == sum(expected.values())
    page.locator("#product").select_option("nut")
    assert count(page, "NG") == expected["nut"] and len(names(page)) == 20
    assert page.locator("#products tr").count() == 3


def test_a_threshold_that_is_not_calibrated(visit):
    page = visit("score")
    assert "is unknown" in page.locator("#said").inner_text()
    slide(page, 100)
    assert page.locator("#value").inner_text() == "0.5"
    assert (count(page, "NG"), count(page, "OK")) == (5, 5)


def test_no_threshold(visit):
    page = visit("none")
    assert count(page, "none") == 10 and "move the slider" in page.locator("#said").inner_text()
    slide(page, 100)
    assert (count(page, "none"), count(page, "NG"), count(page, "OK")) == (0, 5, 5)
    assert page.locator("#scale").is_visible()  # colours, since no region is known


def test_filter_search_and_order(visit):
    page = visit("one")
    assert names(page)[0] == "p79.png"
    page.locator("#filters [data-verdict=REVIEW]").click()
    review = names(page)
    known = calibration()
    assert set(review) == {
        f"p{i}.png" for i in range(COUNT) if known.limits().verdict(i / COUNT) == "REVIEW"
    }
    page.locator("#filters [data-verdict=all]").click()
    page.locator("#search").fill("P5")
    assert set(names(page)) == {"p5.png", *(f"p{i}.png" for i in range(50, 60))}
    assert page.locator("#count").inner_text() == "11 of 80 shown"
    page.locator("#sort").select_option("name")
    assert names(page)[:2] == ["p5.png", "p50.png"]
    page.locator("#search").fill("")
    page.locator("#sort").select_option("near")
    nearest = sorted(range(COUNT), key=lambda i: abs(i / COUNT - known.limits().threshold))
    assert set(names(page)[:3]) == {f"p{i}.png" for i in nearest[:3]}
    page.locator("#sort").select_option("low")
    assert names(page)[0] == "p0.png"
    page.locator("#search").fill("nothing like it")
    assert page.locator("#empty").is_visible()


def test_zoom_by_mouse_and_keys(visit):
    page = visit("one")
    page.locator(".card button").first.click()
    zoom = page.locator("#zoom")
    assert zoom.is_visible() and "p79.png" in page.locator("#zoomName").inner_text()
    assert page.locator("#zoom .plain").evaluate("image => image.clientWidth") > 600
    page.keyboard.press("ArrowRight")
    assert "p78.png" in page.locator("#zoomName").inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")  # stays at the first
    assert "p79.png" in page.locator("#zoomName").inner_text()
    assert page.locator("#zoomPlace").inner_text() == "1 of 80"
    assert page.locator("#zoom .layer").is_visible()
    page.keyboard.press("o")
    assert not page.locator("#zoom .layer").is_visible()
    assert page.locator("#overlay").get_attribute("aria-pressed") == "false"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert not zoom.is_visible()
    assert "p78.png" in page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("Enter")
    assert zoom.is_visible() and "Region 1: x 30–60, y 20–40 px" in zoom.inner_text()


def test_everything_is_reached_by_keyboard_and_has_a_name(visit):
    page = visit("one")
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("document.activeElement.id || document.activeElement.className")
        )
    assert {"slider", "sort", "search", "overlay"} <= set(reached)
    nameless = page.evaluate(
        """[...document.querySelectorAll('button, input, select')].filter((node) =>
        !node.textContent.trim() && !node.getAttribute('aria-label') && !(node.labels || []).length
        ).length"""
    )
    assert nameless == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(scheme, chromium, reports):
    page = chromium.new_page(viewport={"width": 390, "height": 844}, color_scheme=scheme)
    for name in ("one", "two"):
        page.goto((reports / f"{name}.html").as_uri())
        page.wait_for_selector("body[data-ready]")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        dim = page.evaluate(CONTRAST)
        assert dim == []
    page.close()


CONTRAST = """(() => {
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const luminance = ([r, g, b]) =>
    0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const read = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = read(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = new Set();
  for (const node of document.querySelectorAll("body *:not(script):not(svg *)")) {
    const text = [...node.childNodes].filter((child) => child.nodeType === 3);
    if (!text.some((child) => child.textContent.trim())) continue;
    if (!node.checkVisibility() || node.disabled) continue;
    const a = luminance(read(getComputedStyle(node).color)), b = luminance(ground(node));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.add(node.tagName + "." + node.className + " " + ratio.toFixed(2));
  }
  return [...found];
})()"""


def test_the_print_summary_has_two_pages(visit):
    page = visit("one")
    slide(page, int(page.locator("#slider").get_attribute("max")))  # 36 of many are listed
    pdf = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 2
    page.emulate_media(media="print")
    assert page.locator("#paper li").count() == 36 and page.locator("#chart").is_visible()
    assert not page.locator("nav").is_visible() and not page.locator("main").is_visible()
