"""What makes jobs fail silently, judged from what commands printed. Pure: it runs nothing and touches no disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from hpcbench.errors import PREFETCH, NotInCacheError
from hpcbench.scheduler.slurm.cluster_facts import (
    CORRESPOND_AFTER_TASK_CNT,
    correspond_count,
    max_array_size,
    scheduler_option,
)
from hpcbench.scheduler.slurm.commands import SUBMIT_COMMANDS
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.environments import MIN_PYTHON, PACKAGES, REQUIRED
from hpcbench.storage.mounts import LOCAL_TYPES, SHARED_TYPES, file_system_of

Level = Literal["ok", "warning", "error"]

NEEDED_COMMANDS = (*SUBMIT_COMMANDS, "squeue", "scancel", "scontrol")
TRAIN_PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets")
SHORT_MEMORY_S = 60
SUPERVISOR_NEEDS_S = 25
"""The supervisor gives a worker 22 s after TERM and then writes the record; see `job/supervisor.py`."""

NODE_LOCAL = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108  # places to refuse


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    level: Level
    message: str
    remedy: str = ""
    """What to do; empty when all is well."""


def check_commands(found: Mapping[str, bool]) -> Iterator[Check]:
    """Judge which commands are on PATH."""
    missing = [name for name in NEEDED_COMMANDS if not found.get(name)]
    if missing:
        remedy = "load the Slurm module, or use --cluster local"
        yield Check(name="commands", level="error", message=f"not on PATH: {', '.join(missing)}", remedy=remedy)
    else:
        yield Check(name="commands", level="ok", message=f"{', '.join(NEEDED_COMMANDS)} are there")


def check_accounting(*, has_sacct: bool, error: str | None, config: Mapping[str, str]) -> Check:
    """Judge whether ended jobs can be queried; `error` is the message of a sacct that failed."""
    off = config.get("AccountingStorageType", "").endswith("/none") or "disabled" in (error or "").lower()
    if has_sacct and error is None:
        return Check(name="accounting", level="ok", message="sacct answers")
    alone = "hpcbench uses squeue and its own records; a job killed before it starts is shown as lost"
    if off or not has_sacct:
        why = "accounting is off" if off else "no sacct on PATH"
        return Check(name="accounting", level="warning", message=why, remedy=alone)
    remedy = "try later; until it answers, ended jobs without a record are shown as unknown"
    return Check(name="accounting", level="warning", message=f"sacct does not answer: {error}", remedy=remedy)


def check_settings(config: Mapping[str, str], profile: ClusterProfile) -> Iterator[Check]:
    """Judge the cluster's settings that decide what happens to jobs."""
    if not config:
        remedy = "check whether slurmctld is up: scontrol ping"
        yield Check(name="settings", level="error", message="scontrol show config does not answer", remedy=remedy)
        return
    size = max_array_size(config)
    if size == 1 and profile.arrays:
        remedy = "set arrays: false in the profile; jobs go out one by one either way"
        yield Check(name="MaxArraySize", level="warning", message="arrays are forbidden here", remedy=remedy)
    elif profile.arrays and profile.max_array_size is not None and profile.max_array_size > size:
        message = f"{size}, and the profile says max_array_size: {profile.max_array_size}"
        remedy = f"set max_array_size: {size}, or null: Slurm refuses larger arrays"
        yield Check(name="MaxArraySize", level="error", message=message, remedy=remedy)
    else:
        yield Check(name="MaxArraySize", level="ok", message=f"{size}; larger suites go out as several arrays")
    yield _check_job_age(config)
    count = correspond_count(config)
    default = " (Slurm's default)" if count == CORRESPOND_AFTER_TASK_CNT else ""
    message = f"{count}{default}; jobs release those that take their model, so more is not needed"
    if not profile.release_evals:
        message = f"{count}{default}; arrays are capped at it (release_evals: false)"
    yield Check(name="correspond_after_task_cnt", level="ok", message=message)
    yield from _check_signals(config, profile)


def _check_job_age(config: Mapping[str, str]) -> Check:
    words = config.get("MinJobAge", "").split()
    if not words or not words[0].isdecimal():
        return Check(name="MinJobAge", level="ok", message="not named")
    age_s = int(words[0])
    accounting = not config.get("AccountingStorageType", "").endswith("/none")
    if age_s < SHORT_MEMORY_S and not accounting:
        remedy = "ask for MinJobAge=300; a job that leaves no record cannot be told from one that was lost"
        return Check(
            name="MinJobAge",
            level="warning",
            message=f"ended jobs are forgotten after {age_s} s, and accounting is off",
            remedy=remedy,
        )
    return Check(name="MinJobAge", level="ok", message=f"squeue forgets ended jobs after {age_s} s")


