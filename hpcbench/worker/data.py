"""Datasets to encoded training and validation samples.

In: the arguments' datasets (files, folders, hub ids). Out: rows as chats, split as the arguments say, and their tokens.
JSON and CSV are read here, so that errors name the file's own row and text stays text; parquet, arrow and saved folders
are read by pyarrow and datasets. It never shuffles by anything but the seeds of the arguments.
"""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hpcbench.arguments import SftArgs
from hpcbench.dataset_fields import FIELD_SETS, describe_field_sets
from hpcbench.errors import WorkerError
from hpcbench.worker.template import Encoded, Message, Template

logger = logging.getLogger(__name__)

Row = dict[str, Any]
_PAIRS: Final = tuple(fields for fields in FIELD_SETS if len(fields) == 2)
_ROLES: Final = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "bot": "assistant"}
_MAX_SHOWN_ERRORS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One row as a chat, with the place it came from."""

    messages: tuple[Message, ...]
    place: str
    """`file: row N`, counted from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Training and validation samples before tokenizing."""

    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    num_discarded: int = 0
    """Rows without the needed fields that `check_dataset_strategy` dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRows:
    """Samples after tokenizing."""

    rows: tuple[Encoded, ...]
    num_truncated: int
    num_dropped: int
    """Samples that `delete` dropped for their length."""


def load_splits(args: SftArgs) -> Splits:
    """Read all datasets, split each, put the parts together and draw the samples that the arguments ask for.

    Raises:
        WorkerError: a dataset cannot be read, a row lacks its fields, or nothing is left to train on.
    """
    _check_supported(args)
    train: list[Sample] = []
    validation: list[Sample] = []
    num_discarded = 0
    for dataset in args.dataset:
        samples, discarded = _load_samples(dataset, strategy=args.check_dataset_strategy)
        num_discarded += discarded
        ratio = 0.0 if args.val_dataset else args.dataset_test_ratio
        kept, held_out = split_rows(samples, ratio=ratio, seed=args.dataset_split_seed)
        train += kept
        validation += held_out
    for dataset in args.val_dataset:
        samples, discarded = _load_samples(dataset, strategy=args.check_dataset_strategy)
        num_discarded += discarded
        validation += samples
    train = draw_rows(train, count=args.train_dataset_sample, seed=args.dataset_split_seed)
    count = -1 if args.val_dataset_sample is None else args.val_dataset_sample
    validation = draw_rows(validation, count=count, seed=args.dataset_split_seed)
    if not train:
        raise WorkerError("no training rows: " + (", ".join(args.dataset) or "dataset is empty"))
    return Splits(train=tuple(train), validation=tuple(validation), num_discarded=num_discarded)


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


def encode_samples(
    samples: Sequence[Sample],
    template: Template,
    *,
    num_proc: int = 1,
    on_row: Callable[[int], None] = lambda _count: None,
) -> EncodedRows:
    """Tokenize samples in their order.

    Args:
        samples: chats.
        template: decides tokens, labels and length.
        num_proc: processes to use.
        on_row: called with the number of rows done, now and then.

    Raises:
        WorkerError: a sample cannot be encoded; the message names its place.
    """
    rows: list[Encoded] = []
    num_truncated = num_dropped = 0
    for count, encoded in enumerate(_encode_all(samples, template, num_proc=num_proc), start=1):
        if count % 64 == 0:
            on_row(count)
        if not encoded.input_ids:
            num_dropped += 1
            continue
        num_truncated += encoded.truncated
        rows.append(encoded)
    return EncodedRows(rows=tuple(rows), num_truncated=num_truncated, num_dropped=num_dropped)


