"""LISA (arXiv:2403.17919): full fine-tuning of a few decoder layers at a time, drawn anew every few steps.

In: the base model and the lisa_* arguments. Out: the same, its embedding, head and last norm always trainable, and of
the decoder layers those of the current draw. Draws follow from the seed and the step alone, so that a resumed training
makes the same ones. The optimizer's state of a layer goes when the layer is frozen: that is the method's memory saving.
"""

from __future__ import annotations

import random
from typing import Any, Final

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import override

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.decoder_layers import find_layers
from hpcbench.worker.tuners import Tuner, full


def prepare(model: Any, args: SftArgs) -> Any:
    """Return the model with all parameters trainable.

    Raises:
        WorkerError: there are fewer layers than are to be trained at a time.
    """
    num_layers = len(find_layers(model))
    if args.lisa_activated_layers > num_layers:
        raise WorkerError(f"lisa_activated_layers: {args.lisa_activated_layers} of {num_layers} layers")
    # The optimizer takes only what is trainable when it is made.
    return full.prepare(model, args)


def draw_layers(num_layers: int, args: SftArgs, step: int) -> frozenset[int]:
    """Return the decoder layers that the optimizer step after `step` steps trains."""
    draw = step // args.lisa_step_interval
    # Of its own, so that no other random number of the training depends on it; every rank draws the same.
    generator = random.Random(f"lisa {args.seed} {draw}")  # noqa: S311  # not for secrets
    return frozenset(generator.sample(range(num_layers), args.lisa_activated_layers))


def count_trained(model: Any, args: SftArgs) -> int:
    """Return how many weights one step trains, all layers being equal."""
    layers = find_layers(model)
    in_layers: int = sum(parameter.numel() for parameter in layers.parameters())
    others: int = sum(parameter.numel() for parameter in model.parameters()) - in_layers
    return others + in_layers * args.lisa_activated_layers // len(layers)


class LisaCallback(TrainerCallback):
    """Freezes and thaws decoder layers before a step."""

    def __init__(self, model: Any, args: SftArgs) -> None:
        self._layers = find_layers(model)
        self._args = args
        self._active: frozenset[int] | None = None

    @override
    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        **kwargs: Any,
    ) -> None:
        """Make the step's draw where it is due."""
        active = draw_layers(len(self._layers), self._args, state.global_step)
        if active == self._active:
            return
        self._active = active
        for index, layer in enumerate(self._layers):
            layer.requires_grad_(requires_grad=index in active)
            if index not in active:
                for parameter in layer.parameters():
                    parameter.grad = None  # torch's optimizers pass over weights without a gradient
                    optimizer.state.pop(parameter, None)


TUNER: Final = Tuner(
    prepare=prepare,
    trains_base=True,
    trains_in_model_dtype=True,
    leaves_weights_unused=True,
    make_callbacks=lambda model, args, _resume_from: [LisaCallback(model, args)],
    count_trained=count_trained,
)
