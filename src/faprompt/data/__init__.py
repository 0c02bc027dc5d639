"""Labelled folders on disk → `Dataset`, a tuple of `Sample` and what there is to say about it."""

from faprompt.data.check import DatasetCheck, check_dataset, describe
from faprompt.data.coco import CocoReader
from faprompt.data.dataset import ClassCount, Dataset, by_defect_type, rename_dataset
from faprompt.data.facts import DatasetFacts, dataset_facts
from faprompt.data.layout_reader import Reader
from faprompt.data.masks import MaskPolicy, cut_region, picture_size, read_mask, resize_mask
from faprompt.data.meta_export import write_meta_json
from faprompt.data.picture_files import IMAGE_EXTENSIONS, is_image_name, list_images
from faprompt.data.published_counts import compare_counts, published_counts
from faprompt.data.registry import (
    DatasetInfo,
    dataset_info,
    detect_dataset,
    list_datasets,
    read_dataset,
)
from faprompt.data.remarks import PictureFacts, dataset_remarks, read_facts

__all__ = [
    "IMAGE_EXTENSIONS",
    "ClassCount",
    "CocoReader",
    "Dataset",
    "DatasetCheck",
    "DatasetFacts",
    "DatasetInfo",
    "MaskPolicy",
    "PictureFacts",
    "Reader",
    "by_defect_type",
    "check_dataset",
    "compare_counts",
    "cut_region",
    "dataset_facts",
    "dataset_remarks",
    "dataset_info",
    "describe",
    "detect_dataset",
    "is_image_name",
    "list_datasets",
    "list_images",
    "picture_size",
    "published_counts",
    "read_dataset",
    "read_facts",
    "read_mask",
    "rename_dataset",
    "resize_mask",
    "write_meta_json",
]
