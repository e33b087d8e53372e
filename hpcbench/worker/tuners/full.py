"""Full fine-tuning: every weight of the base is trained.

In: the base model. Out: the same, all parameters trainable. It never changes the model's structure.
"""

from __future__ import annotations

from typing import Any, Final

from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.tuners import Tuner


def prepare(model: Any, args: SftArgs) -> Any:  # noqa: ARG001  # the tuners' common signature
    """Return the model with all parameters trainable."""
    model.requires_grad_(requires_grad=True)
    return model


TUNER: Final = Tuner(prepare=prepare, trains_base=True, trains_in_model_dtype=True)
