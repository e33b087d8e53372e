"""Which samples make up which batch, and how samples become tensors.

In: encoded samples, a seed, the number of ranks. Out: batches such that the same global batch holds the same samples
for any number of ranks, no sample twice, none left out. It draws nothing from torch's global random numbers.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from hpcbench.worker.data.encoded import IGNORED_LABEL, Encoded
from hpcbench.worker.data.images import ImageInputs
from hpcbench.worker.data.samples import LazyRows
from hpcbench.worker.data.token_files import StoredRows

Collate = Callable[[Sequence[tuple[Encoded, ...]]], dict[str, Any]]
"""Makes a batch of tensors of samples, with the counts num_tokens and num_samples."""


@dataclass(kw_only=True)
class BatchPlan:
    """Yields one rank's batches of one epoch as lists of indices into the samples.

    The epoch's shuffled samples are cut into rounds of batch_size x num_ranks, each round into one batch per rank; a
    global batch is as many rounds as gradients are accumulated over. All ranks get equally many batches; where
    the last round is too short for that, a rank gets the filler -1: a sample that teaches nothing and is not counted.
    Without `shuffles` the samples come as they stand, in every epoch. With `drops_last` a round that is too short is
    left out, and its samples with it. With `fills_up` a rank that has none left gets one of the epoch's first instead,
    as accelerate does it, and all ranks equally many.
    """

    num_samples: int
    batch_size: int
    seed: int
    rank: int = 0
    num_ranks: int = 1
    shuffles: bool = True
    drops_last: bool = False
    fills_up: bool = False
    epoch: int = 0
    """Each has its own order."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        # After a resume the Trainer calls this one: it reaches for the batch sampler inside accelerate's skipping one.
        self.epoch = epoch

    def __len__(self) -> int:
        num_rounds = self.num_samples / (self.batch_size * self.num_ranks)
        return math.floor(num_rounds) if self.drops_last else math.ceil(num_rounds)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(self.num_samples))
        if self.shuffles:
            random.Random(f"{self.seed}/{self.epoch}").shuffle(order)  # noqa: S311  # no secret
        round_size = self.batch_size * self.num_ranks
        for start in range(0, self.num_samples, round_size):
            window = order[start : start + round_size]
            if self.drops_last and len(window) < round_size:
                return
            if len(window) == round_size:
                share = window[self.rank * self.batch_size : (self.rank + 1) * self.batch_size]
            else:
                window += order[: -len(window) % self.num_ranks] if self.fills_up else []
                share = window[self.rank :: self.num_ranks]
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
        """A short sample without labels; of rows that are tokenized when asked for, the first.

        Its images stay: a model needs as many as there are tokens for them.
        """
        if isinstance(self._rows, LazyRows):
            row = self._rows[0]
        elif isinstance(self._rows, StoredRows):
            row = self._rows.find_shortest()
        else:
            row = min(self._rows, key=lambda row: len(row.input_ids))
        ids = list(row.input_ids)
        weights = None if row.weights is None else [0.0] * len(ids)
        return Encoded(input_ids=ids, labels=[IGNORED_LABEL] * len(ids), weights=weights, images=row.images)


def pad_rows(
    rows: Sequence[Sequence[float]],
    fill: float,
    *,
    side: Literal["left", "right"] = "right",
    dtype: torch.dtype = torch.long,
) -> torch.Tensor:
    """Return the rows as one tensor [batch, seq], filled up to the longest."""
    tensors = [torch.as_tensor(np.asarray(row), dtype=dtype) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=fill, padding_side=side)


def pad_inputs(
    rows: Sequence[Encoded], pad_token_id: int, *, images: ImageInputs | None = None
) -> dict[str, torch.Tensor]:
    """Return what a model reads of rows: input_ids and attention_mask ([batch, seq]), and the pixels of images."""
    ids_BT = pad_rows([row.input_ids for row in rows], pad_token_id)  # noqa: N806
    mask_BT = pad_rows([[1] * len(row.input_ids) for row in rows], 0)  # noqa: N806
    pixels = {} if images is None else images.make_batch(rows, ids_BT)
    return {"input_ids": ids_BT, "attention_mask": mask_BT, **pixels}


