"""The command line: verbs, their options, and everything that is printed.

In: what a person types. Out: text on standard output, errors on standard error, an exit code: 0 done, 1 something
failed, 2 wrong usage or config, 130 interrupted, 141 nobody reads any more. It holds no logic of its own and imports
each room only when a verb needs it, so that `hpcbench --help` stays quick.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hpcbench.cli import jobs as cli_jobs
from hpcbench.cli import site as cli_cluster
from hpcbench.cli.conventions import Verbs, WatchingCommand
from hpcbench.cli.options import AsJson, Cluster, Configs, Force, MaxJobs, Only, Overrides, Retry, SaveDir, Watch
from hpcbench.cli.single_run import verbs as cli_here
from hpcbench.errors import ConfigError, HpcbenchError, PlanError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="hpcbench",
    cls=Verbs,
    help="One YAML of LLM fine-tuning experiments in, Slurm jobs, one trustworthy report out.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; every expected error becomes a message and an exit code, never a traceback."""
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        app()
    except (HpcbenchError, OSError) as error:
        from hpcbench.cli.output import print_error

        print_error(error)
        sys.exit(_exit_code(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def _exit_code(error: Exception) -> int:
    return EXIT_USAGE if isinstance(error, ConfigError | PlanError) else EXIT_FAILED


def _version(value: bool) -> None:
    if value:
        from hpcbench import __version__

        print(f"hpcbench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
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
    refuse_impossible(suites, profile, only)
    options = make_options(only, retry, force=force)
    scheduler, max_array = open_cluster(profile, root)
    names, failed, error = submit_in_turn(suites, root, profile, (scheduler, max_array), options, max_jobs=max_jobs)
    if scheduler.name == "local":
        failed |= run_local(root, names, detach=detach)
    elif wait:
        from hpcbench.cli.watch import wait_for_slurm

        failed |= wait_for_slurm(root, names, only or ())
    if error is not None:
        raise typer.Exit(_exit_code(error))
    if failed:
        raise typer.Exit(EXIT_FAILED)


@app.command()
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
    """Show what submit would do: each job, and why it runs or is skipped."""
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

    profile = load_profile(cluster)
    root = resolve_save_dir(save_dir, profile)
    suites = load_suites(configs, overrides=overrides or ())
    refuse_unknown_experiments(suites, only)
    refuse_impossible(suites, profile, only)
    options = make_options(only, retry, force=force)
    scheduler, max_array = open_cluster(profile, root)
    previews = preview_by_profile(suites, root, (scheduler, max_array), options, max_jobs=max_jobs)
    if as_json:
        print(json.dumps([plan_json(preview) for preview in previews], indent=2))
    else:
        for preview in previews:
            print_preview(preview, scheduler.name, with_script=script)
    if any(preview.num_changed for preview in previews):
        raise typer.Exit(EXIT_FAILED)


cli_here.register(app)
cli_jobs.register(app)


@app.command(cls=WatchingCommand)
def collect(
    suites: Annotated[
        list[str] | None, typer.Argument(metavar="[SUITE...]", help="Suites by name; default: all.")
    ] = None,
    save_dir: SaveDir = None,
    output_format: Annotated[str, typer.Option("--format", help="markdown, csv, json or html.")] = "markdown",
    layout: Annotated[
        str, typer.Option("--layout", help="default, or swift: the original's exact columns.")
    ] = "default",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Write to this file instead of printing.")
    ] = None,
    watch: Watch = None,
) -> None:
    """Build the report from the records; idempotent, made for cron."""
    from hpcbench.cli.invocation import usual_save_dir
    from hpcbench.cli.output import print_warnings
    from hpcbench.cli.selection import gather_suites
    from hpcbench.cli.watch import watch_report
    from hpcbench.report import render
    from hpcbench.storage.json_files import write_text

    if output_format not in {"markdown", "csv", "json", "html"}:
        raise PlanError(f"--format {output_format}: unknown; expected markdown, csv, json or html")
    if layout not in {"default", "swift"}:
        raise PlanError(f"--layout {layout}: unknown; expected default or swift")
    if watch is not None and output is None:
        raise PlanError("--watch rewrites a file: name it with -o")
    root = usual_save_dir(save_dir)
    make = partial(render, format=output_format, layout=layout)  # type: ignore[arg-type]  # checked above
    collection = gather_suites(root, suites)
    if watch is not None and output is not None:
        watch_report(root, suites or (), output, make, every_s=watch or None)
        return
    print_warnings(collection)
    text = make(collection)
    if output is None:
        print(text, end="" if text.endswith("\n") else "\n")
    else:
        write_text(output, text)
        print(f"wrote {output}")


@app.command()
def schema(
    of: Annotated[str, typer.Argument(metavar="[suite|record]", help="What to describe.")] = "suite",
) -> None:
    """Print a JSON Schema: of suites, for editors, or of records, for programs that read them."""
    from hpcbench.config.schema import suite_json_schema
    from hpcbench.schemas.record import Record

    if of not in {"suite", "record"}:
        raise PlanError(f"schema {of}: unknown; expected suite or record")
    value = suite_json_schema() if of == "suite" else Record.model_json_schema()
    print(json.dumps(value, indent=2))


cli_cluster.register(app)
