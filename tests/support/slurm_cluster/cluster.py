"""A real Slurm on one Debian or Ubuntu machine, for tests: two nodes of four pretend GPUs, as root, without systemd.

In: a folder, and settings. Out: running daemons, and ``<folder>/env`` to source.
Never: a change outside that folder, except a short folder for sockets below /tmp where the path is too long for them.

    python tests/support/slurm_cluster/cluster.py install
    python tests/support/slurm_cluster/cluster.py start --dir .slurm --min-job-age 10
    source .slurm/env && srun -N2 hostname
    python tests/support/slurm_cluster/cluster.py stop --dir .slurm
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

if not __package__:  # run as a script: let the relative imports below work (PEP 366)
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    __package__ = "tests.support.slurm_cluster"

from tests.support.slurm_cluster.config import (
    CLUSTER_NAME,
    NODES,
    ClusterSettings,
    mariadbd_argv,
    merge_lines,
    munged_argv,
    render_files,
)
from tests.support.slurm_cluster.daemons import (
    Process,
    end_processes,
    list_job_processes,
    read_live,
    start_daemon,
    wait_until,
)
from tests.support.slurm_cluster.folder import (
    choose_settings,
    create_database,
    load_settings,
    lock_folder,
    write_cluster,
)
from tests.support.slurm_cluster.installation import (
    ClusterError,
    ClusterUnavailableError,
    install_packages,
    list_missing_programs,
    search_path,
)

# In the order of their start.
DAEMONS = ("munged", "mariadbd", "slurmdbd", "slurmctld", *(f"slurmd-{node}" for node in NODES))

_ACCOUNTING_DAEMONS = ("mariadbd", "slurmdbd")

_START_TIMEOUT_S = 60.0
_CLIENT_TIMEOUT_S = 30.0
_WORKING_NODE_STATES = frozenset({"idle", "mixed", "allocated", "completing"})


@dataclass(frozen=True, slots=True)
class Cluster:
    """A started cluster."""

    settings: ClusterSettings

    @property
    def directory(self) -> Path:
        """Folder of the cluster."""
        return self.settings.directory

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment beside what it has already."""
        return self.settings.environment

    def stop(self) -> None:
        """Cancel all jobs and end every process of the cluster."""
        stop_cluster(self.directory)

    def restart_slurmctld(self, meanwhile: Callable[[], None] | None = None) -> None:
        """End slurmctld and start it again, on the state that it saved; in between something else may be done."""
        self._end("slurmctld")
        try:
            if meanwhile is not None:
                meanwhile()
        finally:
            self._start_slurmctld()
        self._await_nodes()

    @contextlib.contextmanager
    def changed(self, *extra_lines: str) -> Iterator[None]:
        """Run slurmctld with other lines in slurm.conf for a while."""
        file = self.settings.slurm_conf
        before = file.read_text(encoding="utf-8")
        try:
            file.write_text("\n".join(merge_lines(before.splitlines(), extra_lines)) + "\n", encoding="utf-8")
            self.restart_slurmctld()
            yield
        finally:
            file.write_text(before, encoding="utf-8")
            self.restart_slurmctld()

    def end_slurmd(self, node: str) -> None:
        """Kill the slurmd of a node without a word; what it started runs on."""
        process = read_live(_pid_file(self.directory, f"slurmd-{node}"))
        end_processes([process] if process else [], grace_s=0)

    def lose_node(self, node: str) -> None:
        """Let a node die with all its processes; its jobs must be the only ones that run."""
        self.end_slurmd(node)
        end_processes(list_job_processes(self.settings.slurm_conf, self.settings.sockets / "spool"), grace_s=0)
        self._run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=lost")

    def start_slurmd(self, node: str) -> None:
        """Start the slurmd of a node again, and return once both nodes take jobs."""
        self._start(f"slurmd-{node}", ["slurmd", "-D", "-N", node])
        self._run("scontrol", "update", f"NodeName={node}", "State=RESUME")
        self._await_nodes()

    def stop_slurmdbd(self) -> None:
        """End slurmdbd, so that sacct fails."""
        self._end("slurmdbd")

    def start_slurmdbd(self) -> None:
        """Start slurmdbd, and return once sacct answers."""
        self._start("slurmdbd", ["slurmdbd", "-D"])
        self._await_sacct()

    def start_daemons(self) -> None:
        """Start what does not run yet, and return once both nodes take jobs and sacct answers."""
        self._start_munged()
        if self.settings.accounting:
            self._start_mariadbd()
            self._start("slurmdbd", ["slurmdbd", "-D"])
            self._wait("slurmdbd", self._register_cluster, "slurmdbd to answer")
        self._start_slurmctld()
        for node in NODES:
            (self.settings.sockets / "spool" / node).mkdir(parents=True, exist_ok=True)
            self._start(f"slurmd-{node}", ["slurmd", "-D", "-N", node])
        self._await_nodes()
        if self.settings.accounting:
            self._await_sacct()

    def cancel_jobs(self, *, timeout_s: float) -> None:
        """Cancel the jobs of all users, and wait a while for them to end."""
        for state in ("PENDING", "RUNNING", "SUSPENDED"):
            self._run("scancel", f"--state={state}")
        with contextlib.suppress(ClusterError):
            wait_until(lambda: not self._run("squeue", "--noheader").stdout, what="jobs to end", timeout_s=timeout_s)

    def describe_nodes(self) -> dict[str, str]:
        """Ask slurmctld for the state of each node; nothing when it does not answer."""
        answer = self._run("sinfo", "--noheader", "--Node", "--format=%N %T")
        return dict(sorted(line.split() for line in answer.stdout.splitlines()))

    def _start_munged(self) -> None:
        self._start("munged", munged_argv(self.settings))
        self._wait("munged", lambda: _accepts(socket.AF_UNIX, str(self.settings.munge_socket)), "munged to answer")

    def _start_mariadbd(self) -> None:
        data = self.directory / "mysql"
        if not data.is_dir():
            create_database(data)
        self._start("mariadbd", mariadbd_argv(self.settings))
        address = ("127.0.0.1", self.settings.mariadb_port)
        self._wait("mariadbd", lambda: _accepts(socket.AF_INET, address), "MariaDB to answer")

    def _start_slurmctld(self) -> None:
        self._start("slurmctld", ["slurmctld", "-D"])
        self._wait("slurmctld", lambda: "is UP" in self._run("scontrol", "ping").stdout, "slurmctld to answer")

    def _register_cluster(self) -> bool:
        answer = self._run("sacctmgr", "--immediate", "add", "cluster", CLUSTER_NAME)
        return answer.returncode == 0 or "already exists" in answer.stdout + answer.stderr

    def _await_nodes(self) -> None:
        def all_work() -> bool:
            states = self.describe_nodes()
            return set(states) == set(NODES) and set(states.values()) <= _WORKING_NODE_STATES

        self._wait(f"slurmd-{NODES[0]}", all_work, "both nodes to be idle")

    def _await_sacct(self) -> None:
        self._wait("slurmdbd", lambda: self._run("sacct", "--noheader").returncode == 0, "sacct to answer")

    def _start(self, name: str, argv: list[str]) -> None:
        pid_file = _pid_file(self.directory, name)
        if read_live(pid_file) is None:
            start_daemon(argv, pid_file=pid_file, log_file=_log_file(self.directory, name), environment=self._full())

    def _end(self, name: str) -> None:
        process = read_live(_pid_file(self.directory, name))
        end_processes([process] if process else [], grace_s=20)
        _pid_file(self.directory, name).unlink(missing_ok=True)

    def _wait(self, name: str, condition: Callable[[], bool], what: str) -> None:
        wait_until(condition, what=what, timeout_s=_START_TIMEOUT_S, log_file=_log_file(self.directory, name))

    def _run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a client; one that hangs counts as failed, so that `stop` always comes to its end."""
        try:
            return subprocess.run(
                argv, env=self._full(), capture_output=True, text=True, timeout=_CLIENT_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(argv, returncode=124, stdout="", stderr="timed out")

    def _full(self) -> dict[str, str]:
        """Return the whole environment of daemons and of our own clients, free of the caller's SLURM_ variables."""
        return {"PATH": search_path(), "HOME": str(Path.home()), "LANG": "C.UTF-8", **self.environment}


