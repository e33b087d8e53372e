"""Single values of rows, checked: texts, lists, JSON in texts.

In: any value of a row and where it is. Out: what it should be, or an error that says what it is and what was expected.
"""

from __future__ import annotations

import json
from typing import Any

SHOWN_CHARS = 40


class BadRowError(Exception):
    """A row that cannot be trained on.

    Args:
        fault: what is wrong and where in the row; file and row are the caller's to add.
        expected: what would have been right.
    """

    def __init__(self, fault: str, *, expected: str) -> None:
        super().__init__(f"{fault}; expected: {expected}")
        self.fault = fault
        self.expected = expected


def is_absent(value: object) -> bool:
    """Return whether an optional value holds nothing: null, empty, or the text of such, as CSV files have it.

    Not for what is learned: an answer may be the text `null` or `[]`.
    """
    match value:
        case str():
            return value.strip() in {"", "[]", "{}", "null"}
        case list() | tuple():
            return all(item is None or item == "" for item in value)
        case _:
            return value is None or value == {}


def describe(value: object) -> str:
    """Return what a value is, for messages: `null`, `number 5`, `list of 3`."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"number {str(value)[:SHOWN_CHARS]}"
        case str():
            return f"text {show(value)}" if value.strip() else "empty text"
        case list() | tuple():
            return f"list of {len(value)}" if value else "empty list"
        case dict():
            return f"object with the keys {show_names(value)}" if value else "empty object"
        case _:
            return type(value).__name__


def show(text: str) -> str:
    """Return a text as messages quote it, shortened, with what cannot be printed escaped."""
    return repr(text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}...")


def show_names(names: Any, limit: int = 20) -> str:
    """Return the names of columns or keys in their order, as messages list them."""
    shown = [show(str(name))[1:-1] for name in names]
    return ", ".join(shown[:limit]) + (f" and {len(shown) - limit} more" if len(shown) > limit else "") or "nothing"


def take_text(value: object, where: str, *, expected: str = "text") -> str:
    """Return a text.

    Raises:
        BadRowError: it is anything else.
    """
    if not isinstance(value, str):
        raise BadRowError(f"{where}: {describe(value)}", expected=expected)
    return value


def take_list(value: object, where: str, *, expected: str) -> list[Any]:
    """Return a list, or the one that a JSON text holds, as columns of CSV files do.

    Raises:
        BadRowError: it is anything else.
    """
    found = value
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError) as error:
            raise BadRowError(f"{where}: {describe(value)}", expected=expected) from error
    if not isinstance(found, (list, tuple)):
        raise BadRowError(f"{where}: {describe(found)}", expected=expected)
    return list(found)


def well_formed(value: Any) -> Any:
    """Return a value whose texts can be encoded: each half of a surrogate pair without its other half as U+FFFD.

    Values without such texts are returned as they are.
    """
    match value:
        case str():
            try:
                value.encode()
            except UnicodeEncodeError:
                return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
            return value
        case list() | tuple():
            items = [well_formed(item) for item in value]
            return value if all(new is old for new, old in zip(items, value, strict=True)) else items
        case dict():
            pairs = {well_formed(key): well_formed(item) for key, item in value.items()}
            same = all(new is old for new, old in zip(pairs.values(), value.values(), strict=False))
            return value if same and list(pairs) == list(value) else pairs
        case _:
            return value
