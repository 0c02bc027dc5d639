"""Announcements warn where they should, and none outlives its version."""

from __future__ import annotations

import warnings

import pytest
import typer
from typer.testing import CliRunner

import faprompt
from faprompt.deprecation import (
    DEPRECATIONS,
    Deprecation,
    deprecated,
    deprecated_argument,
    deprecated_option,
)
from tests.helpers.log import logged_notes

NOTICE = Deprecation("old()", since="0.2", removed_in="0.3", instead="new()")
TEXT = "old() is deprecated since faprompt 0.2 and will be removed in 0.3. Use new()."


def overdue(notices, version):
    return [notice.what for notice in notices if notice.is_due(version)]


def test_nothing_outlives_the_version_that_should_have_removed_it():
    assert overdue(DEPRECATIONS, faprompt.__version__) == []


@pytest.mark.parametrize(
    ("version", "due"),
    [("0.2.0", []), ("0.2.9", []), ("0.3.0", ["old()"]), ("0.10.0", ["old()"]), ("1.0", ["old()"])],
)
def test_a_removal_that_has_come_is_found(version, due):
    assert overdue([NOTICE], version) == due


@pytest.mark.parametrize("removed_in", ["0.2", "0.2.5", "0.1"])
def test_a_removal_within_one_minor_version_is_refused(removed_in):
    with pytest.raises(ValueError, match="at least one minor version after since 0.2"):
        Deprecation("old()", since="0.2", removed_in=removed_in)


def test_the_words_when_nothing_takes_its_place():
    assert str(Deprecation("x", "0.2", "1.0")).endswith("removed in 1.0. Nothing takes its place.")


def test_a_function_warns_at_the_line_of_the_caller():
    @deprecated(NOTICE)
    def old(value: int) -> int:
        """Double."""
        return 2 * value

    with pytest.warns(DeprecationWarning) as caught:
        assert old(3) == 6
    assert [str(each.message) for each in caught] == [TEXT]
    assert caught[0].filename == __file__
    assert (old.__name__, old.__doc__) == ("old", "Double.")


def test_a_renamed_argument_warns_and_arrives():
    @deprecated_argument(NOTICE, "size", renamed_to="image_size")
    def draw(image_size: int = 1) -> int:
        return image_size

    with pytest.warns(DeprecationWarning, match="Use new") as caught:
        assert draw(size=5) == 5
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert draw(image_size=6) == 6 and draw(7) == 7
    with (
        pytest.raises(TypeError, match="Got both size and image_size; give image_size"),
        pytest.warns(DeprecationWarning),
    ):
        draw(size=5, image_size=6)


def test_an_argument_that_will_go_warns_when_it_is_given():
    @deprecated_argument(NOTICE, "fast")
    def draw(fast: bool = False) -> bool:
        return fast

    with pytest.warns(DeprecationWarning):
        assert draw(fast=True) is True
    with pytest.raises(AssertionError, match="takes no slow"):
        deprecated_argument(NOTICE, "slow")(draw)


@pytest.mark.parametrize(("given", "notes"), [([], []), (["--fast"], [TEXT])])
def test_an_option_of_the_command_line_says_so_once(given, notes, caplog):
    app = typer.Typer()

    @app.command()
    def draw(fast: bool = typer.Option(False, "--fast", callback=deprecated_option(NOTICE))):
        typer.echo(fast)

    with logged_notes() as lines:
        done = CliRunner().invoke(app, given)
    assert (done.exit_code, done.stdout) == (0, f"{bool(given)}\n")
    assert list(lines) == notes
