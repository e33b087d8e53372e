"""The JSON report: everything that is known, for programs; sorted keys, no NaN, no Infinity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hpcbench.report.column import Column
from hpcbench.report.columns import DATA_ONLY
from hpcbench.report.csv_table import data_columns, score_values
from hpcbench.report.facts import Facts, facts_of, job_cause
from hpcbench.report.rows import averaged, merge_repeats
from hpcbench.report.score_columns import value_columns
from hpcbench.schemas.collection import Collection, JobView, SuiteView
from hpcbench.storage.json_files import JsonObject, dump_json

SCHEMA_VERSION = 1


def render_json(collection: Collection) -> str:
    """Return the collection as JSON."""
    report: JsonObject = {
        "schema_version": SCHEMA_VERSION,
        "kind": "hpcbench-report",
        "collected_at": collection.collected_at,
        "warnings": list(collection.warnings),
        "suites": [_suite(suite) for suite in collection.suites],
    }
    return dump_json(plain(report))


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


def _suite(suite: SuiteView) -> JsonObject:
    experiments = [facts_of(view) for view in suite.experiments]
    columns = [column for key, column in data_columns(experiments).items() if key not in {"suite", "experiment"}]
    return {
        "name": suite.name,
        "experiments": [_experiment(facts, columns) for facts in experiments],
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


def _experiment(facts: Facts, columns: Sequence[Column]) -> JsonObject:
    view = facts.view
    return {
        "name": view.name,
        "base_experiment": view.base_experiment,
        "cmd": view.cmd,
        "state": facts.state.value,
        "values": {column.key: column.get(facts) for column in columns},
        "reported": {} if facts.command is None else dict(facts.command.values),
        "evals": score_values(facts),
        "jobs": [_job(job) for job in view.jobs],
    }


def _job(job: JobView) -> JsonObject:
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
        "record": None,
    }
    if record is not None:
        left_out = {"cause", "suite", "experiment", "job", "request"}
        known["record"] = {**record.model_dump(mode="python", exclude=left_out), "request": dict(job.recorded_request)}
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
