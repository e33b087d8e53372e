"""KTO (arXiv:2402.01306) and its sister without an estimate of the divergence, by TRL's KTOTrainer.

In: the training arguments. Out: the trainer and its configuration. The loss is TRL's.
"""

from __future__ import annotations

from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer

from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.preference_batches import JudgedAnswers
from hpcbench.worker.train.preference import Loss
from hpcbench.worker.train.preference.trainer import PreferenceTrainer


class KtoTrainer(PreferenceTrainer, KTOTrainer):
    """TRL's KTO on hpcbench's batches."""

    collator = JudgedAnswers
    figures = "_metrics"


def make_loss(args: SftArgs) -> Loss:
    """Return KTO's trainer with the loss that the arguments name."""
    return Loss(
        trainer=KtoTrainer,
        config=KTOConfig,
        options={
            "beta": args.effective_beta,
            "loss_type": args.losses[0][0],
            "desirable_weight": args.desirable_weight,
            "undesirable_weight": args.undesirable_weight,
            "disable_dropout": False,  # switched off before the adapter came, whose own is an argument
            "max_length": None,  # rows are cut already
        },
    )
