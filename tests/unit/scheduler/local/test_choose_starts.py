"""Who starts when slots are free: the first that fits goes, and none waits for ever."""

from __future__ import annotations

import random

import pytest

from hpcbench.scheduler.local.choose_starts import (
    MAX_OVERTAKEN,
    MAX_WAIT_S,
    Machine,
    Need,
    Start,
    Waiting,
    choose_starts,
    need_of,
    num_threads,
    parse_gpu_list,
    parse_visible_devices,
    refuse_job,
)
from hpcbench.schemas.request import Resources

FOUR_GPUS = Machine(gpus=("0", "1", "2", "3"), cpus=16)
NO_GPU = Machine(cpus=4)


def gpu_job(name: str, gpus: int, *, overtaken: int = 0, waited_s: float = 0.0) -> Waiting:
    return Waiting(element_id=name, need=Need(gpus=gpus), num_overtaken=overtaken, waited_s=waited_s)


def cpu_job(name: str, cpus: int, *, overtaken: int = 0) -> Waiting:
    return Waiting(element_id=name, need=Need(cpus=cpus), num_overtaken=overtaken)


def names(waiting: list[Waiting], gpus: tuple[str, ...] = (), cpus: int = 0) -> list[str]:
    return [start.element_id for start in choose_starts(waiting, free_gpus=gpus, free_cpus=cpus).starts]


def test_jobs_start_in_queue_order_with_the_lowest_free_gpus() -> None:
    choice = choose_starts([gpu_job("a", 2), gpu_job("b", 1)], free_gpus=("1", "2", "3"), free_cpus=0)
    assert choice.starts == (Start(element_id="a", gpus=("1", "2")), Start(element_id="b", gpus=("3",)))
    assert choice.overtaken == {}


def test_the_first_that_fits_goes_and_the_overtaken_are_counted() -> None:
    waiting = [gpu_job("big", 4), gpu_job("small", 1), gpu_job("small2", 1)]
    choice = choose_starts(waiting, free_gpus=("0", "1"), free_cpus=0)
    assert [start.element_id for start in choice.starts] == ["small", "small2"]
    assert choice.overtaken == {"big": 2}


@pytest.mark.parametrize(
    "starved", [gpu_job("big", 4, overtaken=MAX_OVERTAKEN), gpu_job("big", 4, waited_s=MAX_WAIT_S)]
)
def test_a_job_that_was_overtaken_or_waited_too_much_keeps_free_slots_for_itself(starved: Waiting) -> None:
    assert names([starved, gpu_job("small", 1)], ("0", "1", "2")) == []
    assert names([starved, gpu_job("small", 1)], ("0", "1", "2", "3")) == ["big"]


def test_gpu_and_cpu_jobs_do_not_hold_each_other_up() -> None:
    starved_gpu, starved_cpu = gpu_job("gpus", 4, overtaken=9), cpu_job("cpus", 8, overtaken=9)
    assert names([starved_gpu, starved_cpu, cpu_job("cpu", 1), gpu_job("gpu", 1)], ("0",), 1) == []
    assert names([starved_gpu, cpu_job("cpu", 1)], ("0",), 1) == ["cpu"]
    assert names([starved_cpu, gpu_job("gpu", 1)], ("0",), 1) == ["gpu"]


def test_a_cpu_job_that_passes_a_gpu_job_overtakes_nobody() -> None:
    assert choose_starts([gpu_job("big", 4), cpu_job("cpu", 1)], free_gpus=(), free_cpus=1).overtaken == {}


def test_nobody_waits_for_ever_while_small_jobs_keep_coming() -> None:
    """Simulates two GPUs with a stream of one-GPU jobs that end at different times, and one job that needs both."""
    rng = random.Random(7)
    running: dict[str, int] = {}
    waiting = [gpu_job("first", 1), gpu_job("both", 2)]
    overtaken = 0
    for tick in range(200):
        running = {gpu: left - 1 for gpu, left in running.items() if left > 1}
        waiting.append(gpu_job(f"small{tick}", 1))
        free = [gpu for gpu in ("0", "1") if gpu not in running]
        current = [gpu_job("both", 2, overtaken=overtaken) if w.element_id == "both" else w for w in waiting]
        choice = choose_starts(current, free_gpus=free, free_cpus=0)
        overtaken += choice.overtaken.get("both", 0)
        started = {start.element_id for start in choice.starts}
        if "both" in started:
            assert overtaken <= MAX_OVERTAKEN + 1
            return
        running |= {gpu: rng.randint(1, 5) for start in choice.starts for gpu in start.gpus}
        waiting = [w for w in waiting if w.element_id not in started]
    pytest.fail("the big job never started")


def test_a_job_without_gpus_takes_cores_and_never_more_than_there_are() -> None:
    assert need_of(Resources(gpu=2, ddp=2), FOUR_GPUS) == Need(gpus=2)
    assert need_of(Resources(gpu=0, ddp=3), FOUR_GPUS) == Need(cpus=3)
    assert need_of(Resources(gpu=0, ddp=2, cpus=8), FOUR_GPUS) == Need(cpus=8)
    assert need_of(Resources(gpu=0, ddp=64), NO_GPU) == Need(cpus=4)


def test_a_job_that_can_never_run_here_is_refused_with_the_reason() -> None:
    assert refuse_job(Resources(gpu=4), FOUR_GPUS) is None
    assert refuse_job(Resources(gpu=0, ddp=64), NO_GPU) is None
    advice = "set gpu: 0 with `device: cpu`, or submit it to a cluster"
    assert refuse_job(Resources(gpu=8), FOUR_GPUS) == f"asks for 8 GPUs, this machine has 4; {advice}"
    assert refuse_job(Resources(gpu=1), NO_GPU) == f"asks for 1 GPU, this machine has none; {advice}"
    assert refuse_job(Resources(gpu=2, ddp=2, nodes=2), FOUR_GPUS) == (
        "asks for 2 nodes, local mode has this machine only; submit it to a cluster"
    )


def test_cores_are_divided_among_ranks() -> None:
    assert num_threads(Resources(gpu=0, ddp=2, cpus=8), FOUR_GPUS) == 4
    assert num_threads(Resources(gpu=0, ddp=64), NO_GPU) == 1
    assert num_threads(Resources(gpu=2, ddp=2), FOUR_GPUS) == 4  # half the GPUs, half of 16 cores, two ranks


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        ("0,2", ("0", "2")),
        (" 1 , 0", ("1", "0")),
        ("GPU-8932f937-d72c,MIG-1", ("GPU-8932f937-d72c", "MIG-1")),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("0,-1,1", ("0",)),
        ("0,0", ("0",)),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_does(text: str, gpus: tuple[str, ...]) -> None:
    assert parse_visible_devices(text) == gpus


def test_nvidia_smi_lists_gpus_and_mig_devices() -> None:
    text = (
        "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f)\n"
        "  MIG 3g.40gb     Device  0: (UUID: MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f)\n"
        "  MIG 3g.40gb     Device  1: (UUID: MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb)\n"
        "GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-8b4af1b8-7b0c-4b8c-bb0a-ed8d2a4c8f5f)\n"
    )
    assert parse_gpu_list(text) == (
        "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f",
        "MIG-cba663e8-9bed-5b25-b243-5985ef7c9beb",
        "1",
    )
    assert parse_gpu_list("No devices found.\n") == ()
