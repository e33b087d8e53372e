"""Which local files are which split of an eval task."""

from __future__ import annotations

from typing import Any

import pytest

from hpcbench.data.split_choice import check_one_file_each, choose_splits
from hpcbench.errors import WorkerError

GSM8K = {"training_split": "train", "fewshot_split": "train", "test_split": "test", "num_fewshot": 5}
CEVAL = {"validation_split": "val", "fewshot_split": "dev"}
ARC = {"training_split": "train", "validation_split": "validation", "test_split": "test"}


@pytest.mark.parametrize(
    ("config", "local_data", "shots", "patterns", "absent"),
    [
        (GSM8K, {"train": "/a", "test": "/b"}, None, {"train": "/a", "test": "/b"}, ()),
        (GSM8K, {"evaluated": "/b"}, 0, {"test": "/b"}, ("training_split", "fewshot_split")),
        (CEVAL, {"dev": "/d", "val": "/v", "test": "/t"}, 5, {"val": "/v", "dev": "/d"}, ()),
        (CEVAL, {"valid": "/v"}, 0, {"val": "/v"}, ("fewshot_split",)),
        (ARC, {"test": "/b", "train": "/a"}, 5, {"test": "/b", "train": "/a"}, ("validation_split",)),
    ],
)
def test_splits_have_the_files_that_are_named_for_them(
    config: dict[str, Any],
    local_data: dict[str, str],
    shots: int | None,
    patterns: dict[str, str],
    absent: tuple[str, ...],
) -> None:
    choice = choose_splits("t", config, local_data, shots)
    assert choice.patterns == patterns
    assert set(choice.absent) == set(absent)


@pytest.mark.parametrize(
    ("config", "local_data", "shots", "message", "hint"),
    [
        (
            GSM8K,
            {"evaluated": "/b"},
            None,
            "t: its 5 solved examples are of its split 'train', and local_data has that of the questions alone",
            "local_data: {train: FILE, test: FILE}, or num_fewshot: 0",
        ),
        (
            CEVAL,
            {"dev": "/d"},
            0,
            "t: local_data has no split 'val', which it evaluates, but dev",
            "local_data: {val: FILE}",
        ),
    ],
)
def test_a_split_that_is_needed_and_not_there_is_named(
    config: dict[str, Any], local_data: dict[str, str], shots: int | None, message: str, hint: str
) -> None:
    with pytest.raises(WorkerError) as caught:
        choose_splits("t", config, local_data, shots)
    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_several_tasks_do_not_share_one_file() -> None:
    with pytest.raises(WorkerError) as caught:
        check_one_file_each("eval dataset 'arc'", ["arc_easy", "arc_challenge"], {"test": "/a.jsonl"})
    assert caught.value.message == (
        "eval dataset 'arc': local_data gives 2 tasks (arc_easy, arc_challenge) one file: /a.jsonl"
    )
    check_one_file_each("eval dataset 'arc'", ["arc_easy"], {"test": "/a.jsonl"})
