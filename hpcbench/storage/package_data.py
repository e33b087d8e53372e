"""Where `configs/` and `templates/` lie, which travel with hpcbench, and the user's own profiles, catalogs and caches.

In: a path below the repository's root. Out: where that file is in a checkout or in an installed wheel, which holds them
as `hpcbench/_shipped/`. It reads no file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hpcbench.errors import HpcbenchError


def package_roots() -> tuple[Path, Path]:
    """Return the folders that hold shipped files: the wheel's, then the checkout's."""
    package = Path(__file__).resolve().parents[1]
    return package / "_shipped", package.parent


def user_config_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder of the user's own profiles and catalogs, whether it exists or not."""
    return Path(environ.get("XDG_CONFIG_HOME") or home_folder(environ) / ".config") / "hpcbench"


def user_cache_dir(environ: Mapping[str, str]) -> Path:
    """Return the folder of what hpcbench remembers for the user and may forget, whether it exists or not."""
    return Path(environ.get("XDG_CACHE_HOME") or home_folder(environ) / ".cache") / "hpcbench"


def home_folder(environ: Mapping[str, str]) -> Path:
    """Return the user's home folder, `~` as it stands where neither HOME nor the user database knows one."""
    # Path.home and Path.expanduser raise there.
    return Path(os.path.expanduser(environ.get("HOME") or "~"))  # noqa: PTH111


def shipped_file(*parts: str) -> Path:
    """Return the path of a shipped file or folder, for example `shipped_file("templates", "report.html.j2")`.

    Raises:
        HpcbenchError: neither the wheel's folder nor the checkout holds it.
    """
    for root in package_roots():
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise HpcbenchError(
        f"{'/'.join(parts)}: not found beside {Path(__file__).resolve().parents[1]}",
        hint="the installation is incomplete; install hpcbench-llm again",
    )
