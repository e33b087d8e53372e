"""Small suites for Slurm tests: commands instead of training, so that only the scheduler is slow.

In: what a test wants. Out: suites, and helpers that wait for the queue. Never a mock: all of it runs on the real test
Slurm.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from hpcbench.plan.decide import Options
from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.scheduler.slurm.scheduler import SlurmScheduler
from hpcbench.schemas.arguments import CommandArgs, EvalArgs
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.collection import Collection, JobView
from hpcbench.schemas.request import Resources
from hpcbench.schemas.states import ALIVE
from hpcbench.schemas.suite import Experiment, Suite
from hpcbench.status.gather import gather
from hpcbench.submit.carry_out import submit_suite
from hpcbench.submit.destination import Destination
from hpcbench.submit.send_arrays import SubmitResult

TINY = Resources(gpu=0, cpus=1, mem_gb=0.1, time_min=10)
NOT_CLIENTS = frozenset(
    {
        "REQUEST_STATS_INFO",  # sdiag
        "MESSAGE_NODE_REGISTRATION_STATUS",
        "MESSAGE_EPILOG_COMPLETE",
        "REQUEST_COMPLETE_BATCH_SCRIPT",
        "REQUEST_STEP_COMPLETE",
        "ACCOUNTING_UPDATE_MSG",
        "ACCOUNTING_REGISTER_CTLD",
    }
)
"""What slurmd, slurmstepd and slurmdbd send by themselves."""
# A shell and not Python, so that two hundred of them start quickly.
SCORE = ("sh", "-c", 'echo "{\\"acc\\": 0.5, \\"num_samples\\": 4}" > "$HPCBENCH_METRICS"')


def command_experiment(
    name: str,
    command: Sequence[str],
    *,
    evals: Sequence[str] = (),
    suite: str = "commands",
    resources: Resources = TINY,
) -> Experiment:
    """Return an experiment whose train job runs a program, with evals that write a score."""
    return Experiment(
        suite=suite,
        name=name,
        cmd="command",
        device="cpu",
        requirements=resources,
        eval_requirements=TINY,
        eval_dataset=tuple(evals),
        eval_args={dataset: EvalArgs(command=SCORE) for dataset in evals},
        command=CommandArgs(command=tuple(command)),
    )


def command_suite(experiments: Sequence[Experiment]) -> Suite:
    """Return a suite of such experiments."""
    return Suite(name=experiments[0].suite, file=Path("commands.yaml"), experiments=tuple(experiments))


def submit(
    suite: Suite, save_dir: Path, *, options: Options | None = None, profile: ClusterProfile | None = None
) -> SubmitResult:
    """Submit to the test Slurm."""
    destination = Destination(save_dir=save_dir, scheduler=SlurmScheduler(profile or ClusterProfile(), save_dir))
    return submit_suite(suite, destination, options or Options())


def wait_until(condition: Callable[[], bool], *, what: str, timeout_s: float = 300) -> None:
    """Wait until a condition holds; the default leaves time to a busy machine."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            queue = run_command(["squeue", "-r", "--states=all"])
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}\n{queue}")
        time.sleep(0.5)


def wait_until_over(save_dir: Path, *, timeout_s: float = 300) -> Collection:
    """Wait until no job of any suite is under way; return the collection."""
    found: list[Collection] = []

    def over() -> bool:
        found[:] = [gather(save_dir)]
        return not any(job.state in ALIVE for job in found[0].jobs)

    wait_until(over, timeout_s=timeout_s, what="jobs under way")
    return found[0]


def view(collection: Collection, experiment: str, job: str) -> JobView:
    """Return one job."""
    return next(v for v in collection.jobs if v.experiment == experiment and v.job == job)


def states(collection: Collection, job: str) -> dict[str, str]:
    """Return the state of each experiment's job of this name."""
    return {v.experiment: v.state.value for v in collection.jobs if v.job == job}


def hpcbench(*arguments: str, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would."""
    done = subprocess.run(
        [sys.executable, "-m", "hpcbench", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
        env=os.environ,
    )
    assert "Traceback" not in done.stderr, done.stderr
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def count_rpcs(*kinds: str) -> dict[str, int]:
    """Return how often slurmctld served each kind of message, by sdiag."""
    found = count_client_rpcs()
    return {kind: found[kind] for kind in kinds}


def count_client_rpcs() -> Counter[str]:
    """Return how often slurmctld served each kind of message, sdiag's own and those of its daemons left out."""
    text = run_command(["sdiag"])
    by_type = text.partition("by message type")[2].partition("by user")[0]
    found = re.findall(r"^\s*(\w+)\s*\(\s*\d+\)\s+count:(\d+)", by_type, re.MULTILINE)
    return Counter({kind: int(count) for kind, count in found if kind not in NOT_CLIENTS})


def write_suite(path: Path, value: object) -> Path:
    """Write a suite as JSON, which is YAML too."""
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
