"""The verbs about jobs that were submitted: status, why, logs, cancel, retry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hpcbench.cli.completion import complete_cluster, complete_names
from hpcbench.cli.conventions import EXIT_FAILED, WatchingVerb, add_verb
from hpcbench.cli.options import AsJson, Names, SaveDir, States, Watch
from hpcbench.errors import HpcbenchError, PlanError
from hpcbench.invocation import command

if TYPE_CHECKING:
    from hpcbench.submit.retry import Retry
    from hpcbench.submit.send_arrays import SubmitResult


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    add_verb(app, cancel, group="Run", example="hpcbench cancel 'qwen/lora-*' --state pending")
    add_verb(app, retry, group="Run", example="hpcbench retry qwen --state out_of_memory,timeout --adjust")
    add_verb(app, status, group="Watch", example="hpcbench status --watch", cls=WatchingVerb)
    add_verb(app, why, group="Watch", example="hpcbench why qwen/lora-r8")
    add_verb(app, logs, group="Watch", example="hpcbench logs qwen/lora-r8/train --follow")


def status(
    names: Names = None,
    save_dir: SaveDir = None,
    state: States = None,
    by_job: Annotated[bool, typer.Option("--jobs", help="A line per job, with its id, instead of per experiment.")] = (
        False
    ),
    watch: Watch = None,
    as_json: AsJson = False,
) -> None:
    """Show where every experiment is: how far, with what result, or why not."""
    from hpcbench.cli.output import print_status
    from hpcbench.cli.selection import gather_named, parse_states, refuse_unknown_jobs
    from hpcbench.cluster.save_dir import usual_save_dir
    from hpcbench.schemas.collection import Collection, JobView, choose_jobs

    root = usual_save_dir(save_dir)
    states = parse_states(state)

    def choose(collection: Collection) -> list[JobView]:
        return choose_jobs(collection, names or (), states)

    if watch is not None:
        from hpcbench.cli.watch import watch_status

        refuse_unknown_jobs(root, names)
        watch_status(root, choose, every_s=watch or None, as_json=as_json, by_job=by_job)
        return
    collection = gather_named(root, names)
    if as_json:
        from hpcbench.cli.answers import print_answer, status_answer

        print_answer(status_answer(collection, choose(collection)))
    else:
        print_status(collection, choose(collection), by_job=by_job, complete=bool(names or state))


def why(
    names: Names = None,
    save_dir: SaveDir = None,
    state: States = None,
    each: Annotated[bool, typer.Option("--all", help="Explain each job by itself instead of each cause.")] = False,
    as_json: AsJson = False,
) -> None:
    """Explain why jobs failed or wait, and what to type next."""
    from hpcbench.cli.answers import print_answer, why_answer
    from hpcbench.cli.output import print_causes, print_explanations
    from hpcbench.cli.selection import gather_named, need_jobs, parse_states
    from hpcbench.cluster.save_dir import usual_save_dir
    from hpcbench.schemas.collection import choose_jobs
    from hpcbench.schemas.states import JobState

    collection = gather_named(usual_save_dir(save_dir), names)
    jobs = choose_jobs(collection, names or (), parse_states(state))
    if not names and state is None:
        quiet = {JobState.PLANNED, JobState.RUNNING, JobState.COMPLETED}
        # A pending job with a hint never starts by itself.
        jobs = [job for job in jobs if job.state not in quiet and (job.state is not JobState.PENDING or job.hint)]
        if not jobs and not as_json:
            print("nothing has failed")
            return
    if as_json:
        print_answer(why_answer(collection, jobs, each=each))
        return
    need_jobs(jobs, names)
    if each:
        print_explanations(jobs)
    else:
        print_causes(jobs, collection, [*(names or ()), *(["--state", state] if state else [])])


def logs(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="experiment, suite/experiment or suite/experiment/job.", autocompletion=complete_names
        ),
    ],
    save_dir: SaveDir = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Keep printing as the log grows.")] = False,
    attempt: Annotated[
        int | None, typer.Option("--attempt", metavar="N", min=1, help="This attempt instead of the last.")
    ] = None,
    path_only: Annotated[bool, typer.Option("--path", help="Print the log's path instead of its text.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print a job's log; where several are meant, each under its name."""
    from hpcbench.cli.answers import logs_answer, print_answer
    from hpcbench.cli.output import print_file
    from hpcbench.cli.selection import choose_followed, gather_named, need_jobs, parse_states
    from hpcbench.cluster.save_dir import usual_save_dir
    from hpcbench.schemas.collection import choose_jobs
    from hpcbench.status.logs import log_files, newest_log

    root = usual_save_dir(save_dir)
    jobs = choose_jobs(gather_named(root, [name]), [name], parse_states(None))
    need_jobs(jobs, [name])
    with_logs = [job for job in jobs if newest_log(job, attempt) is not None]
    if not with_logs:
        raise HpcbenchError(f"{name}: no log yet", hint=command("why", name))
    if as_json:
        print_answer(logs_answer([(job, log_files(job, attempt)) for job in with_logs]))
        return
    if follow:
        with_logs = [choose_followed(with_logs, name)]
    for job in with_logs:
        log = newest_log(job, attempt)
        if log is None:
            continue
        if path_only:
            print("\n".join(str(path) for path in log_files(job, attempt)))
            continue
        if len(with_logs) > 1:
            print(f"==> {job.suite}/{job.experiment}/{job.job} <==")
        print_file(log, follow=follow)


