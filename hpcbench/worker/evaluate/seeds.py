"""The seeds of an eval, as lm-eval's command line has them.

In: `eval_args.seed`. Out: seeded generators, and the same seeds for lm-eval's own call. lm-eval seeds before it loads
tasks, and some tasks shuffle their answers while they are loaded: what is seeded later gives other prompts.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np
import torch
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

from hpcbench.schemas.arguments import EvalArgs


class Seeds(NamedTuple):
    """Seeds in the order of lm-eval's `--seed`."""

    python: int
    numpy: int
    torch: int
    fewshot: int


def seeds_of(eval_args: EvalArgs) -> Seeds:
    """Return lm-eval's own seeds, or a seed that was chosen for all, as `--seed N` does."""
    seed = eval_args.seed
    return Seeds(DEFAULT_RANDOM_SEED if seed == DEFAULT_OTHER_SEED else seed, seed, seed, seed)


def seed_generators(eval_args: EvalArgs) -> None:
    """Seed Python's, numpy's and torch's generators."""
    seeds = seeds_of(eval_args)
    random.seed(seeds.python)
    np.random.seed(seeds.numpy)  # noqa: NPY002  # the generator that tasks of lm-eval draw from
    torch.manual_seed(seeds.torch)
