"""Setup lines of a profile that fail: noted by the batch script, as bash runs it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hpcbench.job.environment import setup_failures
from hpcbench.scheduler.slurm.script import render_script
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.storage.paths import SuitePaths
from tests.support.job_cases import submission

FUNCTIONS = 'module() { false; [ "$2" != missing ]; }; conda() { false; ls /nowhere 2>/dev/null; true; }'
"""As those of sites: commands within them fail all the time, and their own exit code says whether they worked."""


def run_setup(folder: Path, *setup: str) -> tuple[list[str], str]:
    """Return what a job learns of these lines, and what they leave in Slurm's log."""
    paths = SuitePaths(folder, "tuners")
    mine = submission()
    paths.start_marks(mine.key).mkdir(parents=True)
    text = render_script(mine, profile=ClusterProfile(setup=(FUNCTIONS, *setup)), paths=paths, after_id=None)
    head, _, _ = text.partition("srun --unbuffered")
    script = folder / "slurm_script"
    script.write_text(f'{head}printf "%s" "$HPCBENCH_SETUP_FAILURES"; false\n', encoding="utf-8")
    environ = {"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "1", "HPCBENCH_SETUP_FAILURES": "of the job that submitted"}
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=False, env=environ, cwd=folder)
    return setup_failures({"HPCBENCH_SETUP_FAILURES": done.stdout}), done.stderr


@pytest.mark.parametrize(
    "line",
    [
        "module load cuda",
        "conda activate base",
        "module unload missing || true",
        "if false; then true; fi",
        "! false",
        "false | true",
        'for name in a b; do [ "$name" = b ] || continue; done',
        "source ./fails_inside.sh",
        "export A=$(false; echo x)",
    ],
)
def test_lines_that_work_leave_nothing(line: str, tmp_path: Path) -> None:
    (tmp_path / "fails_inside.sh").write_text("false\nls /nowhere 2>/dev/null\ntrue\n", encoding="utf-8")
    assert run_setup(tmp_path, line) == ([], "")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("module load missing", 1),
        ("source ./nowhere/bin/activate 2>/dev/null", 1),
        ("source ./returns.sh", 5),
        ("cd /nowhere 2>/dev/null", 1),
        ("no-such-command 2>/dev/null", 127),
    ],
)
def test_a_line_that_fails_is_noted_as_the_profile_has_it(line: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "returns.sh").write_text("false\nreturn 5\n", encoding="utf-8")
    found, log = run_setup(tmp_path, "export BEFORE=1", line, "export AFTER=1")
    assert found == [f"{line} (exit code {code})"]
    assert log == f"hpcbench: setup line failed (exit code {code}): {line}\n"


def test_several_failures_are_noted_each_and_those_of_an_enclosing_job_are_not(tmp_path: Path) -> None:
    found, _ = run_setup(tmp_path, "module load missing", "true", "false 'a b'")
    assert found == ["module load missing (exit code 1)", "false 'a b' (exit code 1)"]
