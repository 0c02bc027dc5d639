"""The site builds without a warning, holds what it links to, and opens from disk."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.printed import ROOT

mkdocs_config = pytest.importorskip("mkdocs.config", reason="needs the extra docs")
pytest.importorskip("material", reason="needs the extra docs")
pytest.importorskip("mkdocstrings", reason="needs the extra docs")

LINK = re.compile(r'<(\w+)[^>]* (?:href|src)="?([^" >]+)')
NAMED = re.compile(r' id="?([^" >]+)')


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    from mkdocs.commands.build import build

    folder, told = tmp_path_factory.mktemp("site"), []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: told.append(record.getMessage())
    logger = logging.getLogger("mkdocs")
    logger.addHandler(handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setenv("NO_MKDOCS_2_WARNING", "1")
        config = mkdocs_config.load_config("mkdocs.yml", site_dir=str(folder))
        config.plugins.on_startup(command="build", dirty=False)
        try:
            build(config)
        finally:
            config.plugins.on_shutdown()
            logger.removeHandler(handler)
    assert told == []
    return folder


def test_it_has_every_page_and_links_to_files_that_are_there(site):
    pages = {page: page.read_text("utf-8") for page in site.rglob("*.html")}
    names = {page: set(NAMED.findall(text)) for page, text in pages.items()}
    lost = []
    for page, text in pages.items():
        for _, link in LINK.findall(text):
            parts = urlsplit(link.replace("&amp;", "&"))
            if parts.scheme or page.name == "404.html":
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchor = unquote(parts.fragment)
            known = target not in names or not anchor or anchor in names[target]
            if not target.exists() or not (known or anchor.startswith("__")):
                lost.append(f"{page.relative_to(site)}: {link}")
    assert not lost
    assert {path.stem for path in ROOT.glob("docs/*.md")} <= {page.stem for page in pages}


def test_nothing_is_fetched_from_elsewhere(site):
    """Links that a reader clicks may lead out; scripts, styles, fonts and pictures may not."""
    fetched = [
        (page.name, link)
        for page in site.rglob("*.html")
        for tag, link in LINK.findall(page.read_text("utf-8"))
        if tag != "a" and urlsplit(link).scheme in ("http", "https")
    ]
    assert not fetched
    styles = [path.read_text("utf-8") for path in site.rglob("*.css")]
    assert not [text for text in styles if re.search(r"url\([\"']?https?:", text)]


def test_notebooks_are_linked_and_copied(site):
    text = "".join(page.read_text("utf-8") for page in site.glob("*.html"))
    for notebook in (ROOT / "examples" / "notebooks").glob("*.ipynb"):
        copy = Path("project", notebook.relative_to(ROOT))
        assert copy.as_posix() in text
        assert (site / copy).read_bytes() == notebook.read_bytes()
