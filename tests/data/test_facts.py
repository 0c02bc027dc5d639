"""What is known of each dataset before it is downloaded."""

from __future__ import annotations

import pytest

from faprompt.data import dataset_facts, dataset_info, list_datasets, published_counts
from faprompt.data.facts import _FACTS
from faprompt.data.known_readers import _NAMED

PAPER = {
    *("mvtec", "visa", "sdd", "btad", "mpdd", "aitex", "dagm", "dtd_synthetic", "elpv"),
    *("brainmri", "headct", "br35h", "lag", "cvc_colondb", "cvc_clinicdb", "kvasir", "endo"),
    *("isic", "tn3k"),
}


def test_every_named_dataset_has_facts():
    assert [reader.name for reader in _NAMED if dataset_facts(reader.name) is None] == []
    assert set(_FACTS) == {*PAPER, "realiad", "magnetic_tile"}


def test_your_own_layouts_have_none():
    known = {reader.name for reader in _NAMED}
    for name in list_datasets():
        assert (dataset_info(name).facts is None) == (name not in known)


@pytest.mark.parametrize("name", sorted(_FACTS))
def test_facts_are_words_that_fit_a_line(name):
    facts = dataset_facts(name)
    assert facts is not None
    for text in (facts.source, facts.licence):
        assert text and text == text.strip() and "\n" not in text and not text.endswith(".")
    assert "://" not in facts.source, "in words; nothing is fetched"
    assert facts.labelled


@pytest.mark.parametrize("name", sorted(_FACTS.keys() & PAPER))
def test_labels_agree_with_the_paper_counts(name):
    """Only sets without a normal picture are anomalous throughout."""
    counts = published_counts(name).values()
    facts = dataset_facts(name)
    if counts and facts is not None:
        assert (facts.labels == "P, A") == (sum(normal for normal, _ in counts) == 0)


def test_image_labels_alone():
    """The five of the overview that have no masks."""
    alone = {name for name, facts in _FACTS.items() if facts.labels == "I"}
    assert alone == {"elpv", "brainmri", "headct", "br35h", "lag"}
