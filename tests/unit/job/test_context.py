"""What a job is given by its submission, or by the batch script of an earlier version."""

from __future__ import annotations

from pathlib import Path

from hpcbench.job.context import read_context
from hpcbench.schemas.submission import JobSettings, write_submission
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import SuitePaths
from tests.support.job_cases import submission

EXPORTS = {
    "HPCBENCH_SIGNAL_LEAD_S": "60",
    "HPCBENCH_RELEASE_EVALS": "0",
    "HPCBENCH_SCRATCH": "/scratch/$USER",
    "HPCBENCH_KEEP": "adapter",
}
SETTINGS = JobSettings(signal_lead_s=60.0, release_evals=False, scratch="/scratch/$USER", keep="adapter")


def test_the_submission_carries_the_profiles_settings(tmp_path: Path) -> None:
    paths = SuitePaths(tmp_path, "tuners")
    sent = submission(settings=SETTINGS)
    write_submission(paths, sent)
    assert read_context(paths.submission(sent.key), min(sent.elements), {}).settings == SETTINGS


def test_a_job_that_an_earlier_version_submitted_reads_what_its_script_exports(tmp_path: Path) -> None:
    paths = SuitePaths(tmp_path, "tuners")
    sent = submission()
    write_submission(paths, sent)
    file = paths.submission(sent.key)
    value = read_json(file)
    assert value is not None
    del value["settings"]
    write_json(file, value)
    assert read_context(file, min(sent.elements), EXPORTS).settings == SETTINGS
    assert read_context(file, min(sent.elements), {}).settings == JobSettings()
