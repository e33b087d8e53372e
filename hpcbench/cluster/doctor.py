"""Check a cluster the way jobs will meet it: commands, settings, save directory, and one tiny real job.

`doctor_checks.py` judges; what is written here is removed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hpcbench
from hpcbench.cluster.check_profile import check_partitions, check_rights
from hpcbench.cluster.doctor_checks import (
    NEEDED_COMMANDS,
    Check,
    check_accounting,
    check_commands,
    check_grace,
    check_probe,
    check_save_dir_place,
    check_settings,
)
from hpcbench.cluster.save_dir import is_open_to_all, save_dir_error
from hpcbench.config.profile import environments_of
from hpcbench.errors import SchedulerError, SubmitError
from hpcbench.scheduler.slurm.client import FACTS_TIMEOUT_S, SlurmClient
from hpcbench.scheduler.slurm.commands import SUBMIT_COMMANDS
from hpcbench.scheduler.slurm.reasons import explain_reason, read_reason
from hpcbench.scheduler.slurm.states import translate_state
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import Resources
from hpcbench.schemas.states import ALIVE
from hpcbench.storage.json_files import links_work, read_json, write_text
from hpcbench.storage.paths import DoctorPaths

POLL_S = 1.0
SEEN_LATE_S = 20.0
"""How long a result may stay unseen after its job has left the queue."""
PROBE_TIME_MIN = 10
PROBE_MEM_GB = 4.0
SHOWN_LINES = 5


def run_checks(
    profile: ClusterProfile | None,
    save_dir: Path,
    *,
    run_job: bool,
    timeout_s: float,
    client: SlurmClient | None = None,
) -> Iterator[Check]:
    """Yield what was found, the quick checks first; a profile of None checks this machine for local mode."""
    client = SlurmClient() if client is None else client
    if profile is not None:
        yield from _check_cluster(profile, client)
    is_new = not save_dir.exists()
    try:
        yield from _check_storage(profile, save_dir, client, run_job=run_job, timeout_s=timeout_s)
    finally:
        if is_new:
            with contextlib.suppress(OSError):
                save_dir.rmdir()


def _check_storage(
    profile: ClusterProfile | None, save_dir: Path, client: SlurmClient, *, run_job: bool, timeout_s: float
) -> Iterator[Check]:
    usable = False
    if (error := save_dir_error(save_dir, profile)) is not None:
        yield Check(name="save dir name", level="error", message=f"{str(save_dir)!r}: {error}", remedy="use another")
        return
    for check in check_save_dir(save_dir, local_mode=profile is None):
        usable |= check.name == "save dir write" and check.level == "ok"
        yield check
    if not run_job:
        yield Check(name="job", level="ok", message="not run (--no-job)")
    elif not usable:
        yield Check(name="job", level="warning", message="not run, since the save dir cannot be used")
    elif profile is None:
        yield from _probe_here(save_dir)
    elif all(shutil.which(name) is not None for name in SUBMIT_COMMANDS):
        yield from _probe_through_queue(profile, save_dir, client, timeout_s)


def _check_cluster(profile: ClusterProfile, client: SlurmClient) -> Iterator[Check]:
    yield Check(name="profile", level="ok", message=profile.name)
    yield from check_commands({name: shutil.which(name) is not None for name in NEEDED_COMMANDS})
    if shutil.which("scontrol") is None:
        return
    config = client.config
    if not config:
        # Every further command would only wait for the same controller.
        yield from check_settings(config, profile)
        return
    has_sacct = shutil.which("sacct") is not None
    yield check_accounting(has_sacct=has_sacct, error=_sacct_error(client), config=config)
    yield from check_settings(config, profile)
    known = client.entitlements(needs_rights=True)
    yield from check_grace(known.partitions, profile)
    yield from check_partitions(client.node_groups, profile, known.partitions)
    yield from check_rights(profile, known, os.environ)


def check_save_dir(save_dir: Path, *, local_mode: bool) -> Iterator[Check]:
    """Judge where the save directory is, and try what hpcbench does in it: mkdir, fsync, rename."""
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        mounts = ""
    yield check_save_dir_place(os.path.realpath(save_dir), mounts, local_mode=local_mode)
    folder = DoctorPaths(save_dir, secrets.token_hex(4)).folder
    try:
        write_text(folder / "first", "hpcbench doctor\n")
        (folder / "first").replace(folder / "second")
        works = (folder / "second").read_text(encoding="utf-8") == "hpcbench doctor\n"
        links = "hard links too" if links_work(folder) else "hard links do not: claims do without, models are copied"
    except OSError as error:
        message = f"{save_dir}: {error.strerror or error}"
        yield Check(
            name="save dir write", level="error", message=message, remedy="quota, permissions, or another folder"
        )
        return
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if not works:
        message = f"{save_dir}: what was renamed reads differently"
        yield Check(name="save dir write", level="error", message=message, remedy="use another file system")
        return
    yield Check(name="save dir write", level="ok", message=f"mkdir, fsync and rename work; {links}")
    if is_open_to_all(save_dir):
        remedy = f"chmod o-w {save_dir}: anybody could change what your jobs read"
        yield Check(name="save dir mode", level="warning", message="writable by everybody", remedy=remedy)


def _write_probe(save_dir: Path) -> DoctorPaths:
    paths = DoctorPaths(save_dir, secrets.token_hex(4))
    source = Path(__file__).with_name("node_probe.py")
    write_text(paths.probe, source.read_text(encoding="utf-8"))
    return paths


def _probe_here(save_dir: Path) -> Iterator[Check]:
    from hpcbench.scheduler.slurm.script import probe_arguments

    paths = _write_probe(save_dir)
    try:
        command = [sys.executable, *probe_arguments(paths, environments_of(None, os.environ))]
        subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        yield from _check_result(read_json(paths.result), None, "the probe left no result")
    except subprocess.TimeoutExpired:
        yield from _check_result(None, None, "the probe did not end within 120 s")
    finally:
        shutil.rmtree(paths.folder, ignore_errors=True)


def probe_resources(profile: ClusterProfile) -> Resources:
    """Return what the probe asks for: one GPU where jobs ask for GPUs, a few minutes (pure)."""
    return Resources(
        gpu=0 if profile.gpu_flag is None else 1,
        time_min=min(PROBE_TIME_MIN, profile.time_min),
        mem_gb=min(PROBE_MEM_GB, profile.mem_gb or PROBE_MEM_GB),
        cpus=1,
    )


def _probe_through_queue(
    profile: ClusterProfile, save_dir: Path, client: SlurmClient, timeout_s: float
) -> Iterator[Check]:
    from hpcbench.scheduler.slurm.script import render_probe, run_sbatch

    resources = probe_resources(profile)
    if not any(group.num_gpus for group in client.node_groups):
        resources = resources.model_copy(update={"gpu": 0})
    paths = _write_probe(save_dir)
    job_id: str | None = None
    try:
        script = render_probe(paths, profile, resources)
        write_text(paths.script, script)
        job_id = run_sbatch(paths.script, script, profile=profile, key=paths.folder.name)
        waiting = _await_result(paths, job_id, client, time.monotonic() + timeout_s)
        yield from _check_result(read_json(paths.result) if paths.result.exists() else None, profile, waiting)
    except (SubmitError, SchedulerError) as error:
        remedy = "partition, account, qos and the GPU flag of the profile have to suit the site"
        yield Check(name="job", level="error", message=error.message, remedy=remedy)
    finally:
        if job_id is not None:
            with contextlib.suppress(SchedulerError):
                client.cancel([job_id])
        shutil.rmtree(paths.folder, ignore_errors=True)


def _await_result(paths: DoctorPaths, job_id: str, client: SlurmClient, deadline: float) -> str:
    """Wait for the probe's result; return why there is none.

    Raises:
        SchedulerError: it still waits, and for what never comes by itself.
    """
    state, reason = "", ""
    while time.monotonic() < deadline:
        if _appears(paths.result):
            return ""
        command = ["squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%T|%r"]
        state, _, reason = client.query_fact(command, "the probe's state is").strip().partition("|")
        if not state or translate_state(state) not in ALIVE:
            # NFS may show the file late, but a job that failed wrote none.
            wait_s = 0 if state == "FAILED" else SEEN_LATE_S
            late = min(deadline, time.monotonic() + wait_s)
            if _wait_for(lambda: _appears(paths.result), late):
                return ""
            return f"it ended without a result in {paths.save_dir}{_last_words(paths.log)}"
        time.sleep(POLL_S)
    found = read_reason(reason)
    if found is not None and found.is_stuck:
        raise SchedulerError(f"it never starts by itself: {explain_reason(reason)}; {found.hint}")
    waits = f" ({explain_reason(reason)})" if explain_reason(reason) else ""
    return f"still {state.lower() or 'unknown'} when the wait was over{waits}"


def _appears(path: Path) -> bool:
    # An NFS client caches absence; listing the folder refreshes that.
    return any(entry.name == path.name for entry in path.parent.iterdir()) if path.parent.is_dir() else False


def _wait_for(condition: Callable[[], bool], deadline: float) -> bool:
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def _last_words(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return "; Slurm's log is not there either: compute nodes do not see this folder"
    return f": {' / '.join(lines[-SHOWN_LINES:])}" if lines else "; its log is empty"


def _check_result(seen: dict[str, Any] | None, profile: ClusterProfile | None, why: str) -> Iterator[Check]:
    if seen is not None:
        yield Check(name="job", level="ok", message="a tiny job ran and wrote into the save dir")
        yield from check_probe(seen, profile, hpcbench.__version__)
    elif why.startswith("still"):
        remedy = "wait longer with --timeout, or skip it with --no-job"
        yield Check(name="job", level="warning", message=why, remedy=remedy)
    else:
        remedy = "check setup, python, container and save_dir of the profile"
        yield Check(name="job", level="error", message=why, remedy=remedy)


def _sacct_error(client: SlurmClient) -> str | None:
    try:
        client.run(["sacct", "-X", "-n"], timeout_s=FACTS_TIMEOUT_S)
    except SchedulerError as error:
        return error.message
    return None
