"""The JSON report, for programs: figures and settings, or everything that is known; sorted keys, no NaN, no Infinity.

A full report has the whole record of each job, with its request and environment, and is about six times as large.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hpcbench.report.column import Column
from hpcbench.report.columns import DATA_ONLY
from hpcbench.report.cost import cost_of
from hpcbench.report.csv_table import data_columns, score_values
from hpcbench.report.facts import Facts, facts_of, job_cause, raw_args_of
from hpcbench.report.rows import averaged, merge_repeats
from hpcbench.report.score_columns import value_columns
from hpcbench.schemas.collection import Collection, JobView, SuiteView
from hpcbench.schemas.report_file import KIND, SCHEMA_VERSION
from hpcbench.storage.json_files import JsonObject, dump_json

_SOFTWARE = ("torch", "transformers", "peft", "lm_eval")


def json_parts(collection: Collection, *, full: bool = False) -> Iterator[str]:
    """Yield the collection as JSON, an experiment at a time; `full` holds the record of each job."""
    report: JsonObject = {
        "schema_version": SCHEMA_VERSION,
        "kind": KIND,
        "full": full,
        "collected_at": collection.collected_at,
        "warnings": list(collection.warnings),
        "suites": (_suite(suite, full=full) for suite in collection.suites),
    }
    yield from _parts(report)
    yield "\n"


def _parts(value: object, indent: str = "") -> Iterator[str]:
    """Yield what `dump_json` gives; iterators are lists whose items are made as they are written."""
    inner = f"{indent}  "
    if isinstance(value, Iterator):
        opening = "["
        for item in value:
            yield f"{opening}\n{inner}"
            yield from _parts(item, inner)
            opening = ","
        yield "[]" if opening == "[" else f"\n{indent}]"
    elif isinstance(value, dict) and any(isinstance(part, Iterator) for part in value.values()):
        opening = "{"
        for name, part in sorted(value.items()):
            yield f'{opening}\n{inner}"{name}": '
            yield from _parts(part, inner)
            opening = ","
        yield f"\n{indent}}}"
    else:
        yield dump_json(plain(value)).rstrip("\n").replace("\n", f"\n{indent}")


def plain(value: object) -> object:
    """Return `value` as JSON can hold it: numbers that are none become null, foreign types their text."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {str(plain(str(key))): plain(item) for key, item in value.items()}
    if isinstance(value, (Sequence, set, frozenset)):
        return [plain(item) for item in value]
    return str(plain(str(value)))


def _suite(suite: SuiteView, *, full: bool) -> JsonObject:
    experiments = [facts_of(view) for view in suite.experiments]
    columns = [column for key, column in data_columns(experiments).items() if key not in {"suite", "experiment"}]
    return {
        "name": suite.name,
        "cost": asdict(cost_of(experiments)),
        "experiments": (_experiment(facts, columns, full=full) for facts in experiments),
        "repeats": [
            {
                "base_experiment": row.name,
                "experiments": [facts.view.name for facts in row.members],
                "values": _means(row.members),
            }
            for row in merge_repeats(experiments)
            if len(row.members) > 1
        ],
    }


def _experiment(facts: Facts, columns: Sequence[Column], *, full: bool) -> JsonObject:
    view = facts.view
    sources = {} if facts.request is None else facts.request.source_of
    args = raw_args_of(view)
    return {
        "name": view.name,
        "base_experiment": view.base_experiment,
        "cmd": view.cmd,
        "state": facts.state.value,
        "values": {column.key: column.get(facts) for column in columns},
        "reported": {} if facts.command is None else dict(facts.command.values),
        "evals": score_values(facts),
        "scores": [
            {"dataset": found.dataset, "task": task, **asdict(score)}
            for found in facts.evals.values()
            for task, score in ((None, found.score), *found.tasks.items())
            if score is not None
        ],
        "arguments": {name: args[name] for name in sources if name in args},
        "environment": _environment(facts),
        "jobs": [_job(job, full=full) for job in view.jobs],
    }


def _environment(facts: Facts) -> JsonObject:
    """Return what figures depend on beside the arguments, in the form that records have it."""
    record = facts.main_record
    if record is None:
        return {}
    packages, gpus = record.environment.get("packages"), record.environment.get("gpus")
    found: JsonObject = {key: record.environment[key] for key in ("host", "cpu", "python") if key in record.environment}
    if isinstance(gpus, Mapping):
        found["gpus"] = {key: gpus[key] for key in ("names", "driver") if key in gpus}
    if isinstance(packages, Mapping):
        found["packages"] = {name: packages[name] for name in _SOFTWARE if name in packages}
    return found


def _job(job: JobView, *, full: bool) -> JsonObject:
    record = job.record
    cause = job_cause(job)
    known: JsonObject = {
        "job": job.job,
        "state": job.state.value,
        "reason": job.reason,
        "folder": str(job.folder),
        "scheduler_id": job.scheduler_id,
        "expected_start": job.expected_start,
        "progress": dict(job.progress),
        "cause": None if cause is None else cause.model_dump(mode="python"),
        "num_starts": 0 if record is None else len(record.attempts),
        "started_at": None if record is None else record.started_at,
        "finished_at": None if record is None else record.finished_at,
    }
    if full and record is not None:
        left_out = {"cause", "suite", "experiment", "job", "request"}
        known["record"] = {**record.model_dump(mode="python", exclude=left_out), "request": dict(job.recorded_request)}
    elif full:
        known["record"] = None
    return known


def _means(members: Sequence[Facts]) -> dict[str, Any]:
    """Return mean, sample standard deviation and n of every number that is measured."""
    measured = [column for column in (*DATA_ONLY, *value_columns(members)) if column.measured]
    by_key: dict[str, list[float]] = {}
    for facts in members:
        numbers = {column.key: column.get(facts) for column in measured} | score_values(facts)
        for key, value in numbers.items():
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if is_number and not key.endswith(("_stderr", "_num_samples", "_num_prompts_cut")):
                by_key.setdefault(key, []).append(float(value or 0.0))
    means = {key: averaged(values) for key, values in by_key.items()}
    return {
        key: {"mean": found.value, "std": found.std, "n": found.num_values}
        for key, found in means.items()
        if found is not None
    }
