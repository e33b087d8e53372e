"""Install the Slurm, MUNGE and MariaDB packages that the test cluster needs.

In: the machine's package database. Out: the missing packages, through apt, with no service started.
Never: a change of any configuration, nor a package that is already there.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

CONTROLLER_PACKAGES = ("slurm-wlm", "munge")
# The "core" packages hold the database programs alone: no service, no clash over port 3306.
ACCOUNTING_PACKAGES = ("slurmdbd", "slurm-wlm-mysql-plugin", "mariadb-server-core", "mariadb-client-core")

_POLICY = Path("/usr/sbin/policy-rc.d")
_CONTROLLER_PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "sinfo", "munged")
_ACCOUNTING_PROGRAMS = ("slurmdbd", "sacct", "sacctmgr", "mariadbd", "mariadb-install-db", "my_print_defaults")


class ClusterError(Exception):
    """The test cluster cannot be installed, started or stopped; the text says why."""


class ClusterUnavailableError(ClusterError):
    """This machine cannot run a test cluster: no root, no Slurm, or no devices may be made."""


def search_path() -> str:
    """Return PATH with the folders of daemons, which an ordinary PATH may lack."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def list_missing_programs(*, accounting: bool) -> list[str]:
    """Name the programs that a cluster needs and this machine lacks."""
    programs = _CONTROLLER_PROGRAMS + (_ACCOUNTING_PROGRAMS if accounting else ())
    return [name for name in programs if shutil.which(name, path=search_path()) is None]


def read_slurm_version() -> tuple[int, int]:
    """Ask slurmctld for its release, such as ``(22, 5)`` for Slurm 22.05.8.

    Raises:
        ClusterError: The program answers something else than a version.
    """
    answer = subprocess.run(
        ["slurmctld", "-V"],
        env={"PATH": search_path()},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    match = re.search(r"(\d+)\.(\d+)", answer.stdout)
    if match is None:
        raise ClusterError(f"slurmctld -V: no version in {answer.stdout + answer.stderr!r}")
    return int(match[1]), int(match[2])


def install_packages() -> list[str]:
    """Install what is missing, and return the names of those packages.

    Raises:
        ClusterError: Not root, not a Debian or Ubuntu machine, or apt failed.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-query") is None:
        raise ClusterError(
            "install: needs Debian or Ubuntu (apt-get not found)\n"
            "  hint: install Slurm, MUNGE and MariaDB by hand, `start` needs nothing else"
        )
    wanted = CONTROLLER_PACKAGES + ACCOUNTING_PACKAGES
    missing = [name for name in wanted if not _is_installed(name)]
    if not missing:
        return []
    if os.geteuid() != 0:
        raise ClusterError(f"install: needs root to install {' '.join(missing)}\n  hint: sudo")
    with _no_services():
        _apt_get("update")
        _apt_get("install", "--yes", "--no-install-recommends", *missing)
    return missing


def _is_installed(package: str) -> bool:
    answer = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Status}", package],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return answer.stdout == "installed"


def _apt_get(*arguments: str) -> None:
    # Waits up to ten minutes where another apt holds the lock.
    command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=600", "-o", "Dpkg::Use-Pty=0", *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(command, env=environment, timeout=1800, check=False).returncode != 0:
        raise ClusterError(f"install: `{' '.join(command)}` failed, see above")


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Keep package scripts from starting daemons, the way Debian provides for (policy-rc.d)."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
