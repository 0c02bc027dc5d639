"""The paper's protocol: its datasets and groups, their metrics, and what is trained on what.

Source: FAPrompt (ICCV 2025), appendix A.1 and Table 2.
"""

from __future__ import annotations

from functools import cache

from faprompt.data import list_datasets
from faprompt.data.dataset_catalog import dataset_facts, datasets_of_group, known_datasets
from faprompt.errors import ConfigError
from faprompt.reproduce.published import PublishedCell, published_table, published_value

RESULT_TABLES = range(4, 17)
PRO = "pro_200"  # the paper's PRO; its published cells are filed under `aupro`
GROUP_NAMES = ("industrial", "medical")
METRIC_TITLES = {
    "image_auroc": "image AUROC", "image_ap": "image AP", "image_f1_max": "image F1-max",
    "pixel_auroc": "pixel AUROC", "pixel_ap": "pixel AP", "pixel_f1_max": "pixel F1-max",
    "aupro": "AUPRO", PRO: "PRO",
}  # fmt: skip
PAPER_TITLES = {
    name: facts.paper_title for name, facts in known_datasets().items() if facts.paper_title
}


@cache
def published_methods() -> tuple[str, ...]:
    """Return the methods with results in the paper, and those it names without a table.

    A benchmark may name one that this version does not have: its cells are then missing.
    """
    named = [cell.method for number in RESULT_TABLES for cell in published_table(number)]
    return tuple(dict.fromkeys((*named, "anomalyclip-ensemble", "filo", "blip")))


@cache
def dataset_ids() -> tuple[str, ...]:
    """Return the paper's ids, then those of other datasets that this version reads by name."""
    return tuple(dict.fromkeys((*PAPER_TITLES, *list_datasets())))


def training_set(tested: str) -> str:
    """Return the id of the dataset whose test split trains a method that is tested on `tested`.

    Example:
        >>> training_set("mvtec"), training_set("kvasir"), training_set("my parts")
        ('visa', 'mvtec', 'mvtec')
    """
    return "visa" if tested == "mvtec" else "mvtec"


def group_of(dataset: str) -> str:
    """Return the group whose mean counts a dataset; "" for MVTec AD and unknown datasets.

    Example:
        >>> group_of("elpv"), group_of("mvtec")
        ('industrial', '')
    """
    facts = dataset_facts(dataset)
    return facts.group if facts else ""


def group_members(group: str, metric: str) -> tuple[str, ...]:
    """Return the ids of the datasets that the paper's group mean of a metric counts.

    Example:
        >>> group_members("medical", "image_auroc")
        ('brainmri', 'headct', 'lag', 'br35h')
        >>> len(group_members("industrial", "image_ap")), len(group_members("industrial", "aupro"))
        (8, 7)
    """
    return datasets_of_group(group, "image" if metric.startswith("image_") else "pixel")


def paper_has(dataset: str, metric: str) -> bool:
    """Return whether the labels of a dataset allow a metric; True for datasets in no group.

    Example:
        >>> paper_has("elpv", "aupro"), paper_has("kvasir", "image_ap"), paper_has("mine", "aupro")
        (False, False, True)
    """
    group = group_of(dataset)
    return not group or dataset in group_members(group, metric)


def find_published(
    tables: tuple[int, ...],
    *,
    dataset: str,
    method: str,
    metric: str,
    class_name: str | None = None,
    setting: str = "",
) -> PublishedCell | None:
    """Return the number as the first of these tables prints it, or None if none does.

    A name that the paper does not know gives None as well.
    """
    for table in tables:
        try:
            cell = published_value(
                dataset, method, "aupro" if metric == PRO else metric,
                class_name=class_name, table=table, setting=setting,
            )  # fmt: skip
        except ConfigError:
            return None
        if cell is not None:
            return cell
    return None
