"""The sbatch options that a profile's `extra_sbatch` may not name, and what to use instead.

An option that hpcbench writes itself would be given twice or replaced, and jobs would be requested, named or found in
another way than hpcbench expects.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_ONE_PROCESS = "hpcbench starts one process per node; ddp in the suite starts the ranks"
_NEVER_SUBMITS = "sbatch would not submit, or not return at once"
_LOGS = "hpcbench finds its logs by this; hpcbench logs NAME prints them"
_CPUS = "cpus_per_gpu in the profile, or requirements.cpus_per_gpu in the suite"

RESERVED: Mapping[str, str] = {
    "account": "account in the profile",
    "array": "array_throttle, arrays and max_array_size in the profile",
    "clusters": "squeue would not find the jobs; set SLURM_CLUSTERS, which hpcbench and Slurm's commands follow",
    "constraint": "constraint in the profile",
    "cpus-per-gpu": _CPUS,
    "cpus-per-task": _CPUS,
    "dependency": "hpcbench lets jobs wait for those whose model they take",
    "error": _LOGS,
    "exclude": "exclude in the profile",
    "gid": "jobs run as whoever submits them",
    "help": _NEVER_SUBMITS,
    "job-name": "hpcbench finds its jobs by their names; comment is free",
    "kill-on-invalid-dep": "kill_on_invalid_dep in the profile",
    "no-requeue": "requeue: false in the profile",
    "nodes": "requirements.nodes in the suite",
    "ntasks": _ONE_PROCESS,
    "ntasks-per-gpu": _ONE_PROCESS,
    "ntasks-per-node": _ONE_PROCESS,
    "open-mode": _LOGS,
    "output": _LOGS,
    "parsable": "hpcbench gives it on sbatch's command line",
    "partition": "partition in the profile, or requirements.partition in the suite",
    "qos": "qos in the profile",
    "requeue": "requeue in the profile",
    "signal": "hpcbench sets it by the time limit, so that jobs save a checkpoint before it",
    "test-only": f"{_NEVER_SUBMITS}; hpcbench plan --script shows what would go out",
    "time": "time_min in the profile, or requirements.time in the suite",
    "uid": "jobs run as whoever submits them",
    "usage": _NEVER_SUBMITS,
    "version": _NEVER_SUBMITS,
    "wait": f"{_NEVER_SUBMITS}; hpcbench submit --wait stays until the jobs are over",
    "wrap": "the script is hpcbench's; setup in the profile adds lines to it",
}
"""By option: what to use instead, or why it cannot be had."""

_GPU_OPTIONS = frozenset({"gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "tres-per-task"})
_GPU_INSTEAD = (
    "gpu_flag in the profile, one of gres, gpus, gpus-per-node, gpus-per-task; with gpu_flag: null any option"
)
_MEMORY_OPTIONS = frozenset({"mem", "mem-per-cpu", "mem-per-gpu"})
_MEMORY_INSTEAD = (
    "mem_flag and mem_gb in the profile, or requirements.mem_gb in the suite; with mem_flag: null any option"
)
_GPU_GRES = re.compile(r"(^|,)\s*(gres/|gres:)?gpu\b")


def reserved_option(name: str, value: object, *, gpu_flag: object, mem_flag: object) -> str | None:
    """Return what to use instead of an option (named without dashes) in `extra_sbatch`, or None where it is free.

    A `gpu_flag` or `mem_flag` of None leaves GPUs or memory to `extra_sbatch`.
    """
    if name == "gres":
        # A gres that is not a GPU is free where GPUs are requested by another option.
        taken = gpu_flag == "gres" or (gpu_flag is not None and _GPU_GRES.search(str(value)) is not None)
        return _GPU_INSTEAD if taken else None
    if name in _GPU_OPTIONS:
        return None if gpu_flag is None else _GPU_INSTEAD
    if name in _MEMORY_OPTIONS:
        return None if mem_flag is None else _MEMORY_INSTEAD
    if name in RESERVED:
        return RESERVED[name]
    # sbatch takes the beginning of an option for the whole of it.
    whole = next((option for option in sorted({*RESERVED, *_GPU_OPTIONS, "gres"}) if option.startswith(name)), None)
    return None if whole is None else f"the option's whole name (it may be read as --{whole})"
