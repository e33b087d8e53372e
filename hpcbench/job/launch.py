"""The command line and environment of what a job runs: worker, torchrun, or any program; no shell sees them (pure)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcbench.job.context import JobContext
from hpcbench.job.disk import expand_scratch
from hpcbench.processes.start import module_command
from hpcbench.schemas import variables
from hpcbench.schemas.notes import WAITS
from hpcbench.schemas.request import JobRequest
from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import TOKENS, AttemptPaths

RENDEZVOUS_S = 7200
"""How long the other nodes wait for the first, which may have terabytes of inputs to compare."""
OFFLINE: Final = dict.fromkeys(
    ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE"), "1"
)
"""Jobs download nothing, unless the user's environment says otherwise."""
PORT_BASE = 10000
PORT_RANGE = 50000


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to start on this node."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path
    is_program: bool  # a user's program: it gets signals itself, and its exit code alone decides


def build_launch(
    request: JobRequest,
    context: JobContext,
    *,
    attempt: AttemptPaths,
    token: str,
    environ: Mapping[str, str],
    checkpoint: Path | None = None,
    python: str | None = None,
    waits: bool = False,
) -> Launch:
    """Return what to run for a request; workers check the claim's `token` before they put a checkpoint in place.

    `python` is that of the request's environment, None the supervisor's. A worker that `waits` stays for another job.
    """
    env = job_environment(request, context, attempt=attempt, token=token, environ=environ)
    program = request.program
    if program:
        values = {"{checkpoint}": str(checkpoint or ""), "{experiment}": request.experiment, "{suite}": request.suite}
        argv = tuple(_fill(word, values) for word in program)
        env |= {variables.METRICS: str(attempt.values), variables.CHECKPOINT: str(checkpoint or "")}
        cwd = Path(request.command.cwd) if request.command is not None and request.command.cwd else attempt.folder
        return Launch(argv=argv, env=env, cwd=cwd, is_program=True)
    words = (str(context.paths.folder), str(attempt.folder), *((WAITS,) if waits else ()))
    worker = module_command("hpcbench.worker", *words, python=python)
    # A framework starts its own ranks.
    is_alone = request.resources.ddp == 1 or request.framework is not None
    launcher = [] if is_alone else torchrun(request, context, python)
    return Launch(argv=(*launcher, *worker), env=env, cwd=attempt.folder, is_program=False)


def torchrun(request: JobRequest, context: JobContext, python: str | None = None) -> list[str]:
    """Return torchrun's part of the command line for this node; the command that each rank runs follows."""
    # The launcher must outlive Slurm's signals, on which the supervisor alone acts: --signals-to-handle.
    ranks = request.resources.ddp // context.num_nodes
    options = (f"--nproc-per-node={ranks}", "--signals-to-handle=SIGQUIT")
    base = module_command("torch.distributed.run", *options, python=python)
    base += ["--no-python"]  # its own `python -m` has no -P
    if context.num_nodes == 1:
        return [*base, "--standalone"]  # a free port of its own: two jobs may share a node
    number = int("".join(c for c in context.scheduler_id if c.isdigit()) or "0")
    return [
        *base,
        f"--nnodes={context.num_nodes}",
        f"--node-rank={context.node_rank}",
        "--rdzv-backend=c10d",
        f"--rdzv-id={context.scheduler_id}-{context.restart_count}",
        f"--rdzv-endpoint={head_host(context)}:{PORT_BASE + number % PORT_RANGE}",
        # The head compares the inputs before it opens the store; torch 2.11 waits a minute for it otherwise.
        f"--rdzv-conf=read_timeout={RENDEZVOUS_S}",
    ]


def head_host(context: JobContext) -> str:
    """Return the first node's name, as its supervisor wrote it into the claim."""
    claim = read_json(context.paths.claim)
    return str(claim["host"]) if claim is not None and "host" in claim else context.host


def node_caches(context: JobContext, environ: Mapping[str, str]) -> Path:
    """Return the node-local folder for what compilers cache during this job; it goes with the job."""
    return _node_disk(environ) / f"hpcbench-{environ.get('USER', 'user')}-{context.scheduler_id}"


def token_folder(context: JobContext, environ: Mapping[str, str]) -> Path:
    """Return the folder of tokenized rows, which outlives the job."""
    if context.settings.tokenized_data == "node":
        return _node_disk(environ) / f"hpcbench-{environ.get('USER', 'user')}{TOKENS}"
    scratch = context.settings.scratch
    return (expand_scratch(scratch) if scratch else context.suite_paths.save_dir.absolute()) / TOKENS


def _node_disk(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("SLURM_TMPDIR") or environ.get("TMPDIR") or "/tmp")  # noqa: S108  # node-local on purpose


def job_environment(
    request: JobRequest, context: JobContext, *, attempt: AttemptPaths, token: str, environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables of the job: inherited, ours, then the experiment's `env`, which wins."""
    caches = node_caches(context, environ)
    ours = {
        variables.CLAIM: token,
        variables.ATTEMPT: str(attempt.folder),
        variables.SUITE: request.suite,
        variables.EXPERIMENT: request.experiment,
        "PYTHONUNBUFFERED": "1",  # a killed process loses what it has buffered
        "PYTHONFAULTHANDLER": "1",  # a crash in compiled code then says where Python was
        "TOKENIZERS_PARALLELISM": "false",  # its threads may deadlock in forked data loader workers
        # Shared file systems lock badly; these caches are cheap to fill again.
        "TRITON_CACHE_DIR": str(caches / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "TORCH_EXTENSIONS_DIR": str(caches / "extensions"),
    }
    if request.trains:
        is_per_node = context.settings.tokenized_data == "node"
        ours[variables.TOKENIZED_DATA] = str(token_folder(context, environ))
        ours[variables.TOKENIZED_DATA_PER_NODE] = str(int(is_per_node))
    if "OMP_NUM_THREADS" not in environ:  # torchrun would set it to 1 for several ranks
        ours["OMP_NUM_THREADS"] = str(max(1, _cores(environ) // max(1, request.resources.ddp // context.num_nodes)))
    if request.device == "cpu":
        ours["CUDA_VISIBLE_DEVICES"] = ""
    kept = {name: value for name, value in environ.items() if name not in {"RANK", "WORLD_SIZE", "LOCAL_RANK"}}
    return {**OFFLINE, **kept, **ours, **request.env}


def _cores(environ: Mapping[str, str]) -> int:
    asked = environ.get("SLURM_CPUS_PER_TASK", "")
    available = len(os.sched_getaffinity(0))
    return min(int(asked), available) if asked.isdigit() else available


def _fill(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word
