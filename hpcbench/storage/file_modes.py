"""The mode of the files that hpcbench leaves: that of any file of this process in their folder.

In: a folder whose files some library made for this user alone, as safetensors does (0600). Out: the same files with the
mode that umask or the folder's default ACL gives, so that colleagues may read them. It opens none wider than that.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path


def usual_mode(folder: Path) -> int:
    """Return the mode that a new file gets in a folder: tried, since a default ACL (acl(5)) replaces the umask.

    Raises:
        OSError: no file can be made there.
    """
    probe = folder / f".mode.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        with probe.open("xb") as stream:
            return stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
    finally:
        probe.unlink(missing_ok=True)


def give_usual_modes(folder: Path) -> None:
    """Give all files below a folder the mode that new ones get in it.

    Raises:
        OSError: a file is not this user's, or cannot be changed.
    """
    mode = usual_mode(folder)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)
