"""Sampling that depends on the prompt's own random numbers alone: not on the batch, nor on what was drawn before.

In: the scores of each step. Out: scores that leave one token. transformers draws all rows of a batch from one global
generator, so that a job that goes on in the middle would give other answers than one that ran through.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from hpcbench.worker.infer.engine import GenerationOptions


class RowSampler(LogitsProcessor):
    """Leave each row [B, V] the one token that its own random number chooses; generate then takes the likeliest."""

    def __init__(self, draws: Sequence[random.Random], options: GenerationOptions) -> None:
        self._draws = draws
        # In transformers' own order, with its own meaning of each.
        self._warpers: list[LogitsProcessor] = []
        if options.temperature != 1.0:
            self._warpers.append(TemperatureLogitsWarper(options.temperature))
        if options.top_k > 0:
            self._warpers.append(TopKLogitsWarper(top_k=options.top_k))
        if options.top_p < 1.0:
            self._warpers.append(TopPLogitsWarper(top_p=options.top_p))

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Return the scores with one token of each row left."""
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        # In 64 bits, or the rounding of a sum over a large vocabulary would favour its last tokens.
        sums_BV = torch.softmax(scores.double(), dim=-1).cumsum(dim=-1)  # noqa: N806
        total_B1 = sums_BV[:, -1:]  # noqa: N806
        draws = [[draw.random()] for draw in self._draws]
        wanted_B1 = torch.tensor(draws, dtype=torch.float64, device=scores.device) * total_B1  # noqa: N806
        chosen_B1 = torch.searchsorted(sums_BV, wanted_B1, right=True)  # noqa: N806
        # A product that is rounded up to the total lies behind the last token that has any probability.
        last_B1 = (sums_BV < total_B1).sum(dim=-1, keepdim=True)  # noqa: N806
        left = torch.full_like(scores, -torch.inf)
        return left.scatter_(1, torch.minimum(chosen_B1, last_B1), 0.0)  # type: ignore[return-value]  # a FloatTensor
