"""The rows that a quantisation is calibrated on: training rows of `dataset`, as a training would see their tokens.

In: the arguments, the tokenizer. Out: token ids of so many rows as were asked for, or the error that there are fewer.
Rows that are held out for validation are never among them, so that an eval_loss of the result means something.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import ExportArgs, SftArgs
from hpcbench.worker.data.samples import Sample, encode_samples, load_splits
from hpcbench.worker.data.templates import Template

SHORTEST_TOKENS: Final = 11
"""gptqmodel drops rows of 10 tokens and fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationRows:
    """What a quantisation is calibrated on."""

    ids: tuple[tuple[int, ...], ...]
    template: Template

    @property
    def num_tokens(self) -> int:
        """Tokens of all rows."""
        return sum(map(len, self.ids))


def load_calibration_rows(
    args: SftArgs, export: ExportArgs, tokenizer: Any, *, on_row: Callable[[int], None] = lambda _count: None
) -> CalibrationRows:
    """Return `quant_n_samples` rows, drawn by the seed, each of at most `quant_seqlen` tokens.

    Raises:
        WorkerError: a row cannot be read or encoded, or there are fewer rows of usable length.
    """
    fitted = args.model_copy(update={"max_length": export.quant_seqlen, "truncation_strategy": "truncation_left"})
    template = Template.from_args(fitted, tokenizer)
    samples = load_splits(fitted).train
    order = random.Random(args.seed).sample(range(len(samples)), len(samples))  # noqa: S311  # no secret
    ids: list[tuple[int, ...]] = []
    num_short = 0
    for index in order:
        if len(ids) == export.quant_n_samples:
            break
        row = _encode(samples[index], template)
        if len(row) < SHORTEST_TOKENS:
            num_short += 1
            continue
        ids.append(row)
        on_row(len(ids))
    if len(ids) < export.quant_n_samples:
        raise _too_few(args, export, num_rows=len(samples), num_usable=len(ids), num_short=num_short)
    return CalibrationRows(ids=tuple(ids), template=template)


def _encode(sample: Sample, template: Template) -> tuple[int, ...]:
    return tuple(ids for row in encode_samples([sample], template).rows for ids in row.input_ids)


def _too_few(args: SftArgs, export: ExportArgs, *, num_rows: int, num_usable: int, num_short: int) -> WorkerError:
    names = ", ".join(args.dataset)
    shorter = f", {num_short} of them shorter than {SHORTEST_TOKENS} tokens" if num_short else ""
    return WorkerError(
        f"quant_n_samples: {export.quant_n_samples} rows to calibrate on, and {names} has {num_rows}{shorter}",
        hint=f"set quant_n_samples: {num_usable}, or name more data in dataset"
        if num_usable
        else f"name a dataset whose rows have {SHORTEST_TOKENS} tokens and more",
    )
