"""Several GPUs for each rank: the ranks of a node share its GPUs out, and each sees its own alone.

In: how many GPUs a rank has, this process's environment before torch has looked at it. Out: the environment of a rank
that spreads its model's layers over its own GPUs, as a training of one rank does. It places no layer itself.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence

from hpcbench.errors import WorkerError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def own_gpus(visible: Sequence[str], *, local_rank: int, gpus_each: int) -> tuple[str, ...]:
    """Return the GPUs of one rank of a node: as many as each has, in order of ranks.

    Raises:
        WorkerError: there are too few.

    >>> own_gpus(["0", "1", "2", "3"], local_rank=1, gpus_each=2)
    ('2', '3')
    """
    first = local_rank * gpus_each
    found = tuple(visible[first : first + gpus_each])
    if len(found) < gpus_each:
        raise WorkerError(
            f"rank {local_rank} of this node needs {gpus_each} GPUs, and the node has {len(visible)} for all its ranks",
            hint="ask for as many GPUs per node as its ranks need: requirements.gpu / nodes",
        )
    return found


def see_own_gpus(environ: MutableMapping[str, str], *, gpus_each: int, num_local_ranks: int) -> None:
    """Leave a rank its own GPUs alone, of which the first is the one that it computes on.

    Raises:
        WorkerError: the node has too few for its ranks.
    """
    usual = ",".join(map(str, range(gpus_each * num_local_ranks)))
    visible = [word.strip() for word in environ.get(VISIBLE, usual).split(",") if word.strip()]
    environ[VISIBLE] = ",".join(own_gpus(visible, local_rank=int(environ["LOCAL_RANK"]), gpus_each=gpus_each))
    # torch, accelerate and NCCL take the GPU of this number: the first that this rank sees.
    environ["LOCAL_RANK"] = "0"
    # Without it accelerate refuses DDP of a model on several GPUs.
    environ["ACCELERATE_BYPASS_DEVICE_MAP"] = "true"
