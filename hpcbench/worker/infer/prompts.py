"""The prompts of an infer job: rows of a dataset as the tokens that a model continues.

In: the arguments, the template. Out: prompts in a fixed order, each with its place and the row's own answer. It never
shuffles but by the seeds of the arguments.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from hpcbench.data.messages import Message
from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import DEFAULT_SHOWN_ROWS, InferArgs, SftArgs
from hpcbench.worker.data.samples import Sample, draw_rows, load_questions
from hpcbench.worker.data.templates import Template
from hpcbench.worker.infer.engine import Prompt

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A prompt with what its row says beside it."""

    prompt: Prompt
    label: str | None
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """All prompts of a job."""

    questions: Sequence[Question]
    num_cut: int = 0
    num_left_out: int = 0
    notes: tuple[str, ...] = ()
    num_with_system: int = 0
    """Rows that have a system prompt of their own."""


def load_prompts(args: SftArgs, infer: InferArgs, template: Template, *, num_positions: int | None) -> Questions:
    """Read and tokenize what is asked.

    Raises:
        WorkerError: a dataset cannot be read, nothing is asked, or the template rejects a row.
    """
    found = load_questions(args)
    shown = infer.show_dataset_sample
    if shown is None:
        shown = -1 if args.val_dataset else DEFAULT_SHOWN_ROWS
    samples = draw_rows(found.validation, count=shown, seed=args.dataset_split_seed)
    # Of the positions that a model has at least one is left for an answer.
    limit = args.max_length if num_positions is None else min(args.max_length, num_positions - 1)
    questions: list[Question] = []
    num_cut = num_left_out = num_with_system = 0
    for sample in samples:
        messages, label = _split_answer(sample)
        num_with_system += messages[0]["role"] == "system"
        try:
            ids = template.prefix_ids(messages, tools=sample.tools)
        except WorkerError as error:
            raise WorkerError(f"{sample.place}: {error.message}", hint=error.hint) from error
        if len(ids) > limit and args.truncation_strategy == "delete":
            num_left_out += 1
            continue
        num_cut += len(ids) > limit
        prompt = Prompt(index=len(questions), input_ids=tuple(ids[-limit:]))
        questions.append(Question(prompt=prompt, label=label, place=sample.place))
    if not questions:
        raise WorkerError(
            f"no prompts to answer: {len(found.validation)} rows in {', '.join(args.val_dataset or args.dataset)}, "
            f"{num_left_out} longer than max_length {args.max_length}",
            hint="name the rows in val_dataset, or set dataset_test_ratio for a part of dataset",
        )
    logger.info("prompts: %d, %d cut to their last %d tokens", len(questions), num_cut, limit)
    return Questions(
        questions=questions,
        num_cut=num_cut,
        num_left_out=num_left_out + found.num_discarded,
        notes=found.notes,
        num_with_system=num_with_system,
    )


def _split_answer(sample: Sample) -> tuple[Sequence[Message], str | None]:
    messages = list(sample.messages)
    if messages[-1]["role"] != "assistant":
        return messages, None
    label = str(messages[-1].get("content") or "")
    return messages[:-1], label or None
