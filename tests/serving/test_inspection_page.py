"""The inspection page in Chromium: files, paste, keys, toggles, token, export, no network."""

from __future__ import annotations

import base64
import shutil
import time

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from tests.helpers.service import calibrated, png, running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
TOKEN = "0123456789abcdef-token"


@pytest.fixture(scope="module")
def chromium():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with playwright.sync_playwright() as started:
        options = {"executable_path": CHROMIUM, "args": ["--no-sandbox", *CAMERA]}
        browser = started.chromium.launch(**options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def client():
    with running(calibrated()) as client:
        yield client


@pytest.fixture
def visit(chromium, client):
    """Open the page of a service; no script may fail, and nothing else may be asked."""
    pages, faults = [], []

    def go(port: int = client.port, ready: bool = True, **options):
        page = chromium.new_page(viewport={"width": 1400, "height": 900}, **options)
        home = f"http://127.0.0.1:{port}/"
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda said: faults.append(said.text)
                if said.type == "error" and "status of 4" not in said.text else None)  # fmt: skip
        page.on("request", lambda asked: faults.append(asked.url)
                if not asked.url.startswith((home, "data:", "blob:")) else None)  # fmt: skip
        page.goto(home)
        if ready:
            page.wait_for_selector("body[data-ready]")
        pages.append(page)
        return page

    yield go
    for page in pages:
        page.close()
    assert faults == []


def given(*seeds: int) -> list[dict]:
    return [
        {"name": f"p{seed}.png", "mimeType": "image/png", "buffer": png(200, 300, seed=seed)}
        for seed in seeds
    ]


def chips(page, count: int) -> list[str]:
    """The verdicts of the history, when `count` pictures have one."""
    for _ in range(300):
        shown = page.locator("#history .chip").all_text_contents()
        if len(shown) == count and "…" not in shown:
            return shown
        time.sleep(0.05)
    raise AssertionError(f"wanted {count} verdicts, got {shown}")


def test_files_get_verdicts_and_keys_move(client, visit):
    page = visit()
    assert page.locator("#invite").is_visible() and page.locator("#export").is_disabled()
    broken = {"name": "b.png", "mimeType": "image/png", "buffer": b"broken"}
    page.set_input_files("#files", [*given(0, 1), broken])
    shown = chips(page, 3)
    wanted = client.post("/v1/predict", png(200, 300, seed=0)).json
    assert shown[0] == wanted["verdict"] and shown[2] == "unreadable"
    assert page.locator("#word").inner_text() == wanted["verdict"]
    assert page.locator("#score").inner_text() == f"{wanted['score']:.4f}"
    assert "good parts" in page.locator("#said").inner_text()
    assert "rarer than 1 %" in page.locator("#rules").inner_text()
    assert f"NG above {wanted['threshold']:.4f}" in page.locator("#limits").inner_text()
    assert page.locator("#regions li").count() == min(7, len(wanted["regions"]))
    page.keyboard.press("Space")
    assert "p1.png" in page.locator("#name").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#word").inner_text() == "Unreadable"
    assert "b.png" in page.locator("#said").inner_text()
    page.keyboard.press("ArrowLeft")
    assert "p1.png" in page.locator("#name").inner_text()


def test_overlays_switch(visit):
    page = visit()
    page.set_input_files("#files", given(0))
    chips(page, 1)
    assert page.locator("#heat").is_hidden()
    page.keyboard.press("h")
    assert page.locator("#heat").is_visible()
    has_regions = page.locator("#regions li").count() > 0
    assert page.locator("#outlines").is_visible() == has_regions
    page.keyboard.press("o")
    assert page.locator("#outlines").is_hidden()
    page.click("#map")
    assert page.locator("#heat").is_hidden()
    assert page.evaluate("document.activeElement === document.body")  # so space means next


def test_pasted_and_dropped_pictures_and_equal_names(visit):
    page = visit()
    script = """([kind, encoded]) => {
      const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
      const carrier = new DataTransfer();
      carrier.items.add(new File([bytes], 'image.png', { type: 'image/png' }));
      const pasted = new ClipboardEvent('paste', { clipboardData: carrier });
      const dropped = new DragEvent('drop', { dataTransfer: carrier, cancelable: true });
      document.dispatchEvent(kind === 'paste' ? pasted : dropped);
    }"""
    encoded = base64.b64encode(png()).decode()
    page.evaluate(script, ["paste", encoded])
    page.evaluate(script, ["drop", encoded])
    chips(page, 2)
    titles = [page.locator("#history button").nth(i).get_attribute("title") for i in range(2)]
    assert titles == ["image.png", "image.png (2)"]


def test_the_camera_takes_pictures_with_space(visit):
    page = visit()
    page.click("#camera")
    page.locator("#shoot").wait_for()
    for _ in range(100):
        if page.evaluate("document.getElementById('video').videoWidth"):
            break
        time.sleep(0.05)
    page.keyboard.press("Space")
    assert chips(page, 1)[0] in ("OK", "REVIEW", "NG")
    page.click("#camera")
    assert page.locator("#video").is_hidden() and page.locator("#picture").is_visible()
    assert "camera-001.png" in page.locator("#name").inner_text()


def test_the_session_is_exported_as_the_report(visit, chromium, tmp_path):
    page = visit()
    page.set_input_files("#files", given(0, 1, 2))
    chips(page, 3)
    page.fill("#title", "Lot 12")
    with page.expect_download() as download:
        page.click("#export")
    file = tmp_path / "report.html"
    download.value.save_as(file)
    report = chromium.new_page()
    report.goto(file.as_uri())
    report.wait_for_selector("body[data-ready]")
    assert report.locator("h1").inner_text() == "Lot 12"
    assert report.locator(".card:not([hidden])").count() == 3
    report.close()


def test_a_token_is_asked_for_and_kept_in_the_tab(visit):
    with running(calibrated(), token=TOKEN) as client:
        page = visit(client.port, ready=False)
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.locator("#ask[open]").wait_for()
        for _ in range(100):
            if page.locator("#token").input_value() == "":
                break
            time.sleep(0.05)
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("body[data-ready]")
        page.set_input_files("#files", given(0))
        chips(page, 1)


def test_a_product_is_chosen_before_pictures_are_judged(visit):
    with running(calibrated(nut=100, bolt=100)) as client:
        page = visit(client.port)
        page.set_input_files("#files", given(0))
        assert "Choose the product" in page.locator("#said").inner_text()
        page.select_option("#product", "nut")
        page.set_input_files("#files", given(0))
        chips(page, 1)
        assert "nut" in page.locator("#name").inner_text()


@pytest.mark.parametrize("width", [1400, 820, 390])
def test_nothing_is_cut_off(visit, width):
    page = visit(color_scheme="dark" if width == 820 else "light")
    page.set_viewport_size({"width": width, "height": 900})
    page.set_input_files("#files", given(*range(16)))
    chips(page, 16)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for name in ("#word", "#choose", "#next", "#export", "#picture"):
        box = page.locator(name).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width + 1