def cancel(
    names: Names = None,
    save_dir: SaveDir = None,
    state: States = None,
    everything: Annotated[bool, typer.Option("--all", help="All jobs that are pending or running.")] = False,
    as_json: AsJson = False,
) -> None:
    """Cancel jobs by name glob or state.

    A cancelled job never comes back by itself; hpcbench retry runs it again.
    """
    from hpcbench.cli.answers import cancel_answer, print_answer
    from hpcbench.cli.output import print_cancelled
    from hpcbench.cli.selection import gather_named, parse_states
    from hpcbench.cluster.save_dir import usual_save_dir
    from hpcbench.schemas.collection import choose_jobs
    from hpcbench.submit.cancel import cancel_where_possible

    if not names and state is None and not everything:
        raise PlanError("nothing named", hint="give a name glob, --state, or --all")
    root = usual_save_dir(save_dir)
    jobs = choose_jobs(gather_named(root, names, release_held=False), names or (), parse_states(state))
    cancelled, left = cancel_where_possible(jobs, root)
    if as_json:
        print_answer(cancel_answer(cancelled, left))
    else:
        print_cancelled(cancelled, left)
    if left:
        raise typer.Exit(EXIT_FAILED)


def retry(
    names: Names = None,
    save_dir: SaveDir = None,
    state: States = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="NAME",
            help="Default: where the suite was submitted.",
            autocompletion=complete_cluster,
        ),
    ] = None,
    adjust: Annotated[
        bool, typer.Option("--adjust", help="Request what would help: more memory, more time, another node.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would help, change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run failed jobs again.

    They run with the suite file and the --set values that they were submitted with.
    """
    from hpcbench.cli.answers import print_answer, retry_answer
    from hpcbench.cli.output import print_remedies, print_result
    from hpcbench.cli.selection import gather_named, need_jobs, parse_states
    from hpcbench.cli.submit import run_local
    from hpcbench.cluster.save_dir import resolve_save_dir
    from hpcbench.config.profile import load_profile
    from hpcbench.scheduler.slurm.client import SlurmClient
    from hpcbench.schemas.collection import choose_jobs
    from hpcbench.schemas.states import FAILED_STATES
    from hpcbench.submit.carry_out import submit_suite
    from hpcbench.submit.retry import prepare_retry

    root = resolve_save_dir(save_dir, load_profile(cluster or "auto") if save_dir is None else None)
    collection = gather_named(root, names)
    states = parse_states(state) or tuple(FAILED_STATES)
    jobs = choose_jobs(collection, names or (), states)
    if not jobs and choose_jobs(collection, names or ()):
        if as_json:
            print_answer(retry_answer([], [], dry_run=dry_run, adjusted=adjust))
        else:
            print("nothing to retry: no such job has failed")
        return
    need_jobs(jobs, names)
    slurm = SlurmClient()
    failed = False
    retries: list[Retry] = []
    results: list[SubmitResult] = []
    for suite_name in dict.fromkeys(job.suite for job in jobs):
        again = prepare_retry(suite_name, jobs, root, slurm, cluster=cluster, states=states, adjust=adjust)
        retries.append(again)
        how = [*(names or ()), *(["--state", state] if state else []), *(["--cluster", cluster] if cluster else [])]
        if not as_json:
            print_remedies(again.jobs, again.remedies, applied=adjust, how=how)
        if dry_run:
            continue
        destination = again.destination
        result = submit_suite(again.suite, destination, again.options, max_jobs=destination.jobs_allowed(None))
        results.append(result)
        if not as_json:
            print_result(result)
        failed |= result.has_failed
        if destination.scheduler.runs_here:
            failed |= run_local(root, [suite_name], detach=False, quiet=as_json)
    if as_json:
        print_answer(retry_answer(retries, results, dry_run=dry_run, adjusted=adjust))
    if failed:
        raise typer.Exit(EXIT_FAILED)
