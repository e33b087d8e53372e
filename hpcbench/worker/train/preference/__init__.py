"""Learning from preferences: TRL's losses in hpcbench's training, one module for each of TRL's trainers.

In: the training arguments. Out: the trainer's class and its configuration. A class stands on two: `PreferenceTrainer`,
which is hpcbench's Trainer with its batches, measurement, evaluation and checkpoints, and TRL's, of which only the loss
and the log-probabilities of the reference run. Nothing of TRL is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from transformers import TrainingArguments

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.requirements import require

_MODULES: Final[Mapping[str, str]] = {"dpo": "dpo", "kto": "kto", "orpo": "orpo", "cpo": "cpo", "simpo": "cpo"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """How one loss is trained."""

    trainer: Any
    """Subclass of `PreferenceTrainer` and of TRL's trainer."""
    config: type[TrainingArguments]
    options: Mapping[str, Any]
    """Arguments of `config` beside those of every training."""


def explain_figures(args: SftArgs, *, num_rows: int, num_ranks: int) -> dict[str, str]:
    """Return what a reader of the record has to know of its figures, by field."""
    repeated = -num_rows % num_ranks
    repeats = f"{repeated} of them in each epoch twice: {num_ranks} ranks need equally many"
    what = f"the mean {args.rlhf_type} loss of an answer pair"
    if args.rlhf_type == "kto":
        what = "the mean kto loss of an answer"
    return {
        "train_loss": what,
        "eval_loss": f"{what}, of the validation rows",
        **dict.fromkeys(("flops_per_token", "mfu"), "the passes of a preference loss are not counted"),
        **({"num_samples": repeats} if repeated else {}),
    }


def load_loss(args: SftArgs) -> Loss:
    """Return the loss that the arguments name.

    Raises:
        LibraryMissingError: TRL is not installed or cannot be imported.
        WorkerError: there is no such loss.
    """
    if args.rlhf_type is None:
        raise WorkerError("rlhf_type: none is named", hint="name a loss, for example cmd: dpo")
    # ORPO and CPO are in trl.experimental, whose warning would be repeated in each log.
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    require("trl", for_what=f"rlhf_type: {args.rlhf_type}")
    module = importlib.import_module(f"{__name__}.{_MODULES[args.rlhf_type]}")
    loss = module.make_loss(args)
    if not isinstance(loss, Loss):
        raise WorkerError(f"{module.__name__}: make_loss gives no Loss")
    return loss
