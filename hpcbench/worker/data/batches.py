"""Which samples make up which batch, and how samples become tensors.

In: encoded samples, a seed, the number of ranks. Out: batches such that the same global batch holds the same samples
for any number of ranks, no sample twice, none left out. It draws nothing from torch's global random numbers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from hpcbench.worker.data.samples import LazyRows
from hpcbench.worker.data.templates import IGNORED_LABEL, Encoded


class BatchPlan:
    """Yields one rank's batches of one epoch as lists of indices into the samples.

    The epoch's shuffled samples are cut into global batches of batch_size x accumulation x num_ranks, each of those
    into rounds of batch_size x num_ranks, each round into one batch per rank. All ranks get equally many batches; where
    the last round is too short for that, a rank gets the filler -1: a sample that teaches nothing and is not counted.
    Without `shuffles` the samples come as they stand, in every epoch.
    """

    def __init__(
        self,
        *,
        num_samples: int,
        batch_size: int,
        accumulation: int,
        seed: int,
        rank: int = 0,
        num_ranks: int = 1,
        shuffles: bool = True,
    ) -> None:
        self._num_samples = num_samples
        self._batch_size = batch_size
        self._accumulation = accumulation
        self._seed = seed
        self._rank = rank
        self._num_ranks = num_ranks
        self._shuffles = shuffles
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; each has its own order."""
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self._num_samples / (self._batch_size * self._num_ranks))

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(self._num_samples))
        if self._shuffles:
            random.Random(f"{self._seed}/{self._epoch}").shuffle(order)  # noqa: S311  # no secret
        round_size = self._batch_size * self._num_ranks
        for start in range(0, self._num_samples, round_size):
            window = order[start : start + round_size]
            if len(window) == round_size:
                share = window[self._rank * self._batch_size : (self._rank + 1) * self._batch_size]
            else:
                share = window[self._rank :: self._num_ranks]
            yield share or [-1]


class Samples(Dataset[tuple[Encoded, ...]]):
    """What a batch is made of: single samples, or packs of them; at -1 the filler."""

    def __init__(self, rows: Sequence[Encoded], packs: Sequence[Sequence[int]] | None = None) -> None:
        self._rows = rows
        self._packs = packs

    def __len__(self) -> int:
        return len(self._rows) if self._packs is None else len(self._packs)

    def __getitem__(self, index: int) -> tuple[Encoded, ...]:
        if index < 0:
            return (self._filler,)
        if self._packs is None:
            return (self._rows[index],)
        return tuple(self._rows[row] for row in self._packs[index])

    @cached_property
    def _filler(self) -> Encoded:
        """A short sample without labels; of rows that are tokenized when asked for, the first."""
        is_lazy = isinstance(self._rows, LazyRows)
        row = self._rows[0] if is_lazy else min(self._rows, key=lambda row: len(row.input_ids))
        ids = list(row.input_ids)
        weights = None if row.weights is None else [0.0] * len(ids)
        return Encoded(input_ids=ids, labels=[IGNORED_LABEL] * len(ids), weights=weights)


class Collator:
    """Pads samples on the right to the longest and counts them, so that counts travel with the batch they belong to."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad_token_id = pad_token_id

    def __call__(self, items: Sequence[tuple[Encoded, ...]]) -> dict[str, Any]:
        """Return input_ids, attention_mask, labels ([batch, seq]) and the counts num_tokens, num_samples.

        With loss weights also loss_weights ([batch, seq]).
        """
        rows = [row for item in items for row in item]
        length = max(len(row.input_ids) for row in rows)
        input_ids = torch.full((len(rows), length), self._pad_token_id, dtype=torch.long)  # [batch, seq]
        attention_mask = torch.zeros((len(rows), length), dtype=torch.long)
        labels = torch.full((len(rows), length), IGNORED_LABEL, dtype=torch.long)
        loss_weights = torch.zeros((len(rows), length))
        for index, row in enumerate(rows):
            count = len(row.input_ids)
            input_ids[index, :count] = torch.from_numpy(np.asarray(row.input_ids))
            labels[index, :count] = torch.from_numpy(np.asarray(row.labels))
            attention_mask[index, :count] = 1
            if row.weights is not None:
                loss_weights[index, :count] = torch.from_numpy(np.asarray(row.weights, dtype=np.float32))
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels, **_count(rows)}
        return batch if rows[0].weights is None else {**batch, "loss_weights": loss_weights}


class PackCollator:
    """Puts the samples of packs one after the other, so that nothing is padded and no sample sees another.

    transformers tells the samples apart by where position_ids start anew, but only without attention_mask and without a
    key-value cache (masking_utils.py, `find_packed_sequence_indices`).
    """

    def __call__(self, items: Sequence[tuple[Encoded, ...]]) -> dict[str, Any]:
        """Return input_ids, position_ids, labels ([1, seq]), use_cache and the counts num_tokens, num_samples.

        With loss weights also loss_weights ([1, seq]).
        """
        rows = [row for item in items for row in item]
        labels = []
        weights = []
        for row in rows:
            # Nothing before a sample predicts its first token.
            labels.append(np.array([IGNORED_LABEL, *row.labels[1:]], dtype=np.int64))
            if row.weights is not None:
                weights.append(np.array([0.0, *row.weights[1:]], dtype=np.float32))
        batch = {
            "input_ids": _join([np.asarray(row.input_ids, dtype=np.int64) for row in rows]),
            "position_ids": _join([np.arange(len(row.input_ids)) for row in rows]),
            "labels": _join(labels),
            "use_cache": False,
            **_count(rows),
        }
        return {**batch, "loss_weights": _join(weights)} if weights else batch


def _join(parts: Sequence[Any]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts))[None]


def _count(rows: Sequence[Encoded]) -> dict[str, int]:
    """Return how many tokens and samples of a batch count; a chat ends with its answer, so only the filler does not."""
    counted = [row for row in rows if row.labels[-1] != IGNORED_LABEL]
    return {"num_tokens": sum(len(row.input_ids) for row in counted), "num_samples": len(counted)}


class EpochLoader(DataLoader[tuple[Encoded, ...]]):
    """One rank's batches; `set_epoch` is how the Trainer announces the epoch."""

    def __init__(
        self, samples: Samples, plan: BatchPlan, *, collate: Collator | PackCollator, num_workers: int, pin_memory: bool
    ) -> None:
        self._plan = plan
        super().__init__(
            samples,
            batch_sampler=plan,
            collate_fn=collate,
            num_workers=num_workers,
            pin_memory=pin_memory,
            # Its own generator: seeding workers must not shift the random numbers that dropout draws.
            generator=torch.Generator(),
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        self._plan.set_epoch(epoch)
