"""Workshop: the paper's studies, each a benchmark with settings varied, and a figure."""

from faprompt.study.complexity import MethodCost, measure_costs
from faprompt.study.config import StudyConfig, list_studies, parse_study, read_study
from faprompt.study.costs import write_costs
from faprompt.study.figure import read_figure, redraw
from faprompt.study.plan import Changes, StudyPlan, build_study
from faprompt.study.run import StudyResult, run_study

__all__ = [
    "Changes",
    "MethodCost",
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
    "run_study",
    "write_costs",
]
