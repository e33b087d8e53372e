"""What a recipe is: one framework's names for hpcbench's arguments.

In: a resolved training. Out: the types that each framework's file fills in. Values only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hpcbench.schemas.arguments import DataArgs, SftArgs
from hpcbench.schemas.metrics import TokenStats
from hpcbench.schemas.request import Device, Framework

TRAIN_FILE: Final = "train.jsonl"
VALIDATION_FILE: Final = "validation.jsonl"
Settings = dict[str, Any]
Message = Mapping[str, Any]

READ_BY_HPCBENCH: Final = frozenset(
    {"model_type", "model_id_or_path", "model_revision", "system"}
    | {name for name in DataArgs.model_fields if name.startswith(("dataset", "val_dataset", "train_dataset"))}
    | {"columns", "check_dataset_strategy"}
)
"""Arguments that are carried out before the framework starts: it gets a folder of weights, and rows of messages."""
WITHOUT_EFFECT: Final = frozenset(
    {
        *("use_swift_lora", "hub", "hub_model_id", "hub_private_repo", "push_hub_strategy"),
        *("max_new_tokens", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "num_beams"),
        *("stop_words", "resume_only_model", "agent_template", "packing_length", "packing_strategy"),
    }
)
"""Arguments that do nothing without another one that no recipe expresses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training as a framework is to carry it out."""

    args: SftArgs
    model: Path
    """Folder of the base model."""
    rows: Path
    """Folder of the rows and of the framework's own file."""
    output: Path
    """Folder for its checkpoints."""
    num_train_rows: int
    num_val_rows: int
    num_ranks: int = 1
    device: Device = "cuda"
    targets: tuple[str, ...] | None = None
    """Names of the modules that get an adapter; None is every linear layer but the head."""
    resume: Path | None = None
    """Checkpoint of an earlier attempt to go on from."""

    @property
    def evaluates(self) -> bool:
        """Whether there are rows to validate on, and a time to do so."""
        return self.num_val_rows > 0 and self.args.eval_strategy != "no"

    @property
    def num_steps(self) -> int:
        """Optimizer steps of the whole training, as transformers' Trainer counts them."""
        if self.args.max_steps > 0:
            return self.args.max_steps
        num_batches = math.ceil(self.num_train_rows / (self.args.batch_size * self.num_ranks))
        steps_per_epoch = max(1, math.ceil(num_batches / self.args.gradient_accumulation_steps))
        return math.ceil(self.args.num_train_epochs * steps_per_epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRows:
    """The rows that a framework was given."""

    num_train: int
    num_val: int
    tokens: TokenStats | None
    """Of the training rows, as hpcbench's own training would count them."""
    template: str
    notes: tuple[str, ...] = ()
    """Remarks on the rows for the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A value that a framework cannot be given."""

    argument: str
    why: str
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How one framework is used."""

    name: Framework
    title: str
    """Its name in messages."""
    honored: frozenset[str]
    """The arguments of `sft` that `settings` writes, beside those that hpcbench carries out itself."""
    settings: Callable[[Run], Settings]
    """What goes into the framework's file."""
    command: Callable[[Run, Path, str], Sequence[str]]
    """From the run, the folder of the environment's programs and the path of the file to a command line."""
    make_row: Callable[[Sequence[Message]], Settings]
    """One row of its dataset from a dialogue."""
    find_refusals: Callable[[SftArgs], Iterator[Refusal]] = lambda _: iter(())
    """Values of honored arguments that it has no word for."""
    files: Callable[[Run], Mapping[str, str]] = lambda _: {}
    """More files beside the rows: name -> text."""
    environment: Callable[[Run], Mapping[str, str]] = lambda _: {}
    """Variables that it is started with."""
    deviations: Mapping[str, str] = field(default_factory=dict)
    """What it does otherwise than hpcbench's own training at any value, by argument; records name it."""
    needs_gpu: bool = False
    """Whether it cannot be told to train on the CPU."""
    has_own_template: bool = False
    """Whether it writes prompts by a template of its own for the model's type, and not by the tokenizer's."""
    logs: Sequence[str] = ()
    """Files below the output folder whose lines are JSON objects with the summary of the training, where it has any."""
