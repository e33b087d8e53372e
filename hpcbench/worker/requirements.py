"""A job whose Python lacks a library ends before it loads anything, with what to install."""

from __future__ import annotations

import importlib
import sys

from hpcbench.errors import WorkerError
from hpcbench.schemas.libraries import install_hint, missing_libraries
from hpcbench.schemas.request import JobRequest


class LibraryMissingError(WorkerError):
    """A library is not installed or cannot be imported; recorded as `LibraryMissing`."""

    type_name = "LibraryMissing"


def check_libraries(request: JobRequest) -> None:
    """Raise before anything is loaded where the request needs a library that is not there.

    Raises:
        LibraryMissingError: one is missing; all that are missing are named.
    """
    if missing := missing_libraries([request]):
        raise LibraryMissingError(f"{sys.executable} has no {', '.join(missing)}", hint=install_hint(missing))


def require(module: str, *, for_what: str) -> None:
    """Raise where a module cannot be imported.

    Raises:
        LibraryMissingError: it is missing or broken.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise LibraryMissingError(
            f"{for_what} needs {module}, and {sys.executable} cannot import it: {error}", hint=install_hint([module])
        ) from error
