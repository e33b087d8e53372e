"""What experiments cost: GPU hours, energy, wait, wall time, and how much of what jobs asked for they used.

In: the facts of experiments. Out: costs of each and of all, columns, and a sentence. Every start of every job counts,
also those that failed; what a job that left no record took is unknown and never zero.

GPU hours are the GPUs that a job asked for times how long its starts took. Energy and utilization are NVML's of the
job's first node. The wait is from submit, or the end of what a job waits for, to its start, and between a requeue and
the next start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from hpcbench.errors import plural
from hpcbench.report.cells import number_text
from hpcbench.report.column import Column, Raw, cell_text
from hpcbench.report.columns import NAME
from hpcbench.report.facts import Facts
from hpcbench.report.rows import Cell, Row
from hpcbench.report.table import Table
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.record import Attempt, Record, SampledMemory
from hpcbench.storage.clock import parse_moment

TITLE = "Cost"
_HOUR_S, _MINUTE_S, _MIB_PER_GIB = 3600.0, 60.0, 1024.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one experiment took, or several; None is what no record tells."""

    gpu_hours: float | None = None
    energy_wh: float | None = None
    queue_wait_s: float | None = None
    wall_time_s: float | None = None
    """Of all starts of all jobs, one after the other."""
    num_jobs: int = 0
    """Jobs with a record."""
    num_energy_unknown: int = 0
    """Of them those with GPUs whose energy nothing measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What the main job of an experiment asked for, or its first eval, and the most that a start of it used."""

    time_s: float | None = None
    time_limit_s: float | None = None
    host_memory_gib: float | None = None
    host_memory_limit_gib: float | None = None
    gpu_memory_gib: float | None = None
    gpu_memory_limit_gib: float | None = None
    gpu_utilization_pct: float | None = None
    """Mean over the time of all starts."""


def cost_of(experiments: Iterable[Facts]) -> Cost:
    """Return the cost of all jobs of these experiments."""
    found = list(experiments)
    records = [record for facts in found for record in facts.records]
    return Cost(
        **{column.key: _sum(_number(column.value(facts)) for facts in found) for column in SUMS},
        num_jobs=len(records),
        num_energy_unknown=sum(
            _num_gpus(job) != 0 and _energy_wh(job.record) is None
            for facts in found
            for job in facts.view.jobs
            if job.record is not None
        ),
    )


def gpu_hours(facts: Facts) -> float | None:
    """Return GPUs times hours of all starts of an experiment's jobs."""
    return _sum(
        gpus * attempt.duration_s / _HOUR_S
        for job in facts.view.jobs
        if job.record is not None and (gpus := _num_gpus(job)) is not None
        for attempt in job.record.attempts
    )


def energy_wh(facts: Facts) -> float | None:
    """Return the energy of all starts whose GPUs were measured."""
    return _sum(map(_energy_wh, facts.records))


def queue_wait_s(facts: Facts) -> float | None:
    """Return how long an experiment's jobs waited, one after the other."""
    return _sum(_wait_s(job, job.record, facts) for job in facts.view.jobs if job.record is not None)


def wall_time_s(facts: Facts) -> float | None:
    """Return the time of all starts of an experiment's jobs, one after the other."""
    return _sum(attempt.duration_s for record in facts.records for attempt in record.attempts)


def use_of(facts: Facts) -> Use:
    """Return what an experiment's main job asked for and used, or its first eval where it has no other."""
    job = next(iter(facts.view.jobs), None)
    if job is None or job.record is None:
        return Use()
    return Use(**{name: read(job, job.record) for name, read in _USES.items()})


