"""The job request: everything that decides what one job does, as `job.json`.

In: what the plan resolved on the login node. Out: the only thing that goes into a job. It holds no torch, no profile
setting (partition, account) and nothing executable: a job reads values, never code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpcbench.errors import RecordError
from hpcbench.schemas.arguments import CommandArgs, EvalArgs, ExportArgs, FrameworkArgs, InferArgs, SftArgs
from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import folder_name

SCHEMA_VERSION = 1
TRAIN = "train"
"""Job name of the training of an experiment, or of its command."""
EXPORT = "export"
INFER = "infer"
VLLM: Final = "vllm"
"""The engine, its module, and the environment of a profile that has it."""
EVAL_PREFIX = "eval-"

Command = Literal["sft", "pt", "rlhf", "export", "infer", "eval", "command"]
TRAININGS: Final[frozenset[Command]] = frozenset({"sft", "pt", "rlhf"})
Framework = Literal["llamafactory", "ms_swift", "trl", "axolotl"]
FRAMEWORKS: Final[tuple[Framework, ...]] = get_args(Framework)
"""Other frameworks that train in place of hpcbench: commands of suites, and names of environments of a profile."""
Device = Literal["cuda", "cpu"]
JobRef = tuple[str, str]
"""Experiment and job: one job of a suite."""


def needed_environment(
    cmd: Command, args: SftArgs | None, infer: InferArgs | None = None, framework: Framework | None = None
) -> str | None:
    """Return the profile's environment that the main job of an experiment runs in, None for the usual Python.

    Evals run in the usual one: what a training leaves are ordinary checkpoints.
    """
    if framework is not None and cmd in TRAININGS:
        return framework
    if infer is not None and cmd == INFER:
        return VLLM if infer.infer_backend == VLLM else None
    return "unsloth" if args is not None and cmd in TRAININGS and args.tuner_backend == "unsloth" else None


class Resources(BaseModel):
    """What one job asks the scheduler for."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    gpu: int = Field(ge=0, default=1)
    """GPUs in all, over all nodes."""
    ddp: int = Field(ge=1, default=1)
    """Data-parallel ranks in all; each gets gpu / ddp GPUs."""
    nodes: int = Field(ge=1, default=1)
    gpu_type: str | None = None
    """Type as the cluster names it, for example a100."""
    cpus_per_gpu: int | None = Field(ge=1, default=None)
    cpus: int | None = Field(ge=1, default=None)
    """CPU cores per node; by default cpus_per_gpu x GPUs, without GPUs one per rank."""
    mem_gb: float | None = Field(gt=0, default=None)
    """Host memory per node in GiB."""
    time_min: int | None = Field(ge=1, default=None)
    """Time limit in minutes; None takes the profile's."""
    partition: str | None = None
    exclude: str | None = None
    """Nodes not to run on, as Slurm writes them, for example node3,node[7-9]."""

    def cpus_per_node(self, usual_per_gpu: int | None) -> int:
        """Return the CPU cores to ask for on each node; `usual_per_gpu` is the profile's `cpus_per_gpu`."""
        if self.cpus is not None:
            return self.cpus
        ranks = -(-self.ddp // self.nodes)
        gpus = -(-self.gpu // self.nodes)
        return max(ranks, gpus * (self.cpus_per_gpu or usual_per_gpu or 1), 1)


class JobRequest(BaseModel):
    """One job as the scheduler will run it (`job.json`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    schema_version: Literal[1] = 1
    suite: str
    experiment: str
    job: str
    """`train`, `export`, `infer` or `eval-<dataset>`; also the name of the job's folder, so that an odd
    dataset's is shortened."""
    cmd: Command
    """sft, pt and rlhf train, export makes a model folder, infer answers prompts, eval evaluates `eval_dataset`,
    command runs `command.command`."""
    fingerprint: str
    """SHA-256 (hex) of everything that decides the result; see `plan.fingerprint`."""
    inputs: dict[str, str] = Field(default_factory=dict)
    """Hash of each local file or folder that the job reads, as it was submitted; the job compares them at its start."""
    train_folder: str | None = None
    """Folder of the job whose model this one takes, its parent; None where it takes none, as an untrained baseline.
    Absolute."""
    train_fingerprint: str | None = None
    """Fingerprint that the parent's record must carry."""
    device: Device = "cuda"
    resources: Resources
    env: dict[str, str] = Field(default_factory=dict)
    args: SftArgs | None = None
    """Training arguments; evals carry their train's, for model, template and system prompt."""
    command: CommandArgs | None = None
    export: ExportArgs | None = None
    """Set for export alone, as the next is for infer alone; both have their model, template and data in `args`."""
    infer: InferArgs | None = None
    framework: Framework | None = None
    """What trains in place of hpcbench; set for trainings alone, as the next is."""
    framework_args: FrameworkArgs | None = None
    eval_dataset: str | None = None
    """Evaluation dataset by the name in the suite: a task or group of lm-eval, or a name of SWIFT 2.x such as `arc`."""
    eval_args: EvalArgs | None = None
    repeat: int | None = None
    """Number of this repetition (from 0), or None."""
    base_experiment: str | None = None
    """Name before `repeats` expanded it; rows with the same base are averaged in the report."""
    max_attempts: int = Field(ge=1, default=10)
    """Starts that time limits, preemption and node failures may use up."""
    info: dict[str, Any] = Field(default_factory=dict)
    """Free text of the user; carried into the record."""
    suite_file: str = ""
    source_of: dict[str, str] = Field(default_factory=dict)
    """Where each argument came from: default, suite, experiment, matrix or --set."""

    @property
    def ref(self) -> JobRef:
        """Its experiment and job."""
        return self.experiment, self.job

    @property
    def eval_task(self) -> str | None:
        """lm-eval task or group behind the eval dataset, or the name that stands for one; None for other jobs."""
        named = None if self.eval_args is None else self.eval_args.task
        return named or self.eval_dataset

    @property
    def trains(self) -> bool:
        """Whether it is a training."""
        return self.cmd in TRAININGS

    @property
    def parent(self) -> JobRef | None:
        """The job of the same suite whose model this one takes, and which it waits for."""
        if self.train_folder is None:
            return None
        folder = Path(self.train_folder)
        return folder.parent.name, folder.name

    @property
    def parent_name(self) -> str:
        """How a message about this job names its parent."""
        return name_parent(self.experiment, self.parent or (self.experiment, TRAIN))

    @property
    def environment(self) -> str | None:
        """The profile's environment that its worker runs in, None for the usual Python."""
        return needed_environment(self.cmd, self.args, self.infer, self.framework)

    @property
    def program(self) -> tuple[str, ...]:
        """The user's program that the job runs; empty where hpcbench's worker runs."""
        if self.cmd == "command" and self.command is not None:
            return self.command.command
        if self.cmd == "eval" and self.eval_args is not None:
            return self.eval_args.command
        return ()


def read_request(path: Path) -> JobRequest:
    """Read a `job.json`.

    Raises:
        RecordError: the file is missing, broken, or of another schema version.
    """
    value = read_json(path)
    if value is None:
        raise RecordError(f"{path}: no valid job request", hint="run `hpcbench submit` again to write it anew")
    try:
        return JobRequest.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RecordError(
            f"{path}: not a job request of schema version {SCHEMA_VERSION}: {place}: {first['msg']}",
            hint="jobs have to run the hpcbench that submitted them: see `python` and `setup` of the cluster profile",
        ) from error


def main_job(cmd: Command) -> str | None:
    """Return the job name of an experiment's own job, None for one that has evals alone."""
    if cmd == "eval":
        return None
    return cmd if cmd in {EXPORT, INFER} else TRAIN


def name_parent(experiment: str, parent: JobRef) -> str:
    """Return how a message about a job of `experiment` names its parent: `its train job`, `the train job of lora`."""
    owner, job = parent
    return f"its {job} job" if owner == experiment else f"the {job} job of {owner}"


def eval_job_name(dataset: str) -> str:
    """Return the job name of one eval dataset, which is its folder's too."""
    return f"{EVAL_PREFIX}{folder_name(dataset)}"
