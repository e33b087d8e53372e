"""What a local job is started with: its command line and its environment.

In: a queued element, its slots, the machine, the runner's environment. Out: lists and mappings (pure). No shell sees
them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from hpcbench.scheduler.local.queue import QueuedElement
from hpcbench.scheduler.local.slots import Machine, Start, num_threads
from hpcbench.schemas import variables
from hpcbench.schemas.submission import Submission
from hpcbench.storage.paths import SuitePaths

JobCommand = Callable[[Submission, int], list[str]]
"""Gives the command line of one element."""

SCRUBBED_PREFIXES = ("SLURM_", "SBATCH_")
"""Of an enclosing Slurm job: local jobs are none of its steps."""


def supervisor_command(save_dir: Path) -> JobCommand:
    """Return what runs an element for real: its supervisor."""

    def build(submission: Submission, index: int) -> list[str]:
        file = SuitePaths(save_dir, submission.suite).submission(submission.key)
        return [sys.executable, "-m", "hpcbench.job", str(file), "--index", str(index)]

    return build


def job_environment(
    element: QueuedElement, start: Start, *, machine: Machine, environ: Mapping[str, str], token: str, num_starts: int
) -> dict[str, str]:
    """Return the variables of one start of a job.

    Args:
        element: the job.
        start: its slots.
        machine: all slots, for its share of the cores.
        environ: what the runner itself was given; a user's OMP_NUM_THREADS is kept.
        token: marks all processes of this start.
        num_starts: how often it has been started, this start included.
    """
    env = {name: value for name, value in environ.items() if not name.startswith(SCRUBBED_PREFIXES)}
    env.setdefault("OMP_NUM_THREADS", str(num_threads(element.submission.resources, machine)))
    if start.gpus and "CUDA_VISIBLE_DEVICES" not in environ:
        # The slots are nvidia-smi's, which counts in PCI order; CUDA's own order is by speed.
        env.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    return env | {
        "CUDA_VISIBLE_DEVICES": ",".join(start.gpus),
        variables.LOCAL_ID: element.element_id,
        variables.LOCAL_RESTART_COUNT: str(num_starts - 1),
        variables.LOCAL_TOKEN: token,
    }
