"""Check the wheel and the source distribution in dist/, and fail where they are not fit to upload.

    python scripts/check_dist.py

Both are at most 25 MB and hold no litter; the wheel has the bundled models, studies and demo
pictures; the source distribution builds a wheel with the same files.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

DIST = Path(__file__).resolve().parents[1] / "dist"
LIMIT_MB = 25.0
LITTER = ("__pycache__", ".pyc", ".DS_Store", "shared/", "tests/", ".venv", ".lock.lock", ".tmp")
WANTED = (
    "faprompt/py.typed", "faprompt/bundled/small/model.safetensors",
    "faprompt/bundled/tiny/model.safetensors", "faprompt/bundled/paper/",
    "faprompt/bundled/demo/good/gear/", "faprompt/bundled/demo/lot/gear/", "faprompt/templates/",
    "licenses/NOTICE", "licenses/LICENSE",
)  # fmt: skip


def faults_of(size_mb: float, names: list[str], wanted: tuple[str, ...] = ()) -> list[str]:
    """Return what is wrong with an archive of this size and content."""
    faults = [f"{size_mb:.1f} MB, at most {LIMIT_MB:g} wanted"] if size_mb > LIMIT_MB else []
    faults += [f"{name} does not belong in" for name in names if any(x in name for x in LITTER)]
    missing = (part for part in wanted if not any(part in name for name in names))
    return faults + [f"{part} is missing" for part in missing]


def content(wheel: Path) -> dict[str, int]:
    """Return file name -> CRC-32 of a wheel, without its record of digests."""
    with zipfile.ZipFile(wheel) as archive:
        return {i.filename: i.CRC for i in archive.infolist() if not i.filename.endswith("RECORD")}


def main() -> int:
    """Print sizes and faults; return the exit status."""
    (wheel,), (source,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        held = archive.getnames()
    faults = []
    for path, names, wanted in ((wheel, [*content(wheel)], WANTED), (source, held, ())):
        size_mb = path.stat().st_size / 1e6
        print(f"{path.name}: {size_mb:.2f} MB, {len(names)} files")
        faults += [f"{path.name}: {fault}" for fault in faults_of(size_mb, names, wanted)]
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(source)]
        subprocess.run([sys.executable, *command], check=True)
        again = content(next(Path(folder).glob("*.whl")))
    if again != content(wheel):
        odd = {name for name, _ in set(again.items()) ^ set(content(wheel).items())}
        faults.append(f"the source distribution builds another wheel: {', '.join(sorted(odd)[:5])}")
    print("\n".join(faults) or "both are fit to upload")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
