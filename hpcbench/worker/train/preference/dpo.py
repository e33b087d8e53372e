"""DPO (arXiv:2305.18290) and the losses that TRL's DPOTrainer has beside it.

In: the training arguments. Out: the trainer and its configuration. The loss is TRL's.
"""

from __future__ import annotations

from typing import Any

import torch
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.preference_batches import StackedPairs
from hpcbench.worker.train.preference import Loss
from hpcbench.worker.train.preference.trainer import PreferenceTrainer


class DpoTrainer(PreferenceTrainer, DPOTrainer):
    """TRL's DPO on hpcbench's batches."""

    collator = StackedPairs
    figures = "_metrics"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.run.args.ref_model_free:
            self.precompute_ref_logps = True  # the loss takes them from the batch

    def add_reference(self, inputs: dict[str, Any]) -> None:
        """Put equal log-probabilities of both answers into the batch where there is no reference model."""
        if self.run.args.ref_model_free:
            zeros = torch.zeros(len(inputs["input_ids"]) // 2, device=inputs["input_ids"].device)
            inputs |= {"ref_chosen_logps": zeros, "ref_rejected_logps": zeros}


def make_loss(args: SftArgs) -> Loss:
    """Return DPO's trainer with the loss that the arguments name."""
    names, weights = zip(*args.losses, strict=True)
    return Loss(
        trainer=DpoTrainer,
        config=DPOConfig,
        options={
            "beta": args.effective_beta,
            "loss_type": list(names),
            "loss_weights": list(weights),
            "label_smoothing": args.label_smoothing,
            "ld_alpha": args.ld_alpha,
            "discopop_tau": args.discopop_tau,
            "disable_dropout": False,  # switched off before the adapter came, whose own is an argument
            "max_length": None,  # rows are cut already
        },
    )
