"""Writes `hpcbench/catalog/lm_eval_names.txt` from the lm-eval that is installed: `python -m tests.support.lm_eval_names`."""

from __future__ import annotations

from collections.abc import Iterable

import lm_eval
from lm_eval.tasks import TaskManager

from hpcbench.catalog.lm_eval_names import FILE


def describe(names: Iterable[str]) -> str:
    """Return the file's text."""
    version = lm_eval.__version__
    head = f"# The tasks, groups and tags of lm-eval {version}, by `python -m tests.support.lm_eval_names`.\n"
    return head + "".join(f"{name}\n" for name in sorted(names))


if __name__ == "__main__":
    FILE.write_text(describe(TaskManager().task_index), encoding="utf-8")
