"""Bring files outside docs/ into the site: a hook of MkDocs, named in mkdocs.yml.

Pages link to other files of the repository by relative paths, as GitHub wants it, such as
`../configs/tiny.toml`. The site holds a copy of every such file under `project/`, a page if it is
Markdown, and the links lead there. So both places work, and the site works without a network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")  # in the navigation
INTERVAL = re.compile(
    r"\[([-+]?[\d.]+, [-+]?[\d.]+)\](?!\()"
)  # in tables; no reference to a heading
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)#\s]+)")


def on_files(files, config):
    """Add the files that pages link to, and those that these link to."""
    waiting = [Path(file.abs_src_path) for file in files if file.src_uri.endswith(".md")]
    waiting += [ROOT / name for name in PAGES]
    for name in PAGES:
        _add(files, config, ROOT / name)
    while waiting:
        page = waiting.pop()
        for target in linked(page, page.read_text(encoding="utf-8")):
            if not target.is_relative_to(DOCS) and target.is_file() and _add(files, config, target):
                waiting += [target] if target.suffix == ".md" else []
    return files


def on_page_markdown(markdown, page, config, files):
    """Make links to files outside docs/ lead to their copies, and links of copies into docs/.

    Intervals such as [84.3, 91.8] are escaped, which mkdocstrings would take for references.
    """
    place = Path(page.file.abs_src_path)
    here = Path(page.file.src_uri).parent

    def moved(link: re.Match[str]) -> str:
        target = _target(place, link[1])
        if not target.exists() or (place.is_relative_to(DOCS) and target.is_relative_to(DOCS)):
            return link[1]
        return Path(os.path.relpath(site_path(target), here)).as_posix()

    return INTERVAL.sub(r"\\[\1\\]", LINK.sub(moved, markdown))


def linked(page: Path, markdown: str) -> Iterator[Path]:
    """Yield the files that the relative links of a page name."""
    return (_target(page, link[1]) for link in LINK.finditer(markdown))


def site_path(target: Path) -> str:
    """Return the path of a file of the repository in the site's sources."""
    if target.is_relative_to(DOCS):
        return target.relative_to(DOCS).as_posix()
    return f"project/{target.relative_to(ROOT).as_posix().removeprefix('.')}"  # none hidden


def _target(page: Path, link: str) -> Path:
    return Path(os.path.normpath(page.parent / link))


def _add(files, config, target: Path) -> bool:
    name = site_path(target)
    if files.get_file_from_path(name) is not None:
        return False
    files.append(File.generated(config, name, abs_src_path=str(target)))
    return True
