"""Facts on known datasets: counts against the paper's text, and the words for their classes."""

from __future__ import annotations

import pytest

from faprompt.data import (
    compare_counts,
    dataset_catalog,
    dataset_facts,
    dataset_info,
    list_datasets,
    published_counts,
)
from faprompt.data.dataset import ClassCount
from faprompt.data.dataset_catalog import (
    dataset_of_classes,
    datasets_of_group,
    defect_phrases,
    display_name,
    display_names,
    known_datasets,
)
from faprompt.data.known_readers import _NAMED
from faprompt.errors import ConfigError

PAPER = {
    *("mvtec", "visa", "sdd", "btad", "mpdd", "aitex", "dagm", "dtd_synthetic", "elpv"),
    *("brainmri", "headct", "br35h", "lag", "cvc_colondb", "cvc_clinicdb", "kvasir", "endo"),
    *("isic", "tn3k"),
}
MINIMAL = {"labels": "P", "source": "a page", "licence": "CC0"}


# --- the facts ---------------------------------------------------------------------------


def test_every_dataset_with_a_reader_has_facts():
    assert {reader.name for reader in _NAMED} == set(known_datasets())
    assert {name for name, facts in known_datasets().items() if facts.paper_title} == PAPER
    assert {"realiad", "magnetic_tile"} < set(known_datasets())


def test_layouts_of_own_pictures_have_none():
    known = {reader.name for reader in _NAMED}
    for name in list_datasets():
        assert (dataset_info(name).facts is None) == (name not in known)


@pytest.mark.parametrize("name", sorted(known_datasets()))
def test_facts_are_words_that_fit_a_line(name):
    facts = dataset_facts(name)
    assert facts is not None
    for text in (facts.source, facts.licence):
        assert text and text == text.strip() and "\n" not in text and not text.endswith(".")
    assert "://" not in facts.source, "in words; nothing is fetched"
    assert facts.labelled


@pytest.mark.parametrize("name", sorted(PAPER))
def test_labels_agree_with_the_paper_counts(name):
    """Only sets without a normal picture are anomalous throughout."""
    facts = dataset_facts(name)
    assert facts is not None and facts.paper_title
    normal = sum(normal for normal, _ in published_counts(name).values())
    assert (facts.labels == "P, A") == (normal == 0)


def test_image_labels_alone():
    """The five datasets of the paper's overview that have no masks."""
    alone = {name for name in PAPER if known_datasets()[name].labels == "I"}
    assert alone == {"elpv", "brainmri", "headct", "br35h", "lag"}


def test_groups():
    industrial = ("visa", "btad", "mpdd", "sdd", "aitex", "dagm", "dtd_synthetic", "elpv")
    medical = ("cvc_colondb", "cvc_clinicdb", "kvasir", "endo", "isic", "tn3k")
    assert datasets_of_group("industrial", "image") == industrial
    assert datasets_of_group("industrial", "pixel") == industrial[:-1]
    assert datasets_of_group("medical", "image") == ("brainmri", "headct", "lag", "br35h")
    assert datasets_of_group("medical", "pixel") == medical
    assert datasets_of_group("", "image") == datasets_of_group("other", "image") == ()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"labels": "Q"}, "datasets.cups: labels: 'Q' is none of P, I, P, A"),
        ({"group": "kitchen"}, "group: 'kitchen' is none of"),
        ({"license": "CC0"}, "unknown option 'license'"),
        ({"counts": {"mug": [3]}}, r"counts.mug should be \[normal, anomalous\], got \[3\]"),
        ({"counts": {"mug": [3, -1]}}, r"counts.mug should be .*, got \[3, -1\]"),
        ({"descriptions": {"mug": "chip"}}, "descriptions.mug should be a list, got 'chip'"),
        ({"misprints": {"mug": "x"}}, "misprints of classes without counts: mug"),
        ({"domain": "cutlery"}, "domain 'cutlery' is none of metal and castings, "),
    ],
)
def test_a_fault_in_the_file_is_named(monkeypatch, fault, message):
    monkeypatch.setattr(
        dataset_catalog, "_catalog", lambda: {"datasets": {"cups": {**MINIMAL, **fault}}}
    )
    with pytest.raises(ConfigError, match=message):
        known_datasets.__wrapped__()


def test_a_class_name_has_the_same_words_in_every_dataset():
    entries = [(name.lower(), words) for facts in known_datasets().values()
               for name, words in facts.names.items()]  # fmt: skip
    assert len({name for name, _ in entries}) == len(set(entries))


# --- counts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "classes", "normal", "anomalous"),
    [
        ("mvtec", 15, 467, 1258),
        ("visa", 12, 962, 1200),
        ("btad", 3, 451, 290),
        ("mpdd", 6, 176, 282),
        ("dtd_synthetic", 12, 357, 947),
        ("dagm", 10, 6996, 1054),
        ("sdd", 1, 286, 54),
        ("aitex", 1, 564, 183),
        ("elpv", 1, 377, 715),
        ("brainmri", 1, 98, 155),
        ("headct", 1, 100, 100),
        ("br35h", 1, 1500, 1500),
        ("lag", 1, 786, 1711),
        ("cvc_colondb", 1, 0, 380),
        ("cvc_clinicdb", 1, 0, 612),
        ("kvasir", 1, 0, 1000),
        ("endo", 1, 0, 200),
        ("isic", 1, 0, 379),
        ("tn3k", 1, 0, 614),
    ],
)
def test_totals(dataset, classes, normal, anomalous):
    """Against the overview table, which was written from other sources than the class table."""
    counts = published_counts(dataset)
    assert len(counts) == classes
    assert sum(count[0] for count in counts.values()) == normal
    assert sum(count[1] for count in counts.values()) == anomalous
    assert dataset in list_datasets()