def cost_text(experiments: Sequence[Facts]) -> str:
    """Return `12.4 GPU hours, 3.1 kWh, waited 2 h 10 min, ran 14 h 2 min`, and whose energy is unknown; or nothing."""
    cost = cost_of(experiments)
    if not cost.num_jobs:
        return ""
    parts = [f"{number_text(cost.gpu_hours, 2)} GPU hours"] if cost.gpu_hours else []
    if cost.energy_wh is not None:
        of = f" (unknown of {plural(cost.num_energy_unknown, 'job')})" if cost.num_energy_unknown else ""
        parts.append(f"{number_text(cost.energy_wh / 1000, 2)} kWh{of}")
    parts += [f"waited {duration_text(cost.queue_wait_s)}"] if cost.queue_wait_s is not None else []
    parts += [f"ran {duration_text(cost.wall_time_s)}"] if cost.wall_time_s is not None else []
    without = sum(job.record is None for facts in experiments for job in facts.view.jobs)
    parts += [f"not counted: {plural(without, 'job')} without a record"] if without else []
    return ", ".join(parts)


def cost_table(rows: Sequence[Row]) -> Table | None:
    """Return the cost of each row and of all, without columns that nothing is known for; None without any.

    Repeats are added up; of what a start used, the most is shown.
    """
    experiments = [facts for row in rows for facts in row.members]
    known = [column for column in COLUMNS if any(column.value(facts) not in {None, 0} for facts in experiments)]
    if not known:
        return None
    cells = [(_cell(NAME, row.name), *(_row_cell(column, row.members) for column in known)) for row in rows]
    if len(rows) > 1:
        sums = (_sum_cell(column, experiments) if column in SUMS else Cell(text="") for column in known)
        cells.append((Cell(text=f"all {plural(len(experiments), 'experiment')}"), *sums))
    return Table(title=TITLE, columns=(NAME, *known), rows=tuple(rows), cells=tuple(cells))


def cost_notes(table: Table | None) -> tuple[str, ...]:
    """Return what the figures of a table of costs mean."""
    return () if table is None else tuple(column.note for column in table.columns if column.note)


def _row_cell(column: Column, members: Sequence[Facts]) -> Cell:
    if column in SUMS:
        return _sum_cell(column, members)
    most = max(members, key=lambda facts: value if (value := _number(column.value(facts))) is not None else -1.0)
    return _cell(column, cell_text(column, most))


def _sum_cell(column: Column, members: Sequence[Facts]) -> Cell:
    total = _sum(_number(column.value(facts)) for facts in members)
    if total is None:
        return _cell(column, None)
    is_time = column.show is not None
    return _cell(column, duration_text(total) if is_time else number_text(total * column.scale, column.decimals))


def _cell(column: Column, text: str | None) -> Cell:
    return Cell(text=column.missing, kind="missing") if text is None else Cell(text=text)


def duration_text(seconds: float) -> str:
    """Return a time in its two largest units.

    >>> [duration_text(seconds) for seconds in (12, 75, 7800, 93600)]
    ['12 s', '1 min 15 s', '2 h 10 min', '1 d 2 h']
    """
    left = round(seconds)
    units = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    first = next((number for number, (_, size) in enumerate(units) if left >= size), len(units) - 1)
    parts: list[str] = []
    for name, size in units[first : first + 2]:
        count, left = divmod(left, size)
        parts += [f"{count} {name}"] if count or not parts else []
    return " ".join(parts)


def _asked(job: JobView, name: str) -> Any:
    """Return a resource that the job asked for, None where its profile decided."""
    if job.request is not None:
        return getattr(job.request.resources, name)
    resources = job.recorded_request.get("resources")
    return resources.get(name) if isinstance(resources, Mapping) else None


def _gpu_memory_gib(record: Record) -> float | None:
    gpus = record.environment.get("gpus")
    sizes = gpus.get("memory_total_mib") if isinstance(gpus, Mapping) else None
    if not isinstance(sizes, (list, tuple)):
        return None
    return _most(size / _MIB_PER_GIB for size in sizes if isinstance(size, (int, float)))


