"""eval_loss: the mean cross-entropy per predicted token, whatever the batch size and the number of ranks.

In: a model and encoded samples. Out: (loss, tokens). No regulariser of any tuner gets in, unlike in the model's own
loss. It draws no random numbers and leaves the model in the mode it was in.

Shapes: B batch, T padded length, N predicted tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from hpcbench.worker.data.templates import IGNORED_LABEL, Encoded
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
) -> tuple[float, int]:
    """Return (token-weighted mean cross-entropy in nats, predicted tokens); several ranks share the rows.

    Args:
        model: a causal language model.
        encoded_rows: the same on every rank; not empty.
        batch_size: per rank.
        device: where inputs go.
        pad_token_id: any token; padding is masked.
        ranks: share the rows; this process takes its part.
        on_batch: called before each batch; may raise to leave early where there is one rank.
    """
    # Equal lengths together: less padding, and sums do not depend on order beyond rounding.
    ordered = sorted(encoded_rows, key=lambda row: len(row.input_ids), reverse=True)[ranks.rank :: ranks.count]
    totals = torch.zeros(2, dtype=torch.float64)  # [summed loss, predicted tokens]
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(ordered), batch_size):
                on_batch()
                totals += _sum_batch(model, ordered[start : start + batch_size], device, pad_token_id)
    finally:
        model.train(was_training)
    totals = ranks.sum(totals, device)
    num_tokens = int(totals[1])
    return float(totals[0]) / num_tokens, num_tokens


def _sum_batch(model: Any, rows: Sequence[Encoded], device: torch.device | str, pad_token_id: int) -> torch.Tensor:
    length = max(len(row.input_ids) for row in rows)
    ids_BT = torch.full((len(rows), length), pad_token_id, dtype=torch.long)  # noqa: N806
    mask_BT = torch.zeros((len(rows), length), dtype=torch.long)  # noqa: N806
    labels_BT = torch.full((len(rows), length), IGNORED_LABEL, dtype=torch.long)  # noqa: N806
    for index, row in enumerate(rows):
        count = len(row.input_ids)
        ids_BT[index, :count] = torch.from_numpy(np.asarray(row.input_ids))
        labels_BT[index, :count] = torch.from_numpy(np.asarray(row.labels))
        mask_BT[index, :count] = 1
    logits_BTV = model(  # noqa: N806
        input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device), use_cache=False
    ).logits
    targets = labels_BT[:, 1:].to(logits_BTV.device)
    predicted = targets != IGNORED_LABEL
    logits_NV, targets_N = logits_BTV[:, :-1][predicted], targets[predicted]  # noqa: N806
    total = torch.zeros((), dtype=torch.float64)
    rows_per_chunk = max(1, _LOGITS_PER_CHUNK // logits_NV.shape[-1])
    for logits, wanted in zip(logits_NV.split(rows_per_chunk), targets_N.split(rows_per_chunk), strict=True):
        # Per token in fp32, as in training; summed in fp64, so that the order does not matter.
        losses = functional.cross_entropy(logits.float(), wanted, reduction="none")
        total += losses.double().sum().cpu()
    return torch.stack([total, torch.tensor(float(targets_N.numel()), dtype=torch.float64)])
