"""Whether a save directory can be used before anything is written there, and who else can write in it.

In: a path and a profile. Out: a refusal, or a warning. It changes nothing.

Slurm reads the directory's name in a `#SBATCH` line of a script that bash runs: quoted, every printable character but
one comes through (tried on 22.05). A backslash is dropped there and switches Slurm's own patterns (`%A`) off; a line
break would end the comment, and the rest of the name would be run.
"""

from __future__ import annotations

import re
import shlex
import stat
from collections.abc import Iterable
from pathlib import Path

from hpcbench.config.names import is_text
from hpcbench.errors import PlanError
from hpcbench.schemas.cluster_profile import ClusterProfile

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

CONTAINER_SIGNS = frozenset(":,")
"""They separate the parts of apptainer's `--bind`."""


def save_dir_error(save_dir: Path, profile: ClusterProfile | None) -> str | None:
    """Return what is wrong with the name of a save directory, or None (pure); a profile of None is local mode."""
    text = str(save_dir)
    if not is_text(text):
        return "its name is not UTF-8"
    if _CONTROL.search(text):
        return "its name holds a line break or another control character"
    if profile is not None and "\\" in text:
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
    """Say whether anybody may replace what is in a folder; with the sticky bit, as in /tmp, only its owner may."""
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
