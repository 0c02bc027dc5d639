"""The paper's numbers: against the paper's text, against each other, and as they are looked up."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from decimal import Decimal
from itertools import combinations, groupby
from typing import NamedTuple

import pytest

from faprompt.data import published_counts
from faprompt.data.dataset_catalog import datasets_of_group, known_datasets
from faprompt.errors import ConfigError
from faprompt.methods.registry import describe_methods
from faprompt.metrics import METRIC_NAMES
from faprompt.reproduce.published import _rows, published_table, published_value, table_titles
from tests.helpers.shared import SHARED

ALL = [cell for number in range(1, 17) for cell in published_table(number)]
RESULTS = [cell for cell in ALL if cell.table >= 4]
NOTES = {int(row["number"]): row["note"] for row in _rows("tables.csv")}

DATASETS = {
    "mvtec": "MVTecAD", "visa": "VisA", "sdd": "SDD", "btad": "BTAD", "mpdd": "MPDD",
    "aitex": "AITEX", "dagm": "DAGM", "dtd_synthetic": "DTD-Synthetic", "elpv": "ELPV",
    "brainmri": "BrainMRI", "headct": "HeadCT", "br35h": "Br35H", "lag": "LAG",
    "cvc_colondb": "CVC-ColonDB", "cvc_clinicdb": "CVC-ClinicDB", "kvasir": "Kvasir",
    "endo": "Endo", "isic": "ISIC", "tn3k": "TN3K",
}  # fmt: skip
METHODS = {
    "clip": "CLIP", "clip-ac": "CLIP-AC", "winclip": "WinCLIP", "april-gan": "APRIL-GAN",
    "anovl": "AnoVL", "coop": "CoOp", "cocoop": "CoCoOp", "anomalyclip": "AnomalyCLIP",
    "faprompt": "FAPrompt", "patchcore": "PatchCore", "rd4ad": "RD4AD", "tcp-v1": "TCP_V1",
    "tcp-v2": "TCP_V2", "base": "Base", "cap": "CAP", "cap-no-loc": r"CAP w/o \mathcal{L}_{oc}",
    "dap": "DAP", "dap-no-prior": r"DAP w/o \mathcal{L}_{prior}",
}  # fmt: skip
DEFAULTS = ("deep_length=4", "deep_depth=9")  # Table 6 repeats Table 5 there


def mean(printed) -> Decimal:
    values = [Decimal(text) for text in printed]
    return sum(values, Decimal(0)) / len(values)


def is_rounded(exact: Decimal, printed: str) -> bool:
    """A tie may go either way: it was rounded from more digits than the paper shows."""
    return abs(exact - Decimal(printed)) <= Decimal("0.05")


# --- the records -------------------------------------------------------------------------


def test_every_table_is_there_with_all_its_cells():
    assert list(table_titles()) == list(range(1, 17)) and all(table_titles().values())
    mvtec, visa = 15 * 8 + 9, 12 * 8 + 9  # classes of 8 methods, and 9 means: AnoVL has no classes
    sizes = {1: 27, 2: 51, 3: 21, 4: 80, 5: 32, 6: 64, 15: 144, 16: 156}
    sizes |= dict.fromkeys(range(7, 11), mvtec) | dict.fromkeys(range(11, 15), visa)
    assert Counter(cell.table for cell in ALL) == sizes
    assert sum(sizes.values()) == 1511


def test_no_number_stands_twice_in_a_table():
    places = Counter((c.table, c.dataset, c.class_name, c.method, c.setting, c.metric) for c in ALL)
    assert [place for place, times in places.items() if times > 1] == []


def test_results_are_fractions_of_the_printed_percent():
    for cell in RESULTS:
        # the paper prints one decimal everywhere but in two cells of CoCoOp
        assert re.fullmatch(r"\d{1,3}\.\d", cell.printed) or cell.printed in ("11", "59"), cell
        assert cell.metric in METRIC_NAMES and cell.unit == "fraction" and cell.spread is None
        assert 0 <= cell.value <= 1
        assert cell.value == float(cell.printed + "e-2")  # the nearest float, no stray digits


def test_ids_are_ours_and_groups_are_made_of_them():
    assert {cell.dataset for cell in RESULTS} == {*DATASETS, "industrial", "medical"}
    assert {cell.dataset for cell in published_table(2)} == DATASETS.keys() - {"mvtec", "visa"}
    assert {cell.method for cell in RESULTS} == METHODS.keys()
    grouped = {name for name, facts in known_datasets().items() if facts.group}
    assert grouped == DATASETS.keys() - {"mvtec"}
    for cell in ALL:
        if cell.class_name is not None:
            assert cell.class_name in published_counts(cell.dataset), cell


@pytest.mark.parametrize(("dataset", "tables"), [("mvtec", range(7, 11)), ("visa", range(11, 15))])
def test_every_class_is_in_every_table_of_classes(dataset, tables):
    for number in (1, *tables):
        names = {cell.class_name for cell in published_table(number) if cell.dataset == dataset}
        assert names - {None} == published_counts(dataset).keys()


def test_the_200_threshold_pro_is_named_wherever_aupro_stands():
    for number in {cell.table for cell in RESULTS}:
        has_pro = any(cell.metric == "aupro" for cell in published_table(number))
        assert ("200 thresholds" in NOTES[number]) == has_pro


# --- against the rest of the project -----------------------------------------------------


@pytest.mark.parametrize(("dataset", "total"), [("mvtec", 3629), ("visa", 8659)])
def test_training_counts_add_up_to_the_datasets_own_totals(dataset, total):
    assert sum(cell.value for cell in published_table(1) if cell.dataset == dataset) == total


def test_totals_of_table_2_are_the_sums_of_our_class_counts():
    compared = set()
    cells = {(cell.dataset, cell.metric): cell.value for cell in published_table(2)}
    for dataset in DATASETS.keys() - {"mvtec", "visa"}:
        if counts := published_counts(dataset):
            compared.add(dataset)
            normal, anomalous = (sum(column) for column in zip(*counts.values(), strict=True))
            assert cells[dataset, "test_normal"] == normal
            assert cells[dataset, "test_anomalous"] == anomalous
            if dataset not in ("aitex", "elpv"):  # pooled, whatever the paper's C says
                assert cells[dataset, "classes"] == len(counts)
    assert compared >= {"btad", "mpdd", "dtd_synthetic", "brainmri", "br35h"}


def test_parameters_are_those_our_modules_have():
    ours = {row["name"]: row for row in describe_methods()}
    for cell in published_table(3):
        if cell.metric == "parameters" and cell.method in ("anomalyclip", "faprompt"):
            assert cell.unit == "count"
            assert cell.value == ours[cell.method]["reported_parameters"]
            assert cell.note.startswith(f"{ours[cell.method]['parameters']} of them are live")


# --- where the paper disagrees with itself -----------------------------------------------


def test_every_printed_mean_is_the_mean_of_its_classes():
    columns = defaultdict(list)
    for cell in RESULTS:
        if 7 <= cell.table <= 14:
            columns[cell.table, cell.method].append(cell)
    wrong, compared = [], 0
    for cells in columns.values():
        *classes, printed = cells
        assert printed.class_name is None and None not in [c.class_name for c in classes]
        if classes:
            compared += 1
            if not is_rounded(mean(c.printed for c in classes), printed.printed):
                wrong.append(printed)
    assert compared == 64  # 8 tables of 8 methods
    assert wrong == []


def group_mean_disagreements():
    """Table 5 against the means of Tables 15 and 16, where both have the method."""
    found, compared = [], 0
    rows = {(c.table, c.dataset, c.method, c.metric): c.printed for c in RESULTS if c.table > 14}
    for cell in published_table(5):
        level, table = ("image", 15) if cell.metric.startswith("image") else ("pixel", 16)
        method = {"anomalyclip": "base"}.get(cell.method, cell.method)
        if method in ("base", "faprompt"):
            members = datasets_of_group(cell.dataset, level)
            exact = mean(rows[table, name, method, cell.metric] for name in members)
            compared += 1
            if not is_rounded(exact, cell.printed):
                found.append(disagreement("group-mean", cell, str(exact), table))
    assert compared == 16
    return found


def table_disagreements():
    """Every number that is printed in several tables, pair by pair."""
    places = defaultdict(list)
    for cell in RESULTS:
        if cell.setting == "" or cell.setting in DEFAULTS:
            method = {"base": "anomalyclip"}.get(cell.method, cell.method)
            places[cell.dataset, cell.class_name, method, cell.metric].append(cell)
    pairs = [pair for cells in places.values() for pair in combinations(cells, 2)]
    # FAPrompt: 8 cells of Tables 4 and 7-14, 16 of 4 and 15-16, 4 of 7-14 and 15-16. AnomalyCLIP:
    # the same. Table 6: both its defaults with each other and with Table 5, 8 cells.
    assert len(pairs) == 2 * (8 + 16 + 4) + 3 * 8
    return [
        disagreement("tables", one, other.printed, other.table)
        for one, other in pairs
        if one.printed != other.printed
    ]


class Disagreement(NamedTuple):
    """Two numbers of the paper that should be one."""

    kind: str  # "tables": printed twice; "group-mean": not the mean of its datasets
    table: int
    dataset: str
    method: str
    metric: str
    printed: str
    other: str  # in the other table, or the mean of its rows
    other_table: int


KNOWN = (
    ("tables", 4, "visa", "faprompt", "image_auroc", "84.5", "84.6", 11),
    ("tables", 4, "visa", "faprompt", "image_auroc", "84.5", "84.6", 15),
    ("tables", 4, "visa", "faprompt", "aupro", "87.5", "87.7", 14),
    ("tables", 14, "visa", "faprompt", "aupro", "87.7", "87.5", 16),
    ("group-mean", 5, "medical", "anomalyclip", "image_auroc", "87.7", "88.15", 15),
    ("group-mean", 5, "medical", "anomalyclip", "image_ap", "90.6", "90.85", 15),
)


def disagreement(kind, cell, other, other_table):
    name = (cell.dataset, cell.method, cell.metric)
    return kind, cell.table, name, cell.printed, other, other_table


def test_the_known_disagreements_are_all_there_are():
    assert table_disagreements() == [
        ("tables", 4, ("visa", "faprompt", "image_auroc"), "84.5", "84.6", 11),
        ("tables", 4, ("visa", "faprompt", "image_auroc"), "84.5", "84.6", 15),
        ("tables", 4, ("visa", "faprompt", "aupro"), "87.5", "87.7", 14),
        ("tables", 14, ("visa", "faprompt", "aupro"), "87.7", "87.5", 16),
    ]
    assert group_mean_disagreements() == [
        ("group-mean", 5, ("medical", "anomalyclip", "image_auroc"), "87.7", "88.15", 15),
        ("group-mean", 5, ("medical", "anomalyclip", "image_ap"), "90.6", "90.85", 15),
    ]


def test_each_side_of_a_disagreement_has_a_note_with_the_other_number():
    for kind, table, name, printed, other, other_table in (
        *table_disagreements(), *group_mean_disagreements(),
    ):  # fmt: skip
        assert other in published_value(*name, table=table).note
        if kind == "tables":
            cell = published_value(*name, table=other_table)
            assert cell.printed == other and printed in cell.note


def test_ablations_with_equal_pairs_are_the_ones_the_notes_name():
    for number in (15, 16):
        pairs = defaultdict(list)
        for cell in published_table(number):
            pairs[cell.dataset, cell.method].append(cell.printed)
        equal = [name for name in DATASETS if (name, "cap") in pairs]
        equal = [name for name in equal if pairs[name, "cap"] == pairs[name, "cap-no-loc"]]
        named = re.search(r"equal pairs on ([^.]*)\.", NOTES[number])[1]
        assert set(re.split(", | and ", named)) == set(equal)


# --- against the text --------------------------------------------------------------------


def printed_rows(number: int) -> list[list[str]]:
    """The fields of a table's lines in the appendix, below its caption."""
    path = SHARED / "paper" / "faprompt-appendix.txt"
    if not path.is_file():
        pytest.skip("needs the paper's text in ../shared/paper")
    text = path.read_text(encoding="utf-8").split(f"\nTable {number}. ")[1]
    lines = text.split("\n\n")[1].splitlines()
    return [line.split("\t") for line in lines]


