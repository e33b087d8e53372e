"""The environment variables that carry something from one process of hpcbench to another, or to a user's program.

What a job has to know of the cluster's profile is not among them: that stands in its submission (`JobSettings`).
"""

from __future__ import annotations

from typing import Final

from hpcbench.processes.process_tree import TOKEN_VARIABLE

SUBMISSION: Final = "HPCBENCH_SUBMISSION"
"""On sbatch: key of the submission that it makes, so that one which outlived its submit is found."""

LOCAL_ID: Final = "HPCBENCH_LOCAL_ID"
"""On a job of the local queue: the id of its element."""
LOCAL_RESTART_COUNT: Final = "HPCBENCH_LOCAL_RESTART_COUNT"
"""On a job of the local queue: how often it was put back into the queue, as SLURM_RESTART_COUNT."""
LOCAL_TOKEN: Final = TOKEN_VARIABLE
"""On all processes of one start of a job of the local queue: marks them for its runner."""

SETUP_FAILURES: Final = "HPCBENCH_SETUP_FAILURES"
"""On a job of a cluster: the `setup` lines of the profile that failed, one a line, with their exit codes."""

CLAIM: Final = "HPCBENCH_CLAIM"
"""On all processes of a job: token of its claim, read again before a checkpoint is put in place."""
TOKENIZED_DATA: Final = "HPCBENCH_TOKENIZED_DATA"
"""On the ranks of a training: folder of tokenized rows, where there is one."""
TOKENIZED_DATA_PER_NODE: Final = "HPCBENCH_TOKENIZED_DATA_PER_NODE"
"""On the ranks of a training: 1 where that folder is another one on each node."""
ATTEMPT: Final = "HPCBENCH_ATTEMPT"
"""For a user's program: folder of this attempt."""
SUITE: Final = "HPCBENCH_SUITE"
"""For a user's program: name of its suite."""
EXPERIMENT: Final = "HPCBENCH_EXPERIMENT"
"""For a user's program: name of its experiment."""
METRICS: Final = "HPCBENCH_METRICS"
"""For a user's program: file that it may write its figures to."""
CHECKPOINT: Final = "HPCBENCH_CHECKPOINT"
"""For a user's eval program: folder of the model, empty where there is none."""
