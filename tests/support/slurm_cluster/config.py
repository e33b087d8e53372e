"""The text of every configuration file of the test cluster.

In: `ClusterSettings`, plain values. Out: a mapping from file name to text.
Never: a look at the disk, the clock or the network; the same settings always give the same text.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

NODES = ("gpu1", "gpu2")
GPUS_PER_NODE = 4
GPU_TYPE = "a100"
CPUS_PER_NODE = 8
MEMORY_PER_NODE_MIB = 8000
CLUSTER_NAME = "testbed"
NUM_PORTS = 5
"""Ports that a cluster takes, counted from its base port."""

# Keys that a slurm.conf may hold many times; two such lines are the same when they name the same thing.
_REPEATABLE_KEYS = ("partitionname", "nodename", "downnodes", "nodeset", "slurmctldhost")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Everything that decides the configuration of one test cluster."""

    directory: Path
    """Absolute folder of the cluster: configuration, state, database, logs."""
    sockets: Path
    """Absolute folder of Unix sockets and slurmd spools; its path has to be short."""
    hostname: str
    """Short name of this machine, as slurmctld and slurmd find it."""
    base_port: int
    """First of `NUM_PORTS` free TCP ports in a row."""
    slurm_version: tuple[int, int]
    """Release of the installed Slurm, such as ``(22, 5)``."""
    database_password: str
    """What slurmdbd shows to MariaDB, which listens on 127.0.0.1 alone."""
    accounting: bool = True
    """Whether slurmdbd and MariaDB run, so that sacct answers."""
    min_job_age: int = 300
    """Seconds for which slurmctld remembers an ended job (Slurm's MinJobAge)."""
    max_array_size: int = 1001
    """Slurm's MaxArraySize: one more than the largest array index."""
    extra_lines: tuple[str, ...] = ()
    """Lines for slurm.conf; each replaces the line of the same key, or is added."""
    lua: str | None = None
    """Text of a job_submit.lua, or nothing for no job submit plugin."""

    @property
    def slurm_conf(self) -> Path:
        """Path of slurm.conf, the value of SLURM_CONF for every client."""
        return self.directory / "etc" / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs in its environment beside what it has already."""
        return {"SLURM_CONF": str(self.slurm_conf)}

    @property
    def munge_socket(self) -> Path:
        """Path of the private MUNGE socket."""
        return self.sockets / "munge.socket"

    @property
    def slurmdbd_port(self) -> int:
        """TCP port of slurmdbd."""
        return self.base_port + 1

    @property
    def mariadb_port(self) -> int:
        """TCP port of the private MariaDB."""
        return self.base_port + 2


def render_files(settings: ClusterSettings) -> dict[str, str]:
    """Render every file of the cluster's ``etc`` folder.

    Args:
        settings: The cluster to describe.

    Returns:
        File name to text, with slurmdbd.conf and mariadb.sql only where accounting is on.
    """
    files = {
        "slurm.conf": render_slurm_conf(settings),
        "gres.conf": render_gres_conf(settings),
        "cgroup.conf": render_cgroup_conf(settings.slurm_version),
    }
    if settings.accounting:
        files["slurmdbd.conf"] = render_slurmdbd_conf(settings)
        files["mariadb.sql"] = render_mariadb_sql(settings)
    if settings.lua is not None:
        files["job_submit.lua"] = settings.lua
    return files


def render_slurm_conf(settings: ClusterSettings) -> str:
    """Render slurm.conf: two nodes of four pretend GPUs, fast scheduling, no cgroups."""
    lines = [
        *_controller_lines(settings),
        *_scheduling_lines(settings),
        *_accounting_lines(settings),
        *_node_lines(settings),
    ]
    if settings.lua is not None:
        lines.append("JobSubmitPlugins=lua")
    return "\n".join(merge_lines(lines, settings.extra_lines)) + "\n"


def render_gres_conf(settings: ClusterSettings) -> str:
    """Render gres.conf: the same character devices stand for the GPUs of both nodes."""
    devices = f"{settings.directory}/devices/gpu[0-{GPUS_PER_NODE - 1}]"
    return f"AutoDetect=off\nNodeName={_node_range()} Name=gpu Type={GPU_TYPE} File={devices}\n"


def render_cgroup_conf(slurm_version: tuple[int, int]) -> str:
    """Render a cgroup.conf that keeps Slurm away from cgroups, on v1 and on v2 machines.

    Nothing here uses cgroups, but slurmd loads a cgroup plugin all the same. From 24.05 on it can be told not to.
    Before, the v1 plugin is the one that touches nothing at its start; the v2 plugin asks systemd for a scope.
    """
    if slurm_version >= (24, 5):
        return "CgroupPlugin=disabled\n"
    if slurm_version >= (23, 11):  # knows no CgroupAutomount any more
        return "CgroupPlugin=cgroup/v1\n"
    return "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"


def render_slurmdbd_conf(settings: ClusterSettings) -> str:
    """Render slurmdbd.conf, which has to be readable by its owner alone (mode 600)."""
    lines = [
        "DbdHost=localhost",
        "DbdAddr=127.0.0.1",
        f"DbdPort={settings.slurmdbd_port}",
        "SlurmUser=root",
        "AuthType=auth/munge",
        f"AuthInfo=socket={settings.munge_socket}",
        f"LogFile={settings.directory}/log/slurmdbd.log",
        f"PidFile={settings.directory}/run/slurmdbd.own.pid",
        "DebugLevel=info",
        "StorageType=accounting_storage/mysql",
        "StorageHost=127.0.0.1",  # an address, for "localhost" means the machine's own MariaDB socket
        f"StoragePort={settings.mariadb_port}",
        "StorageUser=slurm",
        f"StoragePass={settings.database_password}",
        "StorageLoc=slurm_acct_db",
    ]
    return "\n".join(lines) + "\n"


def render_mariadb_sql(settings: ClusterSettings) -> str:
    """Render what MariaDB runs at each start: the database and the account of slurmdbd (one statement per line)."""
    return (
        "CREATE DATABASE IF NOT EXISTS slurm_acct_db;\n"
        f"CREATE OR REPLACE USER 'slurm'@'127.0.0.1' IDENTIFIED BY '{settings.database_password}';\n"
        "GRANT ALL ON slurm_acct_db.* TO 'slurm'@'127.0.0.1';\n"
    )


def render_env(variables: dict[str, str]) -> str:
    """Render the file that a shell sources to reach the cluster."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))


