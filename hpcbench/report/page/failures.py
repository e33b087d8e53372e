"""The failures of the page, grouped by cause.

In: the failures of a suite, as every format lists them. Out: plain JSON values: a group per cause, with its experiments
and the commands that `why` names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hpcbench.report.causes import group_by_cause
from hpcbench.report.escape import one_line, printable
from hpcbench.report.next_steps import Step
from hpcbench.report.notes_and_warnings import Failure
from hpcbench.storage.json_files import JsonObject

MOST_COMMANDS = 200
"""Of one group; the page says how many it leaves out."""


def failures_payload(failures: Iterable[Failure]) -> list[JsonObject]:
    """Return a group per cause, the largest first."""
    return [_group(members) for members in group_by_cause(failures, lambda failure: (failure.state, failure.message))]


def _group(members: Sequence[Failure]) -> JsonObject:
    first = members[0]
    hints = list(dict.fromkeys(failure.hint for failure in members if failure.hint))
    # The first step of each is to look at its log, which details hold.
    steps = list(dict.fromkeys(step for failure in members for step in failure.steps[1:2]))
    return {
        "state": first.state.value,
        "cause": one_line(first.message),
        "jobs": [[one_line(failure.experiment), one_line(failure.job)] for failure in members],
        "blocks": sum(len(failure.blocks) for failure in members),
        "hint": one_line(hints[0]) if hints else None,
        "steps": [_step(step) for step in steps[:MOST_COMMANDS]],
        "other": [_step(step) for step in first.steps[2:]],
        "left_out": max(len(steps) - MOST_COMMANDS, 0),
        "log": one_line(first.log) if first.log is not None else None,
        "lines": [printable(line) for line in first.lines],
    }


def _step(step: Step) -> list[str]:
    return [one_line(step.command), one_line(step.remark)]
