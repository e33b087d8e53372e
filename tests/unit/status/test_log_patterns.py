"""What the words of other programs give away."""

from __future__ import annotations

import pytest

from hpcbench.schemas.states import JobState
from hpcbench.status.log_patterns import find_cause, find_cause_without_record


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("OSError: [Errno 28] No space left on device: 'model.safetensors'", "disk_full"),
        ("OSError: [Errno 122] Disk quota exceeded", "disk_full"),
        (
            'SafetensorError: Error while serializing: IoError(Os { code: 28, kind: StorageFull, message: "No',
            "disk_full",
        ),
        ("RuntimeError: CUDA error: uncorrectable ECC error encountered", "bad_node"),
        ("RuntimeError: No CUDA GPUs are available", None),
        ("ValueError: no rows", None),
    ],
)
def test_what_any_program_gives_away(line: str, kind: str | None) -> None:
    found = find_cause(["starting", line], has_gpu=True)
    assert (None if found is None else found.type) == kind
    assert found is None or found.line == line


@pytest.mark.parametrize(
    ("state", "line", "kind"),
    [
        (JobState.FAILED, "/usr/bin/python3: No module named hpcbench", "no_package"),
        (JobState.FAILED, "slurmstepd: error: execve(): /no/python: No such file or directory", "no_python"),
        (JobState.FAILED, "/var/spool/slurmd/job7/slurm_script: line 12: module: command not found", "setup"),
        (JobState.FAILED, "ModuleCmd_Load.c(213):ERROR:105: Unable to locate a modulefile for 'cuda/99'", "setup"),
        (
            JobState.HOST_OUT_OF_MEMORY,
            "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.",
            "host_out_of_memory",
        ),
        (
            JobState.NODE_FAILED,
            "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT x DUE TO NODE FAILURE ***",
            "node_failed",
        ),
        # Another state than the one that the words are about: the scheduler's word stands.
        (JobState.NODE_FAILED, "slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.", None),
    ],
)
def test_what_slurms_log_gives_away_of_a_job_without_a_record(state: JobState, line: str, kind: str | None) -> None:
    found = find_cause_without_record(state, [line], has_gpu=True)
    assert (None if found is None else found.type) == kind


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.LOST])
def test_words_about_memory_prove_more_than_failed(state: JobState) -> None:
    found = find_cause_without_record(state, ["slurmstepd-n1: error: Exceeded job memory limit"], has_gpu=False)
    assert found is not None
    assert (found.state, found.line) == (JobState.HOST_OUT_OF_MEMORY, "Exceeded job memory limit")


def test_the_earliest_line_is_the_cause() -> None:
    lines = ["slurm_script: line 9: /venv/bin/activate: No such file or directory", "python: No module named hpcbench"]
    found = find_cause_without_record(JobState.FAILED, lines, has_gpu=False)
    assert found is not None
    assert found.type == "setup"


def test_words_about_gpus_say_nothing_of_a_job_without_one() -> None:
    lines = ["UserWarning: CUDA initialization: CUDA driver initialization failed, you might not have a CUDA gpu."]
    assert find_cause(lines, has_gpu=False) is None
    assert find_cause_without_record(JobState.FAILED, lines, has_gpu=False) is None
    assert find_cause(lines, has_gpu=True) is not None


def test_a_setup_line_that_failed_is_the_cause_only_where_nothing_else_is() -> None:
    setup = "hpcbench: setup line failed (exit code 1): module purge"
    for lines, cause in (([setup], "setup"), ([setup, "python: No module named hpcbench"], "no_package")):
        found = find_cause_without_record(JobState.FAILED, lines, has_gpu=False)
        assert found is not None
        assert found.type == cause
