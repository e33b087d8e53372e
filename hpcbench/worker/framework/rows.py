"""The rows of a training as the files that another framework reads.

In: the arguments. Out: JSON lines of messages, and what hpcbench's own training would say of their tokens. It writes
nothing else, and a row that the framework could not take as it is ends the job with the row's place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hpcbench.errors import WorkerError
from hpcbench.frameworks.recipe import TRAIN_FILE, VALIDATION_FILE, WrittenRows
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.samples import Sample, encode_samples, load_splits
from hpcbench.worker.data.templates import Template
from hpcbench.worker.measure.formulas import summarise_lengths
from hpcbench.worker.models.files import count_embeddings
from hpcbench.worker.models.loading import load_tokenizer

MakeRow = Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]]
_ROLES: Final = frozenset({"system", "user", "assistant"})
_KEYS: Final = frozenset({"role", "content"})


def write_rows(args: SftArgs, folder: Path, make_row: MakeRow) -> WrittenRows:
    """Read, split and draw the rows as every training does, and write them in a framework's form.

    Raises:
        WorkerError: a dataset cannot be read, or a row holds what the framework's form has no place for.
    """
    splits = load_splits(args)
    tokenizer = load_tokenizer(args)
    template = Template.from_args(args, tokenizer, num_embeddings=count_embeddings(args))
    encoded = encode_samples(splits.train, template, num_proc=args.preprocess_num_proc)
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / TRAIN_FILE, splits.train, args, make_row)
    if splits.validation:
        _write(folder / VALIDATION_FILE, splits.validation, args, make_row)
    return WrittenRows(
        num_train=len(splits.train),
        num_val=len(splits.validation),
        tokens=summarise_lengths(
            [row.num_tokens for row in encoded.rows],
            num_truncated=encoded.num_truncated,
            num_dropped=encoded.num_dropped + splits.num_discarded,
        ),
        template=template.description,
        notes=splits.notes,
    )


def _write(path: Path, samples: Iterable[Sample], args: SftArgs, make_row: MakeRow) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for sample in samples:
            stream.write(json.dumps(make_row(_messages(sample, args.system)), ensure_ascii=False) + "\n")


def _messages(sample: Sample, system: str | None) -> list[Mapping[str, Any]]:
    """Return a sample's messages with the system prompt that the arguments name, where it has none of its own."""
    if sample.tools or not sample.messages:
        what = "calls tools" if sample.tools else "is plain text"
        raise WorkerError(f"{sample.place}: the row {what}, which other frameworks are not given", hint="take cmd: sft")
    for message in sample.messages:
        if message["role"] not in _ROLES or not isinstance(message.get("content"), str) or message.keys() - _KEYS:
            message_text = f"{sample.place}: a message of {message['role']} is more than text"
            raise WorkerError(f"{message_text}, which other frameworks are not given", hint="take cmd: sft")
    first = sample.messages[0]
    own = [] if system is None or first["role"] == "system" else [{"role": "system", "content": system}]
    return [*own, *sample.messages]
