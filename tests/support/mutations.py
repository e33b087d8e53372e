"""What may be wrong with a file: valid JSON of another shape, odd values, missing and cut text. For fuzz tests.

In: hypothesis' data and a file's content. Out: the content with something wrong. Values only.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

Place = tuple[str | int, ...]

ODD: list[object] = [
    10**400,
    -1,
    0,
    "",
    "0" * 5000,
    "a" * 5000,
    "\x00",
    "\ud800",
    "\x1b[31m",
    "a\nb",
    "..",
    "../..",
    "~x/y",
    "./d.json",
    "1:30",
    "1e999",
    "eval",
    "command",
    "'",
    "<b>|`$(x)",
]
"""What has been the end of other programs: too large, too long, no text, no name, no path of ours."""
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(ODD)


def odd_values(keys: Sequence[str]) -> st.SearchStrategy[Any]:
    """Return values of any shape, with these keys in their mappings."""
    return st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(keys), inner, max_size=3),
        max_leaves=6,
    )


def places_of(value: object, prefix: Place = ()) -> list[Place]:
    """List the places in a nested value, the whole of it first."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [prefix, *(place for key, item in inner for place in places_of(item, (*prefix, key)))]


def mutate_value(data: st.DataObject, value: Any, keys: Sequence[str], odd: st.SearchStrategy[Any]) -> Any:
    """Return a nested value with one place, however deep, replaced, removed or under another name."""
    changed = copy.deepcopy(value)
    place = data.draw(st.sampled_from(places_of(changed)))
    if not place:
        return data.draw(odd)
    target = changed
    for key in place[:-1]:
        target = target[key]
    match data.draw(st.sampled_from(["replace", "replace", "remove", "rename"])):
        case "replace":
            target[place[-1]] = data.draw(st.sampled_from(ODD) | odd)
        case "rename" if isinstance(target, dict):
            target[data.draw(st.sampled_from(keys))] = target.pop(place[-1])
        case _:
            del target[place[-1]]
    return changed


def mutate_bytes(data: st.DataObject, raw: bytes) -> bytes:
    """Return a file's content cut short, or with some bytes overwritten."""
    place = data.draw(st.integers(0, max(len(raw) - 1, 0)))
    if data.draw(st.booleans()):
        return raw[:place]
    return raw[:place] + data.draw(st.binary(min_size=1, max_size=4)) + raw[place + 1 :]


def mutate_json(data: st.DataObject, raw: bytes, keys: Sequence[str], odd: st.SearchStrategy[Any]) -> bytes:
    """Return a JSON file's content with something wrong, two times out of three still valid JSON."""
    if data.draw(st.integers(0, 2)) == 0:
        return mutate_bytes(data, raw)
    return json.dumps(mutate_value(data, json.loads(raw), keys, odd)).encode()
