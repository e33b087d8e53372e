"""The suites of `configs/tables`, and the published table that each of them makes.

In: nothing. Out: files, and where each table stands in the documents of `HPCBENCH_SHARED`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import yaml

from hpcbench.schemas.report_options import ReportOptions
from tests.support.benchmark_tables import Grid, html_tables, pipe_tables
from tests.support.places import ROOT, shared

FOLDER: Final = ROOT / "configs" / "tables"
PUBLISHED, MODERN = FOLDER / "published", FOLDER / "modern"
MODERN_SUFFIX: Final = "-modern"
GUIDE, TIMES, SPEEDS = (
    f"seeds/{name}.txt" for name in ("001_80ec32dee551a213", "002_3f7b04db992fba31", "004_4db542d1929a5ca8")
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a table stands: its file, its form and its number among those of that form."""

    file: str
    number: int
    is_html: bool = True


SWEEPS: Final = {
    "quantization-2023": Place(TIMES, 0),
    "lengths-full-2023": Place(TIMES, 1),
    "lengths-lora-2023": Place(TIMES, 2),
    "batch-size-2023": Place(TIMES, 3),
    "attention-2023": Place(TIMES, 4),
    "models-2023": Place(TIMES, 5),
    "lora-rank-2023": Place(TIMES, 6),
    "quantization": Place(SPEEDS, 0),
    "lengths-lora": Place(SPEEDS, 1),
    "lengths-full": Place(SPEEDS, 2),
    "batch-size": Place(SPEEDS, 3),
    "attention": Place(SPEEDS, 4),
    "lora-rank": Place(SPEEDS, 5),
    "accumulation": Place(SPEEDS, 6),
    "sequence-parallel": Place(SPEEDS, 7),
}
"""Tables of one row per setting."""
LISTS: Final = {
    "tuners": Place(SPEEDS, 0, is_html=False),
    "unsloth": Place(SPEEDS, 1, is_html=False),
    "export": Place(SPEEDS, 2, is_html=False),
    "awq": Place(SPEEDS, 3, is_html=False),
    "aqlm": Place(SPEEDS, 4, is_html=False),
}
"""Tables of one row per named experiment."""
FEW_SHOTS: Final = Place(GUIDE, 0, is_html=False)
"""The table that lm-eval printed."""
LATER: Final = frozenset({"sequence-parallel", "sequence-parallel-modern"})
"""Suites with arguments that this version refuses."""


def suite_files() -> list[Path]:
    """Return all suites of tables."""
    return sorted(FOLDER.glob("*/*.yaml"))


def twin_of(published: Path) -> Path:
    """Return the suite of the same table with models of today, which need not exist."""
    return MODERN / f"{published.stem.removesuffix('-2023')}{MODERN_SUFFIX}.yaml"


def published_table(place: Place) -> Grid:
    """Return a table; the test is skipped where the documents are missing."""
    text = _text(place.file)
    return (html_tables if place.is_html else pipe_tables)(text)[place.number]


@cache
def _text(file: str) -> str:
    return shared(file).read_text(encoding="utf-8")


def report_of(name: str) -> ReportOptions:
    """Return how a published suite wants its results shown."""
    document = yaml.safe_load((PUBLISHED / f"{name}.yaml").read_text(encoding="utf-8"))
    return ReportOptions.model_validate(document["report"])
