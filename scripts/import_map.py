"""Draw the imports between rooms, and fail where one points back.

    python scripts/import_map.py

Prints each room with the rooms it imports. Exits 1 when a room imports one above it.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src" / "faprompt"
LEVELS: tuple[tuple[str, ...], ...] = (
    ("errors", "records", "config", "files"),
    ("imaging", "clip", "metrics", "losses", "scoring", "regions"),
    ("data", "prompts", "synthetic"),
    ("methods",),
    ("detector", "models", "model_folder", "model_import"),
    ("prediction", "training", "evaluation", "diagnosis", "explanation"),
    ("benchmark",),
    ("study",),
    ("cli", "__main__"),
)  # ground, rooms, rooms that know rooms, recipes, detector, workshops,
# the workshop that uses the others, the one that uses that, doors


def room_of(path: Path) -> str:
    """The first name below the package: a folder or a module."""
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms a file imports at any depth, lazy imports included; not for type checkers only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "faprompt":
                found |= {alias.name for alias in node.names}
            elif node.module.startswith("faprompt."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("faprompt.")}
    return found


def main() -> int:
    """Print the map; the exit status."""
    height = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
    edges: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        room = room_of(path)
        edges.setdefault(room, set()).update(imported_rooms(path) - {room})
    faults = [f"{room} has no place in the map" for room in edges if room not in height]
    faults.remove("__init__ has no place in the map")
    for rooms in reversed(LEVELS):
        for room in rooms:
            known = sorted(edges.get(room, set()) & set(height), key=height.__getitem__)
            print(f"{room:<12} -> {', '.join(known)}")
            faults += [f"{room} imports {o}" for o in known if height[o] > height[room]]
    print("\n".join(faults) or "every import points down")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
