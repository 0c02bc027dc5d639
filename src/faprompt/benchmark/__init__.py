"""Workshop: methods x backbones x datasets, resumable, with the published numbers beside."""

from faprompt.benchmark.config import BenchmarkConfig, parse_benchmark, read_benchmark
from faprompt.benchmark.estimate import describe_estimate, estimate, measure
from faprompt.benchmark.grid import build_tables, published_places
from faprompt.benchmark.plan import Plan, build_plan
from faprompt.benchmark.run import CellResult, run_benchmark
from faprompt.benchmark.tables import write_tables

__all__ = [
    "BenchmarkConfig",
    "CellResult",
    "Plan",
    "build_plan",
    "build_tables",
    "describe_estimate",
    "estimate",
    "measure",
    "parse_benchmark",
    "published_places",
    "read_benchmark",
    "run_benchmark",
    "write_tables",
]
