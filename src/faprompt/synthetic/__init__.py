"""Pictures, masks and captions drawn from nothing but a seed."""

from faprompt.synthetic.captions import vocabulary_texts
from faprompt.synthetic.dataset import write_dataset
from faprompt.synthetic.draw import SyntheticBatch, draw_batch
from faprompt.synthetic.kinds import DEFECT_KINDS, OBJECT_KINDS, defects_of, objects_of

__all__ = [
    "DEFECT_KINDS",
    "OBJECT_KINDS",
    "SyntheticBatch",
    "defects_of",
    "draw_batch",
    "objects_of",
    "vocabulary_texts",
    "write_dataset",
]
