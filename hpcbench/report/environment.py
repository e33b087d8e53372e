"""Where and with what the jobs of a suite ran: every key of the free-form `environment` of their records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    for key, raw, count in _distinct_values(records):
        for label, value in labelled({key: raw}).items():
            values.setdefault(label, Counter())[value] += count
    rank = {name: number for number, name in enumerate(_FIRST)}
    labels = sorted(values, key=lambda label: (rank.get(label, len(rank)), label))
    return tuple((label, _values_text(values[label])) for label in labels)


def _distinct_values(records: Iterable[Record]) -> Iterator[tuple[str, object, int]]:
    """Yield key and value of all entries, each with the number of records; those that many share come once.

    What is told of every job on its own, as Slurm's variables, has hundreds of thousands of entries and few values.
    """
    parts: dict[str, dict[object, list[Any]]] = {}
    for record in records:
        for key, value in (("hpcbench", record.hpcbench_version), *record.environment.items()):
            _count(parts.setdefault(key, {}), value, 1)
    for key, found in parts.items():
        texts: dict[str, dict[object, list[Any]]] = {}
        for value, count in found.values():
            if not isinstance(value, Mapping):
                yield key, value, count
                continue
            for name, part in value.items():
                if f"{key}.{name}" not in _LEFT_OUT:
                    _count(texts.setdefault(f"{key}.{name}", {}), part, count)
        for name, counted in texts.items():
            yield from ((name, value, count) for value, count in counted.values())


def _count(found: dict[object, list[Any]], value: object, count: int) -> None:
    """Count a value; texts are told apart by what they hold, others by what they are."""
    place = value if type(value) is str else id(value)
    known = found.get(place)
    if known is None:
        found[place] = [value, count]
    else:
        known[1] += count


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


class SoftwareVersions:
    """Versions of packages, wherever environments list them; a list that many records share is read once."""

    def __init__(self, names: Sequence[str]) -> None:
        """Read the versions of the packages of these names."""
        self._names = names
        self._of_lists: dict[int, tuple[Mapping[str, Any], dict[str, str]]] = {}

    def of(self, environment: Mapping[str, Any]) -> dict[str, str]:
        """Return the version of each package that an environment has, the first where it has several."""
        found: dict[str, str] = {}
        for key, value in environment.items():
            # To ask for Mapping takes long, and most are text.
            if not isinstance(value, str) and isinstance(value, Mapping):
                own = self._of_list(value)
            elif (name := key.rpartition(".")[2]) in self._names:
                text = flatten({key: value}).get(key)
                own = {} if text is None else {name: text}
            else:
                continue
            found |= {name: text for name, text in own.items() if name not in found}
        return found

    def _of_list(self, listed: Mapping[str, Any]) -> dict[str, str]:
        known = self._of_lists.get(id(listed))
        if known is None:
            known = self._of_lists[id(listed)] = listed, self.of(listed)
        return known[1]


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
