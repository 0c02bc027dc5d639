"""The paper's protocol: which sets there are, what each is measured by, what trains what.

Source: FAPrompt (ICCV 2025), appendix A.1 and Table 2.
"""

from __future__ import annotations

from functools import cache

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
    """Every method with results in the paper, and those it names without a table.

    One that this version does not have may stand in a config: its cells are missing.
    """
    named = [cell.method for number in RESULT_TABLES for cell in published_table(number)]
    return tuple(dict.fromkeys((*named, "anomalyclip-ensemble", "filo", "blip")))


def training_set(tested: str) -> str:
    """The id of the set whose test split trains what is tested on `tested`.

    Example:
        >>> training_set("mvtec"), training_set("kvasir"), training_set("my parts")
        ('visa', 'mvtec', 'mvtec')
    """
    return "visa" if tested == "mvtec" else "mvtec"


def group_of(dataset: str) -> str:
    """The group whose mean counts a set; "" for MVTec AD and sets the paper has not.

    Example:
        >>> group_of("elpv"), group_of("mvtec")
        ('industrial', '')
    """
    return next((group for (group, _), names in GROUPS.items() if dataset in names), "")


def group_members(group: str, metric: str) -> tuple[str, ...]:
    """Ids of the sets that the paper's group mean of a metric counts.

    Example:
        >>> group_members("medical", "image_auroc")
        ('brainmri', 'headct', 'lag', 'br35h')
        >>> len(group_members("industrial", "image_ap")), len(group_members("industrial", "aupro"))
        (8, 7)
    """
    return GROUPS.get((group, _level(metric)), ())


def paper_has(dataset: str, metric: str) -> bool:
    """Whether a metric is measured on a set: labels and masks decide; on its own sets, the paper.

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
    """The first of these tables that prints the number; None where none does.

    Names the paper does not know are simply not in it.
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
