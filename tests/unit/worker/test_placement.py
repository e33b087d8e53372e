"""Ranks with several GPUs each: who has which of a node's."""

from __future__ import annotations

import pytest

from hpcbench.errors import WorkerError
from hpcbench.worker.parallel.placement import own_gpus, see_own_gpus


@pytest.mark.parametrize(("local_rank", "own"), [(0, ("4", "5")), (1, ("6", "7"))])
def test_ranks_share_the_visible_gpus_out_in_order(local_rank: int, own: tuple[str, ...]) -> None:
    assert own_gpus(["4", "5", "6", "7"], local_rank=local_rank, gpus_each=2) == own


def test_a_rank_without_gpus_of_its_own_is_named() -> None:
    with pytest.raises(WorkerError, match="rank 1 of this node needs 2 GPUs, and the node has 3 for all its ranks"):
        own_gpus(["0", "1", "2"], local_rank=1, gpus_each=2)


@pytest.mark.parametrize(
    ("visible", "own"),
    [({}, "2,3"), ({"CUDA_VISIBLE_DEVICES": "GPU-a, GPU-b,GPU-c,GPU-d"}, "GPU-c,GPU-d")],
)
def test_a_rank_sees_its_own_gpus_alone_and_computes_on_the_first(visible: dict[str, str], own: str) -> None:
    environ = {"LOCAL_RANK": "1", **visible}
    see_own_gpus(environ, gpus_each=2, num_local_ranks=2)
    assert environ == {"CUDA_VISIBLE_DEVICES": own, "LOCAL_RANK": "0", "ACCELERATE_BYPASS_DEVICE_MAP": "true"}
