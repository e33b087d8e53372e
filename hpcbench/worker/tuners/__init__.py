"""Fine-tuning methods by name: one module each, found by its name, so that a new method is a new file here.

In: `sft_type`. Out: the module, which offers what `Tuner` says. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, Protocol, cast

from hpcbench.arguments import SftArgs
from hpcbench.errors import WorkerError


class Tuner(Protocol):
    """What each module of this package offers."""

    TRAINS_BASE: bool
    """Whether the base model's own weights get gradients; decides the FLOPs per token."""

    def prepare(self, model: Any, args: SftArgs) -> Any:
        """Return the model with the right weights trainable."""
        ...

    def create_optimizer(self, model: Any, args: SftArgs, training_args: Any) -> Any | None:
        """Return the method's own optimizer, or None for the Trainer's."""
        ...


def list_tuners() -> tuple[str, ...]:
    """Return the names of all methods, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load_tuner(name: str) -> Tuner:
    """Return the method of that name.

    Raises:
        WorkerError: there is none.
    """
    if name not in list_tuners():
        raise WorkerError(f"sft_type: unknown value {name!r}; expected: {', '.join(list_tuners())}")
    return cast(Tuner, importlib.import_module(f"{__name__}.{name}"))