def _mean_utilization(attempts: Iterable[Attempt]) -> float | None:
    def utilization(sampled: SampledMemory | None) -> float | None:
        return None if sampled is None else sampled.gpu_utilization_mean_pct

    known = [(value, attempt.duration_s) for attempt in attempts if (value := utilization(attempt.sampled)) is not None]
    seconds = sum(duration for _, duration in known)
    return _finite(sum(value * duration for value, duration in known) / seconds) if seconds else None


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _time_limit_s(job: JobView, _: Record) -> float | None:
    minutes: float | None = _asked(job, "time_min")
    return None if minutes is None else minutes * _MINUTE_S


def _samples(record: Record) -> Iterator[SampledMemory]:
    return (attempt.sampled for attempt in record.attempts if attempt.sampled is not None)


_USES: Mapping[str, Callable[[JobView, Record], float | None]] = {
    "time_s": lambda _, record: _most(attempt.duration_s for attempt in record.attempts),
    "time_limit_s": _time_limit_s,
    "host_memory_gib": lambda _, record: _most(sample.host_rss_peak_gib for sample in _samples(record)),
    "host_memory_limit_gib": lambda job, _: _asked(job, "mem_gb"),
    "gpu_memory_gib": lambda _, record: _most(peak for sample in _samples(record) for peak in sample.gpu_peak_gib),
    "gpu_memory_limit_gib": lambda _, record: _gpu_memory_gib(record),
    "gpu_utilization_pct": lambda _, record: _mean_utilization(record.attempts),
}
"""How each field of a `Use` is read."""


def _use(name: str) -> Callable[[Facts], Raw]:
    read = _USES[name]

    def get(facts: Facts) -> Raw:
        job = next(iter(facts.view.jobs), None)
        return None if job is None or job.record is None else read(job, job.record)

    return get


def _of_limit(used: str, limit: str, text: Callable[[float], str]) -> Callable[[Facts], str]:
    """Return what prints `3.2 of 16`, or `3.2` where nothing was asked for."""

    def show(facts: Facts) -> str:
        found = use_of(facts)
        value, most = getattr(found, used), getattr(found, limit)
        return text(value) if most is None else f"{text(value)} of {text(most)}"

    return show


def _gib(value: float) -> str:
    return number_text(value, 1)


GPU_HOURS = Column(
    key="gpu_hours",
    header="GPU hours",
    get=gpu_hours,
    measured=True,
    note="GPU hours: GPUs that jobs asked for times the time of all their starts, failed ones too; repeats add up",
)
ENERGY = Column(
    key="energy_wh",
    header="energy (kWh)",
    scale=1e-3,
    decimals=3,
    get=energy_wh,
    measured=True,
    note="energy: of the GPUs of a job's first node, by NVML's power, all starts",
)
QUEUE_WAIT = Column(
    key="queue_wait_s",
    header="queue wait",
    decimals=0,
    get=queue_wait_s,
    show=lambda facts: _duration(queue_wait_s(facts)),
    unit=lambda _: " s",
    measured=True,
    note=(
        "queue wait: from submit, or the end of what a job waits for, to its start, and from a requeue to the next "
        "start, all jobs; of the last submit"
    ),
)
WALL_TIME = Column(
    key="wall_time_s",
    header="wall time",
    decimals=0,
    get=wall_time_s,
    show=lambda facts: _duration(wall_time_s(facts)),
    unit=lambda _: " s",
    measured=True,
    note="wall time: of all starts of all jobs, one after the other",
)
TIME = Column(
    key="longest_start_s",
    header="longest start, of limit",
    decimals=0,
    get=_use("time_s"),
    show=_of_limit("time_s", "time_limit_s", duration_text),
    unit=lambda _: " s",
    measured=True,
    note="longest start, of limit: of the training, or of the first job of a row without one; so too the next columns",
)
HOST_MEMORY = Column(
    key="host_memory_peak_gib",
    header="host memory, of limit (GiB)",
    decimals=1,
    get=_use("host_memory_gib"),
    show=_of_limit("host_memory_gib", "host_memory_limit_gib", _gib),
    measured=True,
)
GPU_MEMORY = Column(
    key="gpu_memory_peak_gib",
    header="GPU memory, of the GPU's (GiB)",
    decimals=1,
    get=_use("gpu_memory_gib"),
    show=_of_limit("gpu_memory_gib", "gpu_memory_limit_gib", _gib),
    measured=True,
    note="GPU memory, of the GPU's: most that NVML saw in use on a GPU, other processes included",
)
GPU_UTILIZATION = Column(
    key="gpu_utilization_pct",
    header="GPU utilization (%)",
    decimals=0,
    get=_use("gpu_utilization_pct"),
    measured=True,
    note="GPU utilization: mean part of the time in which a kernel ran, by NVML; not how full it was",
)
COLUMNS = (GPU_HOURS, ENERGY, QUEUE_WAIT, WALL_TIME, TIME, HOST_MEMORY, GPU_MEMORY, GPU_UTILIZATION)
"""In the order of the table."""
DATA_ONLY = (
    *(GPU_HOURS, ENERGY, QUEUE_WAIT, WALL_TIME, TIME),
    Column(key="time_limit_s", get=_use("time_limit_s")),
    HOST_MEMORY,
    Column(key="host_memory_limit_gib", get=_use("host_memory_limit_gib")),
    GPU_MEMORY,
    Column(key="gpu_memory_limit_gib", get=_use("gpu_memory_limit_gib")),
    GPU_UTILIZATION,
)
SUMS = (GPU_HOURS, ENERGY, QUEUE_WAIT, WALL_TIME)
"""What adds up over experiments."""


