"""What one submit would do: the same path, stopped one step early.

In: a suite, its save directory, a scheduler to ask. Out: a `Preview` with the decisions and the exact text of every
submission. It changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcbench.plan.arrays import describe_batch, make_batches, make_late_batches
from hpcbench.plan.decide import Action, Decision, Options
from hpcbench.plan.jobs import plan_suite
from hpcbench.scheduler.protocol import Scheduler
from hpcbench.schemas.submission import Submission
from hpcbench.schemas.suite import Suite
from hpcbench.schemas.suite_folder import read_suite
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit.decisions import decide_suite, hash_suite, limit_jobs, list_warnings, look_up


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What one submit would do."""

    suite: Suite
    decisions: tuple[Decision, ...]
    submissions: tuple[tuple[Submission, str], ...]
    """What would go to the scheduler, each with its exact text."""
    num_left: int
    """Jobs that would stay planned because no more may go out now."""
    warnings: tuple[str, ...]
    environment: tuple[str, ...]
    """What the user's environment adds to the texts, in words."""

    @property
    def num_jobs(self) -> int:
        """Jobs that would go to the scheduler."""
        return sum(len(submission.elements) for submission, _ in self.submissions)

    @property
    def num_changed(self) -> int:
        """Jobs that would not run because a result of other arguments stands in their place."""
        return sum(decision.action is Action.CHANGED for decision in self.decisions)


def preview_suite(
    suite: Suite,
    *,
    save_dir: Path,
    scheduler: Scheduler,
    options: Options,
    max_jobs: int | None = None,
    max_array: int = 1001,
) -> Preview:
    """Return what `submit_suite` would do with the same arguments. Changes nothing."""
    on_disk = read_suite(SuitePaths(save_dir, suite.name))
    requests = plan_suite(suite, save_dir=save_dir, inputs=hash_suite(suite, save_dir))
    views, collection = look_up(on_disk, requests, scheduler)
    decisions = decide_suite(requests, views, options, cluster=scheduler.name)
    chosen = limit_jobs(decisions, max_jobs)
    found: list[tuple[Submission, str]] = []
    for number, batch in enumerate(make_batches(chosen, max_array)):
        parent = describe_batch(batch, scheduler.name, None)
        found.append((parent, scheduler.render(parent, None)))
        for evals in batch.evals:
            child = describe_batch(evals, scheduler.name, parent)
            found.append((child, scheduler.render(child, f"<id-of-train-array-{number}>")))
    for parent, evals in make_late_batches(chosen, {} if on_disk is None else on_disk.latest()):
        late = describe_batch(evals, scheduler.name, parent)
        found.append((late, scheduler.render(late, parent.scheduler_id)))
    return Preview(
        suite=suite,
        decisions=tuple(decisions),
        submissions=tuple(found),
        num_left=len(limit_jobs(decisions, None)) - len(chosen),
        warnings=tuple(list_warnings(collection)),
        environment=tuple(scheduler.describe_environment([text for _, text in found])),
    )
