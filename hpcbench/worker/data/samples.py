"""Datasets to encoded training and validation samples.

In: the arguments' datasets. Out: rows as chats, split, drawn and mixed as the arguments say, and their tokens. It never
shuffles by anything but the seeds of the arguments.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, overload

from hpcbench.data.columns import Lesson
from hpcbench.data.good_rows import read_good_rows
from hpcbench.data.images import ImageCheck
from hpcbench.data.messages import Message
from hpcbench.data.row_reader import RowReader, lesson_of
from hpcbench.data.sources import find_dataset
from hpcbench.errors import DataError, WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.agent_format import find_agent_format
from hpcbench.worker.data.datasets import read_dataset
from hpcbench.worker.data.encoded import Encoded
from hpcbench.worker.data.preferences import encode_answers
from hpcbench.worker.data.processor import find_model_type
from hpcbench.worker.data.templates import Template

logger = logging.getLogger(__name__)

_MAX_SHOWN_ERRORS: Final = 5
BATCH_ROWS: Final = 64
"""Rows that the tokenizer gets at once, and after which a stop request is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One row as a chat or plain text, with the place it came from."""

    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    """For the chat template."""
    text: str | None = None
    """Plain text, every token of which is trained on; then there are no messages."""
    rejected: Message | None = None
    """The worse answer, in place of the last message; only of pairs."""
    is_good: bool | None = None
    """Whether the answer is a good one; only of judged answers."""
    place: str
    """`file: line N` or `file: row N`, counted from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Training and validation samples before tokenizing."""

    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    num_discarded: int = 0
    """Rows without the needed fields that `check_dataset_strategy` dropped."""
    num_mixed: int = 0
    """Rows of `train_dataset_mix_ds` at the end of the training samples."""
    notes: tuple[str, ...] = ()
    """Remarks for the record: what was mixed in, and what was not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRows:
    """Samples after tokenizing."""

    rows: Sequence[Encoded]
    num_truncated: int
    """0 where rows are tokenized when asked for."""
    num_dropped: int
    """Samples that `delete` dropped for their length."""


class LazyRows(Sequence[Encoded]):
    """Samples that are tokenized each time they are asked for: no wait before training, no memory for tokens."""

    def __init__(self, samples: Sequence[Sample], template: Template) -> None:
        self._samples = samples
        self._template = template

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [_encode_one(sample, self._template)[0] for sample in self._samples[index]]
        return _encode_one(self._samples[index], self._template)[0]


def load_splits(args: SftArgs) -> Splits:
    """Read all datasets, split each, put the parts together and draw the samples that the arguments ask for.

    Raises:
        WorkerError: a dataset cannot be read, a row lacks its fields, or nothing is left to train on.
    """
    train: list[Sample] = []
    validation: list[Sample] = []
    num_discarded = 0
    notes: list[str] = []
    for dataset in args.dataset:
        loaded = _load_samples(dataset, args)
        num_discarded += loaded.num_bad
        notes += loaded.remarks
        ratio = 0.0 if args.val_dataset else args.dataset_test_ratio
        kept, held_out = split_rows(loaded.samples, ratio=ratio, seed=args.dataset_split_seed)
        train += repeat_rows(kept, count=loaded.num_repeats, seed=args.dataset_split_seed)
        validation += held_out
    for dataset in args.val_dataset:
        loaded = _load_samples(dataset, args)
        num_discarded += loaded.num_bad
        notes += loaded.remarks
        validation += repeat_rows(loaded.samples, count=loaded.num_repeats, seed=args.dataset_split_seed)
    train = draw_rows(train, count=args.train_dataset_sample, seed=args.dataset_split_seed)
    count = -1 if args.val_dataset_sample is None else args.val_dataset_sample
    validation = draw_rows(validation, count=count, seed=args.dataset_split_seed)
    if not train:
        raise WorkerError("no training rows: " + (", ".join(args.dataset) or "dataset is empty"))
    mixed, discarded, mixed_notes = _draw_mixed_rows(args, num_train=len(train))
    return Splits(
        train=tuple(_judge_each((*train, *mixed), args)),
        validation=tuple(_judge_each(validation, args)),
        num_discarded=num_discarded + discarded,
        num_mixed=len(mixed),
        notes=(*mixed_notes, *notes),
    )


def load_questions(args: SftArgs) -> Splits:
    """Read the validation rows alone, which may lack their answers: what a model is asked.

    They are those of the validation split, in their order, with `val_dataset_sample`; nothing is to be trained on.

    Raises:
        WorkerError: a dataset cannot be read, or a row asks nothing.
    """
    rows: list[Sample] = []
    num_discarded = 0
    notes: list[str] = []
    for dataset in args.val_dataset or args.dataset:
        loaded = _load_samples(dataset, args, needs_answer=False)
        num_discarded += loaded.num_bad
        notes += loaded.remarks
        if args.val_dataset:
            rows += repeat_rows(loaded.samples, count=loaded.num_repeats, seed=args.dataset_split_seed)
        else:
            rows += split_rows(loaded.samples, ratio=args.dataset_test_ratio, seed=args.dataset_split_seed)[1]
    count = -1 if args.val_dataset_sample is None else args.val_dataset_sample
    drawn = draw_rows(rows, count=count, seed=args.dataset_split_seed)
    return Splits(train=(), validation=tuple(drawn), num_discarded=num_discarded, notes=tuple(notes))


