"""The training loss where tokens weigh differently: the sum of weight x cross-entropy over the sum of weights.

In: a model of transformers, the weights of a batch, and the sum of weights of the whole global batch. Out: the loss, by
the model's own loss hook, so that what a tuner adds to the loss (AdaLoRA's regulariser) stays. The sum runs over all
ranks and accumulated batches, so the result depends on neither; ms-swift divides by the number of tokens instead
(swift/trainers/loss.py, `loss_scale_func`), which makes the gradient grow with the weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from hpcbench.errors import WorkerError
from hpcbench.worker.data.templates import IGNORED_LABEL
from hpcbench.worker.ranks import Ranks


class WeightedLoss:
    """Takes the place of a model's loss function; give it the weights before each forward pass."""

    def __init__(self, model: Any) -> None:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        base.loss_function = self
        self._weights: torch.Tensor | None = None

    def set_weights(self, weights_BT: torch.Tensor) -> None:  # noqa: N803
        """Give the weights of the next forward pass."""
        self._weights = weights_BT

    def check_used(self) -> None:
        """Raise if the forward pass did not ask for the loss here.

        Raises:
            WorkerError: the model computes its loss in some other way.
        """
        if self._weights is not None:
            raise WorkerError(
                "use_loss_scale: this model computes its loss by itself", hint="set use_loss_scale: false"
            )

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, vocab_size: int, num_items_in_batch: Any = None, **_: Any
    ) -> torch.Tensor:
        """Return the weighted sum of token losses over `num_items_in_batch`, the global batch's sum of weights."""
        if self._weights is None:
            raise WorkerError("use_loss_scale: a loss was asked for without weights")
        weights_BT, self._weights = self._weights, None  # noqa: N806
        # Shift so that tokens < n predict n, as transformers' ForCausalLMLoss.
        targets_BT = functional.pad(labels, (0, 1), value=IGNORED_LABEL)[..., 1:]  # noqa: N806
        shifted_BT = functional.pad(weights_BT, (0, 1))[..., 1:]  # noqa: N806
        losses = functional.cross_entropy(
            logits.float().view(-1, vocab_size),
            targets_BT.reshape(-1).to(logits.device),
            ignore_index=IGNORED_LABEL,
            reduction="none",
        )
        total = (losses * shifted_BT.reshape(-1).to(losses)).sum()
        return total / (shifted_BT.sum() if num_items_in_batch is None else num_items_in_batch).to(total)


def sum_weights(batches: list[Any], *, ranks: Ranks, device: torch.device) -> torch.Tensor:
    """Return the sum of weights of predicted tokens over batches and ranks."""
    total = sum(
        (batch["loss_weights"][..., 1:].double().sum() for batch in batches), torch.zeros((), dtype=torch.float64)
    )
    return ranks.sum(total.to(device), device)