def to_messages(row: Row) -> tuple[Message, ...] | None:
    """Return a row as chat messages, or None when it has none of the known forms."""
    if isinstance(row.get("messages"), list):
        return _check_messages(row["messages"], system=row.get("system"))
    if isinstance(row.get("conversations"), list):
        return _from_conversations(row["conversations"], system=row.get("system"))
    for asked, answered in _PAIRS:
        query, response = row.get(asked), row.get(answered)
        if isinstance(query, str) and isinstance(response, str):
            extra = row.get("input")
            if asked == "instruction" and isinstance(extra, str) and extra:
                query = f"{query}\n{extra}" if query else extra
            return _from_pair(query, response, history=row.get("history"), system=row.get("system"))
    return None


def read_rows(dataset: str) -> list[Row]:
    """Read one dataset: a file by its suffix, a folder saved by datasets, or a hub id from the local cache.

    Raises:
        WorkerError: it is not there, or not readable.
    """
    path = Path(dataset)
    try:
        if path.is_file():
            return _read_file(path)
        if path.is_dir():
            return _read_folder(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WorkerError(f"{path}: cannot be read: {error}") from error
    if path.is_absolute():
        raise WorkerError(f"{path}: no such dataset file or folder")
    return _read_hub(dataset)


def _draw(total: int, count: int, *, seed: int) -> list[int]:
    """Return `count` different indices below `total`, sorted."""
    return sorted(random.Random(seed).sample(range(total), count))  # noqa: S311  # no secret


def _check_supported(args: SftArgs) -> None:
    if args.use_loss_scale:
        raise WorkerError(
            "use_loss_scale: not supported: the weights of agent dialogues' parts are not in any document",
            hint="set use_loss_scale: false",
        )
    if args.train_dataset_mix_ratio > 0:
        raise WorkerError(
            "train_dataset_mix_ratio: mixing in a second dataset is not supported yet",
            hint="set train_dataset_mix_ratio: 0 and list the rows to mix in as another dataset",
        )


def _load_samples(dataset: str, *, strategy: str) -> tuple[list[Sample], int]:
    samples = []
    num_discarded = 0
    for number, row in enumerate(read_rows(dataset), start=1):
        messages = to_messages(row)
        if messages is not None and messages and messages[-1]["role"] == "assistant":
            samples.append(Sample(messages=messages, place=f"{dataset}: row {number}"))
            continue
        message = (
            f"{dataset}: row {number}: needed fields are missing or not text; "
            f"found: {', '.join(sorted(row)) or 'nothing'}; expected: {describe_field_sets()}, ending with an answer"
        )
        if strategy not in {"discard", "warning"}:
            raise WorkerError(message, hint="check_dataset_strategy: discard leaves such rows out")
        num_discarded += 1
        if strategy == "warning" or num_discarded <= _MAX_SHOWN_ERRORS:
            logger.warning("%s; row left out", message)
    return samples, num_discarded


def _check_messages(values: list[Any], *, system: object) -> tuple[Message, ...] | None:
    messages: list[Message] = []
    for value in values:
        if not isinstance(value, dict) or not isinstance(value.get("role"), str):
            return None
        if not isinstance(value.get("content"), str) and not value.get("tool_calls"):
            return None
        messages.append({key: part for key, part in value.items() if part is not None})
    return _with_system(messages, system)


def _from_conversations(values: list[Any], *, system: object) -> tuple[Message, ...] | None:
    messages: list[Message] = []
    for value in values:
        if not isinstance(value, dict) or not isinstance(value.get("value"), str):
            return None
        role = str(value.get("from"))
        messages.append({"role": _ROLES.get(role, role), "content": value["value"]})
    return _with_system(messages, system)


def _from_pair(query: str, response: str, *, history: object, system: object) -> tuple[Message, ...] | None:
    messages: list[Message] = []
    rounds = history if isinstance(history, list) else []
    for past in [*rounds, (query, response)]:
        if not (isinstance(past, (list, tuple)) and len(past) == 2 and all(isinstance(text, str) for text in past)):
            return None
        messages += [{"role": "user", "content": past[0]}, {"role": "assistant", "content": past[1]}]
    return _with_system(messages, system)


def _with_system(messages: list[Message], system: object) -> tuple[Message, ...]:
    if isinstance(system, str) and system and not (messages and messages[0]["role"] == "system"):
        return ({"role": "system", "content": system}, *messages)
    return tuple(messages)


def _read_file(path: Path) -> list[Row]:
    match path.suffix.lower():
        case ".json" | ".jsonl":
            return _read_json_rows(path)
        case ".csv":
            with path.open(encoding="utf-8-sig", newline="") as stream:
                return [dict(row) for row in csv.DictReader(stream)]
        case ".parquet":
            from pyarrow import parquet  # type: ignore[import-untyped]  # has no stubs

            return list(parquet.read_table(path).to_pylist())
        case ".arrow":
            from datasets import Dataset

            return [dict(row) for row in Dataset.from_file(str(path))]
        case _:
            pass
    raise WorkerError(f"{path}: unknown kind of dataset file; expected: json, jsonl, csv, parquet, arrow")


def _read_json_rows(path: Path) -> list[Row]:
    """Read a JSON list of objects, or one object per line, whatever the suffix says."""
    text = path.read_text(encoding="utf-8-sig")
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except ValueError as error:
            raise WorkerError(f"{path}: not valid JSON: {error}") from error
        return [_check_object(value, path, f"row {number}") for number, value in enumerate(values, start=1)]
    rows = []
    # Not splitlines(): JSON strings may hold U+2028, which is no line end in JSON lines.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                value = json.loads(line)
            except ValueError as error:
                raise WorkerError(f"{path}: line {number}: not valid JSON: {error}") from error
            rows.append(_check_object(value, path, f"line {number}"))
    return rows


def _check_object(value: object, path: Path, place: str) -> Row:
    if not isinstance(value, dict):
        raise WorkerError(f"{path}: {place}: expected a JSON object, found {type(value).__name__}")
    return value


def _read_folder(path: Path) -> list[Row]:
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(path))
    except FileNotFoundError as error:
        raise WorkerError(
            f"{path}: not a folder saved by datasets (save_to_disk)", hint="name the data file itself"
        ) from error
    if isinstance(saved, DatasetDict):
        if "train" not in saved:
            raise WorkerError(f"{path}: no split `train`; found: {', '.join(saved)}")
        saved = saved["train"]
    return [dict(row) for row in saved]