def test_table_1_says_what_our_counts_say_but_for_the_misprint():
    train = {(cell.dataset, cell.class_name): cell.printed for cell in published_table(1)}
    different, dataset = {}, ""
    for first, name, _, *counts in printed_rows(1)[2:]:
        dataset = {"MVTec AD": "mvtec", "VisA": "visa"}.get(first, dataset)
        class_name = name.lower().replace(".", "_")
        assert train.pop((dataset, class_name)) == counts[0]
        if published_counts(dataset)[class_name] != (int(counts[1]), int(counts[2])):
            different[dataset, class_name] = counts[1:]
    assert not train
    assert different == {("mvtec", "tile"): ["33", "83"]}
    assert different.keys() == {
        (name, class_name)
        for name, facts in known_datasets().items()
        for class_name in facts.misprints
    }


def test_table_2_is_the_text():
    rows = [[row[1], *row[3:]] for row in printed_rows(2)[1:]]
    assert rows == [
        [DATASETS[dataset], *(cell.printed for cell in cells)]
        for dataset, cells in groupby(published_table(2), lambda cell: cell.dataset)
    ]


def test_table_3_is_the_text():
    def field(cell):
        return cell.printed if cell.spread is None else f"{cell.printed}±{cell.spread}"

    assert printed_rows(3)[1:] == [
        [METHODS[method], *map(field, cells)]
        for method, cells in groupby(published_table(3), lambda cell: cell.method)
    ]


