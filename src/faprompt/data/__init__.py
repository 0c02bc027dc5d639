"""Labelled folders on disk as `Dataset`, a tuple of `Sample` with what is known of them."""

from faprompt.data.check import check_dataset, describe
from faprompt.data.coco import CocoReader
from faprompt.data.dataset import Dataset, by_defect_type
from faprompt.data.dataset_catalog import compare_counts, dataset_facts, published_counts
from faprompt.data.known_readers import (
    DatasetInfo,
    dataset_info,
    detect_dataset,
    list_datasets,
    read_dataset,
)
from faprompt.data.masks import MaskPolicy, cut_region, picture_size, read_mask, resize_mask
from faprompt.data.remarks import PictureFacts, dataset_remarks, read_facts

__all__ = [
    "CocoReader",
    "Dataset",
    "DatasetInfo",
    "MaskPolicy",
    "PictureFacts",
    "by_defect_type",
    "check_dataset",
    "compare_counts",
    "cut_region",
    "dataset_facts",
    "dataset_info",
    "dataset_remarks",
    "describe",
    "detect_dataset",
    "list_datasets",
    "picture_size",
    "published_counts",
    "read_dataset",
    "read_facts",
    "read_mask",
    "resize_mask",
]
