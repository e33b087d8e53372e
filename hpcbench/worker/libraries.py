"""Libraries that a job needs and its Python may lack.

In: a module's name. Out: nothing, or the error that names the extra to install. It imports what it checks: a library
that is there and broken is as good as missing.
"""

from __future__ import annotations

import importlib
import sys

from hpcbench.errors import WorkerError


class LibraryMissingError(WorkerError):
    """A library is not installed or cannot be imported; recorded as `LibraryMissing`."""

    type_name = "LibraryMissing"


def require(module: str, *, extra: str, for_what: str) -> None:
    """Raise where a module cannot be imported.

    Args:
        module: its name in Python.
        extra: hpcbench's extra that installs it.
        for_what: what asks for it, in the suite's words.

    Raises:
        LibraryMissingError: it is missing or broken.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise LibraryMissingError(
            f"{for_what} needs {module}, and {sys.executable} cannot import it: {error}",
            hint=f"pip install 'hpcbench-llm[{extra}]' into the Python that runs the jobs",
        ) from error
