"""The page around the results: templates, style and program put into one file that asks nothing of any network.

In: a Collection. Out: HTML whose content security policy allows its own style and program, by their hashes, and nothing
else. Results travel as JSON that cannot leave its element; the large parts of it are packed (gzip, base64).
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
import re

import jinja2
from markupsafe import Markup

from hpcbench.report.artifacts import ReportContext
from hpcbench.report.document import Document, build_document
from hpcbench.report.escape import code_spans, one_line, printable
from hpcbench.report.page.payload import build_payload
from hpcbench.schemas.collection import Collection
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.storage.json_files import JsonObject
from hpcbench.storage.package_data import shipped_file

TEMPLATE = "report.html.j2"
TEMPLATE_OF_TABLES = "tables.html.j2"
FOLDER = ("templates", "report")
STYLE_OF_TABLES = "report.css"
STYLES = (STYLE_OF_TABLES, "charts.css", "uplot/uPlot.min.css")
LOADER = ("unpack.js", "loader.js")
"""What the page runs as it is; it unpacks the rest."""
PROGRAM = (
    "unpack.js",
    "dom.js",
    "numbers.js",
    "model.js",
    "filter.js",
    "header.js",
    "best.js",
    "uplot/notice.js",
    "uplot/uPlot.iife.min.js",
    "scatter.js",
    "tradeoffs.js",
    "series.js",
    "curves.js",
    "pivot.js",
    "table.js",
    "toolbar.js",
    "failures.js",
    "timeline.js",
    "experiment.js",
    "ab.js",
    "notes.js",
    "start.js",
)
"""One subject a file, in this order one program."""
PACKED = ("columns", "experiments", "curves", "details", "failures")
"""The large parts of the payload, most of which grow with the number of experiments."""
MOST_ROWS_WITHOUT_PROGRAM = 50
"""Rows of a table in a browser that runs no program."""

_COMMENT_OR_INDENT = re.compile(r"^[ \t]*//.*\n|^[ \t]+", re.MULTILINE)


def render_page(collection: Collection, options: ReportOptions, context: ReportContext) -> str:
    """Return the report as one page; layouts other than `table` are tables alone."""
    document = build_document(collection, options)
    if document.layout != "table":
        return render_without_program(TEMPLATE_OF_TABLES, STYLE_OF_TABLES, document=document)
    return _page(document, build_payload(collection, options, document, context))


def packed(payload: JsonObject) -> JsonObject:
    """Return the payload with its large parts as gzip in base64, which the page unpacks when it needs them."""
    return {key: _packed(_json(value)) if key in PACKED else value for key, value in payload.items()}


def _page(document: Document, payload: JsonObject) -> str:
    style, loader, program = _source(*STYLES), _source(*LOADER), _program()
    return (
        environment()
        .get_template(TEMPLATE)
        .render(
            document=document,
            policy=_policy(style, loader, program),
            style=Markup(style),  # noqa: S704 -- files of ours, which hold no end tag
            loader=Markup(loader),  # noqa: S704
            program=_packed(program),
            data=Markup(_json_in_html(packed(payload))),  # noqa: S704 -- has no character that could end its element
            most_rows=MOST_ROWS_WITHOUT_PROGRAM,
        )
    )


def render_without_program(template: str, *styles: str, **values: object) -> str:
    """Return a page of ours that runs nothing: the template gets `policy`, `style` and these values."""
    style = _source(*styles)
    return (
        environment().get_template(template).render(policy=_policy(style), style=Markup(style), **values)  # noqa: S704 -- files of ours
    )


@functools.cache
def environment() -> jinja2.Environment:
    """Return the templates, which escape everything that they are given."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(shipped_file(*FOLDER)),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    found.filters.update(one_line=one_line, code_spans=code_spans, printable=printable)
    return found


@functools.cache
def _source(*names: str) -> str:
    """Return files of the page one after the other, without indentation and lines of comment."""
    texts = (shipped_file(*FOLDER, name).read_text(encoding="utf-8") for name in names)
    return "".join(_COMMENT_OR_INDENT.sub("", text) for text in texts)


def _program() -> str:
    """Return the program as one function, so that it leaves no names behind."""
    return f"(async () => {{\n'use strict';\n{_source(*PROGRAM)}}})();\n"


def _policy(style: str, *programs: str) -> str:
    """Return the content security policy: nothing is loaded, nothing applies but these (CSP level 2, hashes)."""
    scripts = f"script-src {' '.join(map(_hash, programs))}; " if programs else ""
    return f"default-src 'none'; style-src {_hash(style)}; {scripts}base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _json_in_html(value: object) -> str:
    text = _json(value)
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