def _number(value: Raw) -> float | None:
    return value if isinstance(value, (int, float)) else None


def _duration(value: Raw) -> str:
    return duration_text(value) if isinstance(value, (int, float)) else ""


def _num_gpus(job: JobView) -> int | None:
    if job.request is not None and job.request.device == "cpu":
        return 0
    found = _asked(job, "gpu")
    return found if isinstance(found, int) else None


def _energy_wh(record: Record) -> float | None:
    return _sum(None if attempt.sampled is None else attempt.sampled.gpu_energy_wh for attempt in record.attempts)


def _wait_s(job: JobView, record: Record, facts: Facts) -> float | None:
    """Return how long a job waited before its last submit's first start and between that submit's starts."""
    starts = [attempt for attempt in record.attempts if attempt.scheduler_id in {job.scheduler_id, None}]
    if job.submitted_at is None or not starts:
        return None
    main = facts.view.main
    ready = [parse_moment(job.submitted_at)]
    if main is not None and main is not job and main.record is not None:
        ready.append(parse_moment(main.record.finished_at))
    begun = parse_moment(starts[0].started_at)
    ready += _ends_of_turns(job, begun, facts)
    moments = [moment for moment in ready if moment is not None]
    if begun is None or not moments:
        return None
    # Clocks of nodes differ by seconds.
    waited = max(0.0, (begun - max(moments)).total_seconds())
    for earlier, later in pairwise(starts):
        end, start = parse_moment(earlier.finished_at), parse_moment(later.started_at)
        waited += 0.0 if end is None or start is None else max(0.0, (start - end).total_seconds())
    return waited


def _ends_of_turns(job: JobView, begun: datetime | None, facts: Facts) -> list[datetime]:
    """Return when the jobs ended that ran before this one in the same scheduler job, which was not waiting then."""
    others = (other.record for other in facts.view.jobs if other.ref in job.companions and other.record is not None)
    ends = (parse_moment(attempt.finished_at) for record in others for attempt in record.attempts)
    return [end for end in ends if end is not None and begun is not None and end <= begun]


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _finite(sum(known)) if known else None


def _finite(value: float) -> float | None:
    """Return the value, None where numbers of a broken record add up to more than a float holds."""
    return value if math.isfinite(value) else None