def test_tile_has_84_and_the_misprint_is_noted():
    assert published_counts("mvtec")["tile"] == (33, 84)
    assert "83" in known_datasets()["mvtec"].misprints["tile"]


def test_class_names_belong_to_one_dataset_only():
    """Detection by class names rests on this."""
    several = [name for name in list_datasets() if len(published_counts(name)) > 1]
    names = [name for dataset in several for name in published_counts(dataset)]
    assert len(names) == len(set(names))
    assert dataset_of_classes(frozenset({"tile", "candle"})) is None
    assert dataset_of_classes(frozenset()) is None
    assert dataset_of_classes(frozenset({"brain"})) is None


def counts_of(dataset: str) -> dict[str, ClassCount]:
    return {name: ClassCount(n, a, a) for name, (n, a) in published_counts(dataset).items()}


def test_equal_counts_match():
    for name in list_datasets():
        if published_counts(name):
            assert compare_counts(name, counts_of(name)).matches is True


def test_one_picture_more_or_less_does_not_match():
    counts = counts_of("visa") | {"pcb3": ClassCount(100, 100, 100)}
    found = compare_counts("visa", counts)
    assert found.matches is False
    assert found.differences == ("normal + anomalous differ: pcb3 100 + 100 instead of 101 + 100",)


def test_a_missing_class_does_not_match():
    counts = counts_of("mpdd")
    del counts["tubes"]
    found = compare_counts("mpdd", counts)
    assert (found.matches, found.differences) == (False, ("classes missing: tubes",))


def test_a_pooled_dataset_is_compared_by_its_total():
    """Prepared copies call the one group of BrainMRI otherwise, or split it."""
    assert compare_counts("brainmri", {"headct2": ClassCount(98, 155, 0)}).matches
    split = {"a": ClassCount(90, 100, 0), "b": ClassCount(8, 55, 0)}
    assert compare_counts("brainmri", split).matches
    assert not compare_counts("brainmri", {"brain": ClassCount(155, 98, 0)}).matches


def test_what_the_paper_does_not_have_is_neither():
    assert compare_counts("magnetic_tile", {"magnetic_tile": ClassCount(1, 1, 1)}).matches is None
    assert compare_counts("visa", counts_of("visa"), split="train").matches is None


def test_classes_that_were_left_out_on_purpose_are_not_compared():
    counts = counts_of("btad")
    others = ("02", "03")
    found = compare_counts("btad", {"01": counts["01"]}, left_out=others)
    assert (found.matches, found.differences) == (True, ())
    wrong = compare_counts("btad", {"01": ClassCount(20, 49, 49)}, left_out=others)
    assert wrong.differences == ("normal + anomalous differ: 01 20 + 49 instead of 21 + 49",)
    split = compare_counts("brainmri", {"a": ClassCount(90, 100, 0)}, left_out=("b",))
    assert split.matches is None, "the paper counts the pooled group alone"


# --- the words for classes ---------------------------------------------------------------


@pytest.fixture(scope="module")
def names():
    """Every class or alias with words of its own -> the words."""
    return {k: v for facts in known_datasets().values() for k, v in facts.names.items()}


@pytest.fixture(scope="module")
def classes():
    """Every class of every dataset that the paper counts."""
    return {name for dataset in list_datasets() for name in published_counts(dataset)}


def test_names_that_say_nothing_are_said_in_words():
    names = ["01", "Class10", "CLASS10", "sdd", "AITEX", "Woven_104", "brain", "tn3k"]
    assert display_names(names, 8, otherwise="object") == [
        "industrial part", "textured surface", "textured surface", "metal part", "fabric",
        "woven texture", "brain scan", "thyroid",
    ]  # fmt: skip
    assert display_names(names, 8, otherwise="object", raw=True) == names


def test_plain_words_stay_as_they_are(classes, names):
    known = {"metal_nut", "bottle", "pcb1", "macaroni1", "bracket_black", "colon", "fundus"}
    assert known < classes and not known & set(names)
    for name in (classes - set(names)) | {"Metal_Nut", "my_part_7"}:
        assert display_name(name) == name.replace("_", " ")


def test_no_class_of_a_known_dataset_is_left_without_a_word(classes):
    assert len(classes) > 50
    for name in classes - {"macaroni1", "macaroni2", "pcb1", "pcb2", "pcb3", "pcb4"}:
        words = display_name(name)
        assert words.replace(" ", "").isalpha() and words not in list_datasets(), name


def test_what_is_displayed_is_displayed_as_itself(names):
    assert names and all(display_name(words) == words for words in names.values())


def test_both_names_of_a_class_have_the_same_phrases(names):
    for name, words in names.items():
        assert defect_phrases(name) and defect_phrases(name) == defect_phrases(words), name


def test_every_class_of_the_paper_has_phrases(classes):
    assert all(map(defect_phrases, classes))


def test_without_a_class_name_the_other_word_is_said():
    for raw in (True, False):
        assert display_names(["", " "], 2, otherwise="object", raw=raw) == ["object", "object"]
        assert display_names(None, 2, otherwise="object", raw=raw) == ["object", "object"]