def _check_signals(config: Mapping[str, str], profile: ClusterProfile) -> Iterator[Check]:
    warns = scheduler_option(config, "preempt_send_user_signal", "SlurmctldParameters") is not None
    preempts = not config.get("PreemptType", "preempt/none").endswith("/none")
    told = "preempted jobs get USR2 first" if warns else "preempted jobs get TERM, then KILL"
    message = f"{'on' if warns else 'off'}; {told}" if preempts else f"{'on' if warns else 'off'}; nothing is preempted"
    yield Check(name="preempt_send_user_signal", level="ok", message=message)
    words = config.get("KillWait", "").split()
    if words and words[0].isdecimal():
        wait_s = int(words[0])
        if wait_s < SUPERVISOR_NEEDS_S:
            yield Check(
                name="KillWait",
                level="warning",
                message=f"{wait_s} s between TERM and KILL",
                remedy="a cancelled or preempted job may leave no checkpoint and no record of that attempt; "
                "periodic checkpoints (save_steps) still hold",
            )
        else:
            yield Check(name="KillWait", level="ok", message=f"{wait_s} s between TERM and KILL")
    default = config.get("JobRequeue", "unknown")
    ours = "--requeue" if profile.requeue else "--no-requeue"
    yield Check(name="JobRequeue", level="ok", message=f"{default}; hpcbench says {ours} in every script")


def check_grace(partitions: Mapping[str, Mapping[str, str]], profile: ClusterProfile) -> Iterator[Check]:
    """Show the partitions' grace before a preempted job is killed."""
    wanted = [name for name in partitions if profile.partition is None or name in profile.partition.split(",")]
    if wanted:
        shown = ", ".join(f"{name} {partitions[name].get('GraceTime', '?')} s" for name in wanted)
        yield Check(name="GraceTime", level="ok", message=shown)


def check_save_dir_place(path: str, mounts: str, *, local_mode: bool = False) -> Check:
    """Judge whether compute nodes can see a save directory."""
    _, kind = file_system_of(path, mounts)
    if local_mode:
        return Check(name="save dir", level="ok", message=f"{path} ({kind})")
    if any(kind.startswith(shared) for shared in SHARED_TYPES):
        return Check(name="save dir", level="ok", message=f"{path} is on {kind}, which nodes share")
    parents = [str(parent) for parent in (PurePosixPath(path), *PurePosixPath(path).parents)]
    if local := [place for place in NODE_LOCAL if place in parents]:
        remedy = "name a folder on storage that compute nodes see: --save-dir, or save_dir in the profile"
        return Check(name="save dir", level="error", message=f"{path}: {local[0]} is node-local", remedy=remedy)
    if kind in LOCAL_TYPES:
        remedy = "the probe job below shows whether compute nodes see it"
        return Check(name="save dir", level="warning", message=f"{path} is on {kind}, a local type", remedy=remedy)
    return Check(name="save dir", level="ok", message=f"{path} is on {kind}")


def check_probe(seen: Mapping[str, Any], profile: ClusterProfile | None, version: str) -> Iterator[Check]:
    """Judge what the probe saw where jobs run."""
    where = f"on {seen.get('host')}"
    python = f"{seen.get('python')} ({seen.get('python_version')})"
    yield Check(name="python", level="ok", message=f"{python} {where}")
    theirs = seen.get("hpcbench")
    if theirs is None:
        remedy = "install hpcbench-llm[worker] there, or name another Python: python, setup, container in the profile"
        yield Check(name="hpcbench", level="error", message=f"cannot be imported {where}", remedy=remedy)
    elif theirs != version:
        remedy = "install the same version on both sides"
        message = f"{theirs} {where}, {version} here"
        yield Check(name="hpcbench", level="warning", message=message, remedy=remedy)
    else:
        yield Check(name="hpcbench", level="ok", message=f"{theirs} {where}")
    if failed := seen.get("setup_failures"):
        stops = profile is not None and profile.setup_failure == "stop"
        remedy = "fix the line in the profile, or end it with `|| true` where it may fail"
        message = f"a line failed {where}: {'; '.join(map(str, failed))}" + ("; jobs stop there" if stops else "")
        yield Check(name="setup", level="error" if stops else "warning", message=message, remedy=remedy)
    yield from _check_packages(seen.get("packages") or {}, where)
    yield from _check_torch(seen.get("torch") or {}, profile, where)
    for name, found in (seen.get("environments") or {}).items():
        yield check_environment(name, found, where)
    yield check_hub(seen.get("hub"), profile, where)
    if profile is not None and profile.container is None and profile.release_evals and not seen.get("scontrol"):
        remedy = "set release_evals: false in the profile; arrays are then capped at correspond_after_task_cnt"
        yield Check(name="scontrol", level="warning", message=f"does not answer {where}", remedy=remedy)


