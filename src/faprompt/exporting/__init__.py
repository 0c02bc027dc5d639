"""Export detectors to ONNX and OpenVINO, and prove that they give the same results."""

from faprompt.exporting.equality_gate import Difference
from faprompt.exporting.export_run import ExportOptions, ExportReport, export

__all__ = ["Difference", "ExportOptions", "ExportReport", "export"]
