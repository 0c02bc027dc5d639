"""Version, changelog, citation and lock agree; every system can store the files' names."""

from __future__ import annotations

import re
import subprocess
import tomllib
import unicodedata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import faprompt

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
TESTED = {
    re.sub(r"[-_.]+", "-", name).lower(): version
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
}
PIN = re.compile(r"^([a-z0-9-]+)==(\S+) \\\n((?: {4}--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M)


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: list[str]) -> set[str]:
    return {plain(re.match(r"[\w.-]+", each)[0]) for each in requirements}


def test_the_newest_heading_of_the_changelog_is_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.findall(r"^## (\S+) — (unreleased|\d{4}-\d\d-\d\d)$", text, re.MULTILINE)
    assert len(found) == len(re.findall(r"^## ", text, re.MULTILINE))
    versions = [tuple(map(int, version.split("."))) for version, _ in found]
    assert versions == sorted(set(versions), reverse=True)
    assert found[0][0] == faprompt.__version__
    assert all(state != "unreleased" for _, state in found[1:])
    assert "docs/versions.md" in text.partition("\n## ")[0]


def test_the_citation_is_whole_and_of_this_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= {*cited}
    assert (cited["version"], cited["license"]) == (faprompt.__version__, PROJECT["license"])
    paper = cited["preferred-citation"]
    assert (paper["year"], paper["authors"][0]["family-names"]) == (2025, "Zhu")


def test_the_lock_has_a_hash_of_every_package_and_names_no_host():
    lines = [line for line in LOCK.splitlines() if re.match(r"[a-z]", line)]
    assert [f"{name}=={version} \\" for name, version, _ in PIN.findall(LOCK)] == lines
    assert "://" not in LOCK and not re.search(r"^-", LOCK, re.MULTILINE)


def test_the_lock_has_what_the_project_asks_for_in_the_tested_versions():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    extras = re.search(r"^LOCKED := (.*)$", makefile, re.MULTILINE)[1].split(",")
    wanted = [*PROJECT["dependencies"]]
    wanted += [each for extra in extras for each in PROJECT["optional-dependencies"][extra]]
    locked = {name: version for name, version, _ in PIN.findall(LOCK)}
    assert names(wanted) - {*locked} == set()
    differ = {
        n: (v, TESTED[n]) for n, v in locked.items() if n in TESTED and v.split("+")[0] != TESTED[n]
    }
    assert differ == {}
    assert len({*locked} & {*TESTED}) > 30


@pytest.mark.parametrize("which", ["locked", "tested"])
def test_the_versions_are_what_the_project_allows(which):
    versions = {name: version for name, version, _ in PIN.findall(LOCK)}
    versions = versions if which == "locked" else TESTED
    extras = PROJECT["optional-dependencies"].values()
    asked = [Requirement(each) for part in (PROJECT["dependencies"], *extras) for each in part]
    unfit = {
        str(each): versions[plain(each.name)]
        for each in asked
        if plain(each.name) in versions and not each.specifier.contains(versions[plain(each.name)])
    }
    assert unfit == {}
    lost = {plain(Requirement(each).name) for each in PROJECT["dependencies"]} - {*versions}
    assert lost == set()


def test_the_licence_list_is_that_of_the_lock():
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = [line.strip("|").split("|") for line in page.splitlines() if line.startswith("| ")][1:]
    listed = {row[0].strip(): row[1].strip() for row in rows}
    locked = {name: version for name, version, _ in PIN.findall(LOCK)}
    assert {n: (v, locked.get(n)) for n, v in listed.items() if locked.get(n) != v} == {}
    assert {*locked} - {*listed} - {"setuptools", "pip", "wheel"} == set()
    assert all(row[2].strip() for row in rows)
    assert [row[0].strip() for row in rows if row[3].strip() == "strong"] == []


def test_windows_and_macos_can_store_every_name():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if done.returncode:
        pytest.skip("not a clone")
    paths = done.stdout.decode("utf-8").strip("\0").split("\0")
    seen: dict[str, str] = {}
    for path in paths:
        key = unicodedata.normalize("NFC", path).casefold()
        assert key not in seen, f"{path} and {seen[key]} are one file where case does not count"
        seen[key] = path
        assert len(path) <= 150, path  # Windows allows 260 with the folder of the clone
        for part in path.split("/"):
            assert not re.search(r'[<>:"\\|?*\x00-\x1f]|[. ]$', part), path
            assert not re.match(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", part, re.IGNORECASE), path
