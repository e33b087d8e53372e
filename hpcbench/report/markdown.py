"""The Markdown report: GitHub-flavoured tables that are readable as raw text too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from urllib.parse import quote

from tabulate import tabulate

from hpcbench.report.artifacts import PictureLink
from hpcbench.report.cost import cost_notes
from hpcbench.report.document import Document, SuiteSection
from hpcbench.report.escape import (
    CELL_LIMIT,
    code_spans,
    markdown_block,
    markdown_code,
    markdown_line,
    markdown_text,
    one_line,
)
from hpcbench.report.next_steps import Step
from hpcbench.report.notes_and_warnings import Failure
from hpcbench.report.rows import Cell
from hpcbench.report.table import Table

SWIFT_CELL_LIMIT = 160
"""SWIFT 2.x's longest tuner_params have 94 characters."""


def render_markdown(document: Document, pictures: Sequence[PictureLink] = ()) -> str:
    """Return the whole report, a heading per suite, with the pictures of each after its tables."""
    lines = [] if document.layout == "swift" else ["# hpcbench report", ""]
    if document.warnings:
        lines += ["## Warnings", "", *markdown_bullets(document.warnings), ""]
    if not document.suites:
        lines += [f"No experiments found; collected {markdown_text(document.collected_at)}.", ""]
    for suite in document.suites:
        own_pictures = [picture for picture in pictures if picture.suite == suite.name]
        lines += _suite_lines(suite, own_pictures, is_swift=suite.layout == "swift")
    return "\n".join(lines).rstrip("\n") + "\n"


def _suite_lines(suite: SuiteSection, pictures: Sequence[PictureLink], *, is_swift: bool) -> list[str]:
    lines = [] if is_swift else [f"## {markdown_text(suite.name)}", "", f"{markdown_text(suite.counts)}", ""]
    lines += [f"The same in every row that has it: {markdown_text(suite.shared)}", ""] if suite.shared else []
    lines += [f"Cost: {markdown_text(suite.cost)}", ""] if suite.cost and not is_swift else []
    for table in suite.tables if suite.cost_table is None else (*suite.tables, suite.cost_table):
        title = [f"### {markdown_text(table.title)}", ""] if table.title else []
        lines += _swift_table_lines(table) if is_swift else [*title, _table_text(table), ""]
    if pictures:
        lines += ["### Pictures", "", *(text for picture in pictures for text in _picture_lines(picture))]
    if suite.warnings:
        lines += ["### Warnings", "", *markdown_bullets(suite.warnings), ""]
    if suite.failures:
        lines += ["### Failures", ""]
        for number, failure in enumerate(suite.failures, start=1):
            lines += _failure_lines(number, failure)
        lines += [""] if lines[-1] else []
    if notes := (*suite.notes, *cost_notes(suite.cost_table)):
        lines += ["### Notes", "", *markdown_bullets(notes), ""]
    if suite.environment and not is_swift:
        lines += ["### Environment", ""]
        lines += [f"- {markdown_line(key)}: {markdown_text(value)}" for key, value in suite.environment]
        lines.append("")
    return lines


def _picture_lines(picture: PictureLink) -> list[str]:
    path = quote(picture.path)
    return [f"[![{markdown_text(picture.title)}]({path})]({path.removesuffix('.png')}.svg)", ""]


def _table_text(table: Table) -> str:
    return html_table(table) if table.as_html else markdown_table(table)


def html_table(table: Table) -> str:
    """Return a table as HTML that Markdown may hold, its cells spanning rows."""

    def row(texts: Iterable[tuple[str, int]]) -> list[str]:
        spans = ((text, f' rowspan="{span}"' if span > 1 else "") for text, span in texts if span)
        return ["    <tr>", *(f"        <td{span}>{escape(one_line(text))}</td>" for text, span in spans), "    </tr>"]

    lines = ["<table>", *row((column.header, 1) for column in table.columns)]
    for cells in table.cells:
        lines += row((cell.text, cell.span) for cell in cells)
    return "\n".join((*lines, "</table>"))


def markdown_table(table: Table) -> str:
    """Return an aligned table; measured columns stand to the right."""
    headers = [markdown_text(column.header, limit=CELL_LIMIT) for column in table.columns]
    if not table.cells:
        return "\n".join((_bare_row(headers), _bare_row(["---"] * len(headers))))
    return tabulate(
        [[_cell_text(cell) for cell in cells] for cells in table.cells],
        headers=headers,
        tablefmt="pipe",
        colalign=["right" if column.measured else "left" for column in table.columns],
        disable_numparse=True,
    )


def _swift_table_lines(table: Table) -> list[str]:
    headers = [column.header for column in table.columns]
    rules = ["-" * len(header) for header in headers]
    lines = [markdown_text(table.title), "", "", _padded_row(headers), _padded_row(rules)]
    lines += [_bare_row([_cell_text(cell, limit=SWIFT_CELL_LIMIT) for cell in cells]) for cells in table.cells]
    return [*lines, ""]


def _cell_text(cell: Cell, *, limit: int = CELL_LIMIT) -> str:
    if not cell.span:
        return ""
    text = markdown_text(cell.text, limit=limit)
    return f"**{text}**" if cell.best else text


def _bare_row(cells: list[str]) -> str:
    return f"|{'|'.join(cells)}|"


def _padded_row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _failure_lines(number: int, failure: Failure) -> list[str]:
    head = f"{number}. {markdown_code(f'{failure.experiment} {failure.job}')}: **{failure.state.value}**"
    indent = " " * (len(str(number)) + 2)
    lines = [head + (f": {markdown_text(failure.message, limit=300)}" if failure.message else "")]
    lines += [f"{indent}- log: {markdown_code(failure.log)}"] if failure.log is not None else []
    lines += [f"{indent}- hint: {markdown_text(failure.hint)}"] if failure.hint is not None else []
    lines += [f"{indent}- blocks: {', '.join(map(markdown_text, failure.blocks))}"] if failure.blocks else []
    lines.append(f"{indent}- next: {', '.join(map(_step_text, failure.steps))}")
    if failure.lines:
        lines += ["", *markdown_block(failure.lines, indent=indent), ""]
    return lines


def _step_text(step: Step) -> str:
    command = markdown_code(step.command)
    return f"{command} ({markdown_text(step.remark)})" if step.remark else command


def markdown_bullets(texts: Iterable[str]) -> list[str]:
    """Return a list of notes of ours; what they quote is escaped, their code spans stay."""
    return [f"- {_note_text(text)}" for text in texts]


def _note_text(text: str) -> str:
    """Escape a note, leaving the code spans that our own notes hold."""
    return "".join(markdown_code(part) if is_code else _escape_part(part) for part, is_code in code_spans(text))


def _escape_part(text: str) -> str:
    if not text.strip():
        return " " if text else ""
    lead, tail = " " * text[:1].isspace(), " " * text[-1:].isspace()
    return f"{lead}{markdown_line(text)}{tail}"
