"""Eval datasets by the names that suites use; any other name is lm-eval's.

In: `eval_names.yaml`, with the user's additions. Out: frozen entries. It knows no task of lm-eval by itself.
"""

from __future__ import annotations

from typing import Final

from hpcbench.catalog.files import Catalog, CatalogEntry


class KnownName(CatalogEntry):
    """One entry of the catalog `eval_names`."""

    tasks: tuple[str, ...]
    """lm-eval tasks or groups."""
    folders: tuple[str, ...] = ()
    """Where they lie below lm_eval/tasks."""


EVAL_NAMES: Final = Catalog(name="eval_names", entry=KnownName)
