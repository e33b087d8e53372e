"""The one pass over the data of a training: rows read, split and tokenized, with what is to be said about them.

In: the training arguments and the template. Out: `Tokenized`, values alone, so that they can be kept. It knows nothing
of ranks, files or packs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.encoded import Encoded
from hpcbench.worker.data.samples import LazyRows, Sample, Splits, encode_samples, load_splits
from hpcbench.worker.data.templates import Template
from hpcbench.worker.measure.rouge import Prompt, make_prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many rows were what, and remarks for the record."""

    num_truncated: int = 0
    num_dropped: int = 0
    """Training samples that `delete` dropped for their length."""
    num_discarded: int = 0
    """Rows that `check_dataset_strategy` left out."""
    num_images: int = 0
    """Of the training rows."""
    num_image_tokens: int = 0
    num_with_system: int = 0
    """Samples that begin with a system prompt, of `num_samples`."""
    num_samples: int = 0
    """Training and validation samples before tokenizing."""
    has_prompted: bool = False
    """Whether there are validation samples for `predict_with_generate`, which texts as they are give no prompts for."""
    notes: tuple[str, ...] = ()
    """What was mixed in, and what was not read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenized:
    """The rows of a training."""

    train: Sequence[Encoded]
    lengths: Sequence[int] | None
    """Tokens of each training row; None where rows are tokenized when asked for and nothing needs them."""
    validation: Sequence[Encoded]
    prompts: Sequence[Prompt] = ()
    counts: Counts = field(default_factory=Counts)


def tokenize(
    args: SftArgs, template: Template, *, on_row: Callable[[int], None], on_tokenizing: Callable[[], None]
) -> Tokenized:
    """Read, split and tokenize the datasets; `on_row`, called now and then, may raise to leave.

    Raises:
        WorkerError: a dataset is missing or unusable.
        StopRequestedError: a stop was asked for meanwhile.
    """
    if args.lazy_tokenize and args.truncation_strategy == "delete":
        raise WorkerError(
            "lazy_tokenize: which rows `truncation_strategy: delete` drops is not known before training",
            hint="set truncation_strategy: truncation_left, or lazy_tokenize: false",
        )
    splits = load_splits(args)
    on_tokenizing()
    counts = _count_samples(splits, args)
    if args.lazy_tokenize and not (args.packing or args.test_oom_error):
        train: Sequence[Encoded] = LazyRows(splits.train, template)
        lengths = None
    else:
        train, lengths, counts = _encode_training(splits, template, args, counts, on_row=on_row)
    validation = encode_samples(splits.validation, template, num_proc=args.preprocess_num_proc, on_row=on_row)
    if not train:
        raise WorkerError(f"no training rows: all {len(splits.train)} are longer than max_length {args.max_length}")
    prompted = splits.validation if args.predict_with_generate else ()
    return Tokenized(
        train=train,
        lengths=lengths,
        validation=validation.rows,
        prompts=make_prompts(prompted, template, max_length=args.max_length),
        counts=counts,
    )


def _count_samples(splits: Splits, args: SftArgs) -> Counts:
    samples = (*splits.train, *splits.validation)
    return Counts(
        num_discarded=splits.num_discarded,
        num_with_system=sum(bool(each.messages) and each.messages[0]["role"] == "system" for each in samples),
        num_samples=len(samples),
        has_prompted=args.predict_with_generate and bool(splits.validation),
        notes=splits.notes,
    )


def _encode_training(
    splits: Splits, template: Template, args: SftArgs, counts: Counts, *, on_row: Callable[[int], None]
) -> tuple[Sequence[Encoded], list[int], Counts]:
    """Return the training rows, their lengths in tokens, and the counts with theirs."""
    encoded = encode_samples(splits.train, template, num_proc=args.preprocess_num_proc, on_row=on_row)
    rows: Sequence[Encoded] = encoded.rows
    lengths = [row.num_tokens for row in rows]
    kept: Sequence[Sample] = splits.train
    if args.test_oom_error:
        order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
        rows = [rows[index] for index in order]
        lengths = [lengths[index] for index in order]
        kept = [splits.train[index] for index in order] if args.lazy_tokenize else kept
    if template.images is not None:
        counts = _count_images(rows, template.images.token_id, counts)
    return (
        LazyRows(kept, template) if args.lazy_tokenize else rows,
        lengths,
        replace(counts, num_truncated=encoded.num_truncated, num_dropped=encoded.num_dropped),
    )


def _count_images(rows: Sequence[Encoded], token_id: int, counts: Counts) -> Counts:
    """Return the counts with how many images the rows have, and how many tokens stand for parts of them."""
    with_images = [row for row in rows if row.images]
    num_tokens = sum(list(row.input_ids).count(token_id) for row in with_images)
    return replace(counts, num_images=sum(len(row.images) for row in with_images), num_image_tokens=num_tokens)