class Collator:
    """Pads samples on the right to the longest and counts them, so that counts travel with the batch they belong to."""

    def __init__(self, pad_token_id: int, images: ImageInputs | None = None) -> None:
        self._pad_token_id = pad_token_id
        self._images = images

    def __call__(self, items: Sequence[tuple[Encoded, ...]]) -> dict[str, Any]:
        """Return input_ids, attention_mask, labels ([batch, seq]) and the counts num_tokens, num_samples.

        With loss weights also loss_weights ([batch, seq]), with images the pixels as the model's processor makes them.
        """
        rows = [row for item in items for row in item]
        batch = {
            **pad_inputs(rows, self._pad_token_id, images=self._images),
            "labels": pad_rows([row.labels for row in rows], IGNORED_LABEL),
            **count_rows(rows),
        }
        weights = [row.weights for row in rows if row.weights is not None]
        return {**batch, "loss_weights": pad_rows(weights, 0, dtype=torch.float32)} if weights else batch


class PackCollator:
    """Puts the samples of packs one after the other, so that nothing is padded and no sample sees another."""

    def __call__(self, items: Sequence[tuple[Encoded, ...]]) -> dict[str, Any]:
        """Return input_ids, position_ids, labels ([1, seq]), use_cache and the counts num_tokens, num_samples.

        With loss weights also loss_weights ([1, seq]).
        """
        rows = [row for item in items for row in item]
        # Nothing before a sample predicts its first token.
        labels = [np.array([IGNORED_LABEL, *row.labels[1:]], dtype=np.int64) for row in rows]
        weights = [np.array([0.0, *row.weights[1:]], dtype=np.float32) for row in rows if row.weights is not None]
        batch = {
            "input_ids": _join([np.asarray(row.input_ids, dtype=np.int64) for row in rows]),
            # transformers separates samples where these start anew (masking_utils.py, find_packed_sequence_indices),
            # but only without an attention mask and a key-value cache.
            "position_ids": _join([np.arange(len(row.input_ids)) for row in rows]),
            "labels": _join(labels),
            "use_cache": False,
            **count_rows(rows),
        }
        return {**batch, "loss_weights": _join(weights)} if weights else batch


def _join(parts: Sequence[Any]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(parts))[None]


def count_rows(rows: Sequence[Encoded]) -> dict[str, int]:
    """Return how many tokens and samples of a batch count; a chat ends with its answer, so only the filler does not."""
    counted = [row for row in rows if row.labels[-1] != IGNORED_LABEL]
    return {"num_tokens": sum(row.num_tokens for row in counted), "num_samples": len(counted)}


class EpochLoader(DataLoader[tuple[Encoded, ...]]):
    """One rank's batches; `set_epoch` is how the Trainer announces the epoch."""

    def __init__(
        self,
        samples: Samples,
        plan: BatchPlan,
        *,
        collate: Collate,
        num_workers: int,
        pin_memory: bool,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
    ) -> None:
        self._plan = plan
        super().__init__(
            samples,
            batch_sampler=plan,
            collate_fn=collate,
            num_workers=num_workers,
            pin_memory=pin_memory,
            # torch refuses these two without processes of their own.
            prefetch_factor=prefetch_factor if num_workers else None,
            persistent_workers=persistent_workers and num_workers > 0,
            # Its own generator: seeding workers must not shift the random numbers that dropout draws.
            generator=torch.Generator(),
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        self._plan.set_epoch(epoch)


def pack_in_order(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return packs of neighboring indices whose lengths sum to at most `capacity`; longer samples are alone."""
    packs: list[list[int]] = []
    room = 0
    for index, length in enumerate(lengths):
        if length > room:
            packs.append([])
            room = capacity
        packs[-1].append(index)
        room -= length
    return packs


def pack_lengths(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return packs of indices whose lengths sum to at most `capacity`; longer samples are alone.

    Best-fit decreasing: each sample, longest first, goes where the least room is left. It needs at most 11/9 of the
    fewest packs possible, plus a constant (Johnson et al. 1974, https://doi.org/10.1137/0203025).
    """
    packs: list[list[int]] = []
    with_room: dict[int, list[int]] = {}
    rooms: list[int] = []  # the keys of with_room, sorted
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        at = bisect_left(rooms, lengths[index])
        if at == len(rooms):
            room, pack = capacity, len(packs)
            packs.append([])
        else:
            room = rooms[at]
            pack = with_room[room].pop()
            if not with_room[room]:
                del with_room[room], rooms[at]
        packs[pack].append(index)
        left = room - lengths[index]
        if left > 0:
            if left not in with_room:
                with_room[left] = []
                insort(rooms, left)
            with_room[left].append(pack)
    return packs
