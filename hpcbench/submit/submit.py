"""Submitting a plan: what is not running and not done goes to the scheduler, once, whatever happens in between.

In: suites and a scheduler. Out: submissions on disk and in the queue. For every call of the scheduler an intent is
written and synced first and the id after it; a submit killed in between is completed by the next one, which finds the
job by its name.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

from hpcbench.cluster.save_dir import warn_of_open_folders
from hpcbench.errors import PlanError, RecordError, SchedulerError
from hpcbench.plan.arrays import make_batches, make_late_batches
from hpcbench.plan.decide import Options
from hpcbench.plan.jobs import plan_suite
from hpcbench.retention import find_removals, remove
from hpcbench.scheduler.protocol import Scheduler, cluster_elsewhere
from hpcbench.schemas.cluster_profile import Keep
from hpcbench.schemas.request import JobRequest
from hpcbench.schemas.submission import Submission, read_submissions, submitted_by_other, unusable_submissions
from hpcbench.schemas.suite import Suite
from hpcbench.schemas.suite_folder import PlannedSuite, SuiteOnDisk, read_suite
from hpcbench.schemas.views import Collection
from hpcbench.status.collect import collect_suites
from hpcbench.status.held_evals import release_held_evals
from hpcbench.storage.clock import file_age_s, now_text
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit.decisions import (
    decide_suite,
    find_scheduler,
    hash_suite,
    limit_jobs,
    list_warnings,
    look_up,
    planned_experiments,
)
from hpcbench.submit.send_arrays import Outcome, abandon, complete, submit_batches, submit_late_evals
from hpcbench.submit.suite_claim import claim_suite

MARKED_ID = re.compile(r"[1-9][0-9]*(?=[ _])")
"""What a start mark begins with: the id of a single job, or of the array."""

SETTLE_S = 1.0
"""How old an intent has to be before the queue's silence means anything: a submit that was killed between fork and exec
leaves a child that nobody can tell for its sbatch yet (seen on 22.05: it was taken 100 ms later, and doubled)."""


def submit_suite(
    suite: Suite,
    *,
    save_dir: Path,
    scheduler: Scheduler,
    options: Options,
    max_jobs: int | None = None,
    max_array: int = 1001,
    keep: Keep | None = None,
    profile_file: Path | None = None,
) -> Outcome:
    """Submit what is neither under way nor done.

    Args:
        suite: the experiments.
        save_dir: root of everything on disk.
        scheduler: where jobs go.
        options: what to run again, and which experiments.
        max_jobs: how many jobs may go out at most; the rest stays planned.
        max_array: one more than the largest array index; 1 submits single jobs.
        keep: what stays of the checkpoints of experiments that are over; None keeps all.
        profile_file: see `profile.file_to_remember`.

    Raises:
        PlanError: the save directory cannot be used, or another submit holds it.
        RecordError: a file of an earlier submission cannot be read, so its jobs might be doubled.
        SchedulerError: the scheduler does not answer, so nothing may be concluded.
    """
    paths = SuitePaths(save_dir, suite.name)
    requests = plan_suite(suite, save_dir=save_dir, inputs=hash_suite(suite, save_dir))
    try:
        paths.submissions.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlanError(
            f"{paths.submissions}: cannot be made: {error.strerror}", hint="name another --save-dir"
        ) from error
    outcome = Outcome(warnings=warn_of_open_folders((save_dir, paths.folder)))
    with claim_suite(paths):
        _refuse_unreadable(paths)
        outcome.adopted = adopt_intents(paths, scheduler)
        before = read_suite(paths) if suite.grows else None
        write_json(paths.plan, _plan_value(suite, requests, scheduler, before, profile_file))
        on_disk = read_suite(paths)
        views, collection = look_up(on_disk, requests, scheduler)
        _refuse_silence(collection)
        release_held_evals([] if on_disk is None else [on_disk], collection, scheduler)
        outcome.warnings += list_warnings(collection)
        if keep is not None:
            outcome.removed = find_removals(collection, (), keep)
            outcome.warnings += [f"not removed: {words}" for words in remove(outcome.removed)]
        outcome.decisions = decide_suite(requests, views, options, cluster=scheduler.name)
        chosen = limit_jobs(outcome.decisions, max_jobs)
        outcome.num_left = len(limit_jobs(outcome.decisions, None)) - len(chosen)
        submit_batches(make_batches(chosen, max_array), paths, scheduler, outcome)
        latest = {} if on_disk is None else on_disk.latest()
        submit_late_evals(make_late_batches(chosen, latest), paths, scheduler, outcome)
        if any(submission.after_key for submission in outcome.submitted):
            # A quick train job may have ended before its evals were in the queue.
            settle_suite(paths, scheduler)
    return outcome


def _refuse_unreadable(paths: SuitePaths) -> None:
    broken = unusable_submissions(paths)
    if broken:
        raise RecordError(
            f"{broken[0]}: cannot be read, so its jobs would be submitted a second time",
            hint=f"mend it, or move it away once `squeue --me --name={broken[0].stem}` shows nothing",
        )


def _refuse_silence(collection: Collection) -> None:
    if collection.unanswered:
        words = "; ".join(f"{cluster}: {said}" for cluster, said in collection.unanswered.items())
        hint = "nothing was submitted; run the same command again later"
        raise SchedulerError(f"the scheduler did not answer ({words})", hint=hint)


def settle_suite(paths: SuitePaths, scheduler: Scheduler) -> None:
    """Release or cancel evals whose train job is over."""
    suite = read_suite(paths)
    if suite is not None and any(submission.after_key for submission in suite.submissions):
        release_held_evals([suite], collect_suites([suite], find_scheduler(scheduler, paths.save_dir)), scheduler)


def adopt_intents(paths: SuitePaths, scheduler: Scheduler) -> list[Submission]:
    """Complete submissions that were interrupted between intent and id; return those that the scheduler had taken.

    Another user's are left alone: only that user can ask what became of them.

    Raises:
        SchedulerError: the scheduler did not answer, so it is not known what became of them.
    """
    mine = [submission for submission in read_submissions(paths) if submitted_by_other(submission) is None]
    open_intents = [submission for submission in mine if submission.state == "intent"]
    _let_settle([paths.submission(intent.key) for intent in open_intents])
    find = find_scheduler(scheduler, paths.save_dir)
    adopted = []
    for submission in open_intents:
        place = find(submission.cluster)
        if place is None or cluster_elsewhere(submission, place.cluster_name) is not None:
            continue
        found = place.find([submission.key])
        if submission.key in found:
            adopted.append(complete(paths, submission, found[submission.key]))
        elif (marked := _id_from_its_jobs(paths, submission)) is not None:
            adopted.append(complete(paths, submission, marked))
        else:
            abandon(paths, submission)
    return adopted


def _let_settle(intents: Sequence[Path]) -> None:
    """Wait until every intent is `SETTLE_S` old."""
    for intent in intents:
        age_s = file_age_s(intent)
        if age_s is not None and age_s < SETTLE_S:
            time.sleep(min(SETTLE_S - age_s, SETTLE_S))


def _id_from_its_jobs(paths: SuitePaths, submission: Submission) -> str | None:
    """Return the scheduler's id when a job of this submission has started, whatever the queue says now.

    A claim holds it, and so does a start mark, which is older than the profile's setup lines.
    """
    for element in submission.elements.values():
        claim = read_json(paths.job(element.experiment, element.job).claim)
        if claim is not None and claim.get("key") == submission.key and claim.get("scheduler_id"):
            return str(claim["scheduler_id"]).partition("_")[0]
    for index in submission.elements:
        try:
            mark = paths.start_mark(submission.key, index).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if match := MARKED_ID.match(mark):
            return match[0]
    return None


def _plan_value(
    suite: Suite,
    requests: Sequence[JobRequest],
    scheduler: Scheduler,
    before: SuiteOnDisk | None,
    profile_file: Path | None,
) -> dict[str, object]:
    """Return `suite.json`; what was planned `before` keeps its place."""
    planned = {} if before is None else {experiment.name: experiment for experiment in before.plan.experiments}
    experiments = tuple({**planned, **{found.name: found for found in planned_experiments(requests)}}.values())
    plan = PlannedSuite.model_validate(
        {
            "suite": suite.name,
            "suite_file": str(suite.file),
            "cluster": scheduler.name,
            "profile_file": "" if profile_file is None else str(profile_file),
            "planned_at": now_text(),
            "overrides": suite.overrides,
            "experiments": experiments,
        }
    )
    return plan.model_dump(mode="json")
