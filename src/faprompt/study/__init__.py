"""Workshop: the paper's studies, each a benchmark with settings varied, and a figure."""

from faprompt.study.complexity import measure_costs
from faprompt.study.config import StudyConfig, list_studies, parse_study, read_study
from faprompt.study.cost_records import MethodCost
from faprompt.study.costs import write_costs
from faprompt.study.figure import read_figure, redraw
from faprompt.study.galleries import GalleryResult, run_galleries
from faprompt.study.plan import Changes, StudyPlan, build_study
from faprompt.study.prompt_spread import SpreadResult, redraw_study, run_spread
from faprompt.study.run import StudyResult, run_study

__all__ = [
    "Changes",
    "GalleryResult",
    "MethodCost",
    "SpreadResult",
    "StudyConfig",
    "StudyPlan",
    "StudyResult",
    "build_study",
    "list_studies",
    "measure_costs",
    "parse_study",
    "read_figure",
    "read_study",
    "redraw",
    "redraw_study",
    "run_galleries",
    "run_spread",
    "run_study",
    "write_costs",
]
