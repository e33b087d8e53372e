"""What the verbs print for people; `answers.py` has the JSON for programs. It decides nothing."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hpcbench.errors import ConfigError, HpcbenchError, SchedulerError, name_first, plural
from hpcbench.invocation import command, quoted
from hpcbench.schemas.collection import Collection, JobView
from hpcbench.schemas.request import JobRef
from hpcbench.status.gather import count_states
from hpcbench.status.logs import log_tail, telling_log

if TYPE_CHECKING:
    from hpcbench.cli.status_table import StatusScreen
    from hpcbench.plan.decide import Decision
    from hpcbench.schemas.suite import Suite
    from hpcbench.submit.retry import Remedy
    from hpcbench.submit.send_arrays import SubmitResult
    from hpcbench.submit.submit_plan import SubmitPlan

CHUNK_CHARACTERS = 65_536
OS_HINTS = {
    errno.EACCES: "who owns it can allow it; results go where --save-dir says",
    errno.EPERM: "who owns it can allow it; results go where --save-dir says",
    errno.EROFS: "name another --save-dir: nothing can be written there",
    errno.ENOSPC: "free space there, or name another --save-dir",
    errno.EDQUOT: "free space there, or name another --save-dir: your quota is used up",
}
"""What helps where the operating system refuses, by its number."""


def print_error(error: HpcbenchError | OSError) -> None:
    """Print an expected error (an OSError: a full disk, no permission) and the number of a configuration's problems."""
    if isinstance(error, ConfigError):
        print_warning(f"{error}\n{plural(len(error.problems), 'problem')} found; nothing was submitted")
    else:
        print_warning(f"error: {describe_os_error(error) if isinstance(error, OSError) else error}")


def describe_os_error(error: OSError) -> str:
    """Return what the system refused, with the file and what helps; a current folder that is gone is told as that."""
    if isinstance(error, FileNotFoundError) and not _has_current_folder():
        return "the current folder is not there any more\n  hint: cd to a folder that is there, then type it again"
    named = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
    reason = error.strerror or str(error) or type(error).__name__
    other = "" if error.filename2 is None else f" (to {os.fsdecode(error.filename2)})"
    hint = OS_HINTS.get(error.errno or 0, "")
    return f"{named}{reason}{other}" + (f"\n  hint: {hint}" if hint else "")


def _has_current_folder() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def print_line(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


def print_warning(text: str) -> None:
    """Print lines on standard error."""
    print(text, file=sys.stderr, flush=True)


def print_report(collection: Collection, names: Sequence[str]) -> None:
    """Print the terminal's report of the suites of these names, and the command that writes the whole one."""
    from hpcbench.cli.status_table import Terminal
    from hpcbench.report.terminal import render_terminal

    Terminal().print(render_terminal(collection), crop=False)  # commands are longer than some terminals
    print(f"full report: {command('collect', *names, '-o', 'report.html')}")


def print_result(result: SubmitResult) -> None:
    """Print what a submit did."""
    from hpcbench.plan.decide import Action

    plan = result.plan
    name, cluster = plan.suite.name, plan.destination.scheduler.name
    for submission in plan.adopted:
        adopted = plural(submission.num_jobs, "job")
        print(f"{name}: adopted {submission.scheduler_id} from an interrupted submit ({adopted})")
    for submission in result.submitted:
        jobs = sorted({job.job for element in submission.elements.values() for job in element.jobs})
        print(f"{name}: {cluster} job {submission.scheduler_id}: {len(submission.elements)} x {', '.join(jobs)}")
    if plan.removals:
        folders = plural(len(plan.removals), "folder")
        print(f"{name}: removed {folders} of finished experiments' checkpoints (keep in the profile)")
    for warning in (*plan.warnings, *(f"not removed: {failure}" for failure in result.not_removed)):
        print_warning(f"warning: {warning}")
    for decision in plan.changed:
        print_warning(f"not run: {decision.name}: {decision.why}")
    for message in result.refused:
        print_warning(f"refused: {message}; left planned, submit again later")
    if result.limit:
        total = plural(result.num_jobs + result.num_left, "job")
        stay = f"{result.num_left} stay{'s' if result.num_left == 1 else ''} planned"
        again = "run the same command again when some are done"
        print(f"{name}: {result.num_jobs} of {total} submitted; {stay}: {result.limit}; {again}")
    elif result.num_left:
        print(f"{name}: {plural(result.num_left, 'job')} left planned (no more may go out now); submit again later")
    skipped = Counter(decision.why for decision in plan.decisions if decision.action in {Action.SKIP, Action.WAIT})
    for reason, count in skipped.items():
        print(f"{name}: {plural(count, 'job')} not submitted: {reason}")
    print(f"{name}: {plural(result.num_jobs, 'job')} submitted, results in {plan.destination.save_dir / name}")


def print_cancelled(cancelled: Sequence[JobView], left: Sequence[tuple[Sequence[JobView], SchedulerError]]) -> None:
    """Print what was cancelled and what was not."""
    for job in cancelled:
        print(f"cancelled {job.suite}/{job.experiment}/{job.job} ({job.scheduler_id})")
    print(f"{plural(len(cancelled), 'job')} cancelled")
    for jobs, error in left:
        names = name_first([f"{job.suite}/{job.experiment}/{job.job}" for job in jobs])
        print_warning(f"not cancelled: {names}: {error}")


def print_remedies(
    jobs: Sequence[JobView], remedies: Mapping[JobRef, Remedy], *, applied: bool, how: Sequence[str] = ()
) -> None:
    """Print why each job failed and what would fix it; `how` is what was typed after `retry`."""
    for job in jobs:
        reason = f": {job.reason}" if job.reason else ""
        print(f"{job.suite}/{job.experiment}/{job.job}: was {job.state}{reason}")
        remedy = remedies.get(job.ref)
        if remedy is not None:
            print(f"  {'changed' if applied else 'would help'}: {remedy.change}")
    if remedies and not applied:
        print(f"{command('retry', *how, '--adjust')} asks for what would help")


def print_plan(plan: SubmitPlan, *, with_script: bool) -> None:
    """Print the plan's table, and with `with_script` the exact text of every submission."""
    scheduler = plan.destination.scheduler
    _print_decisions(plan.suite, plan.decisions, scheduler.name)
    submissions = plan.render()
    for line in scheduler.describe_environment([text for _, text in submissions]):
        print(line)
    for remark in plan.suite.remarks:
        print(remark)
    for warning in plan.warnings:
        print_warning(f"warning: {warning}")
    if plan.removals:
        folders = plural(len(plan.removals), "folder")
        print(f"{folders} of finished experiments' checkpoints would be removed (keep in the profile)")
    for submission, text in submissions if with_script else ():
        print(f"\n# ---- {submission.key}: {plural(submission.num_jobs, 'job')} ----\n{text}", end="")
    left = f"; {plan.num_left} more stay planned: no more may go out now" if plan.num_left else ""
    print(f"{plural(plan.num_jobs, 'job')} in {plural(len(submissions), 'submission')}{left}")


def _print_decisions(suite: Suite, decisions: Sequence[Decision], cluster: str) -> None:
    from tabulate import tabulate

    rows = [(d.request.experiment, d.request.job, d.action.value, _describe_resources(d), d.why) for d in decisions]
    headers = ["experiment", "job", "action", "resources", "why"]
    print(f"{suite.name} ({suite.file}) on {cluster}:")
    print(tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True))


