"""hpcbench: one YAML of fine-tuning experiments in, Slurm jobs, one report out.

`hpcbench.load(DIR)` gives the results to Python. Nothing is imported here before it is asked for, so that
`hpcbench --help` on a login node stays as quick as Python itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcbench.results import Results, load

__all__ = ["Results", "__version__", "load"]

__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    if name in {"Results", "load"}:
        from hpcbench import results

        return getattr(results, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
