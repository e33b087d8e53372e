"""Where and with what the jobs of a suite ran: every key of the free-form `environment` of their records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hpcbench.report.escape import one_line
from hpcbench.schemas.record import Record

_FIRST = ("hpcbench", "gpus", "driver", "cpu", "host", "python", "torch", "transformers", "peft", "lm_eval")
_LABELS = {"gpus.names": "gpus", "gpus.driver": "driver"}
_GROUPS_WITHOUT_NAME = ("packages", "versions")
_LEFT_OUT = frozenset(
    {
        "python_executable",
        "slurm.job_id",
        "slurm.array_job_id",
        "slurm.array_task_id",
        "slurm.restart_count",
        "slurm.job_nodelist",
    }
)
"""Different in every job or shown elsewhere; the records and the JSON report keep them."""
_MOST_VALUES = 6
_VALUE_LIMIT = 120


def environment_lines(records: Iterable[Record]) -> tuple[tuple[str, str], ...]:
    """Return `(label, value)` for everything known, the hpcbench version and hardware first."""
    values: dict[str, Counter[str]] = {}
    for part, count in _distinct_parts(records):
        for label, value in labelled(part).items():
            values.setdefault(label, Counter())[value] += count
    rank = {name: number for number, name in enumerate(_FIRST)}
    labels = sorted(values, key=lambda label: (rank.get(label, len(rank)), label))
    return tuple((label, _values_text(values[label])) for label in labels)


def _distinct_parts(records: Iterable[Record]) -> Iterator[tuple[Mapping[str, Any], int]]:
    """Yield the entries of all environments, those that many records share once, with the number of records."""
    found: dict[tuple[str, object], tuple[Mapping[str, Any], int]] = {}
    for record in records:
        for key, value in (("hpcbench", record.hpcbench_version), *record.environment.items()):
            place = (key, value if isinstance(value, str) else id(value))
            part, count = found.get(place) or ({key: value}, 0)
            found[place] = (part, count + 1)
    yield from found.values()


def labelled(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return one environment by the labels that reports have, without what differs in every job."""
    return {_label(key): value for key, value in flatten(environment).items() if key not in _LEFT_OUT}


def flatten(environment: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment as flat text: nested keys joined by dots, lists counted, what is unknown left out."""
    flat: dict[str, str] = {}
    for key, value in environment.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}.{name}": text for name, text in flatten(value).items()})
        elif isinstance(value, (list, tuple)):
            flat[str(key)] = _list_text(value)
        elif value is not None:
            flat[str(key)] = one_line(str(value), limit=_VALUE_LIMIT)
    return {key: text for key, text in flat.items() if text}


def software_version(environment: Mapping[str, Any], name: str) -> str | None:
    """Return the version of a package wherever the environment lists it."""
    suffix = f".{name}"
    for key, value in environment.items():
        found = None
        if not isinstance(value, str) and isinstance(
            value, Mapping
        ):  # asking for Mapping takes long, and most are text
            found = software_version(value, name)
        elif key == name or key.endswith(suffix):
            found = flatten({key: value}).get(key)
        if found is not None:
            return found
    return None


def _label(key: str) -> str:
    group, _, name = key.partition(".")
    return name if name and group in _GROUPS_WITHOUT_NAME else _LABELS.get(key, key)


def _list_text(values: Iterable[Any]) -> str:
    names = [str(value.get("name", value)) if isinstance(value, Mapping) else str(value) for value in values]
    counted = Counter(names)
    text = ", ".join(f"{count}x {name}" if count > 1 else name for name, count in counted.items())
    return one_line(text, limit=_VALUE_LIMIT)


def _values_text(values: Counter[str]) -> str:
    if len(values) == 1:
        return next(iter(values))
    if len(values) > _MOST_VALUES:
        return f"{len(values)} different values"
    return "; ".join(f"{value} ({count} {'job' if count == 1 else 'jobs'})" for value, count in sorted(values.items()))
