"""A plugin of coverage that stops tracing while libraries are imported: of a process that trains, most is that.

In: coverage's start, in each process that it measures. Out: `import torch` at its usual speed (traced it takes a third
longer on Python 3.11). It measures nothing itself; code of hpcbench that an import runs is traced as before.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType

from coverage.plugin_support import Plugins

MEASURED = frozenset({"hpcbench", "tests"})
"""Packages whose import runs code that is measured."""

_import = builtins.__import__


def _import_untraced(
    name: str,
    global_names: Mapping[str, object] | None = None,
    local_names: Mapping[str, object] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    """Import as the statement does; the arguments are those of `builtins.__import__`."""
    trace = sys.gettrace()
    # Inside of a library nothing is traced any more; newer Pythons are measured without a trace function.
    if trace is None or level or name.partition(".")[0] in MEASURED:
        return _import(name, global_names, local_names, fromlist or (), level)
    sys.settrace(None)
    try:
        return _import(name, global_names, local_names, fromlist or (), level)
    finally:
        sys.settrace(trace)


def coverage_init(_registry: Plugins, _options: object) -> None:
    """Begin; coverage calls this when it starts."""
    builtins.__import__ = _import_untraced  # type: ignore[assignment]  # called by position alone
