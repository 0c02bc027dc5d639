"""Load an exported graph with onnxruntime or openvino, and run it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from faprompt.errors import ModelError
from faprompt.work import load_extra

_log = logging.getLogger("faprompt")


class Session(Protocol):
    """A loaded graph; many threads may run it."""

    version: str  # of the package that runs it

    def run(self, inputs: Mapping[str, np.ndarray], wanted: Sequence[str]) -> list[np.ndarray]:
        """Return the wanted outputs, in that order."""


def open_session(path: Path, runtime: Mapping[str, Any]) -> Session:
    """Load `model.onnx` with onnxruntime, or `model.xml` with openvino.

    Args:
        path: file of the graph; its ending says which.
        runtime: version that it was compared with torch on, and hints: settings to load it with.

    Raises:
        MissingExtraError: the package is not installed.
        ModelError: the package cannot load the file.
    """
    onnx = path.suffix == ".onnx"
    kind: type[_OnnxSession | _OpenVinoSession] = _OnnxSession if onnx else _OpenVinoSession
    hints = {str(key): str(value) for key, value in runtime["hints"].items()}
    module = load_extra("onnx" if onnx else "openvino", kind.package)
    measured, version = str(runtime.get("version")), str(module.__version__)
    if measured != version:
        _log.info(
            "%s: compared with torch on %s %s, runs on %s.", path, kind.package, measured, version
        )
    try:
        return kind(module, path, hints)
    except Exception as error:  # each runtime has errors of its own
        raise ModelError(
            f"{path} cannot be loaded by {kind.package} {version}: {' '.join(str(error).split())}"
        ) from error


def _threads() -> int:
    """Return how many threads a session uses: OMP_NUM_THREADS, or the processors allowed."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _OnnxSession:
    package = "onnxruntime"

    def __init__(self, module: Any, path: Path, hints: Mapping[str, str]) -> None:
        self.version = str(module.__version__)
        options = module.SessionOptions()
        options.intra_op_num_threads = _threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # threads that wait in a loop slow down everything else on the same processors
        for key, value in {"session.intra_op.allow_spinning": "0", **hints}.items():
            options.add_session_config_entry(key, value)
        self._session = module.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def run(self, inputs: Mapping[str, np.ndarray], wanted: Sequence[str]) -> list[np.ndarray]:
        found: list[np.ndarray] = self._session.run(list(wanted), dict(inputs))
        return found


class _OpenVinoSession:
    package = "openvino"

    def __init__(self, module: Any, path: Path, hints: Mapping[str, str]) -> None:
        self.version = str(module.__version__)
        settings = {"INFERENCE_NUM_THREADS": str(_threads()), **hints}
        self._model = module.Core().compile_model(str(path), "CPU", settings)
        self._own = threading.local()  # an inference request serves one thread

    def run(self, inputs: Mapping[str, np.ndarray], wanted: Sequence[str]) -> list[np.ndarray]:
        if not hasattr(self._own, "request"):
            self._own.request = self._model.create_infer_request()
        request = self._own.request
        request.infer(dict(inputs))
        return [request.get_tensor(name).data.copy() for name in wanted]
