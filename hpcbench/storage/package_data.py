"""Where the files lie that travel with hpcbench but are no Python: `configs/` and `templates/`.

In: a path below the repository's root. Out: where that file is in a checkout or in an installed wheel, which holds them
as `hpcbench/_shipped/`. It reads nothing.
"""

from __future__ import annotations

from pathlib import Path

from hpcbench.errors import HpcbenchError


def shipped_file(*parts: str) -> Path:
    """Return the path of a shipped file or folder, for example `shipped_file("templates", "report.html.j2")`.

    Raises:
        HpcbenchError: neither the wheel's folder nor the checkout holds it.
    """
    package = Path(__file__).resolve().parents[1]
    for root in (package / "_shipped", package.parent):
        path = root.joinpath(*parts)
        if path.exists():
            return path
    raise HpcbenchError(
        f"{'/'.join(parts)}: not found beside {package}",
        hint="the installation is incomplete; install hpcbench-llm again",
    )