def munged_argv(settings: ClusterSettings) -> list[str]:
    """Return the command line of the private MUNGE daemon."""
    directory = settings.directory
    return [
        "munged",
        "--foreground",
        "--force",  # folders above the cluster's may belong to an ordinary user
        f"--key-file={directory}/etc/munge.key",
        f"--socket={settings.munge_socket}",
        f"--pid-file={directory}/run/munged.own.pid",
        f"--log-file={directory}/log/munged.log",
        f"--seed-file={directory}/run/munged.seed",
    ]


def mariadbd_argv(settings: ClusterSettings) -> list[str]:
    """Return the command line of the private MariaDB, which knows nothing of /etc/mysql."""
    directory = settings.directory
    return [
        "mariadbd",
        "--no-defaults",
        "--user=root",
        f"--datadir={directory}/mysql",
        f"--socket={settings.sockets}/mariadb.socket",
        f"--pid-file={directory}/run/mariadbd.own.pid",
        "--bind-address=127.0.0.1",
        f"--port={settings.mariadb_port}",
        f"--init-file={directory}/etc/mariadb.sql",
        "--skip-name-resolve",
        "--innodb-buffer-pool-size=64M",
        "--innodb-log-file-size=16M",
        "--innodb-lock-wait-timeout=900",  # slurmdbd complains about less
        "--innodb-flush-log-at-trx-commit=0",
    ]


