"""Jobs that ended for the same reason, put together.

In: jobs with a state and a cause. Out: groups, the largest first. Texts that differ in numbers, names in quotes or
folders alone tell the same cause.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from hpcbench.schemas.states import JobState

_PATH = re.compile(r"(?<![\w/])/(?:[^\s/:'\"]+/)*[^\s/:'\",;)]+")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")

Item = TypeVar("Item")


def cause_key(state: JobState, text: str) -> tuple[JobState, str]:
    """Return what is equal for jobs that ended alike: the state, and the text without what differs from job to job.

    >>> cause_key(JobState.TIMEOUT, "stopped at step 120 of 500, see /logs/a/output.log")[1]
    'stopped at step # of #, see …'
    """
    return state, _NUMBER.sub("#", _QUOTED.sub("'…'", _PATH.sub("…", text)))


def group_by_cause(items: Iterable[Item], read: Callable[[Item], tuple[JobState, str]]) -> list[list[Item]]:
    """Return the items in groups of the same cause, large groups first, else in the order of their first item."""
    groups: dict[tuple[JobState, str], list[Item]] = {}
    for item in items:
        groups.setdefault(cause_key(*read(item)), []).append(item)
    return sorted(groups.values(), key=len, reverse=True)
