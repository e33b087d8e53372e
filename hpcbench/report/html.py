"""The HTML report: one self-contained page, no script from elsewhere, everything foreign escaped by jinja2."""

from __future__ import annotations

import functools

import jinja2

from hpcbench.report import plots
from hpcbench.report.document import Document
from hpcbench.report.escape import code_spans, one_line, printable
from hpcbench.storage.package_data import shipped_file

TEMPLATE = "report.html.j2"


def render_html(document: Document) -> str:
    """Return the report as one page."""
    return _environment().get_template(TEMPLATE).render(document=document, bar_charts=plots.bar_charts, plots=plots)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(shipped_file("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(one_line=one_line, code_spans=code_spans, printable=printable)
    return environment
