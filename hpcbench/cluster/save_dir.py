"""The save directory of a command: which one, whether it can be used, who else can write there. It changes nothing.

Slurm reads its name in a `#SBATCH` line of a script that bash runs: quoted, every printable character but a backslash
comes through (tried on 22.05).
"""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Iterable
from pathlib import Path

from hpcbench.config.names import is_text
from hpcbench.config.profile import load_profile
from hpcbench.errors import PlanError
from hpcbench.schemas.cluster_profile import ClusterProfile

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # a line break would end the #SBATCH comment: bash would run the rest

CONTAINER_SIGNS = frozenset(":,")
"""They separate the parts of apptainer's `--bind`."""


def usual_save_dir(given: Path | None) -> Path:
    """Return the absolute save directory of a verb that names no cluster: the one given, else that of this machine's.

    Raises:
        ConfigError: none is given, and the profile of this machine cannot be read.
    """
    return resolve_save_dir(given, load_profile() if given is None else None)


def resolve_save_dir(given: Path | None, profile: ClusterProfile | None) -> Path:
    """Return the absolute save directory: the one given, else the profile's, else `logs`."""
    if given is None:
        given = Path(profile.save_dir) if profile is not None and profile.save_dir else Path("logs")
    # Path.expanduser raises where there is no such user.
    return Path(os.path.expanduser(given)).absolute()  # noqa: PTH111


def save_dir_error(save_dir: Path, profile: ClusterProfile | None) -> str | None:
    """Return what is wrong with the name of a save directory, or None (pure); a profile of None is local mode."""
    text = str(save_dir)
    if not is_text(text):
        return "its name is not UTF-8"
    if _CONTROL.search(text):
        return "its name holds a line break or another control character"
    if profile is not None and "\\" in text:  # dropped in #SBATCH; it also switches patterns (%A) off
        return "its name holds a backslash, which Slurm does not keep"
    if profile is not None and profile.container is not None and CONTAINER_SIGNS & set(text):
        return f"its name holds {' or '.join(sorted(CONTAINER_SIGNS & set(text)))}, which --bind of a container splits"
    return None


def refuse_unusable(save_dir: Path, profile: ClusterProfile | None) -> None:
    """Refuse a save directory that jobs could not be given.

    Raises:
        PlanError: what is wrong with its name.
    """
    if (error := save_dir_error(save_dir, profile)) is not None:
        raise PlanError(f"save directory {str(save_dir)!r}: {error}", hint="name another --save-dir")


def is_open_to_all(folder: Path) -> bool:
    """Return whether anybody may replace what is in a folder; with the sticky bit, as in /tmp, only its owner may."""
    try:
        mode = folder.stat().st_mode
    except OSError:
        return False
    return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


def warn_of_open_folders(folders: Iterable[Path]) -> list[str]:
    """Return a warning for each folder in which anybody could change what jobs read and run."""
    return [
        f"{folder}: writable by everybody, who could change what your jobs run; chmod o-w {shlex.quote(str(folder))}"
        for folder in folders
        if is_open_to_all(folder)
    ]
