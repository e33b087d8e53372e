"""The Markdown form of a comparison."""

from __future__ import annotations

from collections.abc import Iterable

from tabulate import tabulate

from hpcbench.compare.result import ComparisonReport
from hpcbench.compare.wording import (
    NUM_TEXT_COLUMNS,
    SAME,
    Line,
    Lines,
    change_texts,
    condition_texts,
    counts_text,
    left_out_texts,
    notes,
    side_texts,
    tables,
)
from hpcbench.report.escape import CELL_LIMIT, markdown_line, markdown_text
from hpcbench.report.markdown import markdown_bullets


def render_markdown(report: ComparisonReport) -> str:
    """Return the whole document."""
    lines = ["# hpcbench comparison", "", *_bullets(side_texts(report)), ""]
    lines += [markdown_text(counts_text(report)), ""]
    lines += _section("Conditions", condition_texts(report))
    lines += _section("Warnings", report.warnings)
    for table in tables(report):
        lines += [f"## {markdown_text(table.title)}", "", _table(table), ""]
    lines += _section("Left out", left_out_texts(report))
    lines += _section("Settings that differ", change_texts(report.pairs))
    lines += ["## Notes", "", *markdown_bullets(notes(report))]
    return "\n".join(lines).rstrip("\n") + "\n"


def _section(title: str, texts: Iterable[str]) -> list[str]:
    bullets = _bullets(texts)
    return [f"## {title}", "", *bullets, ""] if bullets else []


def _bullets(texts: Iterable[str]) -> list[str]:
    return [f"- {markdown_line(text)}" for text in texts]


def _table(table: Lines) -> str:
    aligns = ["left" if place < NUM_TEXT_COLUMNS else "right" for place in range(len(table.headers))]
    return tabulate(
        [_cells(line) for line in table.lines],
        headers=[markdown_text(header) for header in table.headers],
        tablefmt="pipe",
        colalign=aligns,
        disable_numparse=True,
    )


def _cells(line: Line) -> list[str]:
    cells = [cell if cell == SAME else markdown_text(cell, limit=CELL_LIMIT) for cell in line.cells]
    if line.verdict in {"better", "worse", "different"}:
        cells[-1] = f"**{cells[-1]}**"
    return cells
