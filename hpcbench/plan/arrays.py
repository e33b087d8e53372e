"""Which jobs go out together: arrays of one shape, and eval arrays whose index means the same experiment.

In: decisions. Out: batches, and the submissions that describe them. Pure but for the key, which is unique by time and
chance, and for the user's name.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from hpcbench.plan.decide import Decision
from hpcbench.schemas.request import TRAIN, JobRequest
from hpcbench.schemas.submission import Element, Submission, this_user
from hpcbench.storage.clock import now_text

KEY_LIMIT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Jobs of one shape that go out as one array, and their evals, which wait for the element of the same index."""

    job: str
    requests: Mapping[int, JobRequest]
    evals: tuple[Batch, ...] = ()
    array: bool = True
    """False for a single job, where arrays are not allowed."""


def make_batches(decisions: Sequence[Decision], max_array: int) -> list[Batch]:
    """Group jobs of one shape into arrays; evals follow their train job at the same index (pure).

    Jobs without a train come first: arrays start in index order and baselines are short. A `max_array` of 1 makes
    single jobs.
    """
    waiting = [decision.request for decision in decisions if decision.after_train]
    alone = [decision.request for decision in decisions if not decision.after_train]
    evals_of: dict[str, list[JobRequest]] = {}
    for request in waiting:
        evals_of.setdefault(request.experiment, []).append(request)
    groups: dict[tuple[str, str], list[JobRequest]] = {}
    for request in sorted(alone, key=lambda request: request.job == TRAIN):
        kind = "train" if request.job == TRAIN else "eval"
        groups.setdefault((kind, _resource_shape(request)), []).append(request)
    batches = []
    for (kind, _), requests in groups.items():
        for start in range(0, len(requests), max_array):
            chunk = dict(enumerate(requests[start : start + max_array]))
            evals = _eval_batches(chunk, evals_of, array=max_array > 1)
            batches.append(Batch(job=kind, requests=chunk, evals=evals, array=max_array > 1))
    return batches


def _eval_batches(
    chunk: Mapping[int, JobRequest], evals_of: Mapping[str, list[JobRequest]], *, array: bool
) -> tuple[Batch, ...]:
    groups: dict[tuple[str, str], dict[int, JobRequest]] = {}
    for index, train in chunk.items():
        for request in evals_of.get(train.experiment, []) if train.job == TRAIN else []:
            groups.setdefault((request.job, _resource_shape(request)), {})[index] = request
    return tuple(Batch(job=job, requests=requests, array=array) for (job, _), requests in groups.items())


def make_late_batches(
    decisions: Sequence[Decision], places: Mapping[tuple[str, str], tuple[Submission, int]]
) -> list[tuple[Submission, Batch]]:
    """Group evals whose train job is under way from an earlier submit, at its index there (pure).

    Args:
        decisions: those to carry out.
        places: the newest submission and index of each (experiment, job).

    Returns:
        Batches, each with the submission of its train jobs.
    """
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
        (parents[key], Batch(job=job, requests=requests, array=parents[key].array))
        for (key, job, _), requests in groups.items()
    ]


def take_part(batch: Batch, indices: Sequence[int]) -> Batch:
    """Return the batch of some of its indices, renumbered from 0, evals together with their trains (pure)."""
    renumbered = {old: new for new, old in enumerate(indices)}
    requests = {renumbered[i]: r for i, r in batch.requests.items() if i in renumbered}
    evals = tuple(
        Batch(job=e.job, requests={renumbered[i]: r for i, r in e.requests.items() if i in renumbered}, array=e.array)
        for e in batch.evals
        if any(i in renumbered for i in e.requests)
    )
    return Batch(job=batch.job, requests=requests, evals=evals, array=batch.array)


def describe_batch(batch: Batch, cluster: str, after: Submission | None) -> Submission:
    """Return the submission that a batch would make."""
    first = next(iter(batch.requests.values()))
    return Submission(
        key=make_key(first.suite, batch.job),
        suite=first.suite,
        cluster=cluster,
        submitter=this_user(),
        created_at=now_text(),
        after_key=None if after is None else after.key,
        array=batch.array,
        resources=first.resources,
        elements={
            index: Element(experiment=request.experiment, job=request.job, fingerprint=request.fingerprint)
            for index, request in batch.requests.items()
        },
    )


def make_key(suite: str, job: str) -> str:
    """Return a unique scheduler job name for one submission."""
    stamp = datetime.now(UTC).strftime("%y%m%d%H%M%S")
    tail = f"-{stamp}-{secrets.token_hex(4)}"
    head = re.sub(r"[^A-Za-z0-9._-]", "_", f"{suite}-{job}")
    return head[: KEY_LIMIT - len(tail)] + tail


def _resource_shape(request: JobRequest) -> str:
    """Return what must be equal for two jobs to share an array."""
    return request.resources.model_dump_json()
