"""CPO (arXiv:2401.08417) and SimPO (arXiv:2405.14734), which need no reference model, by TRL's CPOTrainer.

In: the training arguments. Out: the trainer and its configuration. The loss is TRL's.
"""

from __future__ import annotations

from trl.experimental.cpo import CPOConfig, CPOTrainer

from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.preference_batches import SeparatePairs
from hpcbench.worker.train.preference import Loss
from hpcbench.worker.train.preference.trainer import PreferenceTrainer


class CpoTrainer(PreferenceTrainer, CPOTrainer):
    """TRL's CPO on hpcbench's batches."""

    collator = SeparatePairs
    figures = "_stored_metrics"


def make_loss(args: SftArgs) -> Loss:
    """Return CPO's trainer with the loss that the arguments name."""
    return Loss(
        trainer=CpoTrainer,
        config=CPOConfig,
        options={
            "beta": args.effective_beta,
            "loss_type": args.losses[0][0],
            "label_smoothing": args.label_smoothing,
            "cpo_alpha": args.cpo_alpha,
            "simpo_gamma": args.simpo_gamma,
            "disable_dropout": False,  # switched off before the adapter came, whose own is an argument
            "max_length": args.max_length,
        },
    )
