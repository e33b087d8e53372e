"""The data of a training: its tokenized rows, packs of them, prompts and their notes for the record.

In: the training arguments, and what gives the rows. Out: `TokenData`. It decides nothing about ranks, and touches no
model but its tokenizer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.metrics import TokenStats
from hpcbench.worker.data.batches import pack_in_order, pack_lengths
from hpcbench.worker.data.encoded import Encoded
from hpcbench.worker.data.templates import NO_SYSTEM, Template
from hpcbench.worker.measure.formulas import summarise_lengths
from hpcbench.worker.measure.rouge import Prompt
from hpcbench.worker.models import loading
from hpcbench.worker.models.files import count_embeddings
from hpcbench.worker.train.tokenized import Counts, Tokenized

logger = logging.getLogger(__name__)

Load = Callable[[SftArgs, Template], Tokenized]
"""Gives the rows of a training: tokenizes them, or finds what was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenData:
    """The tokenizer and everything that it encoded."""

    tokenizer: Any
    train: Sequence[Encoded]
    validation: Sequence[Encoded]
    stats: TokenStats | None
    template: Template
    packs: Sequence[Sequence[int]] | None = None
    prompts: Sequence[Prompt] = ()
    notes: Mapping[str, str] = field(default_factory=dict)
    """Remarks for the record, by the field that they explain."""
    deviations: Mapping[str, str] = field(default_factory=dict)
    """What is otherwise than the request says, by argument."""


def load_data(args: SftArgs, *, load: Load) -> TokenData:
    """Return the data of a training; `load` gives the tokenized rows, made here or kept from elsewhere.

    Raises:
        WorkerError: the tokenizer or a dataset is missing or unusable.
        StopRequestedError: a stop was asked for meanwhile.
    """
    tokenizer = loading.load_tokenizer(args)
    template = Template.from_args(args, tokenizer, num_embeddings=count_embeddings(args))
    found = load(args, template)
    counts, lengths = found.counts, found.lengths or ()
    stats = summarise_lengths(
        lengths, num_truncated=counts.num_truncated, num_dropped=counts.num_dropped + counts.num_discarded
    )
    if stats is not None and template.images is not None:
        stats = stats.model_copy(update={"num_images": counts.num_images, "num_image_tokens": counts.num_image_tokens})
    logger.info(
        "dataset: %d training rows, %d validation rows; tokens: %s", len(found.train), len(found.validation), stats
    )
    notes = {"num_train_rows": "; ".join(counts.notes)} if counts.notes else {}
    packs = _pack(lengths, args) if args.packing else None
    if packs is not None:
        fill = sum(lengths) / (len(packs) * (args.packing_length or args.max_length))
        notes["global_batch_size"] = f"counts packs: {len(packs)} packs hold {len(found.train)} rows, {fill:.1%} full"
        logger.info("packing: %s", notes["global_batch_size"])
    if stats is None:
        why = "lazy_tokenize: lengths are not known before training"
        notes |= dict.fromkeys(("tokens", "flops_per_token", "mfu"), why)
    if template.images is not None:
        why = "an image model: what its encoder computes depends on the sizes of images"
        notes |= dict.fromkeys(("flops_per_token", "mfu"), why)
    deviations = _find_deviations(counts, template, args)
    if args.predict_with_generate and not found.prompts:
        why = "the validation rows are plain text, without questions to answer"
        notes["rouge_l"] = deviations["predict_with_generate"] = (
            why if counts.has_prompted else "there are no validation rows"
        )
    return TokenData(
        tokenizer=tokenizer,
        train=found.train,
        validation=found.validation,
        stats=stats,
        template=template,
        packs=packs,
        prompts=found.prompts,
        notes=notes,
        deviations=deviations,
    )


def _find_deviations(counts: Counts, template: Template, args: SftArgs) -> dict[str, str]:
    if template.takes_system:
        return {}
    found = {}
    if args.system is not None:
        found["system"] = NO_SYSTEM
    if counts.num_with_system:
        found["dataset"] = f"{NO_SYSTEM}, which {counts.num_with_system} of {counts.num_samples} rows have"
    return found


def _pack(lengths: Sequence[int], args: SftArgs) -> list[list[int]]:
    """Return the packs; the fullest first where running out of memory is to be seen at once."""
    capacity = args.packing_length or args.max_length
    packs = (pack_in_order if args.packing_strategy == "sequential" else pack_lengths)(lengths, capacity)
    if args.test_oom_error:
        packs.sort(key=lambda pack: -sum(lengths[index] for index in pack))
    return packs
