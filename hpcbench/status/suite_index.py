"""What the requests and final records of a large suite hold, in one file of the user's cache that may go at any time.

In: requests and records that were read, with the signatures of their files. Out: the same values again, as long as the
files have these signatures. The suite's own folder is not written to. DECISIONS.md says what makes an entry valid.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

import hpcbench
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.record import Record
from hpcbench.schemas.request import JobRef, JobRequest
from hpcbench.schemas.shared_values import NotAlike, changed, differences
from hpcbench.storage.json_files import FileSignature, write_bytes

logger = logging.getLogger(__name__)

ItemT = TypeVar("ItemT")

MIN_JOBS: Final = 50
"""Smaller suites are read in a few hundredths of a second."""
MIN_NEW_SHARE: Final = 0.05
"""Part of the entries that has to be new before the file is written once more: reading a few is faster."""
MIN_AGE_S: Final = 10.0
"""A file that changed later than this before it was read may change again without another signature."""
UNUSED_AFTER_S: Final = 30 * 86400.0
JOBS_PER_LINE: Final = 500
MOST_BASES: Final = 8
"""How many a model is compared with before it is written in full."""

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class IndexedJob:
    """One job's files as they were read."""

    request: JobRequest
    request_signature: FileSignature
    record: Record | None = None
    """None where there was no record yet, or none that stays as it is."""
    record_signature: FileSignature | None = None


def index_file(cache_folder: Path, suite_folder: Path) -> Path:
    """Return where the index of a suite is kept, whether the file exists or not."""
    name = hashlib.sha256(str(suite_folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return cache_folder / "suites" / f"{name}.json"


def read_index(file: Path) -> dict[JobRef, IndexedJob]:
    """Return what an index holds; nothing where there is none, or one of another version."""
    try:
        with file.open("rb") as stream:
            if _unsealed(next(stream, b"")) != {"written_by": _writer()}:
                return {}
            return dict(_decode(map(_unsealed, stream)))
    except OSError:
        return {}
    except (ValidationError, KeyError, IndexError, TypeError, ValueError) as error:
        logger.debug("%s: not an index (%s)", file, error)
        return {}


def write_index(file: Path, jobs: Mapping[JobRef, IndexedJob]) -> None:
    """Write the index of a suite, and remove those that nobody has written for a month; what fails is only slower."""
    try:
        lines = ({"written_by": _writer()}, *_encode(jobs))
        write_bytes(file, b"".join(map(_sealed, lines)), sync=False)
        for other in file.parent.iterdir():
            if other.stat().st_mtime < time.time() - UNUSED_AFTER_S:
                other.unlink()
    except (OSError, PydanticSerializationError) as error:  # which halves of surrogate pairs, as of odd paths, raise
        logger.debug("%s: not written: %s", file, error)


def _sealed(value: object) -> bytes:
    """Return a line of an index: JSON, and its checksum, since what it holds is not validated once more."""
    content = to_json(value, inf_nan_mode="constants")
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _unsealed(line: bytes) -> Any:
    """Return what a line holds; raise ValueError where it is damaged."""
    checksum, _, content = line.rstrip(b"\n").partition(b" ")
    if int(checksum, 16) != zlib.crc32(content):
        raise ValueError("checksum")
    return from_json(content)


def is_settled(signature: FileSignature, read_at: float) -> bool:
    """Return whether a file had been the same for some time when it was read (in seconds since 1970)."""
    return read_at - max(signature.mtime_ns, signature.ctime_ns) / 1e9 >= MIN_AGE_S


def _writer() -> str:
    """Return what two versions share only where they read a file alike: the version, and all fields with defaults."""
    models = _models_in(Record) | _models_in(JobRequest)
    fields = "".join(f"{model.__name__}{sorted(model.model_fields.items())!r}" for model in models)
    digest = hashlib.sha256(_ADDRESS.sub("", fields).encode())
    return f"{hpcbench.__version__} {digest.hexdigest()[:16]}"


def _models_in(kind: object) -> dict[type[BaseModel], None]:
    """Return the models that a type holds, in a fixed order."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        parts = [field.annotation for field in kind.model_fields.values()]
        return {kind: None} | {model: None for part in parts for model in _models_in(part)}
    return {model: None for part in get_args(kind) for model in _models_in(part)}


class _Bases:
    """Models in full, to which many others are written as their differences."""

    def __init__(self) -> None:
        self.new: list[BaseModel] = []
        """Those that the next line has."""
        self._num_known = 0
        self._by_form: dict[object, list[tuple[int, BaseModel]]] = {}

    def difference(self, model: BaseModel, form: object) -> list[Any]:
        """Return the number of a base and what differs from it; `form` is what models that are alike share."""
        known = self._by_form.setdefault(form, [])
        for place, (number, base) in enumerate(known):
            try:
                change = differences(model, base)
            except NotAlike:
                continue
            known.insert(0, known.pop(place))  # the next one is probably like this one
            return [number, change]
        self.new.append(model)
        known.insert(0, (self._num_known, model))
        del known[MOST_BASES:]
        self._num_known += 1
        return [self._num_known - 1, {}]


def _encode(jobs: Mapping[JobRef, IndexedJob]) -> Iterator[dict[str, Any]]:
    """Yield the lines of an index: some jobs each, so that reading one holds little beside what it returns."""
    requests, args, records = _Bases(), _Bases(), _Bases()
    numbers: dict[int, int] = {}  # a training and its evals share their arguments
    for some in _batches(jobs.items(), JOBS_PER_LINE):
        new_args, rows = [], []
        for (experiment, job), found in some:
            asked, record = found.request.args, found.record
            if asked is not None and id(asked) not in numbers:
                numbers[id(asked)] = len(numbers)
                new_args.append(args.difference(asked, None))
            request = requests.difference(found.request.model_copy(update={"args": None}), job)
            left = None if record is None else records.difference(record, (job, record.state, type(record.metrics)))
            place = None if asked is None else numbers[id(asked)]
            rows.append([experiment, job, found.request_signature, request, place, found.record_signature, left])
        bases = {name: bases.new for name, bases in (("requests", requests), ("args", args), ("records", records))}
        yield {"bases": bases, "args": new_args, "jobs": rows}
        for each in (requests, args, records):
            each.new = []


def _batches(items: Iterable[ItemT], size: int) -> Iterator[list[ItemT]]:
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


def _decode(lines: Iterable[Any]) -> Iterator[tuple[JobRef, IndexedJob]]:
    requests: list[JobRequest] = []
    bases: list[SftArgs] = []
    args: list[SftArgs] = []
    records: list[Record] = []
    for line in lines:
        requests += map(JobRequest.model_validate, line["bases"]["requests"])
        bases += map(SftArgs.model_validate, line["bases"]["args"])
        records += map(Record.model_validate, line["bases"]["records"])
        args += (changed(bases[number], change) for number, change in line["args"])
        for experiment, job, asked_at, (number, change), place, left_at, left in line["jobs"]:
            request = changed(requests[number], {**change, "args": None if place is None else args[place]})
            record = None if left is None else changed(records[left[0]], left[1])
            yield (
                (experiment, job),
                IndexedJob(
                    request,
                    FileSignature(*asked_at),
                    record,
                    None if left_at is None else FileSignature(*left_at),
                ),
            )


def needs_writing(known: Mapping[JobRef, IndexedJob], jobs: Mapping[JobRef, IndexedJob]) -> bool:
    """Return whether so much is new that writing all of it pays."""
    new = sum(known.get(ref) is not found for ref, found in jobs.items())
    return len(jobs) >= MIN_JOBS and new > MIN_NEW_SHARE * len(jobs)