def split_rows(rows: Sequence[Sample], *, ratio: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Return (training, validation) rows in their order; a ratio above 0 takes at least one and leaves at least one."""
    count = min(max(1, int(len(rows) * ratio)), len(rows) - 1) if ratio > 0 else 0
    held_out = set(_draw(len(rows), count, seed=seed)) if count > 0 else set()
    train = [row for index, row in enumerate(rows) if index not in held_out]
    return train, [rows[index] for index in sorted(held_out)]


def draw_rows(rows: Sequence[Sample], *, count: int, seed: int) -> list[Sample]:
    """Return `count` rows drawn by the seed, in their order; all of them for -1 or where there are no more."""
    if count < 0 or count >= len(rows):
        return list(rows)
    return [rows[index] for index in _draw(len(rows), count, seed=seed)]


def repeat_rows(rows: Sequence[Sample], *, count: int, seed: int) -> list[Sample]:
    """Return the rows with `count` of them once more, drawn by the seed with replacement, behind the others."""
    draw = random.Random(seed)  # noqa: S311  # no secret
    return [*rows, *(draw.choice(rows) for _ in range(count))]


def encode_samples(
    samples: Sequence[Sample],
    template: Template,
    *,
    num_proc: int = 1,
    on_row: Callable[[int], None] = lambda _count: None,
) -> EncodedRows:
    """Tokenize samples in their order.

    Raises:
        WorkerError: a sample cannot be encoded; the message names its place.
    """
    rows: list[Encoded] = []
    num_truncated = num_dropped = 0
    for count, pieces in enumerate(_encode_all(samples, template, num_proc=num_proc), start=1):
        if count % BATCH_ROWS == 0:
            on_row(count)
        if not pieces[0].input_ids:
            num_dropped += 1
            continue
        num_truncated += pieces[0].truncated
        rows += pieces
    return EncodedRows(rows=tuple(rows), num_truncated=num_truncated, num_dropped=num_dropped)


def _draw(total: int, count: int, *, seed: int) -> list[int]:
    """Return `count` different indices below `total`, sorted."""
    return sorted(random.Random(seed).sample(range(total), count))  # noqa: S311  # no secret


def _draw_mixed_rows(args: SftArgs, *, num_train: int) -> tuple[list[Sample], int, list[str]]:
    """Return the rows to mix in, how many bad ones were left out, and notes for the record.

    As ms-swift 2.x (swift/llm/utils/argument.py): int(training rows x ratio) rows of the mixed datasets, drawn after
    the training rows; all of them, with a warning, where there are fewer. None of them is validated on.
    """
    if args.train_dataset_mix_ratio <= 0:
        return [], 0, []
    if not args.train_dataset_mix_ds:
        raise WorkerError("train_dataset_mix_ratio: train_dataset_mix_ds names no dataset to mix in")
    wanted = int(num_train * args.train_dataset_mix_ratio)
    rows: list[Sample] = []
    num_discarded = 0
    remarks: list[str] = []
    for dataset in args.train_dataset_mix_ds:
        loaded = _load_samples(dataset, args)
        rows += repeat_rows(loaded.samples, count=loaded.num_repeats, seed=args.dataset_split_seed)
        num_discarded += loaded.num_bad
        remarks += loaded.remarks
    drawn = draw_rows(rows, count=wanted, seed=args.dataset_split_seed)
    note = f"{len(drawn)} of them mixed in from {', '.join(args.train_dataset_mix_ds)}"
    if len(drawn) < wanted:
        ratio = len(drawn) / num_train
        note += f"; train_dataset_mix_ratio asks for {wanted} and there are no more: the ratio is {ratio:.4g}"
        logger.warning("num_train_rows: %s", note)
    return drawn, num_discarded, [note, *remarks]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """One dataset's samples."""

    samples: list[Sample]
    num_bad: int
    """Rows that `check_dataset_strategy` left out."""
    remarks: tuple[str, ...] = ()
    """What was not read as it stands, with the dataset's name."""
    num_repeats: int = 0
    """Rows to draw again, where a registry's `num_samples` asks for more than there are."""


def _load_samples(dataset: str, args: SftArgs, *, needs_answer: bool = True) -> _Loaded:
    """Return a dataset's samples, the rows as `check_dataset_strategy` says."""
    source = find_dataset(dataset, registry=args.dataset_info)
    reader = RowReader(
        agent=find_agent_format(args),
        layout=source.layout,
        lesson=lesson_of(args),
        all_rounds=args.loss_on_all_rounds,
        has_system=args.system is not None,
        renames=args.columns,
        needs_answer=needs_answer,
        images=ImageCheck() if needs_answer and find_model_type(args) is not None else None,
    )
    strategy = args.check_dataset_strategy
    bad: list[DataError] = []

    def leave_out(error: DataError) -> None:
        bad.append(error)
        if strategy == "warning" or len(bad) <= _MAX_SHOWN_ERRORS:
            logger.warning("%s; row left out", error.message)

    rows = read_good_rows(read_dataset(source), reader, strategy, name=dataset, on_bad=leave_out)
    samples = [
        Sample(
            messages=chat.messages,
            tools=chat.tools,
            text=chat.text,
            rejected=chat.rejected,
            is_good=chat.is_good,
            place=str(place),
        )
        for chat, place in rows
    ]
    remarks = [f"{dataset}: {remark}" for remark in reader.remarks()]
    for remark in remarks:
        logger.warning("%s", remark)
    loaded = _Loaded(samples=samples, num_bad=len(bad), remarks=tuple(remarks))
    if source.num_samples is None:
        return loaded
    # As LLaMA-Factory (src/llamafactory/data/loader.py), but repeats come after the split: a row that is validated on
    # must not be trained on.
    drawn = draw_rows(samples, count=source.num_samples, seed=args.dataset_split_seed)
    return replace(loaded, samples=drawn, num_repeats=source.num_samples - len(drawn))


def _judge_each(samples: Iterable[Sample], args: SftArgs) -> Iterator[Sample]:
    """Yield the samples; where answers are judged, a good one and a bad one of each pair."""
    for sample in samples:
        if sample.rejected is None or lesson_of(args) is not Lesson.JUDGED:
            yield sample
        else:
            good = replace(sample, rejected=None, is_good=True)
            yield good
            yield replace(good, messages=(*sample.messages[:-1], sample.rejected), is_good=False)


def _encode_all(samples: Sequence[Sample], template: Template, *, num_proc: int) -> Iterator[tuple[Encoded, ...]]:
    batches = (samples[start : start + BATCH_ROWS] for start in range(0, len(samples), BATCH_ROWS))
    if num_proc == 1 or len(samples) < 2 * num_proc:
        for batch in batches:
            yield from _encode_batch(batch, template)
        return
    # Forked before anything has touched a GPU; the template is inherited, not pickled.
    _Inherited.template = template
    with multiprocessing.get_context("fork").Pool(num_proc) as pool:
        for encoded in pool.imap(_encode_inherited, batches):
            yield from encoded


class _Inherited:
    template: Template


def _encode_inherited(samples: Sequence[Sample]) -> list[tuple[Encoded, ...]]:
    return _encode_batch(samples, _Inherited.template)


def _encode_batch(samples: Sequence[Sample], template: Template) -> list[tuple[Encoded, ...]]:
    """Return each sample's tokens; chats are tokenized together."""
    if all(sample.text is None and sample.rejected is None and sample.is_good is None for sample in samples):
        # An error says at which row it is, which one of a batch does not know: then row by row.
        with contextlib.suppress(WorkerError):
            encoded = template.encode_batch([(sample.messages, sample.tools) for sample in samples])
            return [(_check_and_compact(row, sample.place),) for row, sample in zip(encoded, samples, strict=True)]
    return [_encode_one(sample, template) for sample in samples]


def _encode_one(sample: Sample, template: Template) -> tuple[Encoded, ...]:
    """Return a sample's tokens: in pieces where it is a text that is to be split, else as one."""
    try:
        if sample.text is not None:
            pieces = template.split(template.encode_text(sample.text))
        elif sample.rejected is None and sample.is_good is None:
            pieces = (template.encode(sample.messages, tools=sample.tools),)
        else:
            pieces = (
                encode_answers(
                    template, sample.messages, tools=sample.tools, rejected=sample.rejected, is_good=sample.is_good
                ),
            )
    except WorkerError as error:
        raise WorkerError(f"{sample.place}: {error.message}", hint=error.hint) from error
    return tuple(_check_and_compact(encoded, sample.place) for encoded in pieces)


def _check_and_compact(encoded: Encoded, place: str) -> Encoded:
    if encoded.input_ids and encoded.num_label_tokens == 0:
        raise WorkerError(f"{place}: no token is left to learn from", hint="raise max_length")
    return replace(
        encoded,
        input_ids=_compact(encoded.input_ids),
        labels=_compact(encoded.labels),
        weights=None if encoded.weights is None else array("f", encoded.weights),
        rejected=None if encoded.rejected is None else _check_and_compact(encoded.rejected, place),
    )


def _compact(values: Iterable[int]) -> array[int]:
    return array("i", values)  # four bytes per token; a Python list takes about thirty
