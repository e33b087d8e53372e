"""Foreign text made safe for one line, one Markdown cell or one piece of Markdown code."""

from __future__ import annotations

import re
import unicodedata

CELL_LIMIT = 80
"""Longest cell in characters; what is longer ends in an ellipsis."""

LINE_LIMIT = 200
"""Longest line of a log that a report repeats."""

_NOT_ASCII = str.maketrans({"±": "+-", "…": "...", "→": "->", "●": "*", "✔": "ok", "\N{MULTIPLICATION SIGN}": "x"})
_MARKDOWN_SPECIAL = re.compile(r"([`*~|\[\]$])")
_EDGE_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_PLAIN = re.compile(r"[^&<>\\`*~|\[\]$_]*")
"""What Markdown takes as it is."""
# A backslash becomes an entity: parsers disagree on two of them before the end of a cell.
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\\": "&#92;"}
_LINE_START = re.compile(r"^(#{1,6}|[-+]|\d{1,9}[.)])(?=\s|$)|^(=+|-{2,})$")


def ascii_text(text: str) -> str:
    """Return `text` for a terminal that shows ASCII alone; other letters become question marks."""
    return text.translate(_NOT_ASCII).encode("ascii", "replace").decode("ascii")


def printable(text: str, *, limit: int | None = LINE_LIMIT) -> str:
    """Return a line of a log with its indentation, without control characters, cut to `limit` characters."""
    # Nearly every text is printable: no character of these categories but the space.
    flat = text if text.isprintable() else "".join(map(_printable_char, text))
    shown = flat.rstrip()
    return shown if limit is None or len(shown) <= limit else f"{shown[: limit - 1]}…"


def _printable_char(char: str) -> str:
    return " " if unicodedata.category(char)[0] in "CZ" else char


def one_line(text: str, *, limit: int | None = None) -> str:
    """Return `text` on one line without control characters, cut to `limit` characters with an ellipsis."""
    is_flat = text.isprintable() and "  " not in text and text.strip() == text
    flat = text if is_flat else " ".join(printable(text, limit=None).split())
    if limit is not None and len(flat) > limit:
        return flat[: limit - 1].rstrip() + "…"
    return flat


def cut_middle(text: str, limit: int) -> str:
    """Return the text with its middle left out where it is longer: names of one suite differ at their ends.

    >>> cut_middle("lora-lora_rank=8-learning_rate=1e-4", 20)
    'lora-lora…_rate=1e-4'
    """
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def markdown_text(text: str, *, limit: int | None = None) -> str:
    """Return `text` as Markdown that renders as exactly these characters, on one line."""
    flat = one_line(text, limit=limit)
    if _PLAIN.fullmatch(flat):  # most cells of most tables
        return flat
    flat = "".join(_ENTITIES.get(char, char) for char in flat)
    flat = _MARKDOWN_SPECIAL.sub(r"\\\1", flat)
    return _EDGE_UNDERSCORE.sub(r"\\_", flat)


def markdown_line(text: str, *, limit: int | None = None) -> str:
    """Return `text` as `markdown_text` does, for the start of a line or list item: it opens no list and no heading."""
    return _LINE_START.sub(lambda match: _escape_first_mark(match.group(0)), markdown_text(text, limit=limit))


def markdown_code(text: str) -> str:
    """Return `text` as an inline code span, fenced with more backticks than it holds (CommonMark 6.1)."""
    flat = one_line(text)
    fence = "`" * (_longest_backtick_run(flat) + 1)
    padding = " " if "`" in flat or not flat else ""
    return f"{fence}{padding}{flat}{padding}{fence}"


def markdown_block(lines: tuple[str, ...], *, indent: str = "") -> list[str]:
    """Return a fenced code block that `lines` cannot leave."""
    flat = [printable(line) for line in lines]
    fence = "`" * max(3, *(_longest_backtick_run(line) + 1 for line in flat)) if flat else "```"
    return [f"{indent}{fence}text", *(f"{indent}{line}".rstrip() for line in flat), f"{indent}{fence}"]


def code_spans(text: str) -> list[tuple[str, bool]]:
    """Split one of our own notes at its backticks into `(part, is code)`; an unpaired backtick stays a character."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return [(text, False)]
    return [(part, number % 2 == 1) for number, part in enumerate(parts) if part]


def _longest_backtick_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)


def _escape_first_mark(mark: str) -> str:
    return f"{mark[:-1]}\\{mark[-1]}" if mark[0].isdigit() else f"\\{mark}"
