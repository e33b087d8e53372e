"""Libraries that a job needs and its Python may lack.

In: a request, or a module's name. Out: nothing, or the error that names the extra to install. It imports only what
`require` is asked for: there a library that is broken is as good as missing.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator

from hpcbench.errors import WorkerError
from hpcbench.schemas.request import JobRequest

_TRAIN = ("torch", "transformers", "peft", "accelerate", "datasets", "safetensors")
_OPTIMIZERS_OF_BITSANDBYTES = ("bnb", "8bit", "paged", "lion", "ademamix")


class LibraryMissingError(WorkerError):
    """A library is not installed or cannot be imported; recorded as `LibraryMissing`."""

    type_name = "LibraryMissing"


def check_libraries(request: JobRequest) -> None:
    """Raise before anything is loaded where the request needs a library that is not there.

    Raises:
        LibraryMissingError: one is missing; all that are missing are named.
    """
    missing: dict[str, list[str]] = {}
    for module, extra in _needed(request):
        if importlib.util.find_spec(module) is None:
            missing.setdefault(extra, []).append(module)
    if missing:
        names = ", ".join(name for modules in missing.values() for name in modules)
        raise LibraryMissingError(f"{sys.executable} has no {names}", hint=_hint(",".join(missing)))


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
            f"{for_what} needs {module}, and {sys.executable} cannot import it: {error}", hint=_hint(extra)
        ) from error


def _needed(request: JobRequest) -> Iterator[tuple[str, str]]:
    """Yield modules and their extras."""
    yield from ((module, "train") for module in _TRAIN)
    if request.cmd == "eval":
        yield "lm_eval", "eval"
    args = request.args
    if args is None:
        return
    # adamw_torch_8bit and its like are torchao's.
    is_torchs = args.optim.startswith("adamw_torch")
    by_optimizer = (
        request.cmd == "sft" and not is_torchs and any(word in args.optim for word in _OPTIMIZERS_OF_BITSANDBYTES)
    )
    if args.quantization_bit or (request.cmd == "sft" and args.galore_quantization) or by_optimizer:
        yield "bitsandbytes", "bnb"


def _hint(extras: str) -> str:
    return f"pip install 'hpcbench-llm[{extras}]' into the Python that runs the jobs"
