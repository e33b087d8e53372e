"""Folders that tests read: the repository's root, golden files, recorded output, and data outside the repository."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
RECORDED = ROOT / "tests" / "recorded"
QUICKSTART = ROOT / "configs" / "quickstart"
SHARED = Path(os.environ.get("HPCBENCH_SHARED", ROOT.parent / "shared"))
"""Real models and data, which do not travel with the repository."""
