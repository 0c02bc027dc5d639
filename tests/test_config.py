"""Options from plain data: what is understood, and what is refused all at once."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from faprompt.config import (
    Count,
    Natural,
    Positive,
    Range,
    Weight,
    check_fields,
    from_mapping,
    parse_assignments,
    parse_json,
    to_mapping,
)
from faprompt.errors import ConfigError


@dataclass(frozen=True)
class Oven:
    shelves: int = 3
    heat: Annotated[float, Range(high=300)] = 180.0
    fan: bool = True
    mode: Literal["bake", "grill"] = "bake"
    times: tuple[int, ...] = ()
    label: str = "oven"
    timer: int | None = None
    lamp: bool | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        check_fields(self)


def build(**values):
    return from_mapping(Oven, values, what="oven options")


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("shelves", "5", 5),
        ("shelves", 5.0, 5),
        ("shelves", "-2", -2),
        ("heat", "1e2", 100.0),
        ("heat", 7, 7.0),
        ("fan", "false", False),
        ("fan", "No", False),
        ("fan", "1", True),
        ("fan", 0, False),
        ("mode", "grill", "grill"),
        ("times", "1,2,30", (1, 2, 30)),
        ("times", "6", (6,)),
        ("times", "", ()),
        ("times", ["1", 2], (1, 2)),
        ("label", "7", "7"),
        ("timer", "none", None),
        ("timer", None, None),
        ("timer", "12", 12),
        ("lamp", "auto", "auto"),
        ("lamp", "yes", True),
        ("lamp", False, False),
    ],
)
def test_values_become_what_the_field_wants(name, given, wanted):
    value = getattr(build(**{name: given}), name)
    assert value == wanted and type(value) is type(wanted)


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("shelves", "three", "shelves: .*three"),
        ("shelves", "2.0", "shelves: .*2.0"),
        ("shelves", 2.5, "shelves: 2.5 is not a whole number"),
        ("shelves", True, "shelves: True is not a whole number"),
        ("shelves", None, "shelves: .*None"),
        ("shelves", [1], "shelves: .*list"),
        ("heat", "hot", "heat: .*hot"),
        ("heat", "nan", "heat: 'nan' is not a number"),
        ("heat", False, "heat: False is not a number"),
        ("heat", {}, "heat: .*dict"),
        ("fan", "perhaps", "fan: 'perhaps' is neither true nor false"),
        ("fan", 2, "fan: 2 is neither true nor false"),
        ("mode", "boil", "mode: 'boil' is none of bake, grill"),
        ("times", "1,x", "times: .*x"),
        ("times", 5, "times: .*int"),
        ("times", {"a": 1}, "times: should be a list, got .*dict"),
        ("shelves", 2**63, "shelves: 9223372036854775808 does not fit into 64 bits"),
        ("heat", 10**400, "heat: .*too large"),
        ("label", 7, "label: 7 is not text"),
        ("timer", "soon", "timer: .*soon"),
        ("lamp", "dim", "lamp: 'dim' is neither true nor false and 'dim' is none of auto"),
        ("heat", 301, "heat should be at most 300, got 301.0"),
    ],
)
def test_unfit_values_are_refused_with_their_name(name, given, told):
    with pytest.raises(ConfigError, match=f"^oven options: {told}"):
        build(**{name: given})


def test_all_faults_are_told_at_once_with_the_known_names():
    with pytest.raises(ConfigError) as caught:
        build(shelfs=3, fan="perhaps", mode="boil", heat=400, door="open")
    text = str(caught.value)
    for part in ("unknown option 'door'", "unknown option 'shelfs'", "fan: ", "mode: "):
        assert part in text
    assert text.endswith("Known: fan, heat, label, lamp, mode, shelves, timer, times.")


@dataclass(frozen=True, slots=True)
class Rack:
    boards: Count = 3
    gap: Natural = 0
    height: Positive = 1.0
    load: Weight = 0.0
    shares: tuple[Annotated[float, Range(low=0, below=1)], ...] = ()
    limit: Annotated[int, Range(low=1, high=9)] | None = None
    wood: Literal["oak", "pine"] = "oak"

    def __post_init__(self) -> None:
        check_fields(self, ["gap is above height"] if self.gap > self.height else [])


@dataclass(frozen=True, slots=True)
class WideRack(Rack):
    boards: int = 0  # as many as there are


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"boards": 0}, "boards should be at least 1, got 0"),
        ({"gap": -1}, "gap should be at least 0, got -1"),
        ({"height": 0.0}, "height should be above 0 and finite, got 0.0"),
        ({"height": math.inf}, "height should be above 0 and finite, got inf"),
        ({"height": math.nan}, "height should be above 0 and finite, got nan"),
        ({"load": -0.5}, "load should be at least 0 and finite, got -0.5"),
        ({"shares": (0.5, 1.0)}, r"shares should be at least 0 and below 1, got \(0.5, 1.0\)"),
        ({"limit": 10}, "limit should be 1 to 9, got 10"),
        ({"wood": "ash"}, "wood should be one of oak, pine, got 'ash'"),
        ({"gap": 2}, "gap is above height"),
    ],
)
def test_fields_out_of_range_are_refused(options, told):
    with pytest.raises(ValueError, match=f"^{told}$"):
        Rack(**options)


def test_all_fields_out_of_range_are_reported_together():
    with pytest.raises(ValueError, match="boards should .*; height should .*; gap is above height"):
        Rack(boards=0, height=-1.0)
    assert WideRack().boards == 0  # a child's annotation counts
    Rack(limit=None, shares=(0, 0.999), height=5e-324)


def test_missing_options_keep_their_defaults():
    assert build() == Oven()


def test_plain_data_survives_json():
    oven = build(times="1,2", lamp="no", timer=4)
    assert build(**json.loads(json.dumps(to_mapping(oven)))) == oven


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": [1, {"b": NaN}]}', r"a\.1\.b is nan, wanted a finite number"),
        ('{"a": -1e999}', "a is -inf, wanted a finite number"),
        ('{"a": 9223372036854775808}', "a is a number of more than 64 bits"),
        ('{"a": 1, "a": 2}', "the key 'a' occurs more than once"),
        ('{"a": "\\udc00"}', "a holds half a surrogate pair"),
        ('{"\\udc00": 1}', "the content has a key with half a surrogate pair"),
        ("[" * 33 + "]" * 33, "nested deeper than 32 levels"),
        ("[" * 100000, "nested deeper than 32 levels"),
        ("NaN", "the content is nan"),
        ("{", "Expecting property name"),
    ],
)
def test_json_that_is_refused_names_the_field(text, told):
    with pytest.raises(ValueError, match=told):
        parse_json(text)


def test_json_that_is_plain_is_kept():
    held = {"a": [1, -2.5, None, True, "\u00e9", {"b": {}}], "c": 2**63 - 1}
    assert parse_json(json.dumps(held)) == held
    assert parse_json("[" * 32 + "]" * 32) != []


def test_assignments_split_at_the_first_equals_sign():
    assert parse_assignments(["a=1", "path=x=y", "empty="]) == {
        "a": "1", "path": "x=y", "empty": "",
    }  # fmt: skip


@pytest.mark.parametrize("pair", ["a", "=1", "", "a:1"])
def test_assignments_without_a_name_or_a_value_are_refused(pair):
    with pytest.raises(ConfigError, match="--set wants name=value, got"):
        parse_assignments([pair])


def test_a_name_given_twice_is_refused():
    with pytest.raises(ConfigError, match="--set a is given twice"):
        parse_assignments(["a=1", "b=2", "a=1"])
