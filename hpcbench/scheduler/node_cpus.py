"""How many CPU cores a job asks for on each node.

In: what a job needs, and the cluster's profile. Out: a number. Pure.
"""

from __future__ import annotations

from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import Resources


def node_cpus(resources: Resources, profile: ClusterProfile) -> int:
    """Return the CPU cores to ask for on each node."""
    if resources.cpus is not None:
        return resources.cpus
    ranks = -(-resources.ddp // resources.nodes)
    gpus = -(-resources.gpu // resources.nodes)
    per_gpu = resources.cpus_per_gpu or profile.cpus_per_gpu or 1
    return max(ranks, gpus * per_gpu, 1)
