"""Run the notebooks of examples/ without Jupyter, and write their outputs into them.

    python scripts/run_notebooks.py examples/notebooks/*.ipynb

The code cells run in order in one namespace, in the folder of the notebook. Printed text, the value
of a last expression, and what is passed to IPython's `display` become outputs, as in Jupyter.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any


class Picture:
    """Stands in for `IPython.display.Image`, for JPEG data."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def run_notebook(path: Path) -> dict[str, Any]:
    """Return a notebook with the outputs of its code cells; an error in a cell is raised."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    with _in_folder(path.parent):
        names: dict[str, Any] = {"__name__": "__main__"}
        shown: list[dict[str, Any]] = []  # of the cell that runs; earlier cells may define `show`
        sys.modules |= _display_modules(shown)
        for number, cell in enumerate(cells, start=1):
            cell["execution_count"] = number
            cell["outputs"] = _run_cell("".join(cell["source"]), names, number, shown)
    return notebook


def write_notebook(path: Path, notebook: dict[str, Any]) -> None:
    """Write a notebook in the spelling of Jupyter."""
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")


def _run_cell(
    source: str, names: dict[str, Any], number: int, shown: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    shown.clear()
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    value = None
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, f"cell {number}", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
    outputs = [*shown]
    if text := printed.getvalue():
        outputs.insert(0, {"name": "stdout", "output_type": "stream", "text": _lines(text)})
    if value is not None:
        data = {"text/plain": _lines(repr(value))}
        outputs.append({"data": data, "execution_count": number, "metadata": {},
                        "output_type": "execute_result"})  # fmt: skip
    return outputs


def _display_modules(outputs: list[dict[str, Any]]) -> dict[str, types.ModuleType]:
    """Return IPython and IPython.display as modules that collect what is displayed."""

    def display(*shown: Picture) -> None:
        for picture in shown:
            data = {"image/jpeg": base64.b64encode(picture.data).decode()}
            outputs.append({"data": data, "metadata": {}, "output_type": "display_data"})

    module = types.ModuleType("IPython.display")
    vars(module).update(Image=Picture, display=display)
    package = types.ModuleType("IPython")
    vars(package).update(display=module)
    return {"IPython": package, "IPython.display": module}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


@contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def main(paths: list[str]) -> None:
    """Run notebooks and replace their outputs."""
    for path in map(Path, paths):
        write_notebook(path, run_notebook(path))
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