def _describe_resources(decision: Decision) -> str:
    wanted = decision.request.resources
    kind = f" {wanted.gpu_type}" if wanted.gpu_type else ""
    parts = [f"{wanted.gpu} GPU{kind}" if wanted.gpu or decision.request.device == "cuda" else "CPU"]
    parts += [f"{wanted.ddp} ranks"] if wanted.ddp > 1 else []
    parts += [f"{wanted.nodes} nodes"] if wanted.nodes > 1 else []
    return ", ".join(parts)


def print_warnings(collection: Collection) -> None:
    """Print what made the look incomplete."""
    for warning in collection.warnings:
        print_warning(f"warning: {warning}")


def print_status(
    collection: Collection, jobs: Sequence[JobView], *, by_job: bool = False, complete: bool = True
) -> None:
    """Print the status table; on a terminal the most important experiments of many, unless it is to be complete."""
    from hpcbench.cli.status_table import MOST_ROWS, Place, Terminal, status_lines

    print_warnings(collection)
    if not sys.stdout.isatty():
        for line in status_lines(jobs, Place(by_job=by_job)):
            print(line.plain)
        return
    console = Terminal()
    rows = None if complete or by_job else MOST_ROWS
    place = Place(width=console.width, rows=rows, ascii_only=console.options.ascii_only, by_job=by_job)
    for line in status_lines(jobs, place):
        console.print(line, no_wrap=True, overflow="ignore", crop=False)


def print_explanations(jobs: Sequence[JobView]) -> None:
    """Print why each job is in its state."""
    from hpcbench.status.explain import explain

    for job in jobs:
        log = telling_log(job)
        print(explain(job, () if log is None else log_tail(log), None if log is None else str(log)))


def print_causes(jobs: Sequence[JobView], collection: Collection, words: Sequence[str]) -> None:
    """Print why jobs are in their states, those of one cause together; `words` is what was typed after `why`."""
    from hpcbench.report.cause_groups import group_jobs
    from hpcbench.status.explain import NAMED, explain_group

    groups = group_jobs(jobs, collection.all_jobs)
    if len(groups) > 1:
        print(f"{plural(len(jobs), 'job')}, {plural(len(groups), 'cause')}: {count_states(jobs)}")
    for group in groups:
        log = telling_log(group.first)
        print(explain_group(group, () if log is None else log_tail(log), None if log is None else str(log)))
    if any(len(group.jobs) > NAMED or len(group.blocked) > NAMED for group in groups):
        print(f"{quoted('why', *words, '--all')} explains each job")


@contextmanager
def status_screen(*, by_job: bool) -> Iterator[StatusScreen]:
    """Open a place on the terminal where the status is drawn again and again."""
    from rich.live import Live

    from hpcbench.cli.status_table import StatusScreen, Terminal

    with Live(console=Terminal(), auto_refresh=False, vertical_overflow="crop") as live:
        yield StatusScreen(live, by_job=by_job)


def print_file(path: Path, *, follow: bool) -> None:
    """Print a file, and what is added to it while following."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        while True:
            # A part at a time: some logs are larger than a login node's memory.
            text = stream.read(CHUNK_CHARACTERS)
            if text:
                print(text, end="", flush=True)
            elif follow:
                time.sleep(1)
            else:
                return