def start_cluster(
    directory: Path,
    *,
    accounting: bool = True,
    min_job_age: int = 300,
    max_array_size: int = 1001,
    extra_lines: Sequence[str] = (),
    lua: str | None = None,
) -> Cluster:
    """Start a cluster, or what is missing of one, and return once it takes jobs.

    Args:
        directory: Its folder, made where missing; what an earlier start left there is taken up again.
        accounting: Whether slurmdbd and a private MariaDB run.
        min_job_age: Seconds for which slurmctld remembers an ended job.
        max_array_size: One more than the largest array index.
        extra_lines: Lines for slurm.conf; each replaces the line of the same key, or is added.
        lua: Text of a job_submit.lua.

    Returns:
        The running cluster.

    Raises:
        ClusterUnavailableError: This machine cannot run one.
        ClusterError: It runs with other settings, or a daemon does not come up.
    """
    directory = directory.resolve()
    _check_machine(directory, accounting=accounting)
    with lock_folder(directory):
        running = bool(_list_running(directory))
        if not running:
            _end_everything(directory)  # what a crash may have left: jobs, a folder for sockets
        settings = replace(
            load_settings(directory) if running else choose_settings(directory),
            accounting=accounting,
            min_job_age=min_job_age,
            max_array_size=max_array_size,
            extra_lines=tuple(extra_lines),
            lua=lua,
        )
        files = render_files(settings)
        if running and files != {name: _read_text(directory / "etc" / name) for name in files}:
            raise ClusterError(f"{directory}: runs with other settings\n  hint: stop it first")
        cluster = Cluster(settings)
        try:
            if not running:
                write_cluster(settings, files)
            cluster.start_daemons()
        except BaseException:
            if not running:
                _end_everything(directory)
            raise
    return cluster


