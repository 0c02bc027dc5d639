"""The material beside the repository: real pictures, where they are at hand."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def shared_data() -> Path:
    """The folder of real datasets; the test is skipped where it is not there."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("needs the real pictures in ../shared/data")
    return folder
