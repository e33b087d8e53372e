"""Which jobs go out together: arrays of one shape, and eval arrays whose index means the same experiment.

Pure but for the key, which is unique by time and chance, and for the user's name.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from hpcbench.plan.decide import Decision
from hpcbench.schemas.request import TRAIN, JobRef, JobRequest
from hpcbench.schemas.submission import Element, Submission, this_user
from hpcbench.storage.clock import now_text

KEY_LIMIT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class JobArray:
    """Jobs of one shape that go out as one array, and their evals, which wait for the element of the same index."""

    key: str
    """The submission's key, which is the scheduler's job name."""
    job: str
    requests: Mapping[int, JobRequest]
    evals: tuple[JobArray, ...] = ()
    array: bool = True
    """False for a single job, where arrays are not allowed."""

    @property
    def num_jobs(self) -> int:
        """Jobs in it, evals included."""
        return len(self.requests) + sum(len(evals.requests) for evals in self.evals)


def new_array(
    job: str, requests: Mapping[int, JobRequest], *, evals: tuple[JobArray, ...] = (), array: bool
) -> JobArray:
    """Return these jobs as an array under a new key."""
    key = make_key(next(iter(requests.values())).suite, job)
    return JobArray(key=key, job=job, requests=requests, evals=evals, array=array)


def make_arrays(decisions: Sequence[Decision], max_array: int) -> list[JobArray]:
    """Group jobs of one shape into arrays, evals at their train job's index; a `max_array` of 1 makes single jobs."""
    waiting = [decision.request for decision in decisions if decision.after_train]
    alone = [decision.request for decision in decisions if not decision.after_train]
    evals_of: dict[str, list[JobRequest]] = {}
    for request in waiting:
        evals_of.setdefault(request.experiment, []).append(request)
    groups: dict[tuple[str, str], list[JobRequest]] = {}
    for request in sorted(alone, key=lambda request: request.job == TRAIN):  # start order; baselines are short
        kind = "train" if request.job == TRAIN else "eval"
        groups.setdefault((kind, _resource_shape(request)), []).append(request)
    arrays = []
    for (kind, _), requests in groups.items():
        for start in range(0, len(requests), max_array):
            chunk = dict(enumerate(requests[start : start + max_array]))
            evals = _eval_arrays(chunk, evals_of, array=max_array > 1)
            arrays.append(new_array(kind, chunk, evals=evals, array=max_array > 1))
    return arrays


def _eval_arrays(
    chunk: Mapping[int, JobRequest], evals_of: Mapping[str, list[JobRequest]], *, array: bool
) -> tuple[JobArray, ...]:
    groups: dict[tuple[str, str], dict[int, JobRequest]] = {}
    for index, train in chunk.items():
        for request in evals_of.get(train.experiment, []) if train.job == TRAIN else []:
            groups.setdefault((request.job, _resource_shape(request)), {})[index] = request
    return tuple(new_array(job, requests, array=array) for (job, _), requests in groups.items())


def make_late_arrays(
    decisions: Sequence[Decision], places: Mapping[JobRef, tuple[Submission, int]]
) -> list[tuple[Submission, JobArray]]:
    """Group evals whose train job is under way from an earlier submit, at its index there (the newest in `places`)."""
    trains = {decision.request.experiment for decision in decisions if decision.request.job == TRAIN}
    parents: dict[str, Submission] = {}
    groups: dict[tuple[str, str, str], dict[int, JobRequest]] = {}
    for decision in decisions:
        request = decision.request
        place = places.get((request.experiment, TRAIN))
        if decision.after_train and request.experiment not in trains and place is not None:
            parents[place[0].key] = place[0]
            groups.setdefault((place[0].key, request.job, _resource_shape(request)), {})[place[1]] = request
    return [
        (parents[key], new_array(job, requests, array=parents[key].array)) for (key, job, _), requests in groups.items()
    ]


def take_part(whole: JobArray, indices: Sequence[int]) -> JobArray:
    """Return the array of some of its indices, renumbered from 0, evals together with their trains."""
    renumbered = {old: new for new, old in enumerate(indices)}

    def take(array: JobArray, evals: tuple[JobArray, ...] = ()) -> JobArray:
        requests = {renumbered[i]: request for i, request in array.requests.items() if i in renumbered}
        return new_array(array.job, requests, evals=evals, array=array.array)

    return take(whole, tuple(take(evals) for evals in whole.evals if not renumbered.keys().isdisjoint(evals.requests)))


def describe_array(array: JobArray, cluster: str, after: Submission | None) -> Submission:
    """Return the submission that an array makes."""
    first = next(iter(array.requests.values()))
    return Submission(
        key=array.key,
        suite=first.suite,
        cluster=cluster,
        submitter=this_user(),
        created_at=now_text(),
        after_key=None if after is None else after.key,
        array=array.array,
        resources=first.resources,
        elements={
            index: Element(experiment=request.experiment, job=request.job, fingerprint=request.fingerprint)
            for index, request in array.requests.items()
        },
    )


def make_key(suite: str, job: str) -> str:
    """Return a unique scheduler job name for one submission."""
    stamp = datetime.now(UTC).strftime("%y%m%d%H%M%S")
    tail = f"-{stamp}-{secrets.token_hex(4)}"
    head = re.sub(r"[^A-Za-z0-9._-]", "_", f"{suite}-{job}")
    return head[: KEY_LIMIT - len(tail)] + tail


def _resource_shape(request: JobRequest) -> str:
    return request.resources.model_dump_json()
