"""Pairs of answers and judged answers as the batches that TRL's losses take.

In: encoded rows. Out: tensors with their counts. It computes no loss.

Shapes: B pairs or judged answers, T padded length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hpcbench.worker.data.batches import count_rows, pad_rows
from hpcbench.worker.data.encoded import IGNORED_LABEL, Encoded
from hpcbench.worker.data.preferences import prompt_length


class StackedPairs:
    """Puts the chosen answers of a batch above the rejected ones, in one tensor."""

    def __init__(self, pad_token_id: int, *, max_length: int, estimates_kl: bool) -> None:  # noqa: ARG002
        self._pad_token_id = pad_token_id

    def __call__(self, items: Sequence[tuple[Encoded, ...]]) -> dict[str, Any]:
        """Return input_ids, attention_mask, completion_mask ([2 B, T]) and the counts num_tokens, num_samples."""
        rows = [row for item in items for row in item]
        return {**_pad(_both(rows), self._pad_token_id), **count_rows(rows)}


class SeparatePairs:
    """Puts the chosen and the rejected answers of a batch into tensors of their own."""

    def __init__(self, pad_token_id: int, *, max_length: int, estimates_kl: bool) -> None:  # noqa: ARG002
        self._pad_token_id = pad_token_id

    def __call__(self, items: Sequence[tuple[Encoded, ...]]) -> dict[str, Any]:
        """Return input_ids, attention_mask, labels ([B, T]) of chosen_ and rejected_, and num_tokens, num_samples."""
        rows = [row for item in items for row in item]
        both = _both(rows)
        batch: dict[str, Any] = count_rows(rows)
        for name, answers in (("chosen", both[: len(rows)]), ("rejected", both[len(rows) :])):
            padded = _pad(answers, self._pad_token_id)
            batch[f"{name}_input_ids"] = padded["input_ids"]
            batch[f"{name}_attention_mask"] = padded["attention_mask"]
            batch[f"{name}_labels"] = pad_rows([row.labels for row in answers], IGNORED_LABEL)
        return batch


class JudgedAnswers:
    """Puts judged answers into one tensor, and beside it each prompt with the answer to the one before it."""

    def __init__(self, pad_token_id: int, *, max_length: int, estimates_kl: bool) -> None:
        self._pad_token_id = pad_token_id
        self._max_length = max_length
        self._estimates_kl = estimates_kl

    def __call__(self, items: Sequence[tuple[Encoded, ...]]) -> dict[str, Any]:
        """Return input_ids, attention_mask, completion_mask ([B, T]), label ([B]) and num_tokens, num_samples.

        With an estimate of the divergence also the first three as KL_input_ids and so on: by TRL's rule, each prompt of
        the batch with the answer to the prompt before it.
        """
        rows = [row for item in items for row in item]
        batch = {**_pad(rows, self._pad_token_id), **count_rows(rows)}
        batch["label"] = torch.tensor([bool(row.is_good) for row in rows])
        if self._estimates_kl:
            others = _pad([self._mismatch(row, rows[index - 1]) for index, row in enumerate(rows)], self._pad_token_id)
            batch |= {f"KL_{name}": tensor for name, tensor in others.items()}
        return batch

    def _mismatch(self, asked: Encoded, answered: Encoded) -> Encoded:
        """Return a prompt with the answer to another."""
        num_prompt, start = prompt_length(asked), prompt_length(answered)
        ids = [*asked.input_ids[:num_prompt], *answered.input_ids[start:]]
        labels = [*asked.labels[:num_prompt], *answered.labels[start:]]
        return Encoded(input_ids=ids[: self._max_length], labels=labels[: self._max_length])


def _both(rows: Sequence[Encoded]) -> list[Encoded]:
    return [*rows, *(row.rejected for row in rows if row.rejected is not None)]


def _pad(rows: Sequence[Encoded], pad_token_id: int) -> Mapping[str, torch.Tensor]:
    """Return the rows as tensors [rows, T]; what the loss takes of them is marked in completion_mask."""
    return {
        "input_ids": pad_rows([row.input_ids for row in rows], pad_token_id),
        "attention_mask": pad_rows([[1] * len(row.input_ids) for row in rows], 0),
        "completion_mask": pad_rows([[int(label != IGNORED_LABEL) for label in row.labels] for row in rows], 0),
    }