def check_environment(name: str, found: Mapping[str, Any], where: str) -> Check:
    """Judge one of the profile's other Pythons by what the probe saw of it."""
    label, python = f"environment {name}", found.get("python")
    if found.get("error"):
        remedy = f"name a Python of {'.'.join(map(str, MIN_PYTHON))} or newer in environments of the profile"
        message = f"{python} does not run {where}: {found['error']}"
        return Check(name=label, level="error", message=message, remedy=remedy)
    # What an environment with a name of the user's own should hold is not known.
    if name in PACKAGES and (missing := found.get("missing")):
        packages = " ".join(
            REQUIRED.get(module) or PACKAGES.get(name if module == "swift" else module, module) for module in missing
        )
        message = f"{python} has no {', '.join(missing)} {where}"
        return Check(name=label, level="error", message=message, remedy=f"{python} -m pip install {packages}")
    return Check(name=label, level="ok", message=f"{python} ({found.get('version')}) {where}")


def _check_packages(packages: Mapping[str, str | None], where: str) -> Iterator[Check]:
    missing = [name for name in TRAIN_PACKAGES if packages.get(name) is None]
    if missing:
        remedy = "install hpcbench-llm[worker] there; only `cmd: command` runs without"
        yield Check(name="packages", level="error", message=f"missing {where}: {', '.join(missing)}", remedy=remedy)
    else:
        shown = ", ".join(f"{name} {packages[name]}" for name in TRAIN_PACKAGES)
        yield Check(name="packages", level="ok", message=shown)
    if packages.get("lm_eval") is None:
        remedy = "install hpcbench-llm[eval] there; without it only eval programs run"
        yield Check(name="lm_eval", level="warning", message=f"missing {where}", remedy=remedy)


def _check_torch(torch: Mapping[str, Any], profile: ClusterProfile | None, where: str) -> Iterator[Check]:
    asked = profile is None or profile.gpu_flag is not None
    if count := torch.get("num_gpus"):
        names = ", ".join(dict.fromkeys(torch.get("names") or ()))
        yield Check(name="GPU", level="ok", message=f"torch sees {count} x {names} {where}")
        return
    if torch.get("error"):
        why = f"torch cannot be imported {where}: {torch['error']}"
    else:
        build = torch.get("build")
        kind = "a CPU build of torch" if build is None else f"torch for CUDA {build}"
        why = f"{kind} sees no GPU {where}"
    remedy = "a GPU build of torch, the right gpu_flag and partition; suites with device: cpu run anyway"
    if profile is None:
        yield Check(name="GPU", level="warning", message=why, remedy=remedy)
    elif asked:
        yield Check(name="GPU", level="error", message=why, remedy=remedy)
    else:
        yield Check(name="GPU", level="ok", message="none asked for (gpu_flag: null)")


def check_hub(error: str | None, profile: ClusterProfile | None, where: str) -> Check:
    """Return whether the hub is in reach where jobs run, and whether they need it."""
    offline = profile is not None and profile.offline
    if error is None:
        told = "jobs do not ask it (offline: true)" if offline else "jobs may use it"
        return Check(name="hub", level="ok", message=f"in reach {where}; {told}")
    if offline:
        message = f"out of reach {where}; jobs run offline and need models and data in local folders or the cache"
        return Check(name="hub", level="ok", message=message)
    remedy = "set offline: true in the profile, and put models and data into local folders or the cache"
    level: Level = "warning" if profile is None else "error"
    return Check(name="hub", level=level, message=f"out of reach {where}: {error}", remedy=remedy)


def check_input(found: Mapping[str, Any], *, command: str, are_offline: bool, hub_error: str | None) -> Check:
    """Judge whether jobs will find a model or a dataset.

    Args:
        found: as `worker/prefetch.py` writes it.
        command: what downloads it.
        are_offline: whether jobs run with the hubs switched off.
        hub_error: why Hugging Face is out of reach from here, or None.
    """
    name, message = str(found["name"]), str(found["message"])
    if found["ok"]:
        return Check(name=name, level="ok", message=message)
    if found["error"] == "ModuleNotFoundError":
        remedy = "install hpcbench-llm[worker] here, or run doctor where it is installed"
        return Check(name=name, level="warning", message=f"not looked for: {message}", remedy=remedy)
    hint = found.get("hint")
    if isinstance(hint, str) and PREFETCH not in hint:
        # A missing folder, a bad row, a model that cannot run: no download helps.
        return Check(name=name, level="error", message=message, remedy=hint)
    remedy = command if hub_error is None else f"{command} on a machine with internet"
    if are_offline or found["error"] == NotInCacheError.__name__:
        # Jobs never download from ModelScope.
        why = "jobs run offline" if are_offline else "jobs only read ModelScope's cache"
        return Check(name=name, level="error", message=f"not here, and {why}: {message}", remedy=remedy)
    if hub_error is None:
        told = "not here; each job would download it (offline: false)"
        return Check(name=name, level="warning", message=told, remedy=remedy)
    return Check(name=name, level="error", message=f"neither here nor available to download: {message}", remedy=remedy)
