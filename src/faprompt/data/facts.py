"""Where each known dataset is officially had, under which terms, and what is labelled in it.

In words only: nothing is fetched. Terms are those found on the pages named; the page, read on
the day of the download, is the authority. Source: the projects' own pages and licence files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Labels = Literal["P", "I", "P, A"]

_LABELLED: Mapping[Labels, str] = {
    "P": "pixel masks",
    "I": "image labels only",
    "P, A": "pixel masks, every picture anomalous",
}


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """What a user should know before a download."""

    labels: Labels
    source: str
    licence: str
    remark: str = ""  # what to mind; "" where there is nothing

    @property
    def labelled(self) -> str:
        """The letters of `labels` in words."""
        return _LABELLED[self.labels]


_KAGGLE = "see the terms on its Kaggle page"
_UNCLEAR = "terms not clearly stated: check the page"
_NC = "CC BY-NC-SA 4.0, no commercial use"

_FACTS: Mapping[str, DatasetFacts] = {
    "mvtec": DatasetFacts(
        "P",
        "the dataset page of MVTec Research, 'MVTec Anomaly Detection'",
        _NC,
        "MVTec AD 2, 3D and LOCO are other datasets",
    ),
    "visa": DatasetFacts(
        "P",
        "the download linked from the GitHub repository amazon-science/spot-diff",
        "CC BY 4.0 by the repository's licence file",
        "some libraries say CC BY-NC-SA; the licence file is the authority",
    ),
    "sdd": DatasetFacts(
        "P",
        "the ViCoS lab of the University of Ljubljana, 'KolektorSDD', fine annotations",
        _NC,
        "the set of 2019, not KolektorSDD2",
    ),
    "btad": DatasetFacts(
        "P",
        "the AVIRES lab of the University of Udine (btad.zip)",
        f"{_NC}, as anomalib states it",
    ),
    "mpdd": DatasetFacts(
        "P", "the link in the GitHub repository stepanje/MPDD (Brno University of Technology)", _NC
    ),
    "aitex": DatasetFacts(
        "P",
        "the AITEX page 'AFID', also a Mendeley Data record; three archives",
        _UNCLEAR,
    ),
    "dagm": DatasetFacts(
        "P",
        "the HCI Heidelberg page 'DAGM 2007', also Zenodo and Kaggle (user mhskjelvareid)",
        "differs by the record used: check its page",
        "masks are coarse ellipses around the defect",
    ),
    "dtd_synthetic": DatasetFacts(
        "P",
        "the authors' Google Drive folder, linked from AnomalyCLIP's README",
        "terms not stated; made from the Oxford DTD textures",
        "the plain DTD texture set has no defects",
    ),
    "elpv": DatasetFacts(
        "I",
        "the GitHub repository zae-bayern/elpv-dataset",
        "pictures CC BY-NC-SA 4.0, no commercial use; code Apache-2.0",
    ),
    "brainmri": DatasetFacts(
        "I",
        "Kaggle, 'Brain MRI Images for Brain Tumor Detection' (user navoneel)",
        _UNCLEAR,
    ),
    "headct": DatasetFacts("I", "Kaggle, 'Head CT - hemorrhage' (user felipekitamura)", _KAGGLE),
    "br35h": DatasetFacts("I", "Kaggle, 'Br35H' (user ahmedhamada0)", _KAGGLE),
    "lag": DatasetFacts(
        "I",
        "the GitHub repository smilell/AG-CNN; a password-protected archive, on request",
        "academic use only, passing it on is forbidden",
        "only part 1 is released",
    ),
    "cvc_colondb": DatasetFacts(
        "P, A",
        "the polyp packages (PraNet's, or 'Polyp_DataSet_zip' on figshare), with 380 pictures",
        _UNCLEAR,
        "the older official release has 300 pictures; CVC-300 is another set",
    ),
    "cvc_clinicdb": DatasetFacts(
        "P, A",
        "polyp.grand-challenge.org (Computer Vision Center, Barcelona)",
        "research use",
        "PraNet's TestDataset holds only 62 of the 612",
    ),
    "kvasir": DatasetFacts(
        "P, A",
        "Simula's page 'Kvasir-SEG'",
        "research and education",
        "the plain Kvasir set and HyperKvasir are others",
    ),
    "endo": DatasetFacts(
        "P, A",
        "the EndoTect challenge (ICPR 2020), segmentation test set; AnomalyCLIP's README links it",
        _UNCLEAR,
    ),
    "isic": DatasetFacts(
        "P, A",
        "the ISIC challenge archive, 2016, task 1, test data and ground truth",
        "CC0 by report: check the page",
    ),
    "tn3k": DatasetFacts(
        "P, A",
        "the GitHub repository haifangong/TRFE-Net-for-thyroid-nodule-segmentation",
        "code MIT; data for research use",
    ),
    "realiad": DatasetFacts(
        "P",
        "the project page of Real-IAD, access on request",
        _NC,
        "Real-IAD Variety and Real-IAD D3 are other datasets",
    ),
    "magnetic_tile": DatasetFacts(
        "P",
        "the GitHub repository of its authors (Huang et al., The Visual Computer 2020), "
        "'Magnetic-tile-defect-datasets'",
        _UNCLEAR,
    ),
}


def dataset_facts(name: str) -> DatasetFacts | None:
    """What is known of a dataset by its id; None for layouts of your own pictures.

    Example:
        >>> dataset_facts("elpv").labels, dataset_facts("folder")
        ('I', None)
    """
    return _FACTS.get(name)