def written_back(number: int, row_of) -> list[list[str]]:
    """A table's rows rebuilt from the cells: a label, then pairs as the paper writes them."""
    rows = []
    for label, cells in groupby(published_table(number), row_of):
        texts = [cell.printed for cell in cells]
        pairs = zip(texts[::2], texts[1::2], strict=True)
        rows.append([label, *(f"({first}, {second})" for first, second in pairs)])
    return rows


def test_table_4_is_the_text():
    header, *lines = printed_rows(4)
    image, pixel = (line[0] for line in lines if line[1] == "")
    assert (image, pixel) == ("Image-level (AUROC, AP)", "Pixel-level (AUROC, PRO)")
    assert lines.index([pixel, "", "", "", ""]) == 6
    methods = list(dict.fromkeys(cell.method for cell in published_table(4)))
    assert header == ["Dataset", *(METHODS[name] for name in methods)]
    rows = written_back(4, lambda cell: DATASETS[cell.dataset])
    assert [line for line in lines if line[1]] == rows
    kinds = [cell.metric for cell in published_table(4)]
    assert kinds == ["image_auroc", "image_ap"] * 20 + ["pixel_auroc", "aupro"] * 20


@pytest.mark.parametrize("number", [5, 6])
def test_tables_5_and_6_are_the_text(number):
    def label(cell):
        return cell.setting.partition("=")[2] or METHODS[cell.method]

    header, levels, *lines = printed_rows(number)
    assert [name.split()[0] for name in header if name] == ["Model", "Industrial", "Medical"]
    assert [name.lower() for name in levels[1:]] == ["image-level", "pixel-level"] * 2
    assert [line for line in lines if line[1]] == written_back(number, label)
    metrics = ["image_auroc", "image_ap", "pixel_auroc", "aupro"]
    columns = [(group, name) for group in ("industrial", "medical") for name in metrics]
    cells = [(cell.dataset, cell.metric) for cell in published_table(number)]
    assert cells == columns * (len(cells) // 8)


def test_table_6_has_its_two_halves_under_their_headings():
    halves = [line[0] for line in printed_rows(6)[2:]]
    assert halves[0] == "Length of learnable token"
    assert halves[5] == "Layers having learnable tokens"
    settings = dict.fromkeys(cell.setting for cell in published_table(6))
    names = ["deep_length"] * 4 + ["deep_depth"] * 4
    values = halves[1:5] + halves[6:]
    assert list(settings) == [f"{n}={v}" for n, v in zip(names, values, strict=True)]


@pytest.mark.parametrize("number", range(7, 15))
def test_tables_of_classes_are_the_text(number):
    dataset = "mvtec" if number < 11 else "visa"
    metric = ("image_auroc", "image_ap", "pixel_auroc", "aupro")[(number - 7) % 4]
    assert {(c.dataset, c.metric) for c in published_table(number)} == {(dataset, metric)}
    _, header, *lines = printed_rows(number)
    rows = []
    for class_name, cells in groupby(published_table(number), lambda cell: cell.class_name):
        values = {METHODS[cell.method]: cell.printed for cell in cells}
        assert list(values) == [name for name in header[1:] if name in values]
        label = class_name.capitalize() if dataset == "mvtec" and class_name else class_name
        rows.append([label or "MEAN", *(values.get(name, "-") for name in header[1:])])
    assert lines == rows


@pytest.mark.parametrize("number", [15, 16])
def test_ablations_are_the_text(number):
    header, *lines = printed_rows(number)
    methods = list(dict.fromkeys(cell.method for cell in published_table(number)))
    assert header == ["Data type", "Dataset", *(METHODS[name] for name in methods)]
    rows = written_back(number, lambda cell: DATASETS[cell.dataset])
    assert [line[1:] for line in lines] == rows
    level, group, members = ("image" if number == 15 else "pixel"), "", defaultdict(list)
    for first, name, *_ in lines:
        group = {"Object": "industrial", "Textual": "industrial"}.get(first, first.lower()) or group
        members[group, level].append(name)
    assert members == {
        (group, level): [DATASETS[name] for name in datasets_of_group(group, level)]
        for group in ("industrial", "medical")
    }


# --- looking a number up -----------------------------------------------------------------


def test_a_mean_and_a_class():
    cell = published_value("mvtec", "winclip", "aupro")
    assert (cell.printed, cell.value, cell.table, cell.class_name) == ("64.6", 0.646, 10, None)
    cell = published_value("visa", "anomalyclip", "image_ap", class_name="pcb4")
    assert (cell.printed, cell.table) == ("94.4", 12)


def test_the_finest_table_wins_unless_one_is_named():
    def found(*args, **kwargs):
        cell = published_value(*args, **kwargs)
        return cell.table, cell.printed

    assert found("visa", "faprompt", "aupro") == (14, "87.7")
    assert found("visa", "faprompt", "aupro", table=4) == (4, "87.5")
    assert found("btad", "faprompt", "aupro") == (16, "75.1")
    assert found("btad", "patchcore", "aupro") == (4, "74.4")
    assert found("medical", "faprompt", "image_ap") == (5, "93.0")
    assert found("aitex", "base", "image_ap") == (15, "40.4")


def test_settings_of_table_6():
    for setting, printed in (("deep_length=6", "90.0"), ("deep_depth=11", "88.1")):
        cell = published_value("industrial", "faprompt", "image_auroc", setting=setting)
        assert (cell.table, cell.printed, cell.setting) == (6, printed, setting)


@pytest.mark.parametrize(
    ("args", "class_name"),
    [
        (("visa", "anovl", "image_auroc"), "candle"),  # a dash
        (("visa", "faprompt", "image_f1_max"), None),  # a metric of ours
        (("elpv", "faprompt", "pixel_auroc"), None),  # no masks
        (("magnetic_tile", "faprompt", "image_auroc"), None),  # a dataset of ours
        (("visa", "filo", "image_auroc"), None),  # in the main paper only
        (("btad", "faprompt", "image_auroc"), "01"),  # no table of its classes
        (("brainmri", "faprompt", "image_auroc"), "brain2"),  # some copies' name of the one class
    ],
)
def test_what_the_paper_does_not_print_is_none(args, class_name):
    assert published_value(*args, class_name=class_name) is None


@pytest.mark.parametrize(
    ("args", "options", "message"),
    [
        (("vista", "faprompt", "image_auroc"), {}, "Unknown dataset 'vista'; known: .*visa"),
        (("visa", "fprompt", "image_auroc"), {}, "Unknown method 'fprompt'; known: .*faprompt"),
        (("visa", "faprompt", "pro"), {}, "Unknown metric 'pro'; known: .*aupro"),
        (
            ("visa", "faprompt", "aupro"),
            {"class_name": "pcb5"},
            "Unknown class of visa 'pcb5'; known: .*pcb4",
        ),
        (
            ("visa", "faprompt", "aupro"),
            {"setting": "deep_length=3"},
            "Unknown setting 'deep_length=3'; known: .*deep_length=4",
        ),
        (
            ("industrial", "faprompt", "aupro"),
            {"table": 6},
            "Unknown setting ''; known: deep_length=2",
        ),
        (("visa", "faprompt", "aupro"), {"table": 3}, "Table 3 has no results.*4 to 16"),
        (("visa", "faprompt", "aupro"), {"table": 17}, "Table 17 has no results.*4 to 16"),
    ],
)
def test_unknown_names_are_refused(args, options, message):
    with pytest.raises(ConfigError, match=message):
        published_value(*args, **options)


@pytest.mark.parametrize("number", [0, 17])
def test_there_are_sixteen_tables(number):
    with pytest.raises(ConfigError, match=f"No table {number}; the appendix has Tables 1 to 16"):
        published_table(number)
