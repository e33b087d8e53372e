"""The folder of a test cluster: what is kept there, and the free ports and short paths chosen for it.

In: a folder, settings, rendered texts. Out: configuration, key, device files, an empty database.
Never: a process of the cluster; `cluster` starts and ends those.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.slurm_cluster.config import GPUS_PER_NODE, NUM_PORTS, ClusterSettings, render_env
from tests.support.slurm_cluster.installation import (
    ClusterError,
    ClusterUnavailableError,
    read_slurm_version,
    search_path,
)

# A Unix socket's path has at most 107 bytes; "/spool/gpu1/gpu1_1234567.4294967291" stands behind the folder's.
_MAX_SOCKET_FOLDER_BYTES = 64
# Below the ports that Linux gives to outgoing connections.
_PORT_RANGE = range(20000, 32000, NUM_PORTS)


def choose_settings(directory: Path) -> ClusterSettings:
    """Choose free ports and a short folder for sockets, made below /tmp where the cluster's own path is too long."""
    is_short = len(os.fsencode(directory)) <= _MAX_SOCKET_FOLDER_BYTES
    return ClusterSettings(
        directory=directory,
        sockets=directory if is_short else Path(tempfile.mkdtemp(prefix="hpcbench-slurm-", dir="/tmp")),
        hostname=socket.gethostname().split(".")[0],
        base_port=_find_free_ports(),
        slurm_version=read_slurm_version(),
        database_password=secrets.token_hex(16),
    )


def load_settings(directory: Path) -> ClusterSettings:
    """Return the settings of a started cluster, as its start wrote them."""
    stored = json.loads((directory / "run" / "cluster.json").read_text(encoding="utf-8"))
    return ClusterSettings(
        directory=directory,
        sockets=Path(stored["sockets"]),
        hostname=stored["hostname"],
        base_port=stored["base_port"],
        slurm_version=(stored["slurm_version"][0], stored["slurm_version"][1]),
        database_password=stored["database_password"],
        accounting=stored["accounting"],
    )


def write_cluster(settings: ClusterSettings, files: dict[str, str]) -> None:
    """Write all that daemons and clients read.

    Args:
        settings: The cluster.
        files: Texts for its ``etc`` folder, by file name.

    Raises:
        ClusterUnavailableError: This machine forbids device files.
    """
    directory = settings.directory
    for name in ("etc", "log", "state", "devices"):
        (directory / name).mkdir(exist_ok=True)
    settings.sockets.chmod(0o755)
    stored = {
        "sockets": str(settings.sockets),
        "hostname": settings.hostname,
        "base_port": settings.base_port,
        "slurm_version": settings.slurm_version,
        "database_password": settings.database_password,
        "accounting": settings.accounting,
    }
    _write_file(directory / "run" / "cluster.json", json.dumps(stored, indent=2, sort_keys=True), mode=0o600)
    (directory / "etc" / "job_submit.lua").unlink(missing_ok=True)
    for name, text in files.items():
        is_secret = settings.database_password in text
        _write_file(directory / "etc" / name, text, mode=0o600 if is_secret else 0o644)
    _write_file(directory / "etc" / "munge.key", secrets.token_hex(64), mode=0o600)
    for index in range(GPUS_PER_NODE):
        _make_device(directory / "devices" / f"gpu{index}")
    _write_file(directory / "env", render_env(settings.environment), mode=0o644)


def _make_device(path: Path) -> None:
    """Make a character device, for slurmd sets no CUDA_VISIBLE_DEVICES for plain files; it acts as /dev/null."""
    try:
        path.unlink(missing_ok=True)
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        path.chmod(0o666)
    except PermissionError as error:
        raise ClusterUnavailableError(f"{path}: this machine forbids device files (no CAP_MKNOD)") from error


def create_database(data: Path) -> None:
    """Make an empty MariaDB; a half-made one is never taken for a whole one."""
    unfinished = data.with_name("mysql.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={unfinished}", "--skip-test-db"]
    answer = subprocess.run(
        command, env={"PATH": search_path()}, capture_output=True, text=True, timeout=300, check=False
    )
    if answer.returncode != 0:
        raise ClusterError(f"mariadb-install-db failed:\n{answer.stdout}{answer.stderr}")
    unfinished.rename(data)


def _find_free_ports() -> int:
    """Return the first of `NUM_PORTS` TCP ports in a row that nothing listens on."""
    for base_port in random.sample(_PORT_RANGE, 50):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(base_port, base_port + NUM_PORTS):
                    stack.enter_context(socket.socket()).bind(("", port))
            except OSError:
                continue
            return base_port
    raise ClusterError(f"start: no {NUM_PORTS} free TCP ports in a row between 20000 and 32000")


@contextlib.contextmanager
def lock_folder(directory: Path) -> Iterator[None]:
    """Let one start or stop at a time work on a cluster."""
    (directory / "run").mkdir(parents=True, exist_ok=True)
    with (directory / "run" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_file(path: Path, text: str, *, mode: int) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=mode)
    path.write_text(text, encoding="utf-8")
