"""The figures of pivot tables, with their units in the header or in each cell.

In: keys, as `report: {value: ...}` names them. Out: columns whose cells are written as in the benchmark tables of
SWIFT 2.x: `27.74`, `27G*2`, `73.71+78.54`, `0.59 (2*A100)`, `0.45iter/s(3h total)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

from hpcbench.errors import ReportError, did_you_mean
from hpcbench.report import columns as c
from hpcbench.report import cost
from hpcbench.report.cells import number_text
from hpcbench.report.column import Column, Raw
from hpcbench.report.facts import Facts
from hpcbench.report.memory import MARKS, memory_of
from hpcbench.report.score_columns import columns_by_dataset, value_columns
from hpcbench.schemas.metrics import TrainMetrics
from hpcbench.schemas.report_options import Units
from hpcbench.schemas.states import JobState

MISSING = "-"
_MOST_PEAKS = 4
"""So many different peaks are joined with `+`; more become a range."""
_HOUR_S, _MINUTE_S = 3600, 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure that pivot tables write in a form of their own."""

    header: str
    unit: str = ""
    get: Callable[[Facts], Raw]
    """In printed units."""
    decimals: int = 2
    show: Callable[[Facts, str], str] | None = None
    """Cell of one experiment, from its facts and the unit that belongs into it; None prints the number and the unit."""
    is_speed: bool = False
    """Whether it depends on the number and kind of GPUs, which its cells then say."""
    is_memory: bool = False
    note: str = ""
    legend: tuple[tuple[str, str], ...] = ()


def _of_training(read: Callable[[TrainMetrics], Raw]) -> Callable[[Facts], Raw]:
    return lambda facts: None if facts.train is None else read(facts.train)


def _peak(scale: float) -> Callable[[Facts], Raw]:
    return lambda facts: None if (found := memory_of(facts)) is None else max(found.peaks_gib) * scale


def _peaks(scale: float, decimals: int) -> Callable[[Facts, str], str]:
    """Return what prints the peak of each GPU: `27.74`, `27G*2`, `73.71+78.54`."""

    def show(facts: Facts, unit: str) -> str:
        memory = memory_of(facts)
        if memory is None:
            return ""
        printed = [number_text(peak * scale, decimals) for peak in memory.peaks_gib]
        if len(set(printed)) == 1:
            text = f"{printed[0]}{unit}" + (f"*{len(printed)}" if len(printed) > 1 else "")
        elif len(printed) <= _MOST_PEAKS:
            text = "+".join(printed) + unit
        else:
            low, high = (number_text(pick(memory.peaks_gib) * scale, decimals) for pick in (min, max))
            text = f"{low}-{high}{unit}*{len(printed)}"
        return text

    return show


def _steps_per_second(train: TrainMetrics) -> Raw:
    """Return optimizer steps per second: by the median step, or over all of them where that is not known."""
    if train.step_time_median_s:
        return 1 / train.step_time_median_s
    return train.num_steps / train.train_time_s if train.train_time_s else None


def _steps_text(facts: Facts, unit: str) -> str:
    speed = _of_training(_steps_per_second)(facts)
    total = None if facts.train is None else facts.train.train_time_s
    text = f"{cast('float', speed):.2g}{unit}"
    return text if total is None else f"{text}({total_text(total)} total)"


def total_text(seconds: float) -> str:
    """Return a duration as the tables of SWIFT 2.x write it.

    >>> [total_text(seconds) for seconds in (18780, 21600, 540, 12)]
    ['5h13min', '6h', '9min', '12s']
    """
    hours, rest = divmod(round(seconds), _HOUR_S)
    minutes, left = divmod(rest, _MINUTE_S)
    if not hours and not minutes:
        return f"{left}s"
    return (f"{hours}h" if hours else "") + (f"{minutes}min" if minutes else "")


_MEMORY_NOTE = "{}: peak of the training on each GPU, reserved by torch ({}); `*2`: as much on each of two"
_MEMORY_LEGEND = (
    ("+", "`+`: on each of several GPUs"),
    ("(host)", "`(host)`: peak resident set on a CPU"),
    ("(nvml)", "`(nvml)`: the GPU's used memory, seen from outside"),
    ("OOM", "`OOM`: out of GPU memory, which is a result"),
)

