"""What the requests and final records of a large suite hold, in one file of the user's cache that may go at any time.

In: requests and records that were read, with the signatures of their files. Out: the same values again, as long as the
files have these signatures. The suite's own folder is not written to. DECISIONS.md says what makes an entry valid.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, to_json

import hpcbench
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.record import Record
from hpcbench.schemas.request import JobRef, JobRequest
from hpcbench.schemas.shared_values import scalar_differences, variant
from hpcbench.storage.json_files import FileSignature, read_json, write_bytes

logger = logging.getLogger(__name__)

MIN_JOBS: Final = 50
"""Smaller suites are read in a few hundredths of a second."""
MIN_NEW_SHARE: Final = 0.05
"""Part of the entries that has to be new before the file is written once more: reading a few is faster."""
MIN_AGE_S: Final = 10.0
"""A file that changed later than this before it was read may change again without another signature."""
UNUSED_AFTER_S: Final = 30 * 86400.0

_OF_EACH_REQUEST = (
    "experiment",
    "fingerprint",
    "repeat",
    "base_experiment",
    "train_folder",
    "train_fingerprint",
)
"""The fields of a request that differ from job to job, beside `args`; the rest is kept once for all jobs."""
_BLANK = {**dict.fromkeys(_OF_EACH_REQUEST), "experiment": "", "fingerprint": "", "args": None}
_OF_EACH_RECORD = frozenset(
    {"experiment", "fingerprint", "started_at", "finished_at", "attempts", "metrics", "cause", "argv"}
)
_OF_EACH_ENVIRONMENT = frozenset({"host", "slurm"})
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
    value = read_json(file)
    if value is None or value.get("written_by") != _writer():
        return {}
    try:
        return dict(_decode(value))
    except (ValidationError, KeyError, IndexError, TypeError, ValueError) as error:
        logger.debug("%s: not an index (%s)", file, error)
        return {}


def write_index(file: Path, jobs: Mapping[JobRef, IndexedJob]) -> None:
    """Write the index of a suite, and remove those that nobody has written for a month; what fails is only slower."""
    try:
        content = to_json(_encode(jobs), inf_nan_mode="constants")
        write_bytes(file, content, sync=False)
        for other in file.parent.iterdir():
            if other.stat().st_mtime < time.time() - UNUSED_AFTER_S:
                other.unlink()
    except (OSError, PydanticSerializationError) as error:  # which halves of surrogate pairs, as of odd paths, raise
        logger.debug("%s: not written: %s", file, error)


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


class _Table:
    """Values by number, each kept once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[bytes, int] = {}

    def number_of(self, value: object) -> int:
        key = to_json(value, inf_nan_mode="constants")
        number = self._numbers.setdefault(key, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


class _ArgumentTable:
    """Training arguments by number: the first in full, those after it by what they have otherwise."""

    def __init__(self) -> None:
        self.bases: list[SftArgs] = []
        self.values: list[tuple[int, dict[str, object]]] = []
        self._numbers: dict[int, int] = {}

    def number_of(self, args: SftArgs | None) -> int | None:
        if args is None:
            return None
        number = self._numbers.setdefault(id(args), len(self.values))  # a training and its evals share theirs
        if number == len(self.values):
            self.values.append(self._difference(args))
        return number

    def _difference(self, args: SftArgs) -> tuple[int, dict[str, object]]:
        for number, base in enumerate(self.bases):
            changes = scalar_differences(args, base)
            if changes is not None:
                return number, changes
        self.bases.append(args)
        return len(self.bases) - 1, {}


def _encode(jobs: Mapping[JobRef, IndexedJob]) -> dict[str, Any]:
    templates, args = _Table(), _ArgumentTable()
    rows = []
    for (experiment, job), found in jobs.items():
        request = [
            templates.number_of(found.request.model_copy(update=_BLANK)),
            args.number_of(found.request.args),
            [getattr(found.request, name) for name in _OF_EACH_REQUEST],
        ]
        record = None if found.record is None else _encode_record(found.record, templates)
        rows.append([experiment, job, found.request_signature, request, found.record_signature, record])
    return {
        "written_by": _writer(),
        "templates": templates.values,
        "bases": args.bases,
        "args": args.values,
        "jobs": rows,
    }


def _encode_record(record: Record, templates: _Table) -> list[Any]:
    shared = {name: value for name, value in vars(record).items() if name not in _OF_EACH_RECORD}
    environment = record.environment
    shared["environment"] = {name: value for name, value in environment.items() if name not in _OF_EACH_ENVIRONMENT}
    own = record.model_dump(mode="json", include=set(_OF_EACH_RECORD), exclude_defaults=True)
    if record.metrics is not None:
        own["metrics"]["kind"] = record.metrics.kind  # its default, and what tells one kind from another
    return [
        templates.number_of(shared),
        {name: value for name, value in environment.items() if name in _OF_EACH_ENVIRONMENT},
        own,
    ]


def _decode(value: Mapping[str, Any]) -> Iterator[tuple[JobRef, IndexedJob]]:
    bases = [SftArgs.model_validate(base) for base in value["bases"]]
    args = [variant(bases[number], changes) for number, changes in value["args"]]
    templates = value["templates"]
    requests: dict[int, JobRequest] = {}
    for experiment, job, request_signature, request, record_signature, record in value["jobs"]:
        number, args_number, own = request
        template = requests.get(number)
        if template is None:
            template = requests[number] = JobRequest.model_validate(templates[number])
        changes = dict(zip(_OF_EACH_REQUEST, own, strict=True))
        changes["args"] = None if args_number is None else args[args_number]
        yield (
            (experiment, job),
            IndexedJob(
                variant(template, changes),
                FileSignature(*request_signature),
                None if record is None else _decode_record(record, templates),
                None if record_signature is None else FileSignature(*record_signature),
            ),
        )


def _decode_record(record: list[Any], templates: list[Any]) -> Record:
    number, environment, own = record
    shared = templates[number]
    environment = {**shared["environment"], **environment}
    return Record.model_validate({**shared, **own, "environment": environment})


def needs_writing(known: Mapping[JobRef, IndexedJob], jobs: Mapping[JobRef, IndexedJob]) -> bool:
    """Return whether so much is new that writing all of it pays."""
    new = sum(known.get(ref) is not found for ref, found in jobs.items())
    return len(jobs) >= MIN_JOBS and new > MIN_NEW_SHARE * len(jobs)
