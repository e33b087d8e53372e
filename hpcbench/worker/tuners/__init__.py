"""Fine-tuning methods by name: one module each, found by its name, so that a new method is a new file here.

In: a method's name. Out: the `TUNER` of the module of that name. Nothing is imported before it is asked for; the names
themselves are known to the login node too (`hpcbench/schemas/tuners.py`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.tuners import list_tuners

__all__ = ["Tuner", "list_tuners", "load_tuner"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuner:
    """One method: what makes it, and in what it differs from training an adapter beside a frozen base."""

    prepare: Callable[[Any, SftArgs], Any]
    """Returns the model with the right weights trainable."""
    trains_base: bool = False
    """Whether the base model's own weights get gradients; decides the FLOPs per token."""
    trains_in_model_dtype: bool = False
    """Whether the trained weights have the model's dtype; adapters are fp32 and need autocast."""
    leaves_weights_unused: bool = False
    """Whether trainable weights may get no gradient in a step; DDP has to look for them then."""
    create_optimizer: Callable[[Any, SftArgs, Any], Any | None] = lambda _model, _args, _training_args: None
    """Returns the method's own optimizer, or None for the Trainer's; gets transformers' TrainingArguments too."""
    make_callbacks: Callable[[Any, SftArgs, Path | None], list[Any]] = lambda _model, _args, _resume_from: []
    """Returns Trainer callbacks; gets the checkpoint folder to resume from. A callback's own state that a resume needs
    goes into TUNER_STATE of the checkpoint, in `on_save`."""
    count_trained: Callable[[Any, SftArgs], int] | None = None
    """Returns how many weights get gradients in one step, where that is not all trainable ones."""
    saved_arguments: tuple[str, ...] = ()
    """Of a method whose adapter neither peft nor transformers can save: arguments that it is rebuilt with."""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Remarks for the record, by the field that they explain."""


def load_tuner(name: str) -> Tuner:
    """Return the method of that name.

    Raises:
        WorkerError: there is none.
    """
    if name not in list_tuners():
        raise WorkerError(f"sft_type: unknown value {name!r}; expected: {', '.join(list_tuners())}")
    tuner = importlib.import_module(f"{__name__}.{name}").TUNER
    if not isinstance(tuner, Tuner):
        raise WorkerError(f"worker/tuners/{name}.py: TUNER is not a Tuner")
    return tuner
