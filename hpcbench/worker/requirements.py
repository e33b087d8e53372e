"""Libraries that a job needs and its Python may lack.

In: a request, or a module's name. Out: nothing, or the error that names the extra to install. It imports only what
`require` is asked for: there a library that is broken is as good as missing.
"""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping

from hpcbench.errors import WorkerError
from hpcbench.schemas.optimizers import OPTIMIZERS
from hpcbench.schemas.request import JobRequest

_TRAIN = ("torch", "transformers", "peft", "accelerate", "datasets", "safetensors")
_EXTRAS: Mapping[str, str] = {**dict.fromkeys(_TRAIN, "train"), "lm_eval": "eval", "bitsandbytes": "bnb"}
_DISTRIBUTIONS: Mapping[str, str] = {"optimi": "torch-optimi"}
"""Names on PyPI of modules in no extra, where the two differ."""


class LibraryMissingError(WorkerError):
    """A library is not installed or cannot be imported; recorded as `LibraryMissing`."""

    type_name = "LibraryMissing"


def check_libraries(request: JobRequest) -> None:
    """Raise before anything is loaded where the request needs a library that is not there.

    Raises:
        LibraryMissingError: one is missing; all that are missing are named.
    """
    # find_spec imports nothing: torch alone takes seconds.
    missing = [module for module in dict.fromkeys(_needed(request)) if importlib.util.find_spec(module) is None]
    if missing:
        raise LibraryMissingError(f"{sys.executable} has no {', '.join(missing)}", hint=_hint(missing))


def require(module: str, *, for_what: str) -> None:
    """Raise where a module cannot be imported.

    Raises:
        LibraryMissingError: it is missing or broken.
    """
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise LibraryMissingError(
            f"{for_what} needs {module}, and {sys.executable} cannot import it: {error}", hint=_hint([module])
        ) from error


def _needed(request: JobRequest) -> Iterator[str]:
    yield from _TRAIN
    if request.cmd == "eval":
        yield "lm_eval"
    args = request.args
    if args is None:
        return
    if args.quantization_bit or (request.cmd == "sft" and args.galore_quantization):
        yield "bitsandbytes"
    if request.cmd == "sft" and (module := OPTIMIZERS.get(args.optim)) is not None:
        yield module


def _hint(modules: Iterable[str]) -> str:
    extras = dict.fromkeys(_EXTRAS[module] for module in modules if module in _EXTRAS)
    packages = [_DISTRIBUTIONS.get(module, module) for module in modules if module not in _EXTRAS]
    if extras:
        packages.insert(0, f"hpcbench-llm[{','.join(extras)}]")
    return f"pip install {shlex.join(packages)} into the Python that runs the jobs"
