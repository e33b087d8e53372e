"""Refusals as sbatch 22.05 words them, and which of them pass when some jobs are done."""

from __future__ import annotations

import pytest

from hpcbench.submit.send_arrays import job_limit

POLICY = (
    "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)


@pytest.mark.parametrize(
    ("message", "some_were_taken", "limit"),
    [
        (f"QOSMaxSubmitJobPerUserLimit; {POLICY}", False, "QOSMaxSubmitJobPerUserLimit"),
        (f"AssocMaxSubmitJobLimit; {POLICY}", False, "AssocMaxSubmitJobLimit"),
        (f"AssocGrpSubmitJobsLimit; {POLICY}", True, "AssocGrpSubmitJobsLimit"),
        (f"QOSMaxWallDurationPerJobLimit; {POLICY}", True, None),
        (f"QOSMaxGRESPerJob; {POLICY}", True, None),
        (POLICY, True, POLICY),
        (POLICY, False, None),
        ("Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)", True, None),
        ("Batch job submission failed: Invalid account or account/partition combination specified", True, None),
        ("Batch job submission failed: Invalid job array specification", False, None),
        ("you have reached the limit of 100 queued jobs", True, "you have reached the limit of 100 queued jobs"),
    ],
)
def test_only_a_limit_on_the_number_of_jobs_passes(message: str, some_were_taken: bool, limit: str | None) -> None:
    assert job_limit(message, some_were_taken=some_were_taken) == limit
