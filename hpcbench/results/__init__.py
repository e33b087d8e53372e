"""Results in Python, for notebooks: `hpcbench.load(DIR)` and the `Results` that it returns, the one public Python API.

In: a save directory. Out: pandas' frames of what the reports show. Nothing is changed, and no job is asked for.
"""

from __future__ import annotations

from hpcbench.results.results import Results, load

__all__ = ["Results", "load"]
