"""Which samples make up which batch, and how samples become tensors.

In: encoded samples, a seed, the number of ranks. Out: batches such that the same global batch holds the same samples
for any number of ranks, no sample twice, none left out. It draws nothing from torch's global random numbers.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from hpcbench.worker.template import IGNORED_LABEL, Encoded


class BatchPlan:
    """Yields one rank's batches of one epoch as lists of indices into the samples.

    The epoch's shuffled samples are cut into global batches of batch_size x accumulation x num_ranks, each of those
    into rounds of batch_size x num_ranks, each round into one batch per rank. All ranks get equally many batches; where
    the last round is too short for that, a rank gets the filler -1: a sample that teaches nothing and is not counted.
    """

    def __init__(
        self, *, num_samples: int, batch_size: int, accumulation: int, seed: int, rank: int = 0, num_ranks: int = 1
    ) -> None:
        self._num_samples = num_samples
        self._batch_size = batch_size
        self._accumulation = accumulation
        self._seed = seed
        self._rank = rank
        self._num_ranks = num_ranks
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; each has its own order."""
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self._num_samples / (self._batch_size * self._num_ranks))

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(self._num_samples))
        random.Random(f"{self._seed}/{self._epoch}").shuffle(order)  # noqa: S311  # no secret
        round_size = self._batch_size * self._num_ranks
        for start in range(0, self._num_samples, round_size):
            window = order[start : start + round_size]
            if len(window) == round_size:
                share = window[self._rank * self._batch_size : (self._rank + 1) * self._batch_size]
            else:
                share = window[self._rank :: self._num_ranks]
            yield share or [-1]


class Samples(Dataset[Encoded]):
    """The encoded samples, and the filler at -1."""

    def __init__(self, rows: Sequence[Encoded]) -> None:
        self._rows = rows
        shortest = min(rows, key=lambda row: len(row.input_ids))
        ids = list(shortest.input_ids)
        self._filler = Encoded(input_ids=ids, labels=[IGNORED_LABEL] * len(ids))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Encoded:
        return self._filler if index < 0 else self._rows[index]


class Collator:
    """Pads samples on the right to the longest and counts them, so that counts travel with the batch they belong to."""

    def __init__(self, pad_token_id: int) -> None:
        self._pad_token_id = pad_token_id

    def __call__(self, rows: Sequence[Encoded]) -> dict[str, Any]:
        """Return input_ids, attention_mask, labels ([batch, seq]) and the counts num_tokens, num_samples."""
        length = max(len(row.input_ids) for row in rows)
        input_ids = torch.full((len(rows), length), self._pad_token_id, dtype=torch.long)  # [batch, seq]
        attention_mask = torch.zeros((len(rows), length), dtype=torch.long)
        labels = torch.full((len(rows), length), IGNORED_LABEL, dtype=torch.long)
        for index, row in enumerate(rows):
            count = len(row.input_ids)
            input_ids[index, :count] = torch.from_numpy(np.asarray(row.input_ids))
            labels[index, :count] = torch.from_numpy(np.asarray(row.labels))
            attention_mask[index, :count] = 1
        # A chat ends with its answer, so only the filler's last token is not learnt.
        counted = [row for row in rows if row.labels[-1] != IGNORED_LABEL]
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "labels": labels,
            "num_tokens": sum(len(row.input_ids) for row in counted),
            "num_samples": len(counted),
        }


class EpochLoader(DataLoader[Encoded]):
    """A DataLoader that tells its batch plan the epoch, which is how the Trainer reaches it."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        self.batch_sampler.set_epoch(epoch)


def make_loader(
    rows: Sequence[Encoded], plan: BatchPlan, *, pad_token_id: int, num_workers: int, pin_memory: bool
) -> EpochLoader:
    """Return the loader of one rank's batches."""
    return EpochLoader(
        Samples(rows),
        batch_sampler=plan,
        collate_fn=Collator(pad_token_id),
        num_workers=num_workers,
        pin_memory=pin_memory,
        # The loader's own generator: workers' seeds must not shift the random numbers that dropout draws.
        generator=torch.Generator(),
    )
