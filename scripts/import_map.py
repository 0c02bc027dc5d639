"""Draw the imports between packages, and fail where one points up, sideways or in a circle.

    python scripts/import_map.py

Prints each package or module of `faprompt` with those that it imports, layer by layer. Exits
with 1 when one imports its own layer or a higher one, or when files import each other in a
circle. Imports inside functions count; imports for type checkers do not.
"""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "faprompt"

# From the lowest to the highest. A package imports lower lines only, so that a line within a
# layer is one more step: `data` may read pictures by `imaging`, and `imaging` knows no data.
LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("base", ("errors", "records")),
    ("base", ("array_files", "config", "files", "pages")),
    ("base", ("work",)),
    ("base", ("deprecation",)),
    ("base", ("storage_requests",)),
    ("base", ("storage",)),
    ("core", ("calibration", "clip", "imaging", "metrics", "regions")),
    ("core", ("losses", "results", "scoring")),
    ("core", ("data", "prompts", "references", "relation_maps", "synthetic")),
    ("methods", ("methods",)),
    ("detector", ("detector_setup", "folder_config")),
    ("detector", ("model_folder",)),
    ("detector", ("detector_parts", "graph_session", "picture_model")),
    ("detector", ("picture_detector",)),
    ("detector", ("exported_detector", "tensor_detector")),
    ("detector", ("detector",)),
    ("detector", ("models", "token_cache")),
    ("detector", ("model_import",)),
    ("workflows", ("evaluation", "explanation", "exporting", "inspection", "prediction")),
    ("workflows", ("training",)),
    ("workflows", ("bulk", "serving", "watching")),
    ("reproduce", ("reproduce",)),
    ("interfaces", ("cli", "runtime")),
    ("interfaces", ("__main__",)),
)


def package_of(path: Path) -> str:
    """Return the first name of a file's path below the source: a folder or a module."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    """Return the modules of faprompt that a file imports, such as "clip.vision"."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "faprompt":
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            whole = node.module == "faprompt"
            found |= {n for n in names if whole or _is_module(n)} or {node.module or ""}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name.split(".")[0] == "faprompt"}
    return {name.partition(".")[2] for name in found} - {""}


def _is_module(name: str) -> bool:
    place = SOURCE.joinpath(*name.split(".")[1:])
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def main() -> int:
    """Print the map and its faults; return the exit status."""
    level = {name: rank for rank, (_, names) in enumerate(LAYERS) for name in names}
    files: dict[str, set[str]] = {}
    packages: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        imported = imported_modules(path)
        files[module] = imported - {module}
        package = package_of(path)
        if package != "__init__":
            others = {name.split(".")[0] for name in imported}
            packages.setdefault(package, set()).update(others - {package})
    faults = [f"{name} has no place in the map" for name in packages if name not in level]
    for rank in reversed(range(len(LAYERS))):
        layer, names = LAYERS[rank]
        for name in names:
            known = sorted(packages.get(name, set()) & set(level), key=lambda n: (level[n], n))
            print(f"{layer:<11}{name:<12} -> {', '.join(known)}")
            for other in known:
                if level[other] >= rank:
                    where = "in the same layer" if level[other] == rank else "above it"
                    faults.append(f"{name} imports {other}, which is {where}")
    faults += _circles(files)
    print("\n".join(faults) or "every import points down")
    return 1 if faults else 0


def _circles(files: dict[str, set[str]]) -> list[str]:
    """Return one line for a circle of files that import each other, or nothing."""
    files.pop("", None)  # the package itself imports its names on first use
    try:
        TopologicalSorter(files).prepare()
    except CycleError as error:
        return [f"circle: {' -> '.join(reversed(error.args[1]))}"]
    return []


if __name__ == "__main__":
    sys.exit(main())
