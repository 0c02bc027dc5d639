"""Pictures of things and defects with masks, drawn by a program from a seed."""

from faprompt.synthetic.damaged_pictures import ONTO_KINDS, DrawnDefect, draw_defect, draw_defects
from faprompt.synthetic.damaged_set import write_damaged_set
from faprompt.synthetic.drawn_set import write_dataset
from faprompt.synthetic.kinds import DEFECT_KINDS, OBJECT_KINDS, defects_of, objects_of

__all__ = [
    "DEFECT_KINDS", "OBJECT_KINDS", "ONTO_KINDS", "DrawnDefect", "defects_of", "draw_defect",
    "draw_defects", "objects_of", "write_damaged_set", "write_dataset",
]  # fmt: skip
