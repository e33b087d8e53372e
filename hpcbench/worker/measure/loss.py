"""Losses of hpcbench's own: eval_loss, and the training loss where tokens weigh differently.

eval_loss is the mean cross-entropy per predicted token, whatever the batch size and the number of ranks. No regulariser
of any tuner gets in, unlike in the model's own loss. It draws no random numbers and leaves the model in its mode.

The weighted loss is the sum of weight x cross-entropy over the sum of weights of all ranks and accumulated batches, so
it depends on neither. It is the model's own loss hook: what a tuner adds to the loss (AdaLoRA's regulariser) stays.

Shapes: B batch, T padded length, N predicted tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from hpcbench.errors import WorkerError
from hpcbench.worker.data.batches import pad_inputs, pad_rows
from hpcbench.worker.data.encoded import IGNORED_LABEL, Encoded
from hpcbench.worker.data.images import ImageInputs
from hpcbench.worker.models import inference
from hpcbench.worker.ranks import ALONE, Ranks

_LOGITS_PER_CHUNK = 2**26
"""Logits turned into fp32 at a time: 256 MiB."""


def mean_cross_entropy(
    model: Any,
    encoded_rows: Sequence[Encoded],
    batch_size: int,
    device: torch.device | str,
    *,
    pad_token_id: int = 0,
    ranks: Ranks = ALONE,
    on_batch: Callable[[], None] = lambda: None,
    images: ImageInputs | None = None,
    in_step: bool = False,
) -> tuple[float, int]:
    """Return (mean cross-entropy per token in nats, predicted tokens) of rows, at least one, that the ranks share.

    With `in_step` all ranks make equally many forward passes: each needs parts of the model that others hold.
    """
    # Equal lengths together: less padding, and sums do not depend on order beyond rounding.
    ordered = sorted(encoded_rows, key=lambda row: len(row.input_ids), reverse=True)
    own = ordered[ranks.rank :: ranks.count]
    totals = torch.zeros(2, dtype=torch.float64)  # [summed loss, predicted tokens]
    with inference(model):
        for start in range(0, len(ordered[:: ranks.count]) if in_step else len(own), batch_size):
            on_batch()  # may raise to leave early where there is one rank
            rows = own[start : start + batch_size]
            inputs = pad_inputs(rows or ordered[-1:], pad_token_id, images=images)
            sums = _sum_batch(model, rows or ordered[-1:], {name: value.to(device) for name, value in inputs.items()})
            totals += sums if rows else 0  # another rank's row is only there to keep in step
    totals = ranks.sum(totals, device)
    num_tokens = int(totals[1])
    return float(totals[0]) / num_tokens, num_tokens


def _sum_batch(model: Any, rows: Sequence[Encoded], inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    logits_BTV = model(**inputs, use_cache=False).logits  # noqa: N806
    # Virtual tokens of prompt tuning stand before the samples' and have logits too.
    logits_BTV = logits_BTV[:, -inputs["input_ids"].shape[1] :]  # noqa: N806
    targets = pad_rows([row.labels for row in rows], IGNORED_LABEL)[:, 1:].to(logits_BTV.device)
    predicted = targets != IGNORED_LABEL
    logits_NV, targets_N = logits_BTV[:, :-1][predicted], targets[predicted]  # noqa: N806
    total = torch.zeros((), dtype=torch.float64)
    rows_per_chunk = max(1, _LOGITS_PER_CHUNK // logits_NV.shape[-1])
    for logits, wanted in zip(logits_NV.split(rows_per_chunk), targets_N.split(rows_per_chunk), strict=True):
        # Per token in fp32, as in training; summed in fp64, so that the order does not matter.
        losses = functional.cross_entropy(logits.float(), wanted, reduction="none")
        total += losses.double().sum().cpu()
    return torch.stack([total, torch.tensor(float(targets_N.numel()), dtype=torch.float64)])


class WeightedLoss:
    """Takes the place of a model's loss function; give it the weights before each forward pass."""

    def __init__(self, model: Any) -> None:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        base.loss_function = self  # transformers' models call it with logits and labels in place of their own
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
        # ms-swift 2.x divides by the number of tokens (swift/trainers/loss.py): its gradients grow with the weights.
        return total / (shifted_BT.sum() if num_items_in_batch is None else num_items_in_batch).to(total)


def sum_weights(batches: list[Any], *, ranks: Ranks, device: torch.device) -> torch.Tensor:
    """Return the sum of weights of predicted tokens over batches and ranks."""
    total = sum(
        (batch["loss_weights"][..., 1:].double().sum() for batch in batches), torch.zeros((), dtype=torch.float64)
    )
    return ranks.sum(total.to(device), device)
