"""The paper's protocol: its datasets, their metrics, and which dataset trains for which.

Source: FAPrompt (ICCV 2025), appendix A.1 and Table 2.
"""

from __future__ import annotations

from functools import cache

from faprompt.data import list_datasets
from faprompt.errors import ConfigError
from faprompt.reproduce.published import GROUPS, PublishedCell, published_table, published_value

RESULT_TABLES = range(4, 17)
PRO = "pro_200"  # the paper's PRO; its published cells are filed under `aupro`
GROUP_NAMES = tuple(dict.fromkeys(group for group, _ in GROUPS))
METRIC_TITLES = {
    "image_auroc": "image AUROC", "image_ap": "image AP", "image_f1_max": "image F1-max",
    "pixel_auroc": "pixel AUROC", "pixel_ap": "pixel AP", "pixel_f1_max": "pixel F1-max",
    "aupro": "AUPRO", PRO: "PRO",
}  # fmt: skip
PAPER_TITLES = {
    "mvtec": "MVTec AD", "visa": "VisA", "btad": "BTAD", "mpdd": "MPDD", "sdd": "SDD",
    "aitex": "AITEX", "dagm": "DAGM", "dtd_synthetic": "DTD-Synthetic", "elpv": "ELPV",
    "brainmri": "BrainMRI", "headct": "HeadCT", "lag": "LAG", "br35h": "Br35H",
    "cvc_colondb": "CVC-ColonDB", "cvc_clinicdb": "CVC-ClinicDB", "kvasir": "Kvasir",
    "endo": "Endo", "isic": "ISIC", "tn3k": "TN3K",
}  # fmt: skip


@cache
def published_methods() -> tuple[str, ...]:
    """Return every method of the paper, also those it names without a table.

    An experiment may name one that this version does not have: its cells are missing.
    """
    named = [cell.method for number in RESULT_TABLES for cell in published_table(number)]
    return tuple(dict.fromkeys((*named, "anomalyclip-ensemble", "filo", "blip")))


@cache
def known_datasets() -> tuple[str, ...]:
    """Return the paper's ids, then those of other datasets that this version reads by name."""
    return tuple(dict.fromkeys((*PAPER_TITLES, *list_datasets())))


def training_set(tested: str) -> str:
    """Return the id of the set whose test split trains what is tested on `tested`.

    Example:
        >>> training_set("mvtec"), training_set("kvasir"), training_set("my parts")
        ('visa', 'mvtec', 'mvtec')
    """
    return "visa" if tested == "mvtec" else "mvtec"


def group_of(dataset: str) -> str:
    """Return the group whose mean counts a set; "" for MVTec AD and sets of others.

    Example:
        >>> group_of("elpv"), group_of("mvtec")
        ('industrial', '')
    """
    return next((group for (group, _), names in GROUPS.items() if dataset in names), "")


def group_members(group: str, metric: str) -> tuple[str, ...]:
    """Return the ids of the sets that the paper's group mean of a metric counts.

    Example:
        >>> group_members("medical", "image_auroc")
        ('brainmri', 'headct', 'lag', 'br35h')
        >>> len(group_members("industrial", "image_ap")), len(group_members("industrial", "aupro"))
        (8, 7)
    """
    return GROUPS.get((group, _level(metric)), ())


def paper_has(dataset: str, metric: str) -> bool:
    """Return whether a metric is measured on a set; False only where the paper leaves it out.

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
    """Return the number from the first of these tables that prints it, or None.

    Names that the paper does not know have no number.
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


def _level(metric: str) -> str:
    return "image" if metric.startswith("image_") else "pixel"