def merge_lines(lines: Iterable[str], extra_lines: Iterable[str]) -> list[str]:
    """Put extra lines into a slurm.conf, each in the place of the line that it replaces, else at the end.

    Args:
        lines: The lines to start from.
        extra_lines: ``Key=Value`` lines. Keys differ in no letter case; lines such as ``PartitionName=a`` and
            ``PartitionName=b`` name different things, so both stay.

    Returns:
        The merged lines.

    Raises:
        ValueError: An extra line is no ``Key=Value``.
    """
    merged = {_line_identity(line): line for line in lines}
    for line in extra_lines:
        merged[_line_identity(line)] = line.strip()
    return list(merged.values())


def _line_identity(line: str) -> str:
    match = re.fullmatch(r"(\w+)=(\S*).*", line.strip())
    if match is None:
        raise ValueError(f"slurm.conf: {line!r} cannot be a line of it; expected: Key=Value")
    key = match[1].lower()
    return f"{key}={match[2]}" if key in _REPEATABLE_KEYS else key


def _node_range() -> str:
    return f"gpu[1-{len(NODES)}]"


def _controller_lines(settings: ClusterSettings) -> list[str]:
    directory, sockets = settings.directory, settings.sockets
    return [
        f"ClusterName={CLUSTER_NAME}",
        f"SlurmctldHost={settings.hostname}(127.0.0.1)",
        f"SlurmctldPort={settings.base_port}",
        "SlurmUser=root",
        "SlurmdUser=root",
        "AuthType=auth/munge",
        f"AuthInfo=socket={settings.munge_socket}",
        f"StateSaveLocation={directory}/state",
        f"SlurmdSpoolDir={sockets}/spool/%n",
        f"SlurmctldPidFile={directory}/run/slurmctld.own.pid",
        f"SlurmdPidFile={directory}/run/slurmd-%n.own.pid",
        f"SlurmctldLogFile={directory}/log/slurmctld.log",
        f"SlurmdLogFile={directory}/log/slurmd-%n.log",
        "SlurmctldDebug=info",
        "SlurmdDebug=info",
        "SlurmdParameters=config_overrides",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "MpiDefault=none",
        "ReturnToService=2",
        "SlurmctldTimeout=30",
        "SlurmdTimeout=30",
    ]


def _scheduling_lines(settings: ClusterSettings) -> list[str]:
    return [
        "SchedulerType=sched/backfill",
        # As fast as it goes. correspond_after_task_cnt stays at its default of 10: tests depend on it.
        "SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=0,batch_sched_delay=0",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "PriorityType=priority/basic",
        f"DefMemPerCPU={MEMORY_PER_NODE_MIB // CPUS_PER_NODE}",
        "JobRequeue=1",
        "KillWait=5",
        f"MinJobAge={settings.min_job_age}",
        f"MaxArraySize={settings.max_array_size}",
        "MaxJobCount=20000",
    ]


def _accounting_lines(settings: ClusterSettings) -> list[str]:
    if not settings.accounting:
        return ["AccountingStorageType=accounting_storage/none", "JobAcctGatherType=jobacct_gather/none"]
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        "AccountingStorageHost=127.0.0.1",
        f"AccountingStoragePort={settings.slurmdbd_port}",
        f"AccountingStoragePass={settings.munge_socket}",  # what AuthInfo is for slurmctld, to slurmdbd
        "AccountingStorageTRES=gres/gpu",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=task=5",
    ]


def _node_lines(settings: ClusterSettings) -> list[str]:
    nodes, first_port = _node_range(), settings.base_port + 3
    address = f"NodeHostname={settings.hostname} NodeAddr=127.0.0.1 Port=[{first_port}-{first_port + len(NODES) - 1}]"
    shape = f"CPUs={CPUS_PER_NODE} Boards=1 SocketsPerBoard=1 CoresPerSocket={CPUS_PER_NODE} ThreadsPerCore=1"
    gpus = f"Gres=gpu:{GPU_TYPE}:{GPUS_PER_NODE}"
    return [
        "GresTypes=gpu",
        f"NodeName={nodes} {address} {shape} RealMemory={MEMORY_PER_NODE_MIB} {gpus} State=UNKNOWN",
        f"PartitionName=gpu Nodes={nodes} Default=YES State=UP MaxTime=08:00:00 DefaultTime=01:00:00",
    ]