FIGURES: Final = {
    "train_samples_per_second": Figure(
        header="Training Speed",
        unit="samples/s",
        get=_of_training(lambda train: train.samples_per_second),
        is_speed=True,
        note="Training Speed: source samples of all epochs and ranks over the time of the optimizer steps",
    ),
    "train_time_min": Figure(
        header="Training Time",
        unit="min",
        get=_of_training(lambda train: None if train.train_time_s is None else train.train_time_s / _MINUTE_S),
        is_speed=True,
        note="Training Time: of the optimizer steps, without evaluation and saving; redone steps count once",
    ),
    "num_steps": Figure(header="Total Steps", decimals=0, get=_of_training(lambda train: train.num_steps)),
    "steps_per_second": Figure(
        header="Training Speed",
        unit="iter/s",
        get=_of_training(_steps_per_second),
        show=_steps_text,
        is_speed=True,
        note="iter/s: optimizer steps per second by the median step; `total` is the time of all steps",
    ),
    "num_trainable_parameters": Figure(
        header="Trainable Params",
        unit="M",
        get=_of_training(lambda train: train.parameters.trainable / 1e6),
        note="Trainable Params: in millions",
    ),
    **{
        f"memory_peak_{name}": Figure(
            header="GPU Memory",
            unit=unit,
            get=_peak(scale),
            decimals=decimals,
            show=_peaks(scale, decimals),
            is_memory=True,
            note=_MEMORY_NOTE.format("GPU Memory", meaning),
            legend=_MEMORY_LEGEND,
        )
        for name, unit, scale, decimals, meaning in (
            ("gib", "GiB", 1.0, 2, "GiB = 2^30 bytes"),
            ("mib", "MiB", 1024.0, 0, "MiB = 2^20 bytes"),
            ("g", "G", 1.0, 0, "whole GiB"),
        )
    },
}
"""By their keys in `value`."""


def figure_columns(
    keys: Sequence[str], experiments: Sequence[Facts], *, units: Units, hardware: Mapping[str, str]
) -> tuple[Column, ...]:
    """Return the columns of a pivot's figures; of an eval dataset those of its scores.

    Args:
        keys: of `FIGURES`, of a measured column of CSV, an eval dataset, or a figure that a program reported.
        experiments: of the table.
        units: where each figure's unit is written.
        hardware: what the speeds of an experiment, by its name, say that they were measured on.

    Raises:
        ReportError: a key is not a figure.
    """
    evals = columns_by_dataset(experiments)
    of_metric = {column.key: (column,) for columns in evals.values() for column in columns}
    raw = {
        column.key: column for column in (*c.DATA_ONLY, *cost.DATA_ONLY, *value_columns(experiments)) if column.measured
    }
    state_key = next((key for key in keys if key in FIGURES and FIGURES[key].is_memory), keys[0] if keys else None)
    found: list[Column] = []
    for key in keys:
        scores = [*evals.get(key, of_metric.get(key, ()))]
        if key in FIGURES:
            columns = [_figure_column(key, units, hardware)]
        elif key in raw:
            columns = [replace(raw[key], header=raw[key].header or key, show=None)]
        elif scores:
            columns = scores
        else:
            known = tuple(dict.fromkeys((*FIGURES, *raw, *(name for facts in experiments for name in facts.evals))))
            hint = did_you_mean(key, known) or f"one of {', '.join(known)}"
            raise ReportError(f"value: {key}: not a figure of these experiments", hint=hint)
        tells_state = key == state_key
        found += [replace(column, better=None, state=_state if tells_state else column.state) for column in columns]
    return tuple(found)


def _state(facts: Facts) -> str | None:
    """Return why there is no figure: `OOM`, or the state of a training that did not complete."""
    job = facts.view.main
    if job is None or job.state is JobState.COMPLETED:
        return None
    return "OOM" if job.state is JobState.OUT_OF_MEMORY else job.state.value


def _figure_column(key: str, units: Units, hardware: Mapping[str, str]) -> Column:
    """Return the column with its unit in the header or behind each number, and the hardware behind marked speeds."""
    figure = FIGURES[key]
    in_header = units == "header" and bool(figure.unit)
    unit = "" if in_header else figure.unit

    def mark(facts: Facts) -> str:
        found = hardware.get(facts.view.name) if figure.is_speed else None
        text = "" if found is None else f" ({found})"
        memory = memory_of(facts) if figure.is_memory else None
        return text if memory is None else text + MARKS[memory.source]

    def show(facts: Facts) -> str:
        assert figure.show is not None  # noqa: S101 -- only where there is one
        return figure.show(facts, unit) + mark(facts)

    return Column(
        key=key,
        header=f"{figure.header} ({figure.unit})" if in_header else figure.header,
        get=figure.get,
        show=None if figure.show is None else show,
        unit=lambda facts: unit + mark(facts),
        decimals=figure.decimals,
        measured=True,
        missing=MISSING,
        note=figure.note,
        legend=figure.legend,
    )
