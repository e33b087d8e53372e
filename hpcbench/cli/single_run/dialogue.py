"""A dialogue with a model at this terminal: `hpcbench infer` without a dataset.

In: the checked experiment. Out: what the worker that holds the dialogue returned. Nothing is kept, and no queue is
used: who talks to a model waits for it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path

from hpcbench.errors import EXIT_INTERRUPTED
from hpcbench.job.launch import OFFLINE
from hpcbench.processes.start import module_command
from hpcbench.schemas.request import INFER, JobRequest
from hpcbench.schemas.suite import Experiment
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import JobPaths


def converse(experiment: Experiment) -> bool:
    """Hold the dialogue; return whether it went well.

    Raises:
        KeyboardInterrupt: a person left it by Ctrl-C.
    """
    request = JobRequest(
        suite=experiment.suite,
        experiment=experiment.name,
        job=INFER,
        cmd="infer",
        fingerprint="",
        device=experiment.device,
        resources=experiment.requirements,
        env=dict(experiment.env),
        args=experiment.args,
        infer=experiment.infer,
    )
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if experiment.device == "cpu" else {}
    env = {**OFFLINE, **os.environ, "TOKENIZERS_PARALLELISM": "false", **hidden, **experiment.env}
    with tempfile.TemporaryDirectory(prefix="hpcbench-infer-") as folder:
        write_json(JobPaths(Path(folder)).request, request.model_dump(mode="json"), sync=False)
        # The terminal sends Ctrl-C to both processes; the worker alone knows whether it stops an answer or all.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            command = module_command("hpcbench.worker.infer.chat", folder)
            worker = subprocess.Popen(command, env=env, preexec_fn=_obey_interrupts)  # noqa: PLW1509  # one thread
            code = worker.wait()
        finally:
            signal.signal(signal.SIGINT, before)
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    return code == 0


def _obey_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python makes KeyboardInterrupt of it
