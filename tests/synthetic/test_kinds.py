"""The tables: nothing is shared between the families, and everything named can be drawn."""

import pytest

from faprompt.synthetic import DEFECT_KINDS, OBJECT_KINDS, defects_of, objects_of
from faprompt.synthetic.scene import MAKERS, PAINTERS


def test_names_are_unique():
    for table in (OBJECT_KINDS, DEFECT_KINDS):
        names = [kind.name for kind in table]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("members", [objects_of, defects_of])
def test_families_share_nothing_and_leave_nothing_out(members):
    aux, test = set(members("aux")), set(members("test"))
    assert aux and test and not aux & test
    assert aux | test == set(members("all"))
    assert members("train") == members("aux")


def test_every_kind_has_its_function_and_every_function_its_kind():
    assert set(PAINTERS) == {kind.name for kind in OBJECT_KINDS}
    assert set(MAKERS) == {kind.name for kind in DEFECT_KINDS}


@pytest.mark.parametrize("kinds", ["train", "test", "all"])
def test_every_thing_can_be_damaged_and_every_defect_finds_a_thing(kinds):
    pairs = [
        (thing.name, defect.name)
        for thing in objects_of(kinds)
        for defect in defects_of(kinds)
        if defect.fits(thing)
    ]
    assert {thing for thing, _ in pairs} == {thing.name for thing in objects_of(kinds)}
    assert {defect for _, defect in pairs} == {defect.name for defect in defects_of(kinds)}


def test_pattern_defects_befall_regular_things_only():
    shifted = next(kind for kind in DEFECT_KINDS if kind.name == "shifted pattern")
    befallen = {thing.name for thing in OBJECT_KINDS if shifted.fits(thing)}
    assert "fabric" in befallen and not befallen & {"paper", "stone", "gear", "head scan"}


def test_an_unknown_set_is_refused():
    with pytest.raises(ValueError, match="kinds should be one of"):
        objects_of("everything")
