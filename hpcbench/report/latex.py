r"""The LaTeX report: the tables as floats with the rules of booktabs, to be included by `\input`.

In: a Document. Out: LaTeX that needs the packages booktabs and multirow, whatever the names in it are. What the report
says beside its tables stands in comments above them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hpcbench.report.cost import cost_notes
from hpcbench.report.document import Document, SuiteSection
from hpcbench.report.escape import one_line
from hpcbench.report.rows import Cell
from hpcbench.report.table import Table

_LETTERS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",  # the quotation mark of its own name needs another font encoding
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "\N{HEAVY CHECK MARK}": r"$\surd$",
    "\N{HEAVY BALLOT X}": r"$\times$",
    "…": r"\ldots{}",
}
_LABEL = re.compile(r"[^a-z0-9]+")


def render_latex(document: Document) -> str:
    """Return all tables of the report."""
    lines = [
        f"% hpcbench report, collected {_comment(document.collected_at)}",
        r"% needs \usepackage{booktabs} and \usepackage{multirow}",
        *(f"% warning: {_comment(warning)}" for warning in document.warnings),
    ]
    if not document.suites:
        lines.append("% no experiments found")
    for suite in document.suites:
        lines += ["", *_suite_lines(suite)]
    return "\n".join(lines) + "\n"


def latex_text(text: str) -> str:
    r"""Return `text` as LaTeX that sets exactly these characters, on one line.

    >>> latex_text("lora_r=8 & 5%")
    'lora\\_r=8 \\& 5\\%'
    """
    # Two hyphens would become a dash.
    return "".join(_LETTERS.get(char, char) for char in one_line(text)).replace("--", "-{}-")


def latex_table(table: Table, *, caption: str, label: str) -> str:
    """Return a table as a float."""
    alignment = "".join("r" if column.measured else "l" for column in table.columns)
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex_text(caption)}}}",
        rf"  \label{{{label}}}",
        rf"  \begin{{tabular}}{{{alignment}}}",
        r"    \toprule",
        _row(latex_text(column.header) for column in table.columns),
        r"    \midrule",
    ]
    for number, cells in enumerate(table.cells):
        # A rule before each group of rows that cells span.
        lines += [r"    \midrule"] if number and any(cell.span > 1 for cell in cells) else []
        lines.append(_row(map(_cell_text, cells)))
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}"])


def _suite_lines(suite: SuiteSection) -> list[str]:
    lines = [f"% {_comment(suite.name)}: {_comment(suite.counts)}"]
    lines += [f"% the same for all: {_comment(suite.shared)}"] if suite.shared else []
    lines += [f"% cost: {_comment(suite.cost)}"] if suite.cost else []
    lines += [f"% warning: {_comment(text)}" for text in suite.warnings]
    lines += [
        f"% {failure.state.value}: {_comment(failure.experiment)} {_comment(failure.job)}: {_comment(failure.message)}"
        for failure in suite.failures
    ]
    lines += [f"% {_comment(text)}" for text in (*suite.notes, *cost_notes(suite.cost_table))]
    tables = suite.tables if suite.cost_table is None else (*suite.tables, suite.cost_table)
    for number, table in enumerate(tables):
        caption = f"{suite.name}: {table.title}" if table.title and suite.layout != "swift" else suite.name
        label = "-".join(part for part in (_label(suite.name), _label(table.title) if number else "") if part)
        lines += [latex_table(table, caption=caption, label=f"tab:{label or number}"), ""]
    return lines[:-1] if tables else lines


def _row(texts: Iterable[str]) -> str:
    return f"    {' & '.join(texts)} \\\\"


def _cell_text(cell: Cell) -> str:
    if not cell.span:
        return ""
    text = latex_text(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    return rf"\multirow{{{cell.span}}}{{*}}{{{text}}}" if cell.span > 1 else text


def _comment(text: str) -> str:
    """Return text for a comment: one line ends it."""
    return one_line(text)


def _label(text: str) -> str:
    return _LABEL.sub("-", text.lower()).strip("-")
