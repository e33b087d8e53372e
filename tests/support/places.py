"""Folders that tests read: the repository's root, golden files, recorded output, and data outside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
RECORDED = ROOT / "tests" / "recorded"
QUICKSTART = ROOT / "configs" / "quickstart"
SHARED = Path(os.path.normpath(os.environ.get("HPCBENCH_SHARED", ROOT.parent / "shared")))
"""Real models and data, which do not travel with the repository."""


def shared(name: str) -> Path:
    """Return a path below `SHARED`; skip the test without it, or fail it where HPCBENCH_SHARED names the folder."""
    path = SHARED / name
    if not path.exists():
        if os.environ.get("HPCBENCH_SHARED"):
            pytest.fail(f"{path}: not found, though HPCBENCH_SHARED is set")
        pytest.skip(f"{path}: not found; HPCBENCH_SHARED names the folder with real models and data")
    return path
