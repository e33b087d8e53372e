"""Which waiting jobs start now, given free GPU and CPU slots: the first that fits goes, and none waits for ever.

Pure: no disk, no clock, no subprocess.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpcbench.errors import plural
from hpcbench.schemas.request import Resources

MAX_OVERTAKEN = 4  # a job that was overtaken this often has its slots held back until it fits
MAX_WAIT_S = 1800.0  # so has one that could have started for this long

_DEVICE = re.compile(r"^(\d+|(GPU|MIG)-\S+)$")
_GPU_LINE = re.compile(r"^GPU (\d+):")
_MIG_LINE = re.compile(r"^\s+MIG .*\(UUID: (MIG-[^)]+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The slots of this machine."""

    gpus: tuple[str, ...] = ()  # values for CUDA_VISIBLE_DEVICES, one per GPU
    cpus: int  # cores that this process may use


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Slots that one job takes: GPUs, or CPU cores when it asks for no GPU."""

    gpus: int = 0
    cpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A job that could start now if there were slots."""

    element_id: str
    need: Need
    num_overtaken: int = 0  # jobs of the same kind, behind it in the queue, that started while it waited
    waited_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A job that starts now, and its slots."""

    element_id: str
    gpus: tuple[str, ...] = ()
    cpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What one look at the queue decides."""

    starts: tuple[Start, ...] = ()
    overtaken: Mapping[str, int] = field(default_factory=dict)  # how many starts overtook each that still waits


def choose_starts(waiting: Sequence[Waiting], *, free_gpus: Sequence[str], free_cpus: int) -> Choice:
    """Return the jobs that start now.

    In queue order every job that fits starts. One that does not fit lets later ones pass, until it has been overtaken
    or has waited too much: then all free slots of its kind are kept for it, so that they add up.
    """
    gpus, cpus = list(free_gpus), free_cpus
    starts: list[Start] = []
    passed: list[Waiting] = []
    overtaken: Counter[str] = Counter()
    for job in waiting:
        if job.need.gpus <= len(gpus) and job.need.cpus <= cpus:
            taken, gpus = tuple(gpus[: job.need.gpus]), gpus[job.need.gpus :]
            cpus -= job.need.cpus
            starts.append(Start(element_id=job.element_id, gpus=taken, cpus=job.need.cpus))
            overtaken.update(earlier.element_id for earlier in passed if _compete(earlier.need, job.need))
            continue
        passed.append(job)
        if job.num_overtaken >= MAX_OVERTAKEN or job.waited_s >= MAX_WAIT_S:  # kept, so that slots add up
            gpus = [] if job.need.gpus else gpus
            cpus = 0 if job.need.cpus else cpus
    return Choice(starts=tuple(starts), overtaken=dict(overtaken))


def need_of(resources: Resources, machine: Machine) -> Need:
    """Return the slots that a job takes; a job without GPUs never asks for more cores than the machine has."""
    if resources.gpu > 0:
        return Need(gpus=resources.gpu)
    return Need(cpus=min(resources.cpus or resources.ddp, machine.cpus))


def refuse_job(resources: Resources, machine: Machine) -> str | None:
    """Return why a job can never run on this machine, or None when it can."""
    if resources.nodes > 1:
        return f"asks for {resources.nodes} nodes, local mode has this machine only; submit it to a cluster"
    if resources.gpu > len(machine.gpus):
        asked = plural(resources.gpu, "GPU")
        has = f"has {len(machine.gpus)}" if machine.gpus else "has none"
        return f"asks for {asked}, this machine {has}; set gpu: 0 with `device: cpu`, or submit it to a cluster"
    return None


def num_threads(resources: Resources, machine: Machine) -> int:
    """Return each rank's OMP_NUM_THREADS: its part of the job's cores (a GPU job's are its GPUs' share of them all)."""
    need = need_of(resources, machine)
    cores = machine.cpus * need.gpus // max(len(machine.gpus), 1) if need.gpus else need.cpus
    return max(1, cores // resources.ddp)


def parse_visible_devices(text: str) -> tuple[str, ...]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names; like CUDA, stop at the first entry that is none (`-1`)."""
    devices: list[str] = []
    for word in text.split(","):
        if not _DEVICE.match(word.strip()) or word.strip() in devices:
            break
        devices.append(word.strip())
    return tuple(devices)


def parse_gpu_list(text: str) -> tuple[str, ...]:
    """Return the GPUs that `nvidia-smi -L` lists: indices, or the UUIDs of the MIG devices of a GPU that is split."""
    gpus: dict[str, list[str]] = {}
    current: list[str] = []
    for line in text.splitlines():
        if match := _GPU_LINE.match(line):
            current = gpus.setdefault(match.group(1), [])
        elif match := _MIG_LINE.match(line):
            current.append(match.group(1))
    return tuple(device for index, parts in gpus.items() for device in (parts or [index]))


def _compete(one: Need, other: Need) -> bool:
    return bool((one.gpus and other.gpus) or (one.cpus and other.cpus))
