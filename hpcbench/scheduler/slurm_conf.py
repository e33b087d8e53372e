"""What slurm.conf on this machine says, without a message to slurmctld.

In: the file that Slurm's own commands read. Out: a name that it confirms. Where the file is not, or hides the name
behind an `Include`, nothing is said and the cluster has to be asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

DEFAULT = "/etc/slurm/slurm.conf"
_CLUSTER_NAME = re.compile(r"^\s*ClusterName\s*=\s*([^\s#]+)", re.IGNORECASE | re.MULTILINE)


def confirm_cluster(names: Iterable[str], environ: Mapping[str, str]) -> str | None:
    """Return the one of these names that slurm.conf gives the cluster, or None.

    Only a match counts: a file left behind where Slurm does not look any more hardly has the right name by chance.
    """
    try:
        text = Path(environ.get("SLURM_CONF") or DEFAULT).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = _CLUSTER_NAME.search(text)
    return None if found is None else next((name for name in names if name.lower() == found[1].lower()), None)
