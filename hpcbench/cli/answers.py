"""The answers that verbs print with `--json`, made from what they know; `schemas/answers.py` has their forms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel

from hpcbench.errors import HpcbenchError, SchedulerError
from hpcbench.plan.decide import Action, Decision
from hpcbench.report.cause_groups import CauseGroup, group_jobs, hint_of
from hpcbench.schemas import answers
from hpcbench.schemas.collection import Collection, JobView
from hpcbench.schemas.submission import Submission
from hpcbench.status.explain import MEANING
from hpcbench.status.gather import status_rows
from hpcbench.status.logs import log_tail, telling_log
from hpcbench.submit.retry import Retry
from hpcbench.submit.send_arrays import SubmitResult
from hpcbench.submit.submit_plan import SubmitPlan


def print_answer(answer: BaseModel) -> None:
    """Print an answer, two spaces a level."""
    print(json.dumps(answer.model_dump(mode="json"), indent=2))


def status_answer(collection: Collection, jobs: Sequence[JobView]) -> answers.StatusAnswer:
    """Return where the jobs stand."""
    rows = [
        {**asdict(row), "progress_values": dict(job.progress)} for row, job in zip(status_rows(jobs), jobs, strict=True)
    ]
    return answers.StatusAnswer(
        collected_at=collection.collected_at,
        warnings=collection.warnings,
        jobs=tuple(answers.StatusJob.model_validate(row) for row in rows),
    )


def why_answer(collection: Collection, jobs: Sequence[JobView], *, each: bool) -> answers.WhyAnswer:
    """Return why jobs are in their states, by cause, or with `each` one by one."""
    groups = [CauseGroup(jobs=[job]) for job in jobs] if each else group_jobs(jobs, collection.all_jobs)
    return answers.WhyAnswer(
        collected_at=collection.collected_at, warnings=collection.warnings, causes=tuple(map(_cause, groups))
    )


def _cause(group: CauseGroup) -> answers.CauseOfJobs:
    first = group.first
    log = telling_log(first)
    lines = () if log is None else log_tail(log)
    return answers.CauseOfJobs(
        state=first.state,
        meaning=MEANING[first.state],
        cause=first.reason,
        hint=hint_of(first),
        jobs=tuple(map(_named, group.jobs)),
        blocked=tuple(map(_named, group.blocked)),
        log=None if log is None else str(log),
        log_lines=lines or (() if first.record is None or first.record.cause is None else first.record.cause.lines),
        next=tuple(answers.NextCommand(command=step.command, remark=step.remark) for step in group.steps),
    )


def _named(job: JobView) -> answers.NamedJob:
    return answers.NamedJob(suite=job.suite, experiment=job.experiment, job=job.job)


def plan_answer(plans: Sequence[SubmitPlan]) -> answers.PlanAnswer:
    """Return what submitting the suites would do."""
    return answers.PlanAnswer(tuple(map(_planned_suite, plans)))


def _planned_suite(plan: SubmitPlan) -> answers.PlannedSuiteAnswer:
    scheduler = plan.destination.scheduler
    return answers.PlannedSuiteAnswer(
        suite=plan.suite.name,
        file=str(plan.suite.file),
        cluster=scheduler.name,
        jobs=tuple(map(_planned_job, plan.decisions)),
        remarks=tuple(plan.suite.remarks),
        warnings=plan.warnings,
        num_left=plan.num_left,
        environment=tuple(scheduler.describe_environment([text for _, text in plan.render()])),
    )


def _planned_job(decision: Decision) -> answers.PlannedJob:
    request = decision.request
    return answers.PlannedJob(
        experiment=request.experiment,
        job=request.job,
        action=decision.action.value,
        why=decision.why,
        fingerprint=request.fingerprint or None,
        resources=request.resources,
    )


def submit_answer(
    results: Sequence[SubmitResult], *, not_submitted: Sequence[str] = (), error: Exception | None = None
) -> answers.SubmitAnswer:
    """Return what was submitted, and why the rest was not."""
    message = error.message if isinstance(error, HpcbenchError) else None if error is None else str(error)
    return answers.SubmitAnswer(
        suites=tuple(map(_submitted_suite, results)), not_submitted=tuple(not_submitted), error=message
    )


def _submitted_suite(result: SubmitResult) -> answers.SubmittedSuite:
    plan = result.plan
    return answers.SubmittedSuite(
        suite=plan.suite.name,
        save_dir=str(plan.destination.save_dir / plan.suite.name),
        cluster=plan.destination.scheduler.name,
        submissions=tuple(map(_submission, result.submitted)),
        adopted=tuple(map(_submission, plan.adopted)),
        skipped=tuple(_planned_job(found) for found in plan.decisions if found.action is not Action.SUBMIT),
        refused=tuple(result.refused),
        num_left=result.num_left,
        limit=result.limit,
        removed_folders=len(plan.removals) - len(result.not_removed),
        warnings=(*plan.warnings, *(f"not removed: {failure}" for failure in result.not_removed)),
    )


def _submission(submission: Submission) -> answers.SubmissionAnswer:
    return answers.SubmissionAnswer(
        key=submission.key,
        scheduler_id=submission.scheduler_id,
        jobs=tuple(
            answers.SubmittedJob(experiment=job.experiment, job=job.job, scheduler_id=submission.element_id(index))
            for index, element in submission.elements.items()
            for job in element.jobs
        ),
    )


def logs_answer(found: Sequence[tuple[JobView, Sequence[Path]]]) -> answers.LogsAnswer:
    """Return where the logs of jobs are."""
    return answers.LogsAnswer(
        jobs=tuple(
            answers.JobLogs(**_named(job).model_dump(), state=job.state, files=tuple(map(str, files)))
            for job, files in found
        )
    )


def retry_answer(
    retries: Sequence[Retry], results: Sequence[SubmitResult], *, dry_run: bool, adjusted: bool
) -> answers.RetryAnswer:
    """Return which failed jobs run again, and with what changed."""
    return answers.RetryAnswer(
        dry_run=dry_run,
        adjusted=adjusted,
        jobs=tuple(_retried(job, again) for again in retries for job in again.jobs),
        suites=tuple(map(_submitted_suite, results)),
    )


def _retried(job: JobView, again: Retry) -> answers.RetriedJob:
    remedy = again.remedies.get(job.ref)
    return answers.RetriedJob(
        **_named(job).model_dump(),
        state=job.state,
        reason=job.reason,
        change=None if remedy is None else remedy.change,
        resources=None if remedy is None else remedy.resources,
    )


def cancel_answer(
    cancelled: Sequence[JobView], left: Sequence[tuple[Sequence[JobView], SchedulerError]]
) -> answers.CancelAnswer:
    """Return what was cancelled and what was not."""
    return answers.CancelAnswer(
        cancelled=tuple(
            answers.CancelledJob(**_named(job).model_dump(), scheduler_id=job.scheduler_id) for job in cancelled
        ),
        not_cancelled=tuple(
            answers.NotCancelled(jobs=tuple(map(_named, jobs)), reason=error.message, hint=error.hint)
            for jobs, error in left
        ),
    )
