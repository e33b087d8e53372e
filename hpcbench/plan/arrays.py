"""Which jobs go out together: arrays of one shape, and behind them arrays of the jobs that take their models.

Along such a chain of arrays, of any length, the same index means the same chain of jobs.

Pure but for the key, which is unique by time and chance, and for the user's name.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from hpcbench.plan.decide import Decision
from hpcbench.schemas.request import JobRef, JobRequest, Resources
from hpcbench.schemas.submission import Element, Submission, this_user
from hpcbench.storage.clock import now_text

KEY_LIMIT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class JobArray:
    """Jobs of one shape that go out as one array, and behind it those that take their models.

    Each of those waits for the element of the same index.
    """

    key: str
    """The submission's key, which is the scheduler's job name."""
    job: str
    requests: Mapping[int, JobRequest]
    children: tuple[JobArray, ...] = ()
    array: bool = True
    """False for a single job, where arrays are not allowed."""

    @property
    def num_jobs(self) -> int:
        """Jobs in it and behind it."""
        return len(self.requests) + sum(child.num_jobs for child in self.children)


def new_array(
    job: str, requests: Mapping[int, JobRequest], *, children: tuple[JobArray, ...] = (), array: bool
) -> JobArray:
    """Return these jobs as an array under a new key."""
    key = make_key(next(iter(requests.values())).suite, job)
    return JobArray(key=key, job=job, requests=requests, children=children, array=array)


def make_arrays(decisions: Sequence[Decision], max_array: int) -> list[JobArray]:
    """Group jobs of one shape into arrays, others behind their parents; a `max_array` of 1 makes single jobs."""
    children = _by_parent(decisions)
    groups: dict[tuple[str, Resources], list[JobRequest]] = {}
    for request in _first(decisions):
        kind = "eval" if request.cmd == "eval" else request.job
        groups.setdefault((kind, request.resources), []).append(request)
    return [
        _array_with_children(kind, dict(enumerate(requests[start : start + max_array])), children, array=max_array > 1)
        for (kind, _), requests in groups.items()
        for start in range(0, len(requests), max_array)
    ]


def _first(decisions: Sequence[Decision]) -> list[JobRequest]:
    """Return the jobs that wait for none, in the order in which they start: baselines are short."""
    found = [decision.request for decision in decisions if not decision.after_parent]
    return sorted(found, key=lambda request: request.cmd != "eval")


def _by_parent(decisions: Sequence[Decision]) -> dict[JobRef, list[JobRequest]]:
    children: dict[JobRef, list[JobRequest]] = {}
    for decision in decisions:
        parent = decision.request.parent
        if decision.after_parent and parent is not None:
            children.setdefault(parent, []).append(decision.request)
    return children


def _array_with_children(
    job: str, requests: Mapping[int, JobRequest], children: Mapping[JobRef, list[JobRequest]], *, array: bool
) -> JobArray:
    behind = {index: children[request.ref] for index, request in requests.items() if request.ref in children}
    arrays = tuple(_array_with_children(name, found, children, array=array) for name, found in _group_children(behind))
    return new_array(job, requests, children=arrays, array=array)


def _group_children(behind: Mapping[int, Sequence[JobRequest]]) -> list[tuple[str, dict[int, JobRequest]]]:
    """Group the children of the jobs at each index by name and shape; of two alike, one goes into another group."""
    groups: dict[tuple[str, Resources, int], dict[int, JobRequest]] = {}
    for index, requests in behind.items():
        alike: Counter[tuple[str, Resources]] = Counter()
        for request in requests:
            kind = (request.job, request.resources)
            groups.setdefault((*kind, alike[kind]), {})[index] = request
            alike[kind] += 1
    return [(job, found) for (job, _, _), found in groups.items()]


def make_late_arrays(
    decisions: Sequence[Decision], places: Mapping[JobRef, tuple[Submission, int]]
) -> list[tuple[Submission, JobArray]]:
    """Group the jobs whose parent is under way from an earlier submit, at its index there (the newest in `places`)."""
    going = {decision.request.ref for decision in decisions}
    children = _by_parent(decisions)
    parents: dict[str, Submission] = {}
    behind: dict[str, dict[int, list[JobRequest]]] = {}
    for parent, requests in children.items():
        if parent not in going and parent in places:
            submission, index = places[parent]
            parents[submission.key] = submission
            behind.setdefault(submission.key, {})[index] = requests
    return [
        (parents[key], _array_with_children(job, found, children, array=parents[key].array))
        for key, at_index in behind.items()
        for job, found in _group_children(at_index)
    ]


def take_part(whole: JobArray, indices: Sequence[int]) -> JobArray:
    """Return the array of some of its indices, renumbered from 0, children together with their parents."""
    renumbered = {old: new for new, old in enumerate(indices)}

    def take(array: JobArray) -> JobArray:
        requests = {renumbered[i]: request for i, request in array.requests.items() if i in renumbered}
        children = tuple(take(child) for child in array.children if not renumbered.keys().isdisjoint(child.requests))
        return new_array(array.job, requests, children=children, array=array.array)

    return take(whole)


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
