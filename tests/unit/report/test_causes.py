"""Jobs that ended for the same reason are put together."""

from __future__ import annotations

import pytest

from hpcbench.report.causes import cause_key, group_by_cause
from hpcbench.schemas.states import JobState


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("losses are not finite since step 120 of 500", "losses are not finite since step 7 of 1,000"),
        ("Tried to allocate 2.00 GiB", "Tried to allocate 512.00 GiB"),
        ("KeyError: 'lora_A'", "KeyError: 'lora_B'"),
        ("/logs/a/train/output.log: no space left", "/logs/b/eval/output.log: no space left"),
    ],
)
def test_numbers_names_and_folders_make_no_other_cause(first: str, second: str) -> None:
    assert cause_key(JobState.FAILED, first) == cause_key(JobState.FAILED, second)


def test_other_texts_and_other_states_are_other_causes() -> None:
    keys = {
        cause_key(JobState.FAILED, "exit code 3"),
        cause_key(JobState.TIMEOUT, "exit code 3"),
        cause_key(JobState.FAILED, "killed by signal 9"),
    }
    assert len(keys) == 3


def test_large_groups_come_first_and_keep_their_order() -> None:
    items = [("a", "once"), ("b", "step 1"), ("c", "step 2"), ("d", "other")]
    groups = group_by_cause(items, lambda item: (JobState.FAILED, item[1]))
    assert groups == [[("b", "step 1"), ("c", "step 2")], [("a", "once")], [("d", "other")]]
