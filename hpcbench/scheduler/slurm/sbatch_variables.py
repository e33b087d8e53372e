"""Which of the user's variables sbatch may see: an SBATCH_X beats the `#SBATCH --x` of the script.

Pure. Source of the names: INPUT ENVIRONMENT VARIABLES of sbatch(1), Slurm 22.05 to 25.05.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hpcbench.schemas import variables
from hpcbench.schemas.cluster_profile import ClusterProfile

# They say which Slurm all its commands talk to, and who asks.
KEPT_SLURM = frozenset({"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT"})
# Hidden always: sbatch would wait for the job's end, single jobs would become arrays, and jobs would go where squeue,
# which knows only SLURM_CLUSTERS, does not look for them.
BREAKING = frozenset({"SBATCH_WAIT", "SBATCH_ARRAY_INX", "SBATCH_CLUSTERS"})

_GPUS = frozenset(
    {
        f"SBATCH_{name}"
        for name in ("GRES", "GPUS", "GPUS_PER_NODE", "GPUS_PER_SOCKET", "GPUS_PER_TASK", "TRES_PER_TASK")
    }
)
_MEMORY = frozenset({"SBATCH_MEM_PER_NODE", "SBATCH_MEM_PER_CPU", "SBATCH_MEM_PER_GPU"})
_REQUEUE = frozenset({"SBATCH_REQUEUE", "SBATCH_NO_REQUEUE"})
# Where an option has another variable than its name, or more than one stands against it.
_VARIABLES: Mapping[str, frozenset[str]] = {
    "array": frozenset({"SBATCH_ARRAY_INX"}),
    "time": frozenset({"SBATCH_TIMELIMIT"}),
    "switches": frozenset({"SBATCH_REQ_SWITCH", "SBATCH_WAIT4SWITCH"}),
    # Both streams go into one file.
    "output": frozenset({"SBATCH_OUTPUT", "SBATCH_ERROR"}),
    # Slurm refuses two ways of asking for one thing.
    "cpus-per-task": frozenset({"SBATCH_CPUS_PER_TASK", "SBATCH_CPUS_PER_GPU", "SBATCH_TRES_PER_TASK"}),
    **dict.fromkeys(("gres", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "tres-per-task"), _GPUS),
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), _MEMORY),
    **dict.fromkeys(("requeue", "no-requeue"), _REQUEUE),
}

_OPTION_LINE = re.compile(r"#SBATCH --([A-Za-z][A-Za-z0-9_-]*)")


def hidden_variables(environ: Mapping[str, str], script: str, profile: ClusterProfile) -> list[str]:
    """Return the names of the variables that the submission of a script must not see (pure).

    SLURM_* of an enclosing job goes; an SBATCH_X goes where the script says something else, where the GPUs are the
    suite's to say (also none), and where it would break hpcbench.
    """
    ours = set(BREAKING)
    for option in rendered_options(script):
        ours |= _VARIABLES.get(option, {f"SBATCH_{option.upper().replace('-', '_')}"})
    if profile.gpu_flag is not None:
        ours |= _GPUS
    enclosing = {name for name in environ if name.startswith(("SLURM_", "PMI_", "PMIX_")) and name not in KEPT_SLURM}
    # Within a job: that job's own.
    enclosing |= {variables.SUBMISSION} & environ.keys()
    return sorted(enclosing | (ours & environ.keys()))


def rendered_options(script: str) -> list[str]:
    """Return the long options that a script's #SBATCH lines give (pure)."""
    found = []
    for line in script.split("\n"):
        if line and not line.startswith("#"):
            break  # as sbatch does at the first command
        if match := _OPTION_LINE.match(line):
            found.append(match[1])
    return found


def describe_kept(environ: Mapping[str, str], scripts: Sequence[str], profile: ClusterProfile) -> list[str]:
    """Return a line for each SBATCH_ variable that goes along with some of these scripts (pure)."""
    names = sorted(name for name in environ if name.startswith("SBATCH_"))
    hidden = [set(hidden_variables(environ, script, profile)) for script in scripts]
    lines = []
    for name in names:
        kept = sum(name not in each for each in hidden)
        jobs = "every job" if kept == len(scripts) else f"{kept} of {len(scripts)} submissions"
        value = environ[name] if environ[name].isprintable() else repr(environ[name])
        lines += [f"{name}={value} of your environment goes with {jobs}"] if kept else []
    return lines


def in_clean_environment(
    command: Sequence[str], environ: Mapping[str, str], *, script: str, profile: ClusterProfile, key: str
) -> list[str]:
    """Return the command, started by `env` without what an enclosing job or shell would add to a script (pure).

    submitit takes no environment for sbatch, so this process would have to change its own. The key goes along, since
    sbatch may outlive this process.
    """
    hidden = [f"--unset={name}" for name in hidden_variables(environ, script, profile)]
    return ["env", *hidden, f"{variables.SUBMISSION}={key}", *command]
