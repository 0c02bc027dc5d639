"""Pictures of things and defects with masks, drawn by a program from a seed."""

from faprompt.synthetic.drawn_set import write_dataset
from faprompt.synthetic.kinds import DEFECT_KINDS, OBJECT_KINDS, defects_of, objects_of

__all__ = ["DEFECT_KINDS", "OBJECT_KINDS", "defects_of", "objects_of", "write_dataset"]
