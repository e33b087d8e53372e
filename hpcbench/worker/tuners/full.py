"""Full fine-tuning: every weight of the base is trained.

In: the base model. Out: the same, all parameters trainable. It never changes the model's structure.
"""

from __future__ import annotations

from typing import Any, Final

from hpcbench.arguments import SftArgs

TRAINS_BASE: Final = True


def prepare(model: Any, args: SftArgs) -> Any:  # noqa: ARG001  # the tuners' common signature
    """Return the model with all parameters trainable."""
    for parameter in model.parameters():
        parameter.requires_grad_(requires_grad=True)
    return model


def create_optimizer(model: Any, args: SftArgs, training_args: Any) -> Any | None:  # noqa: ARG001
    """Return None: the Trainer's optimizer is right."""
    return None