def stop_cluster(directory: Path) -> None:
    """Cancel all jobs and end every process of a cluster; nothing happens where none runs.

    Args:
        directory: The folder that it was started with.

    Raises:
        ClusterError: A process could not be ended.
    """
    directory = directory.resolve()
    if (directory / "run").is_dir():
        with lock_folder(directory):
            _end_everything(directory)


def show_status(directory: Path) -> int:
    """Print what runs; return 0 when everything does, else 1."""
    directory = directory.resolve()
    running = _list_running(directory)
    if not running:
        print(f"{directory}: not running")
        return 1
    cluster = Cluster(load_settings(directory))
    wanted = [name for name in DAEMONS if cluster.settings.accounting or name not in _ACCOUNTING_DAEMONS]
    for name in wanted:
        print(f"{name:12} {running[name].pid if name in running else 'not running'}")
    states = cluster.describe_nodes()
    for node in NODES:
        print(f"{node:12} {states.get(node, 'unknown')}")
    healthy = set(wanted) <= set(running) and set(states) == set(NODES)
    return 0 if healthy and set(states.values()) <= _WORKING_NODE_STATES else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb of the command line; return its exit code."""
    options = _parse_arguments(arguments)
    started = time.monotonic()
    try:
        if options.verb == "install":
            print(f"installed: {' '.join(install_packages()) or 'nothing was missing'}")
        elif options.verb == "start":
            cluster = start_cluster(
                options.dir,
                accounting=options.accounting,
                min_job_age=options.min_job_age,
                max_array_size=options.max_array_size,
                extra_lines=options.set,
                lua=options.lua.read_text(encoding="utf-8") if options.lua else None,
            )
            print(f"running after {time.monotonic() - started:.1f} s: source {cluster.directory / 'env'}")
        elif options.verb == "stop":
            stop_cluster(options.dir)
            print(f"stopped after {time.monotonic() - started:.1f} s")
        else:
            return show_status(options.dir)
    except (ClusterError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A real Slurm on one machine, for tests.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("install", help="install the missing Debian packages, as root")
    start = verbs.add_parser("start", help="start a cluster and wait until it takes jobs")
    stop = verbs.add_parser("stop", help="cancel its jobs and end its daemons")
    status = verbs.add_parser("status", help="say what runs; exit code 0 when all does")
    for verb in (start, stop, status):
        verb.add_argument("--dir", type=Path, required=True, help="folder of the cluster, such as .slurm")
    start.add_argument("--no-accounting", dest="accounting", action="store_false", help="without slurmdbd and sacct")
    start.add_argument("--min-job-age", type=int, default=300, metavar="SECONDS")
    start.add_argument("--max-array-size", type=int, default=1001, metavar="N")
    start.add_argument("--lua", type=Path, metavar="FILE", help="a job_submit.lua")
    start.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a line of slurm.conf; replaces the line of that key, or is added (PartitionName=..., NodeName=...)",
    )
    return parser.parse_args(arguments)


def _check_machine(directory: Path, *, accounting: bool) -> None:
    if os.geteuid() != 0:
        raise ClusterUnavailableError("start: needs root (slurmd and its device files)\n  hint: sudo")
    missing = list_missing_programs(accounting=accounting)
    if missing:
        raise ClusterUnavailableError(
            f"start: not found: {', '.join(missing)}\n  hint: python tests/support/slurm_cluster/cluster.py install"
        )
    if not re.fullmatch(r"[\w./+-]+", str(directory), re.ASCII):
        raise ClusterError(f"{directory}: Slurm's files take letters, digits and ./_+- in a path, nothing else")


def _end_everything(directory: Path) -> None:
    cluster_file = directory / "run" / "cluster.json"
    if not cluster_file.is_file():
        return
    cluster = Cluster(load_settings(directory))
    running = _list_running(directory)
    if "slurmctld" in running:
        cluster.cancel_jobs(timeout_s=8)
    ours = [process for name, process in running.items() if name.startswith(("slurmd-", "slurmctld"))]
    end_processes(ours, grace_s=10)
    sockets = cluster.settings.sockets
    end_processes(list_job_processes(cluster.settings.slurm_conf, sockets / "spool"), grace_s=0)
    for name in ("slurmdbd", "mariadbd", "munged"):
        end_processes([running[name]] if name in running else [], grace_s=20)
    for name in DAEMONS:
        _pid_file(directory, name).unlink(missing_ok=True)
    if sockets != directory:
        shutil.rmtree(sockets, ignore_errors=True)
    (directory / "env").unlink(missing_ok=True)
    cluster_file.unlink()


def _list_running(directory: Path) -> dict[str, Process]:
    found = {name: read_live(_pid_file(directory, name)) for name in DAEMONS}
    return {name: process for name, process in found.items() if process is not None}


def _accepts(family: socket.AddressFamily, address: str | tuple[str, int]) -> bool:
    with socket.socket(family) as client:
        client.settimeout(5)
        return client.connect_ex(address) == 0


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _pid_file(directory: Path, name: str) -> Path:
    return directory / "run" / f"{name}.pid"


def _log_file(directory: Path, name: str) -> Path:
    return directory / "log" / f"{name}.out"


if __name__ == "__main__":
    sys.exit(main())
