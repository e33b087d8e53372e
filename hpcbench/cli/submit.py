"""The verbs that submit suites: submit, and plan, which shows what it would do."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpcbench.cli.conventions import EXIT_FAILED, add_verb, exit_code
from hpcbench.cli.options import AsJson, Cluster, Configs, Force, MaxJobs, Only, Overrides, Retry, SaveDir
from hpcbench.errors import EXIT_INTERRUPTED, HpcbenchError, PlanError
from hpcbench.invocation import quoted

if TYPE_CHECKING:
    from hpcbench.plan.decide import Options
    from hpcbench.schemas.suite import Suite
    from hpcbench.submit.destination import Destination
    from hpcbench.submit.send_arrays import SubmitResult


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    add_verb(app, submit, group="Run", example="hpcbench submit configs/qwen.yaml --only 'lora-*' --wait")
    add_verb(app, plan, group="Run", example="hpcbench plan configs/qwen.yaml --set args.max_steps=10 --script")


def submit(
    configs: Configs,
    cluster: Cluster = "auto",
    save_dir: SaveDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would happen, change nothing.")] = False,
    only: Only = None,
    retry: Retry = None,
    force: Force = False,
    max_jobs: MaxJobs = None,
    overrides: Overrides = None,
    wait: Annotated[bool, typer.Option("--wait", help="Stay until all jobs are over, then print the report.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Local mode: run in the background and return.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit what is neither running nor done, and return at once."""
    if as_json and wait:
        raise PlanError(
            "--json: not with --wait, which prints lines", hint=f"then {quoted('status', '--watch', '--json')}"
        )
    suites, destination, options = _open(configs, cluster, save_dir, overrides, only=only, retry=retry, force=force)
    if dry_run:
        _show_plans(suites, destination, options, max_jobs=max_jobs, as_json=as_json)
        return
    results, error = submit_in_turn(suites, destination, options, max_jobs=max_jobs, quiet=as_json)
    names, failed = [result.plan.suite.name for result in results], any(result.has_failed for result in results)
    failed |= error is not None
    if as_json:
        print_submitted(results, [suite.name for suite in suites[len(names) :]], error)
    if destination.scheduler.runs_here:
        failed |= run_local(destination.save_dir, names, detach=detach, quiet=as_json)
    elif wait:
        from hpcbench.cli.watch import wait_for_slurm

        failed |= wait_for_slurm(destination.save_dir, names, only or ())
    if error is not None:
        raise typer.Exit(exit_code(error))
    if failed:
        raise typer.Exit(EXIT_FAILED)


def plan(
    configs: Configs,
    cluster: Cluster = "auto",
    save_dir: SaveDir = None,
    script: Annotated[bool, typer.Option("--script", help="Print the exact text of every submission.")] = False,
    only: Only = None,
    retry: Retry = None,
    force: Force = False,
    max_jobs: MaxJobs = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show what submit would do: which jobs run, which do not, and why."""
    suites, destination, options = _open(configs, cluster, save_dir, overrides, only=only, retry=retry, force=force)
    _show_plans(suites, destination, options, max_jobs=max_jobs, script=script, as_json=as_json)


def _show_plans(
    suites: Sequence[Suite],
    destination: Destination,
    options: Options,
    *,
    max_jobs: int | None,
    script: bool = False,
    as_json: bool = False,
) -> None:
    from hpcbench.cli.answers import plan_answer, print_answer
    from hpcbench.cli.output import print_plan
    from hpcbench.submit.submit_plan import prepare_in_turn

    plans = prepare_in_turn(suites, destination, options, max_jobs=max_jobs)
    if as_json:
        print_answer(plan_answer(plans))
    else:
        for found in plans:
            print_plan(found, with_script=script)
    if any(found.changed for found in plans):
        raise typer.Exit(EXIT_FAILED)


def _open(
    configs: Sequence[Path],
    cluster: str,
    save_dir: Path | None,
    overrides: Sequence[str] | None,
    *,
    only: Sequence[str] | None,
    retry: str | None,
    force: bool,
) -> tuple[list[Suite], Destination, Options]:
    """Return the suites, where their jobs go and what to run of them, all checked before anything is queued."""
    from hpcbench.cli.selection import parse_states, refuse_unknown_experiments
    from hpcbench.cluster.save_dir import resolve_save_dir
    from hpcbench.config.loading import load_suites
    from hpcbench.config.profile import load_profile
    from hpcbench.plan.decide import Options
    from hpcbench.scheduler.slurm.client import SlurmClient
    from hpcbench.schemas.suite_folder import names_taken
    from hpcbench.submit.destination import open_destination, refuse_impossible

    profile = load_profile(cluster)
    root = resolve_save_dir(save_dir, profile)
    suites = load_suites(configs, overrides=overrides or (), taken=partial(names_taken, root))
    refuse_unknown_experiments(suites, only)
    slurm = SlurmClient()
    refuse_impossible(suites, profile, only, slurm)
    options = Options(retry=frozenset(parse_states(retry)), force=force, only=tuple(only or ()))
    return suites, open_destination(profile, root, slurm), options


def submit_in_turn(
    suites: Sequence[Suite], destination: Destination, options: Options, *, max_jobs: int | None, quiet: bool = False
) -> tuple[list[SubmitResult], Exception | None]:
    """Submit suites in turn and print the outcome unless `quiet`; return the outcomes, and what ended it early."""
    from hpcbench.cli.output import print_error, print_result, print_warning
    from hpcbench.submit.carry_out import submit_suite

    results: list[SubmitResult] = []
    for suite in suites:
        try:
            result = submit_suite(suite, destination, options, max_jobs=destination.jobs_allowed(max_jobs))
        except (HpcbenchError, OSError) as error:
            # What is queued here, only this process runs; and ids that are printed at the end alone must not be lost.
            if not results or not (quiet or destination.scheduler.runs_here):
                raise
            rest = ", ".join(other.name for other in suites[len(results) :])
            print_error(error)
            print_warning(f"not submitted: {rest}; what was queued before runs{' now' if not quiet else ''}")
            return results, error
        results.append(result)
        max_jobs = None if max_jobs is None else max_jobs - result.num_elements
        if not quiet:
            print_result(result)
    return results, None


def print_submitted(results: Sequence[SubmitResult], not_submitted: Sequence[str], error: Exception | None) -> None:
    """Print what was submitted as JSON, at once: a local run may take hours."""
    import sys

    from hpcbench.cli.answers import print_answer, submit_answer

    print_answer(submit_answer(results, not_submitted=not_submitted, error=error))
    sys.stdout.flush()


def run_local(save_dir: Path, names: Sequence[str], *, detach: bool, quiet: bool = False) -> bool:
    """Run the local queue here, or leave it to a background process; return whether something failed.

    With `quiet` nothing is printed on the way, for a program that reads JSON.
    """
    from hpcbench.cli.output import print_report
    from hpcbench.scheduler.local.runner import run_queue, start_detached
    from hpcbench.status.gather import gather

    if detach:
        start_detached(save_dir)
        if not quiet:
            print(f"running in the background; {quoted('status')} shows progress", flush=True)
        return False
    code = run_queue(save_dir, display=not quiet)
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if not quiet:
        print_report(gather(save_dir, names), names)
    return code != 0
