"""ORPO (arXiv:2403.07691), which needs no reference model, by TRL's ORPOTrainer.

In: the training arguments. Out: the trainer and its configuration. The loss is TRL's.
"""

from __future__ import annotations

from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.preference_batches import SeparatePairs
from hpcbench.worker.train.preference import Loss
from hpcbench.worker.train.preference.trainer import PreferenceTrainer


class OrpoTrainer(PreferenceTrainer, ORPOTrainer):
    """TRL's ORPO on hpcbench's batches."""

    collator = SeparatePairs
    figures = "_stored_metrics"


def make_loss(args: SftArgs) -> Loss:
    """Return ORPO's trainer."""
    return Loss(
        trainer=OrpoTrainer,
        config=ORPOConfig,
        options={
            "beta": args.effective_beta,
            "disable_dropout": False,  # switched off before the adapter came, whose own is an argument
            "max_length": args.max_length,
        },
    )
