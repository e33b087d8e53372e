"""The cluster profile: what differs between clusters and never between experiments.

In: nothing. Out: the values and their types; `config/profile.py` finds and reads the files.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

Keep = Literal["best", "adapter", "last", "none"]
TokenizedDataPlace = Literal["shared", "node"]
LOCAL = "local"
"""Name of this machine's own queue, which has no profile."""
PLAIN = "slurm"
"""Name of the profile that holds nothing but defaults."""


def _as_text(value: object) -> object:
    """Return a number as text: accounts and QOS made of digits are numbers to YAML."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _in_one_line(text: str) -> str:
    """Check that a text has one line: the shell would run what follows a `#SBATCH` line."""
    if not text.isprintable():
        raise ValueError("a line break or another control character")
    return text


def _check_options(options: dict[str, str | bool]) -> dict[str, str | bool]:
    for name in options:
        if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) is None:
            raise ValueError(f"{name!r} is not the name of an sbatch option")
    return options


def _check_variables(variables: dict[str, str]) -> dict[str, str]:
    for name in variables:
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is None:
            raise ValueError(f"{name!r} is not the name of an environment variable")
    return variables


def _check_environments(environments: dict[str, str]) -> dict[str, str]:
    for name, python in environments.items():
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is None:
            raise ValueError(f"{name!r} is not the name of an environment: letters, digits, `.`, `_` and `-`")
        # Jobs start in another folder, and the profile's own `python` may be looked up in PATH, which has one of each.
        if not python.startswith(("/", "~/")):
            example = f"/venvs/{name}/bin/python"
            raise ValueError(f"{name}: {python!r} is not the absolute path of a Python such as {example}")
    return environments


Text = Annotated[str, BeforeValidator(_as_text)]

Line = Annotated[str, BeforeValidator(_as_text), AfterValidator(_in_one_line)]


class Container(BaseModel):
    """Where jobs run inside an image; the batch script itself runs outside."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    image: str
    """A `.sif` file on shared storage, or anything else that `apptainer exec` takes."""
    binds: tuple[str, ...] = ()
    """Folders to see inside, `source[:target[:ro]]`; the save directory is always added."""
    nv: bool = True
    """Whether jobs with GPUs get NVIDIA's driver (`--nv`)."""
    program: Literal["apptainer", "singularity"] = "apptainer"
    """Container runtime."""
    options: tuple[str, ...] = ()
    """Any other option of `exec`, for example `--cleanenv`."""


class ClusterProfile(BaseModel):
    """How jobs are asked for on one cluster; null means that nothing is emitted."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = PLAIN
    """Name that `--cluster` takes; the file's stem where it is not set."""
    hosts: tuple[str, ...] = ()
    """Globs of login node names; `--cluster auto` takes the first profile that matches this host."""
    partition: Line | None = None
    """Partition of jobs that request none."""
    account: Line | None = None
    """Account that jobs are charged to."""
    qos: Line | None = None
    """Quality of service of all jobs."""
    gpu_flag: Literal["gres", "gpus", "gpus-per-node", "gpus-per-task"] | None = "gres"
    """The one flag that asks for GPUs."""
    mem_flag: Literal["mem", "mem-per-cpu", "mem-per-gpu"] | None = "mem"
    """The one flag that asks for host memory; jobs without a GPU take `mem` for `mem-per-gpu`."""
    mem_gb: float | None = Field(default=None, gt=0)
    """Host memory per node in GiB for jobs that request none."""
    time_min: int = Field(default=240, ge=1)
    """Time limit in minutes for jobs that request none."""
    time_max_min: int | None = Field(default=None, ge=1)
    """Longest time limit in minutes that a job may ask for; longer ones are refused before anything is queued."""
    cpus_per_gpu: int | None = Field(default=4, ge=1)
    """CPU cores per GPU for jobs that request none."""
    constraint: Line | None = None
    """Node features that all jobs require."""
    exclude: Line | None = None
    """Nodes that no job runs on, as Slurm writes them."""
    array_throttle: int | None = Field(default=None, ge=1)
    """Elements of one array that may run at once."""
    arrays: bool = True
    """False submits every job on its own, evals with afterok."""
    max_array_size: int | None = Field(default=None, ge=2)
    """One more than the largest array index; null asks `scontrol show config`."""
    max_submitted: int | None = Field(default=None, ge=1)
    """Jobs that you may have in the queue at once, array elements counted one by one; the rest stays planned."""
    poll_s: float = Field(default=30, ge=1)
    """Seconds between two scheduler queries while a command watches or waits; files are read more often."""
    release_evals: bool = True
    """Whether compute nodes may call scontrol; False caps arrays at what Slurm tests one by one."""
    kill_on_invalid_dep: bool | None = None
    """Whether Slurm cancels jobs whose dependency can never be met; null says no for evals, nothing for others."""
    requeue: bool = True
    """Whether Slurm requeues jobs after preemption and node failures."""
    setup: tuple[str, ...] = ()
    """Shell lines before the job: module load, conda or venv activation."""
    setup_failure: Literal["stop", "warn"] = "warn"
    """What becomes of a job whose `setup` line fails: stop fails it before anything runs; warn runs it, and its record
    and the report say so. A line that may fail ends with `|| true`."""
    python: str | None = None
    """Python on the compute nodes; null is the one that submits, in a container `python`."""
    environments: Annotated[dict[str, Line], AfterValidator(_check_environments)] = Field(default_factory=dict)
    """Pythons for libraries that cannot share `python`, by name, for example `{unsloth: /venvs/unsloth/bin/python}`:
    jobs with `tuner_backend: unsloth` train in that one. hpcbench need not be installed there."""
    container: Container | None = None
    """Image that jobs run in; null runs them on the node itself."""
    env: Annotated[dict[str, Text], AfterValidator(_check_variables)] = Field(default_factory=dict)
    """Environment variables of all jobs."""
    save_dir: str | None = None
    """Default of `--save-dir` on this cluster."""
    scratch: str | None = None
    """Folder on shared storage where checkpoints go instead of the save directory; `$USER` and the like are filled in
    on the node."""
    tokenized_data: TokenizedDataPlace = "shared"
    """Where tokenized rows are kept, which all ranks and attempts of a training read, and later trainings of the same
    data: `shared` is `.tokens` in `scratch`, or in the save directory; `node` is each node's own disk ($SLURM_TMPDIR,
    $TMPDIR or /tmp), where one rank of each node tokenizes. What nobody used for 30 days is removed."""
    keep: Keep | None = None
    """The checkpoint that stays once an experiment's train job and all its evals are recorded; `adapter` is the best
    one if it is an adapter, else none; null keeps all."""
    offline: bool = True
    """Whether jobs run with the hubs switched off."""
    extra_sbatch: Annotated[dict[str, Line | bool], AfterValidator(_check_options)] = Field(default_factory=dict)
    """Any other sbatch option, without dashes; true is a bare flag. Those that hpcbench writes itself are refused."""
    _file: Path | None = PrivateAttr(default=None)

    def model_post_init(self, context: Any, /) -> None:
        """Keep the file that the values were read from, which the reader gives as validation context."""
        self._file = context["file"] if context else None

    @property
    def file(self) -> Path | None:
        """Absolute path of the file that it was read from, None without one."""
        return self._file

    @model_validator(mode="after")
    def _check_times(self) -> Self:
        if self.time_max_min is not None and self.time_min > self.time_max_min:
            raise ValueError(f"time_min ({self.time_min}) is longer than time_max_min ({self.time_max_min})")
        return self
