"""List the licence of every package in this Python, and mark those that ask for more than credit.

    build/locked/bin/python scripts/list_licences.py docs/licences.md

Reads the metadata of the installed packages; runs with the standard library alone.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

OWN = ("faprompt", "pip", "setuptools", "wheel")
STRONG = re.compile(r"\b(AGPL|GPL)\b|GNU (Affero )?General Public", re.IGNORECASE)
WEAK = re.compile(r"\b(LGPL|MPL|EPL|CDDL)\b|Lesser General|Mozilla Public", re.IGNORECASE)
HEAD = """# Licences

Packages that `requirements.lock` installs, with the licence that each states in its metadata.
`make sbom` writes this page. It is no legal advice: a package may bundle libraries under further
licences (see the files in its `dist-info`).

| package | version | licence | copyleft |
|---|---|---|---|
"""


def licence_of(package: Distribution) -> str:
    """Return the SPDX expression, else the classifiers, else the first line of the old field."""
    facts = package.metadata
    if expression := facts.get("License-Expression"):
        return expression
    classifiers = [
        line.rpartition("::")[2].strip()
        for line in facts.get_all("Classifier") or ()
        if line.startswith("License ::") and not line.endswith("OSI Approved")
    ]
    old = (facts.get("License") or "").strip()
    return " / ".join(classifiers) or old.partition("\n")[0][:60] or "not stated"


def copyleft(licence: str) -> str:
    """Return "" for a permissive licence, else which kind of copyleft it names.

    Example:
        >>> copyleft("MIT"), copyleft("MPL-2.0 AND MIT"), copyleft("GPL-3.0-only")
        ('', 'weak: changed files stay open', 'strong')
        >>> copyleft("not stated")
        'look at its licence file'
    """
    if STRONG.search(licence):
        return "strong"
    if WEAK.search(licence):
        return "weak: changed files stay open"
    return "look at its licence file" if licence == "not stated" else ""


def table(packages: list[Distribution]) -> str:
    """Return the page for these packages."""
    named = {re.sub("[-_.]+", "-", p.metadata["Name"]).lower(): p for p in packages}
    rows = [
        f"| {name} | {package.version} | {licence_of(package).replace('|', '/')} | "
        f"{copyleft(licence_of(package))} |"
        for name, package in sorted(named.items())
        if name not in OWN
    ]
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(table(list(distributions())), encoding="utf-8", newline="\n")
