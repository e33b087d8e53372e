"""The verbs that submit suites: submit, and plan, which shows what it would do.

In: what a person types. Out: text, exit codes as in `conventions.py`. It holds no logic of its own and imports each
room only when a verb needs it.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from hpcbench.cli.conventions import EXIT_FAILED, add_verb, exit_code
from hpcbench.cli.options import AsJson, Cluster, Configs, Force, MaxJobs, Only, Overrides, Retry, SaveDir


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
) -> None:
    """Submit what is neither running nor done, and return at once."""
    from hpcbench.cli.invocation import (
        make_options,
        open_cluster,
        refuse_impossible,
        resolve_save_dir,
        run_local,
        submit_in_turn,
    )
    from hpcbench.cli.selection import refuse_unknown_experiments
    from hpcbench.config import load_suites
    from hpcbench.config.profile import load_profile
    from hpcbench.scheduler.slurm.client import SlurmClient

    if dry_run:
        plan(
            configs,
            cluster=cluster,
            save_dir=save_dir,
            only=only,
            retry=retry,
            force=force,
            max_jobs=max_jobs,
            overrides=overrides,
        )
        return
    profile = load_profile(cluster)
    root = resolve_save_dir(save_dir, profile)
    suites = load_suites(configs, overrides=overrides or ())
    refuse_unknown_experiments(suites, only)
    slurm = SlurmClient()
    refuse_impossible(suites, profile, only, slurm)
    options = make_options(only, retry, force=force)
    scheduler, max_array = open_cluster(profile, root, slurm)
    names, failed, error = submit_in_turn(suites, root, profile, (scheduler, max_array), options, max_jobs=max_jobs)
    if scheduler.runs_here:
        failed |= run_local(root, names, detach=detach)
    elif wait:
        from hpcbench.cli.watch import wait_for_slurm

        failed |= wait_for_slurm(root, names, only or ())
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
    from hpcbench.cli.invocation import (
        make_options,
        open_cluster,
        preview_by_profile,
        refuse_impossible,
        resolve_save_dir,
    )
    from hpcbench.cli.output import plan_json, print_preview
    from hpcbench.cli.selection import refuse_unknown_experiments
    from hpcbench.config import load_suites
    from hpcbench.config.profile import load_profile
    from hpcbench.scheduler.slurm.client import SlurmClient

    profile = load_profile(cluster)
    root = resolve_save_dir(save_dir, profile)
    suites = load_suites(configs, overrides=overrides or ())
    refuse_unknown_experiments(suites, only)
    slurm = SlurmClient()
    refuse_impossible(suites, profile, only, slurm)
    options = make_options(only, retry, force=force)
    scheduler, max_array = open_cluster(profile, root, slurm)
    previews = preview_by_profile(suites, root, (scheduler, max_array), options, max_jobs=max_jobs)
    if as_json:
        print(json.dumps([plan_json(preview) for preview in previews], indent=2))
    else:
        for preview in previews:
            print_preview(preview, scheduler.name, with_script=script)
    if any(preview.num_changed for preview in previews):
        raise typer.Exit(EXIT_FAILED)
