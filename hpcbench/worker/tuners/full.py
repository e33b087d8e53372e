"""Full fine-tuning: every weight of the base is trained, less those that the freeze_* arguments leave out.

In: the base model and those arguments. Out: the same, the right parameters trainable. It never changes the model's
structure.
"""

from __future__ import annotations

import re
from typing import Any, Final

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.image_parts import find_frozen
from hpcbench.worker.tuners import Tuner


def prepare(model: Any, args: SftArgs) -> Any:
    """Return the model with the right parameters trainable.

    Raises:
        WorkerError: none is left to train.
    """
    model.requires_grad_(requires_grad=True)
    in_frozen_parts = find_frozen(model, args)
    left = round(args.freeze_parameters_ratio * sum(parameter.numel() for parameter in model.parameters()))
    for name, parameter in model.named_parameters():
        # In the order of their use: a ratio leaves out the embedding first, and only whole tensors.
        left -= parameter.numel()
        is_frozen = left >= 0 or _is_named(name, args.freeze_parameters, args.freeze_parameters_regex)
        is_frozen = is_frozen or name in in_frozen_parts
        is_thawed = _is_named(name, args.trainable_parameters, args.trainable_parameters_regex)
        parameter.requires_grad_(is_thawed or not is_frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise WorkerError(
            "freeze_parameters: no weight is left to train", hint="name fewer weights, or set trainable_parameters"
        )
    return model


def _is_named(name: str, beginnings: tuple[str, ...], pattern: str | None) -> bool:
    return name.startswith(beginnings) or (pattern is not None and re.search(pattern, name) is not None)


TUNER: Final = Tuner(prepare=prepare, trains_base=True, trains_in_model_dtype=True)
