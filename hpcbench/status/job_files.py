"""The requests and records of one suite's jobs: each file is read once, and not at all where the index knows it.

In: a suite's folder and its submissions. Out: validated values, None where a file is missing or unusable. Only records
that a scheduler or a further attempt may still change are read once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.record import Record, parse_record
from hpcbench.schemas.request import JobRef, JobRequest
from hpcbench.schemas.shared_values import SharedFieldNames, scalar_differences, variant
from hpcbench.schemas.submission import Submission
from hpcbench.status.job_state import is_final
from hpcbench.status.suite_index import IndexedJob, index_file, is_settled, needs_writing, read_index, write_index
from hpcbench.storage.json_files import JsonObject, read_signed_json, signature_of

Latest = Mapping[JobRef, tuple[Submission, int]]
"""The newest submission of each job, and the job's index in it."""

_TO_SECONDS = len("2026-07-01T08:00:00")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPlace:
    """Where an index is kept, and the time."""

    cache_folder: Path
    now_s: float
    """Seconds since 1970, before anything is read."""


class JobFiles:
    """Requests and records of a suite by experiment and job."""

    def __init__(self, suite_folder: Path, latest: Latest, index: IndexPlace | None = None) -> None:
        """Open a suite; without a place for an index every file is read."""
        self._folder = str(suite_folder)
        self._latest = latest
        self._index = None if index is None else index_file(index.cache_folder, suite_folder)
        self._now_s = 0.0 if index is None else index.now_s
        self._known: Mapping[JobRef, IndexedJob] = {} if self._index is None else read_index(self._index)
        self._settled: dict[JobRef, IndexedJob] = {}
        self._read: dict[JobRef, tuple[JobRequest | None, Record | None]] = {}
        self._parser = _Parser()

    def request(self, ref: JobRef) -> JobRequest | None:
        """Return what a job was asked, or None where its `job.json` cannot be used."""
        return self._of(ref)[0]

    def record(self, ref: JobRef) -> Record | None:
        """Return what a job had left when it was looked at first, or None where its `record.json` cannot be used."""
        return self._of(ref)[1]

    def record_by_now(self, ref: JobRef) -> Record | None:
        """Return the same, read once more unless nothing can change it any more."""
        record = self.record(ref)
        if record is None and signature_of(self._path(ref, "record.json")) is None:
            return None
        if record is None or not is_final(record):
            self._read_anew(ref)
        return self._read[ref][1]

    def write_index(self) -> None:
        """Write the index where enough of what was read is not in it yet."""
        if self._index is not None and needs_writing(self._known, self._settled):
            write_index(self._index, self._settled)

    def _path(self, ref: JobRef, name: str) -> str:
        return f"{self._folder}/{ref[0]}/{ref[1]}/{name}"

    def _of(self, ref: JobRef) -> tuple[JobRequest | None, Record | None]:
        found = self._read.get(ref)
        if found is None:
            known = self._known.get(ref)
            if known is None or self._may_be_seen_late(ref, known) or not self._is_unchanged(ref, known):
                self._read_anew(ref)
            else:
                self._read[ref] = known.request, known.record
                self._settled[ref] = known
            found = self._read[ref]
        return found

    def _is_unchanged(self, ref: JobRef, known: IndexedJob) -> bool:
        return (
            signature_of(self._path(ref, "job.json")) == known.request_signature
            and signature_of(self._path(ref, "record.json")) == known.record_signature
        )

    def _may_be_seen_late(self, ref: JobRef, known: IndexedJob) -> bool:
        """Return whether the files may have been replaced without being seen: NFS shows states of a minute ago.

        Opening a file makes a network file system look anew, asking for its state does not. A final record is only
        ever replaced after another submission.
        """
        if ref not in self._latest:
            return False
        submission, index = self._latest[ref]
        if submission.job_at(index, ref).fingerprint != known.request.fingerprint:
            return True
        ended = "" if known.record is None else known.record.finished_at
        return known.record is not None and ended[:_TO_SECONDS] <= submission.created_at[:_TO_SECONDS]

    def _read_anew(self, ref: JobRef) -> None:
        asked = read_signed_json(self._path(ref, "job.json"))
        left = read_signed_json(self._path(ref, "record.json"))
        request = None if asked is None else self._parser.request(asked[0])
        is_same = asked is not None and left is not None and left[0].get("request") == asked[0]
        if is_same and request is not None and left is not None:
            left[0]["request"] = {"max_attempts": request.max_attempts}
        record = None if left is None else self._parser.record(left[0])
        self._read[ref] = request, record
        self._settled.pop(ref, None)
        if request is None or asked is None or not is_settled(asked[1], self._now_s):
            return
        if left is None:
            self._settled[ref] = IndexedJob(request, asked[1])
        elif is_same and record is not None and is_final(record) and is_settled(left[1], self._now_s):
            self._settled[ref] = IndexedJob(request, asked[1], record, left[1])


class _Parser:
    """Values of many jobs; what is the same in most of them is held once."""

    def __init__(self) -> None:
        self._args: tuple[object, SftArgs | None] = (None, None)
        self._source_of: tuple[object, dict[str, str]] = (None, {})
        self._base: SftArgs | None = None
        self._last: dict[str, object] = {}
        self._field_names = SharedFieldNames()

    def request(self, value: JsonObject) -> JobRequest | None:
        """Return a validated request; the arguments of a training and its evals are validated once."""
        raw, source_of = value.get("args"), value.get("source_of")
        try:
            request = JobRequest.model_validate({**value, "args": None})
            if raw is not None and raw != self._args[0]:
                self._args = raw, self._alike(SftArgs.model_validate(raw))
        except ValidationError:
            return None
        if source_of != self._source_of[0]:
            self._source_of = source_of, request.source_of
        args = None if raw is None else self._args[1]
        return request.model_copy(update={"args": args, "source_of": self._source_of[1]})

    def _alike(self, args: SftArgs) -> SftArgs:
        """Return the same arguments, sharing what they have in common with the first ones."""
        self._base = self._base or args
        changes = scalar_differences(args, self._base)
        return args if changes is None else variant(self._base, changes)

    def record(self, value: JsonObject) -> Record | None:
        """Return a validated record."""
        environment = value.get("environment")
        if isinstance(environment, dict):
            for name, part in environment.items():
                environment[name] = self._shared(name, part)
        record = parse_record(value)
        if record is not None:
            for model in (record, record.metrics, *record.attempts):
                if model is not None:
                    self._field_names.share(model)
        return record

    def _shared(self, name: str, value: object) -> object:
        if not isinstance(value, dict):
            return value
        last = self._last.setdefault(name, value)
        if last == value:
            return last
        self._last[name] = value
        return value
