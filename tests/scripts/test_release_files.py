"""The checks of a release find what is wrong with an archive or a licence."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import pytest

from scripts import check_dist, list_licences

ROOT = Path(check_dist.__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("size_mb", "names", "wanted", "faults"),
    [
        (25.0, ["a/py.typed"], ("py.typed",), []),
        (25.1, [], (), ["25.1 MB, at most 25 wanted"]),
        (1.0, ["a/__pycache__/b.pyc"], (), ["a/__pycache__/b.pyc does not belong in"]),
        (1.0, ["a"], ("NOTICE",), ["NOTICE is missing"]),
    ],
)
def test_faults_of_an_archive(size_mb, names, wanted, faults):
    assert check_dist.faults_of(size_mb, names, wanted) == faults


def test_wheels_are_compared_by_content_not_by_their_record(tmp_path):
    def wheel(name: str, **files: str) -> Path:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file, text in files.items():
                archive.writestr(file, text)
        return tmp_path / name

    one, same = wheel("1", a="x", RECORD="1"), wheel("2", RECORD="2", a="x")
    assert check_dist.content(one) == check_dist.content(same)
    assert check_dist.content(one) != check_dist.content(wheel("3", a="y"))


def package(**fields: object) -> SimpleNamespace:
    facts = Message()
    for name, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            facts[name.replace("_", "-")] = value
    return SimpleNamespace(metadata=facts, version="1.0")


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License_Expression": "MIT", "License": "other"}, "MIT"),
        (
            {"Classifier": ["License :: OSI Approved", "License :: OSI Approved :: MIT License",
                            "Topic :: X", "License :: OSI Approved :: BSD License"]},
            "MIT License / BSD License",
        ),
        ({"License": "Apache 2\nand its whole text"}, "Apache 2"),
        ({}, "not stated"),
    ],
)  # fmt: skip
def test_the_licence_of_a_package(fields, licence):
    assert list_licences.licence_of(package(**fields)) == licence


@pytest.mark.parametrize(
    ("licence", "kind"),
    [("GNU General Public License v3 (GPLv3)", "strong"), ("AGPL-3.0-or-later", "strong"),
     ("GNU Lesser General Public License v2", "weak"), ("LGPL-2.1-only", "weak"),
     ("Mozilla Public License 2.0", "weak"), ("BSD-3-Clause", "")],
)  # fmt: skip
def test_which_licences_ask_for_more(licence, kind):
    assert list_licences.copyleft(licence).partition(":")[0] == kind


def test_the_page_has_a_row_for_each_package_but_ours():
    packages = [package(Name="B_b", License="MIT"), package(Name="a", License="GPL|x"),
                package(Name="faprompt", License="Apache-2.0")]  # fmt: skip
    page = list_licences.table(packages)
    assert page.removeprefix(list_licences.HEAD) == (
        "| a | 1.0 | GPL/x | strong |\n| b-b | 1.0 | MIT |  |\n"
    )


def test_the_list_is_written_without_our_packages(tmp_path):
    out = tmp_path / "list.md"
    script = ROOT / "scripts" / "list_licences.py"
    subprocess.run([sys.executable, "-S", str(script), str(out)], check=True)
    assert out.read_text(encoding="utf-8").startswith(list_licences.HEAD)