def _read_hub(dataset: str) -> list[Row]:
    from datasets import load_dataset

    try:
        loaded = load_dataset(dataset, split="train")
    except Exception as error:  # the hub's client raises its own, requests', OSError and ValueError
        raise WorkerError(
            f"dataset {dataset!r}: no such local file, and not in the local cache: {type(error).__name__}: {error}",
            hint="run `hpcbench prefetch CONFIG` where there is internet, or name a local file",
        ) from error
    return [dict(row) for row in loaded]


def _encode_all(samples: Sequence[Sample], template: Template, *, num_proc: int) -> Iterator[Encoded]:
    if num_proc == 1 or len(samples) < 2 * num_proc:
        for sample in samples:
            yield _encode_one(sample, template)
        return
    # Forked before anything has touched a GPU; the template is inherited, not pickled.
    _Inherited.template = template
    with multiprocessing.get_context("fork").Pool(num_proc) as pool:
        yield from pool.imap(_encode_inherited, samples, chunksize=64)


class _Inherited:
    template: Template


def _encode_inherited(sample: Sample) -> Encoded:
    return _encode_one(sample, _Inherited.template)


def _encode_one(sample: Sample, template: Template) -> Encoded:
    try:
        encoded = template.encode(sample.messages)
    except WorkerError as error:
        raise WorkerError(f"{sample.place}: {error.message}", hint=error.hint) from error
    if encoded.input_ids and encoded.num_label_tokens == 0:
        raise WorkerError(f"{sample.place}: no token is left to learn from", hint="raise max_length")
    return Encoded(input_ids=_compact(encoded.input_ids), labels=_compact(encoded.labels), truncated=encoded.truncated)


def _compact(values: Iterable[int]) -> array[int]:
    """Return four bytes per token instead of a Python list's thirty."""
    return array("i", values)
