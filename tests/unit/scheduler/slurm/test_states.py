"""What squeue, sacct and sbatch print, and what is made of it. The texts were recorded on Slurm 22.05.8."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbench.errors import SchedulerError
from hpcbench.scheduler.slurm.script import parse_job_id, signal_lead_s
from hpcbench.scheduler.slurm.states import (
    SLURM_STATES,
    compress_indices,
    group_elements,
    parse_indices,
    parse_sacct,
    parse_squeue,
    translate_state,
)
from hpcbench.schemas.states import JobState

SQUEUE = """\
15_10|15|10|PENDING|N/A|None|aftercorr:14_*(unfulfilled)|commands-eval-score-261121045218-b61e7265
14_0|14|0|RUNNING|2026-11-21T04:52:19|None|(null)|commands-train-261121045218-6f87bffa
20|20|N/A|PENDING|2026-11-21T12:00:00|Resources|(null)|single-train-261121045218-00000000
slurm_load_jobs: a banner | with bars
16|16|N/A|COMPLETED|2026-11-21T04:50:00|None|(null)|a|name|with bars
"""

SACCT = """\
14_0|COMPLETED|0:0|commands-train-261121045218-6f87bffa
14_20|FAILED|1:0|commands-train-261121045218-6f87bffa
712_[0-3]|CANCELLED by 0|0:0|other
713|TIMEOUT|0:0|single
"""


def test_squeue_rows_are_read_and_banners_are_not() -> None:
    rows = list(parse_squeue(SQUEUE))
    assert [(row.job_id, row.index, row.state) for row in rows] == [
        ("15", 10, JobState.PENDING),
        ("14", 0, JobState.RUNNING),
        ("20", None, JobState.PENDING),
        ("16", None, JobState.COMPLETED),
    ]
    assert [row.has_dependency for row in rows] == [True, False, False, False]
    assert rows[0].expected_start is None
    assert rows[2].expected_start == "2026-11-21T12:00:00"
    assert rows[3].name == "a|name|with bars"


def test_sacct_rows_are_read_and_unsplit_arrays_expanded() -> None:
    rows = [(row.job_id, row.index, row.state, row.exit_code) for row in parse_sacct(SACCT)]
    assert rows[:2] == [("14", 0, JobState.COMPLETED, "0:0"), ("14", 20, JobState.FAILED, "1:0")]
    assert [(row[0], row[1]) for row in rows[2:6]] == [("712", 0), ("712", 1), ("712", 2), ("712", 3)]
    assert rows[6] == ("713", None, JobState.TIMEOUT, "0:0")


@given(st.text())
def test_no_text_breaks_the_parsers(text: str) -> None:
    list(parse_squeue(text))
    list(parse_sacct(text))
    parse_indices(text)


@pytest.mark.parametrize(
    ("text", "indices"),
    [
        ("7", [7]),
        ("[0-3]", [0, 1, 2, 3]),
        ("[0-2,9%2]", [0, 1, 2, 9]),
        ("[0-6:3]", [0, 3, 6]),
        ("N/A", [None]),
        ("", [None]),
    ],
)
def test_array_expressions(text: str, indices: list[int | None]) -> None:
    assert parse_indices(text) == indices


@given(st.sets(st.integers(0, 500), min_size=1))
def test_indices_survive_compression(indices: set[int]) -> None:
    assert parse_indices(compress_indices(sorted(indices))) == sorted(indices)


def test_every_slurm_state_is_mapped_and_unknown_words_are_alive(caplog: pytest.LogCaptureFixture) -> None:
    assert translate_state("CANCELLED by 1000") is JobState.CANCELLED
    assert translate_state("NODE_FAIL+") is JobState.NODE_FAILED
    assert translate_state("HIBERNATING") is JobState.UNKNOWN
    assert "HIBERNATING" in caplog.text
    assert JobState.UNKNOWN not in SLURM_STATES.values()


@pytest.mark.parametrize("text", ["123\n", "Welcome to job 2 of the day!\n123\n", "123;cluster\n"])
def test_the_job_id_is_the_line_that_is_nothing_else(text: str) -> None:
    assert parse_job_id(text) == "123"


def test_no_job_id_is_an_error() -> None:
    with pytest.raises(SchedulerError, match="printed no job id"):
        parse_job_id("Submitted, thank you\n")


@pytest.mark.parametrize(("time_min", "lead_s"), [(1, 30), (2, 60), (5, 60), (10, 120), (60, 300), (2880, 300)])
def test_the_warning_signal_leaves_most_of_the_time_limit(time_min: int, lead_s: int) -> None:
    assert signal_lead_s(time_min) == lead_s


@given(st.lists(st.tuples(st.integers(1, 3), st.none() | st.integers(0, 3000)), max_size=60))
def test_grouped_elements_are_the_same_elements(jobs: list[tuple[int, int | None]]) -> None:
    ids = [str(base) if index is None else f"{base}_{index}" for base, index in jobs]
    found = set()
    for word in group_elements(ids):
        base, _, indices = word.partition("_")
        found |= {(int(base), index) for index in parse_indices(indices)}
    # A job is either single or an array; where a test says both, the elements stand for it.
    arrays = {base for base, index in jobs if index is not None}
    assert found == {(base, index) for base, index in jobs if index is not None or base not in arrays}


def test_many_ranges_of_one_array_are_several_words() -> None:
    words = group_elements([f"7_{index}" for index in range(0, 2000, 2)])
    assert [len(parse_indices(word.partition("_")[2])) for word in words] == [500, 500]
