"""What kind of file system a folder is on: shared with other machines, or this machine's own.

In: a path, and /proc/mounts. Out: the mount point and the type's name.
"""

from __future__ import annotations

import os
from pathlib import Path

SHARED_TYPES = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "wekafs", "panfs", "afs", "glusterfs", "orangefs", "pvfs2")
LOCAL_TYPES = ("ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "ramfs", "zfs")


def file_system_of(path: str, mounts: str) -> tuple[str, str]:
    """Return (mount point, type) of a path in the text of /proc/mounts (pure)."""
    best = ("/", "unknown")
    for line in mounts.splitlines():
        cells = line.split()
        if len(cells) < 3:  # noqa: PLR2004
            continue
        # Blanks in a mount point are written as octal escapes (proc(5)).
        point = cells[1].encode("ascii", "replace").decode("unicode_escape")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, cells[2])
    return best


def is_own_disk(folder: Path) -> bool:
    """Return whether the folder is certainly on a disk of this machine, where a file is seen as soon as it is there.

    Others may use it over the network; this machine still never sees an old state of it. An unknown type is taken for
    shared.
    """
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return file_system_of(os.path.realpath(folder), mounts)[1] in LOCAL_TYPES
