"""Evals that share a job of the real Slurm: one that crashes costs the others nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.schemas.arguments import EvalArgs, SftArgs
from hpcbench.schemas.request import Resources
from hpcbench.schemas.states import JobState
from hpcbench.schemas.suite import Experiment
from tests.support import evaluations
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import command_suite, submit, view, wait_until_over

pytestmark = [pytest.mark.slurm, pytest.mark.train]

KILL = "import os\n\n\ndef process_docs(dataset):\n    os.kill(os.getpid(), 11)\n"


@pytest.mark.long  # two starts of a worker with torch
def test_a_crash_in_the_second_of_three_fails_that_one_alone(slurm_cluster: Cluster, tmp_path: Path) -> None:
    base = evaluations.save_model(tmp_path / "base")
    tasks = tmp_path / "tasks"
    questions = [{"question": f"Where is {n}?", "choices": ["north", "south"], "answer": n % 2} for n in range(3)]
    for name in ("first", "crash", "last"):
        evaluations.write_task(tasks, name, questions, **evaluations.CHOICE_TASK)
    (tasks / "killing.py").write_text(KILL, encoding="utf-8")
    with (tasks / "crash.yaml").open("a", encoding="utf-8") as file:
        file.write("process_docs: !function killing.process_docs\n")
    names = ("first", "crash", "last")
    shared = EvalArgs(together=True, include_path=(str(tasks),))
    resources = Resources(gpu=0, cpus=1, mem_gb=2, time_min=10)
    suite = command_suite(
        [
            Experiment(
                suite="together",
                name="base",
                cmd="eval",
                device="cpu",
                requirements=resources,
                eval_requirements=resources,
                eval_dataset=names,
                eval_args=dict.fromkeys(names, shared),
                args=SftArgs(model_id_or_path=str(base), dtype="fp32"),
            )
        ]
    )

    result = submit(suite, tmp_path / "logs")

    assert (len(result.submitted), result.num_jobs) == (1, 3)
    collection = wait_until_over(tmp_path / "logs")
    found = [view(collection, "base", f"eval-{name}") for name in names]
    assert [job.state for job in found] == [JobState.COMPLETED, JobState.FAILED, JobState.COMPLETED]
    assert "killed by SIGSEGV" in found[1].reason
    ids = {job.record.attempts[-1].scheduler_id for job in found if job.record is not None}
    assert ids == {found[0].scheduler_id}
    again = submit(suite, tmp_path / "logs")
    assert again.num_jobs == 0
