"""The arguments that SWIFT 2.4 and ms-swift 4 declare, and what hpcbench does with each.

In: `tests/recorded/swift_arguments.yaml`. Out: each name with its release, class, type and default, and what happens to
it by the tables of `hpcbench/config/`. REFERENCE.md's table and the test of all names are made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import yaml

from hpcbench.config.aliases import ALIASES, EXPANSIONS
from hpcbench.config.layers import ARGUMENTS, MOVED_ARGUMENTS
from hpcbench.config.refused_arguments import FORBIDDEN, REFUSED, WITHOUT_EFFECT
from hpcbench.schemas.tuners import field_named, peft_arguments
from tests.support.places import RECORDED

Fate = Literal["honored", "mapped", "changes nothing", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SwiftName:
    """One argument of one class of one release."""

    release: str
    group: str
    name: str
    type: str
    default: str


@cache
def load_names() -> tuple[SwiftName, ...]:
    """Return all names, in the order of the releases."""
    facts = yaml.safe_load((RECORDED / "swift_arguments.yaml").read_text(encoding="utf-8"))
    return tuple(
        SwiftName(release=release, group=group, name=name, type=kind, default=default)
        for release, groups in facts.items()
        for group, names in groups.items()
        for name, (kind, default) in names.items()
    )


def fate_of(name: str) -> tuple[Fate, str]:
    """Return what happens to an argument, and how: its own name, what it stands for, or why it is refused."""
    if name in ARGUMENTS:
        return "honored", f"`{name}`"
    if name in ALIASES:
        return "mapped", f"`{ALIASES[name]}`"
    if name in peft_arguments():
        method = peft_arguments()[name][0]
        return "mapped", f"`peft_config.{field_named(method, name)}`"
    if name in MOVED_ARGUMENTS:
        section, key = MOVED_ARGUMENTS[name]
        return "mapped", f"`{section}.{key}`" if section else f"`{key}`, beside `args`"
    if name in EXPANSIONS:
        meant = {f"`{own}`": None for values in EXPANSIONS[name].values() for own in values}
        return "mapped", ", ".join(meant)
    if name in WITHOUT_EFFECT:
        return "changes nothing", WITHOUT_EFFECT[name]
    if name in FORBIDDEN or name in REFUSED:
        return "refused", FORBIDDEN.get(name) or f"{REFUSED[name].why}; {REFUSED[name].instead}"
    raise LookupError(f"{name}: neither taken nor refused")
