"""The readers of all layouts, and the choice of the reader for a folder.

To add a dataset: write its reader, list it in `_NAMED`, and give it a table in `datasets.toml`.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path

from faprompt.data.class_trees import (
    BTAD,
    DTD_SYNTHETIC,
    MPDD,
    MVTEC,
    MVTEC_STYLE,
    DagmReader,
    foreign_tree,
)
from faprompt.data.coco import CocoReader
from faprompt.data.csv_table import TableReader
from faprompt.data.dataset import Dataset, rename_dataset
from faprompt.data.dataset_catalog import DatasetFacts, compare_counts, dataset_facts
from faprompt.data.foreign_layouts import unread_list
from faprompt.data.label_folders import (
    BR35H,
    BRAINMRI,
    YES_NO,
    FolderReader,
    LagReader,
    MagneticTileReader,
)
from faprompt.data.label_lists import ElpvReader, HeadCtReader, RealIadReader, VisaReader
from faprompt.data.layout_reader import SUBSETS, LayoutReader, Reader
from faprompt.data.listing import MetaJsonReader
from faprompt.data.picture_files import examples, is_folder, list_folders, list_images
from faprompt.data.segmented import (
    CVC_CLINICDB,
    CVC_COLONDB,
    ENDO,
    ISIC,
    KVASIR,
    TN3K,
    SegmentedReader,
    foreign_polyps,
    images_and_masks,
)
from faprompt.data.sliced_pictures import AitexReader, SddReader
from faprompt.errors import ConfigError, DatasetError

_META_JSON = MetaJsonReader()
_TABLE = TableReader()
_NAMED: tuple[Reader, ...] = (
    MVTEC,
    VisaReader(),
    BTAD,
    MPDD,
    DTD_SYNTHETIC,
    SddReader(),
    AitexReader(),
    DagmReader(),
    ElpvReader(),
    BRAINMRI,
    BR35H,
    HeadCtReader(),
    LagReader(),
    CVC_COLONDB,
    CVC_CLINICDB,
    KVASIR,
    ENDO,
    ISIC,
    TN3K,
    RealIadReader(),
    MagneticTileReader(),
)

# Detection asks one group after another; the first group with an answer decides, and its readers
# have to agree. A list of pictures overrides the folders; a known dataset overrides a look-alike.
_DETECTION: tuple[tuple[Reader, ...], ...] = (
    (_META_JSON,),
    _NAMED,
    (MVTEC_STYLE, YES_NO),
    (CocoReader(),),
    (FolderReader(),),
    (_TABLE,),
)
_READERS: dict[str, Reader] = {reader.name: reader for group in _DETECTION for reader in group}

# Forms that other projects prepare any dataset in; tried if a dataset's own layout is absent.
_PREPARED: tuple[Reader, ...] = (_META_JSON, MVTEC_STYLE, _TABLE)


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """One entry of `faprompt datasets list`."""

    name: str
    title: str
    layout: str
    normal: int | None  # published number of the test split; None without published counts
    anomalous: int | None
    facts: DatasetFacts | None  # None for layouts of your own pictures


def list_datasets() -> tuple[str, ...]:
    """Return the names for `--dataset` besides `auto`: known datasets, then your own layouts.

    Example:
        >>> list_datasets()[:3]
        ('mvtec', 'visa', 'btad')
    """
    return tuple(dict.fromkeys((*(reader.name for reader in _NAMED), *_READERS)))


def dataset_info(name: str) -> DatasetInfo:
    """Return the list entry of a dataset.

    Raises:
        ConfigError: there is no such dataset; the message lists the known ones.
    """
    reader = _reader(name)
    facts = dataset_facts(name)
    normal = anomalous = None
    if facts and facts.counts:
        normal, anomalous = (sum(column) for column in zip(*facts.counts.values(), strict=True))
    return DatasetInfo(reader.name, reader.title, reader.layout, normal, anomalous, facts)


def read_dataset(
    root: str | Path, dataset: str = "auto", *, split: str = "test", subset: str = "paper"
) -> Dataset:
    """Read a labelled folder; counts that differ from the paper's are among the warnings.

    Args:
        root: the folder; or a list of pictures: `meta.json`, a table, COCO annotations.
        dataset: one of `list_datasets()`, or "auto" to detect it. A known dataset is also
            read from the forms that other projects prepare it in (`meta.json`, an MVTec tree).
        split: "test" by default, for training on auxiliary data too; few datasets have "train".
        subset: "paper" is the paper's test split; "all" keeps every normal sample of the
            datasets without an official test split, of which the paper uses a quarter.

    Raises:
        ConfigError: `dataset` or `subset` has an unknown value.
        DatasetError: the folder does not exist, has another layout, or fits several datasets;
            or its dataset has no subset "all".
    """
    if subset not in SUBSETS:
        raise ConfigError(f"subset should be 'paper' or 'all', got {subset!r}.")
    place = Path(root)
    if not place.exists():
        raise DatasetError(f"{place} does not exist; give the dataset's folder.")
    if dataset == "auto":
        reader, reason = detect_dataset(place)
        others = [one.name for one in _NAMED if reader is _META_JSON and one.recognise(place)]
        rivals = (f"meta.json decides; the folders alone would be {name!r}" for name in others)
        found = _read(reader, place, split, subset)
        found = replace(found, reason=reason, warnings=(*found.warnings, *rivals))
    else:
        found = _read_named(place, _reader(dataset), split, subset)
    comparison = compare_counts(found.name, found.counts(), split=split)
    differences = (f"not the paper's {found.name}: {line}" for line in comparison.differences)
    return replace(found, warnings=(*found.warnings, *differences, *comparison.remarks))


def detect_dataset(root: Path) -> tuple[Reader, str]:
    """Return the reader for a folder, and the reason for the choice.

    Raises:
        DatasetError: no reader or several readers fit.
    """
    for group in _DETECTION:
        answers = [(reader, reason) for reader in group if (reason := reader.recognise(root))]
        if len(answers) == 1:
            return answers[0]
        if answers:
            choices = "; ".join(f"{reader.name} ({reason})" for reader, reason in answers)
            raise DatasetError(
                f"{root} could be several datasets: {choices}. Name the one you mean: "
                f"{', '.join(repr(reader.name) for reader, _ in answers)}."
            )
    raise DatasetError(
        f"{root} is no dataset we know: {_hint(root)} Known layouts: {', '.join(list_datasets())}."
    )


def _reader(name: str) -> Reader:
    if name in _READERS:
        return _READERS[name]
    close = difflib.get_close_matches(name.casefold().replace("-", "_"), _READERS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ConfigError(
        f"There is no dataset {name!r}.{hint} Known: auto, {', '.join(list_datasets())}."
    )


def _read(reader: Reader, root: Path, split: str, subset: str) -> Dataset:
    if isinstance(reader, LayoutReader) and subset in reader.subsets:
        return reader.read(root, split=split, subset=subset)
    if subset != "paper":
        named = [one.name for one in _NAMED if subset in getattr(one, "subsets", ())]
        raise DatasetError(
            f"{root} was read as {reader.name}, which has no subset {subset!r}: nothing was drawn "
            f"from it. Leave the subset away; {', '.join(named)} have one in their own layout."
        )
    return reader.read(root, split=split)


def _read_named(root: Path, reader: Reader, split: str, subset: str) -> Dataset:
    if reader.recognise(root) is None:
        for other in _NAMED:
            if reason := other.recognise(root):
                raise DatasetError(
                    f"{root} is not {reader.name}: expected {reader.layout}; found {other.name} "
                    f"({reason}). Read it as {other.name!r} or give another folder."
                )
        for form in _PREPARED:
            if form is not reader and form.recognise(root):
                return rename_dataset(_read(form, root, split, subset), reader.name)
    return _read(reader, root, split, subset)


def _hint(root: Path) -> str:
    if told := unread_list(root):
        return f"{told}."
    if not is_folder(root):
        return "it is a file; give a folder, or a list: meta.json, .csv, .jsonl, COCO .json."
    folders, images = list_folders(root), list_images(root)
    if foreign := foreign_tree(root) or foreign_polyps(root):
        return f"{foreign}."
    below = [f"{place.name} ({name})" for place in folders if (name := _known_name(place))]
    if below:
        return f"it holds {examples(below)}; give one such folder."
    if images_and_masks(root):
        alike = ", ".join(one.name for one in _NAMED if isinstance(one, SegmentedReader))
        return f"images and masks without labels could be any of {alike}; name the one you mean."
    above = root.resolve().parent
    if name := _known_name(above):
        return f"the folder above, {above}, looks like {name}; give that one."
    if images and not folders:
        return f"it holds {len(images)} pictures but no labels, such as folders of good and bad."
    found = examples(folder.name for folder in folders) or "nothing that we read"
    return f"it holds {found}, and no folder of normal pictures."


def _known_name(place: Path) -> str | None:
    return next((name for name, reader in _READERS.items() if reader.recognise(place)), None)
