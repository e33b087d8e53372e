"""The data of a training, read and tokenized: rows, packs, prompts and their notes for the record.

In: the training arguments. Out: `TokenData`. It decides nothing about ranks, and touches no model but its tokenizer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.metrics import TokenStats
from hpcbench.worker.data.batches import pack_in_order, pack_lengths
from hpcbench.worker.data.encoded import Encoded
from hpcbench.worker.data.samples import EncodedRows, LazyRows, Sample, Splits, encode_samples, load_splits
from hpcbench.worker.data.templates import NO_SYSTEM, Template
from hpcbench.worker.measure.formulas import summarise_lengths
from hpcbench.worker.measure.rouge import Prompt, make_prompts
from hpcbench.worker.models import loading
from hpcbench.worker.models.files import count_embeddings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenData:
    """The tokenizer and everything that it encoded."""

    tokenizer: Any
    train: EncodedRows
    validation: EncodedRows
    stats: TokenStats | None
    template: Template
    packs: Sequence[Sequence[int]] | None = None
    prompts: Sequence[Prompt] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    """Remarks for the record, by the field that they explain."""
    deviations: Mapping[str, str] = field(default_factory=dict)
    """What is otherwise than the request says, by argument."""


def load_data(args: SftArgs, *, on_row: Callable[[int], None], on_tokenizing: Callable[[], None]) -> TokenData:
    """Read, split and tokenize the datasets; `on_row`, called now and then, may raise to leave.

    Raises:
        WorkerError: the tokenizer or a dataset is missing or unusable.
        StopRequestedError: a stop was asked for meanwhile.
    """
    tokenizer = loading.load_tokenizer(args)
    template = Template.from_args(args, tokenizer, num_embeddings=count_embeddings(args))
    splits = load_splits(args)
    on_tokenizing()
    train, lengths = _encode_training(splits, template, args, on_row=on_row)
    validation = encode_samples(splits.validation, template, num_proc=args.preprocess_num_proc, on_row=on_row)
    if not train.rows:
        raise WorkerError(f"no training rows: all {len(splits.train)} are longer than max_length {args.max_length}")
    stats = summarise_lengths(
        lengths or [],
        num_truncated=train.num_truncated,
        num_dropped=train.num_dropped + splits.num_discarded,
    )
    if stats is not None and template.images is not None:
        stats = stats.model_copy(update=_count_images(train.rows, template.images.token_id))
    logger.info(
        "dataset: %d training rows, %d validation rows; tokens: %s", len(train.rows), len(validation.rows), stats
    )
    notes = {"num_train_rows": "; ".join(splits.notes)} if splits.notes else {}
    packs = _pack(lengths or [], args) if args.packing else None
    if packs is not None:
        fill = sum(lengths or []) / (len(packs) * (args.packing_length or args.max_length))
        notes["global_batch_size"] = f"counts packs: {len(packs)} packs hold {len(train.rows)} rows, {fill:.1%} full"
        logger.info("packing: %s", notes["global_batch_size"])
    if stats is None:
        why = "lazy_tokenize: lengths are not known before training"
        notes |= dict.fromkeys(("tokens", "flops_per_token", "mfu"), why)
    if template.images is not None:
        why = "an image model: what its encoder computes depends on the sizes of images"
        notes |= dict.fromkeys(("flops_per_token", "mfu"), why)
    prompted = splits.validation if args.predict_with_generate else ()
    prompts = make_prompts(prompted, template, max_length=args.max_length)
    deviations = _find_deviations(splits, template, args)
    if args.predict_with_generate and not prompts:
        why = "the validation rows are plain text, without questions to answer"
        notes["rouge_l"] = deviations["predict_with_generate"] = why if prompted else "there are no validation rows"
    return TokenData(
        tokenizer=tokenizer,
        train=train,
        validation=validation,
        stats=stats,
        template=template,
        packs=packs,
        prompts=prompts,
        notes=notes,
        deviations=deviations,
    )


def _count_images(rows: Sequence[Encoded], token_id: int) -> dict[str, int]:
    """Return how many images the rows have, and how many tokens stand for parts of them."""
    num_tokens = sum(list(row.input_ids).count(token_id) for row in rows if row.images)
    return {"num_images": sum(len(row.images) for row in rows), "num_image_tokens": num_tokens}


def _find_deviations(splits: Splits, template: Template, args: SftArgs) -> dict[str, str]:
    if template.takes_system:
        return {}
    samples = (*splits.train, *splits.validation)
    count = sum(bool(sample.messages) and sample.messages[0]["role"] == "system" for sample in samples)
    found = {}
    if args.system is not None:
        found["system"] = NO_SYSTEM
    if count:
        found["dataset"] = f"{NO_SYSTEM}, which {count} of {len(samples)} rows have"
    return found


def _pack(lengths: Sequence[int], args: SftArgs) -> list[list[int]]:
    """Return the packs; the fullest first where running out of memory is to be seen at once."""
    capacity = args.packing_length or args.max_length
    packs = (pack_in_order if args.packing_strategy == "sequential" else pack_lengths)(lengths, capacity)
    if args.test_oom_error:
        packs.sort(key=lambda pack: -sum(lengths[index] for index in pack))
    return packs


def _encode_training(
    splits: Splits, template: Template, args: SftArgs, *, on_row: Callable[[int], None]
) -> tuple[EncodedRows, list[int] | None]:
    """Return the training rows and their lengths in tokens, which are not known where nothing asks for them."""
    if args.lazy_tokenize and args.truncation_strategy == "delete":
        raise WorkerError(
            "lazy_tokenize: which rows `truncation_strategy: delete` drops is not known before training",
            hint="set truncation_strategy: truncation_left, or lazy_tokenize: false",
        )
    needs_lengths = args.packing or args.test_oom_error
    if args.lazy_tokenize and not needs_lengths:
        rows = LazyRows(splits.train, template)
        return EncodedRows(rows=rows, num_truncated=0, num_dropped=0), None
    train = encode_samples(splits.train, template, num_proc=args.preprocess_num_proc, on_row=on_row)
    lengths = [row.num_tokens for row in train.rows]
    kept: Sequence[Sample] = splits.train
    if args.test_oom_error:
        order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
        train = replace(train, rows=[train.rows[index] for index in order])
        lengths = [lengths[index] for index in order]
        kept = [splits.train[index] for index in order] if args.lazy_tokenize else kept
    if args.lazy_tokenize:
        train = replace(train, rows=LazyRows(kept, template))
    return train, lengths
