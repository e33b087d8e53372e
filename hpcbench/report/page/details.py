"""What the page tells of one experiment beyond its figures: resources, attempts, environment, checkpoint, log, answers.

In: the experiments of a suite and where their artifacts come from. Out: plain JSON values by experiment. Logs and
answers are of a limited number of experiments, and the page says so.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from hpcbench.report.artifacts import Artifacts, ReportContext
from hpcbench.report.environment import flatten
from hpcbench.report.escape import one_line, printable
from hpcbench.report.facts import Facts, cause_text, completed_metrics
from hpcbench.report.next_steps import next_steps
from hpcbench.report.page.answers import answers_of
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.metrics import EvalMetrics, ExportMetrics, TrainMetrics
from hpcbench.schemas.progress import progress_text
from hpcbench.schemas.record import Attempt, Record
from hpcbench.schemas.states import JobState
from hpcbench.storage.clock import parse_moment
from hpcbench.storage.json_files import JsonObject

MOST_WITH_LOGS = 100
"""Experiments of a suite whose logs are on the page: those that failed first."""
MOST_WITH_ANSWERS = 30
"""Experiments of a suite whose answers are on the page: the best ranked."""
_LOG_LINE = 160
_DIFFERS_ALWAYS = frozenset(
    {"host", "python_executable", "slurm.job_id", "slurm.array_job_id", "slurm.array_task_id", "slurm.restart_count",
     "slurm.job_nodelist", "slurm.submit_host"}
)  # fmt: skip


def details_of(ranked: Sequence[Facts], context: ReportContext) -> list[tuple[Facts, JsonObject]]:
    """Return the details of a suite's experiments, the best ranked first."""
    environments = {id(record): _environment(record) for facts in ranked for record in facts.records}
    unusual = _unusual(environments)
    failed_first = sorted(ranked, key=lambda facts: facts.state is JobState.COMPLETED)
    with_logs = {facts.view.name for facts in failed_first[:MOST_WITH_LOGS]}
    found = []
    for place, facts in enumerate(ranked):
        jobs = [_job(job, unusual, context, log=facts.view.name in with_logs) for job in facts.view.jobs]
        details: JsonObject = {"resources": _resources(facts), "jobs": jobs}
        if place < MOST_WITH_ANSWERS:
            details["answers"] = _answers(facts, context.artifacts)
        found.append((facts, _slim(details)))
    return found


def _job(job: JobView, unusual: Mapping[int, list[list[str]]], context: ReportContext, *, log: bool) -> JsonObject:
    record = job.record
    told: JsonObject = {
        "job": one_line(job.job),
        "state": job.state.value,
        "text": progress_text(job.progress) if job.state is JobState.RUNNING else cause_text(job),
        "scheduler_id": job.scheduler_id,
        "cluster": job.cluster,
        "folder": str(job.folder),
        "link": _link(job.folder, context.folder),
        "submitted": _seconds(job.submitted_at),
        "attempts": [] if record is None else [_attempt(attempt) for attempt in record.attempts],
        "environment": [] if record is None else unusual[id(record)],
        "checkpoint": _checkpoint(job),
        "hint": None if job.state is JobState.COMPLETED else _hint(job),
    }
    if job.state is not JobState.COMPLETED:
        told["steps"] = [[one_line(step.command), one_line(step.remark)] for step in next_steps(job)]
    if log and job.state not in {JobState.PLANNED, JobState.PENDING, JobState.BLOCKED}:
        told["log"] = [printable(line, limit=_LOG_LINE) for line in _log_lines(job, context.artifacts)]
    return _slim(told)


def _hint(job: JobView) -> str | None:
    cause = None if job.record is None else job.record.cause
    hint = job.hint or (None if cause is None else cause.hint)
    return None if hint is None else one_line(hint)


def _log_lines(job: JobView, artifacts: Artifacts) -> Sequence[str]:
    cause = None if job.record is None else job.record.cause
    return artifacts.log_tail(job) or (() if cause is None else cause.lines)


def _attempt(attempt: Attempt) -> list[object]:
    """Return number, state, start and end (seconds since 1970), host, and why it ended."""
    started, finished = _seconds(attempt.started_at), _seconds(attempt.finished_at)
    cause = "" if attempt.cause is None else one_line(attempt.cause.message, limit=200)
    return [attempt.number, attempt.state.value, started, finished, one_line(attempt.host), cause]


def _seconds(text: str | None) -> int | None:
    moment = parse_moment(text)
    return None if moment is None else round(moment.timestamp())


def _checkpoint(job: JobView) -> str | None:
    """Return the folder of the model that a job made; what an eval or infer took is its maker's."""
    metrics = completed_metrics(job)
    if isinstance(metrics, ExportMetrics):
        return metrics.output_model
    if not isinstance(metrics, TrainMetrics):
        return None
    _, checkpoint = metrics.choose_checkpoint(None)
    return None if checkpoint is None else str(job.folder / checkpoint)


def _resources(facts: Facts) -> list[list[object]]:
    job = next((job for job in facts.view.jobs if job.request is not None), None)
    if job is None or job.request is None:
        return []
    known = job.request.resources.model_dump(exclude_none=True)
    return [[name, value] for name, value in known.items()]


def _answers(facts: Facts, artifacts: Artifacts) -> JsonObject:
    found: JsonObject = {}
    for dataset, eval_facts in facts.evals.items():
        if isinstance(eval_facts.metrics, EvalMetrics):
            examples = answers_of(artifacts.samples(eval_facts.job), eval_facts.metrics)
            if examples:
                found[one_line(dataset)] = examples
    return found


def _unusual(environments: Mapping[int, Mapping[str, str]]) -> dict[int, list[list[str]]]:
    """Return key, value and usual value where they differ: usual is what most records have, of as many the first's."""
    counts: dict[str, Counter[str]] = {}
    for environment in environments.values():
        for key, value in environment.items():
            counts.setdefault(key, Counter())[value] += 1
    usual = {key: values.most_common(1)[0][0] for key, values in counts.items()}
    return {
        number: [[key, value, usual[key]] for key, value in environment.items() if value != usual[key]]
        for number, environment in environments.items()
    }


def _environment(record: Record) -> dict[str, str]:
    known = {"hpcbench": record.hpcbench_version, **flatten(record.environment)}
    return {key: value for key, value in known.items() if key not in _DIFFERS_ALWAYS}


def _link(folder: Path, start: Path | None) -> str | None:
    return None if start is None else quote(Path(os.path.relpath(folder, start)).as_posix()) + "/"


def _slim(values: JsonObject) -> JsonObject:
    return {key: value for key, value in values.items() if value not in (None, "", [], {})}
