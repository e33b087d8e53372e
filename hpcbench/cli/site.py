"""The verbs about a cluster and its storage: init, doctor, prefetch, clean, schema."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Annotated, cast

import typer

from hpcbench.cli.completion import complete_from, complete_keep
from hpcbench.cli.conventions import EXIT_FAILED, add_verb
from hpcbench.cli.options import AsJson, Cluster, Configs, Names, Overrides, SaveDir
from hpcbench.errors import PlanError
from hpcbench.invocation import command

ANSWERING = ("submit", "plan", "cancel", "retry", "status", "why", "logs", "clean", "init", "doctor")
"""Verbs with --json."""
DESCRIBED = ("suite", "record", "profile", "collect", "compare", *ANSWERING)


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    add_verb(app, clean, group="Results", example="hpcbench clean --keep adapter --dry-run")
    for verb, example in (
        (init, "hpcbench init && hpcbench doctor"),
        (doctor, "hpcbench doctor --cluster mycluster configs/qwen.yaml"),
        (prefetch, "hpcbench prefetch configs/qwen.yaml"),
        (schema, "hpcbench schema suite > suite.schema.json"),
    ):
        add_verb(app, verb, group="Set up", example=example)


def init(
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The profile's name; default: the cluster's.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="File to write; - prints. Default: among your profiles."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a cluster profile from what sinfo, scontrol and sacctmgr report."""
    from hpcbench.cli.answers import print_answer
    from hpcbench.cluster.init_profile import gather_facts, profile_name, render_profile
    from hpcbench.config.profile import user_folder
    from hpcbench.schemas.answers import InitAnswer
    from hpcbench.storage.json_files import write_text

    facts = gather_facts()
    if name is not None and (not name or "/" in name or name.startswith(".")):
        raise PlanError(f"--name {name}: not a file name")
    stem = name or profile_name(facts)
    text = render_profile(facts)
    if str(output) == "-":
        if as_json:
            raise PlanError("--json: not with -o -, which prints the profile itself", hint="name a file with -o")
        print(text, end="")
        return
    target = output or user_folder(os.environ) / f"{stem}.yaml"
    if target.exists() and not force:
        raise PlanError(f"{target}: already exists", hint="another --name or -o, or --force to overwrite it")
    write_text(target, text)
    warnings = () if facts.groups else ("sinfo did not answer; partition and GPUs are left open",)
    chosen = stem if output is None else target
    if as_json:
        print_answer(InitAnswer(name=str(chosen), file=str(target), warnings=warnings))
        return
    print(f"wrote {target}")
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"read it through, then: {command('doctor', '--cluster', chosen)}")


def doctor(
    configs: Annotated[
        list[Path] | None, typer.Argument(metavar="CONFIG", help="Check the models and data of these suites too.")
    ] = None,
    cluster: Cluster = "auto",
    save_dir: SaveDir = None,
    no_job: Annotated[bool, typer.Option("--no-job", help="Submit no probe job.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1, help="Seconds that the probe job may wait and run.")
    ] = 180,
    as_json: AsJson = False,
) -> None:
    """Check what makes jobs fail silently, and name the remedies."""
    from hpcbench.cli.answers import print_answer
    from hpcbench.cluster.check_inputs import check_inputs
    from hpcbench.cluster.doctor import run_checks
    from hpcbench.cluster.doctor_checks import Check
    from hpcbench.cluster.save_dir import resolve_save_dir
    from hpcbench.config.loading import load_suites
    from hpcbench.config.profile import load_profile
    from hpcbench.schemas.answers import CheckAnswer, DoctorAnswer

    profile = load_profile(cluster)
    root = resolve_save_dir(save_dir, profile)
    found: list[Check] = []
    suites = load_suites(configs) if configs else []
    examinations = [run_checks(profile, root, run_job=not no_job, timeout_s=timeout)]
    examinations += [check_inputs(suites, profile, cluster=cluster)] if suites else []
    for check in chain.from_iterable(examinations):
        found.append(check)
        if not as_json:
            print(f"{check.level:<8} {check.name}: {check.message}", flush=True)
            if check.remedy and check.level != "ok":
                print(f"         -> {check.remedy}", flush=True)
    counts = {level: sum(check.level == level for check in found) for level in ("ok", "warning", "error")}
    if as_json:
        checks = tuple(CheckAnswer(name=c.name, level=c.level, message=c.message, remedy=c.remedy) for c in found)
        name = "local" if profile is None else profile.name
        print_answer(DoctorAnswer(cluster=name, save_dir=str(root), checks=checks, **counts))
    else:
        print(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['error']} errors")
    if counts["error"]:
        raise typer.Exit(EXIT_FAILED)


def prefetch(configs: Configs, cluster: Cluster = "auto", overrides: Overrides = None) -> None:
    """Download models, datasets and eval tasks for compute nodes without internet."""
    from hpcbench.cluster.input_environments import group_by_environment
    from hpcbench.config.loading import load_suites
    from hpcbench.config.profile import load_profile
    from hpcbench.plan.requests import plan_suite
    from hpcbench.processes.start import module_command

    profile = load_profile(cluster)
    suites = load_suites(configs, overrides=overrides or ())
    requests = [job for suite in suites for job in plan_suite(suite, save_dir=Path("logs").absolute(), inputs={})]
    codes = []
    for environ, group in group_by_environment(requests, profile, os.environ):
        text = json.dumps([request.model_dump(mode="json") for request in group])
        # A second process, since prefetching imports the worker's libraries, which no verb may import.
        command = module_command("hpcbench.worker.prefetch")
        codes.append(subprocess.run(command, input=text, text=True, check=False, env=environ).returncode)
    if any(codes):
        raise typer.Exit(EXIT_FAILED)


def clean(
    names: Names = None,
    save_dir: SaveDir = None,
    keep: Annotated[
        str,
        typer.Option(
            "--keep", metavar="KEEP", help="What stays: best, adapter, last or none.", autocompletion=complete_keep
        ),
    ] = "best",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go, remove nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove checkpoints of finished experiments; never records."""
    from hpcbench.cli.answers import print_answer
    from hpcbench.cli.selection import choose_word, gather_named
    from hpcbench.cluster.save_dir import usual_save_dir
    from hpcbench.retention import KEEPS, count_freed, find_removals, remove
    from hpcbench.schemas.answers import CleanAnswer, RemovedFolder
    from hpcbench.schemas.cluster_profile import Keep
    from hpcbench.schemas.metrics import GIB

    keep = choose_word("--keep", keep, KEEPS)
    root = usual_save_dir(save_dir)
    removals = find_removals(gather_named(root, names, release_held=False), names or (), cast("Keep", keep))
    size = count_freed([removal.folder for removal in removals])
    for removal in () if as_json else removals:
        print(f"{'would remove' if dry_run else 'remove'} {removal.folder}")
    failed = [] if dry_run else remove(removals)
    if as_json:
        folders = tuple(RemovedFolder(experiment=each.experiment, folder=str(each.folder)) for each in removals)
        answer = CleanAnswer(dry_run=dry_run, keep=keep, freed_bytes=size, folders=folders, not_removed=tuple(failed))
        print_answer(answer)
    else:
        for failure in failed:
            print(f"not removed: {failure}", file=sys.stderr)
        verb = "would free" if dry_run else "freed"
        experiments = len({removal.experiment for removal in removals})
        print(f"{verb} {size / GIB:.2f} GiB in {len(removals)} folders of {experiments} experiments")
    if failed:
        raise typer.Exit(EXIT_FAILED)


def schema(
    of: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="suite, record, profile, or a verb whose JSON is meant.",
            autocompletion=complete_from(DESCRIBED),
        ),
    ] = "suite",
) -> None:
    """Print a JSON Schema of suites, records, cluster profiles or answers.

    Editors check and complete YAML with those of suites and profiles; programs that read records, or what a verb prints
    with --json, use theirs.
    """
    from pydantic import BaseModel

    from hpcbench.cli.selection import choose_word
    from hpcbench.compare.result import ComparisonReport
    from hpcbench.config.schema import suite_json_schema
    from hpcbench.schemas.answers import ANSWERS
    from hpcbench.schemas.cluster_profile import ClusterProfile
    from hpcbench.schemas.record import Record
    from hpcbench.schemas.report_file import ReportFile

    of = choose_word("schema", of, DESCRIBED)
    makers = {
        "suite": suite_json_schema,
        "record": Record.model_json_schema,
        "profile": ClusterProfile.model_json_schema,
        "compare": ComparisonReport.model_json_schema,
    }
    answers: dict[str, type[BaseModel]] = {**ANSWERS, "collect": ReportFile}
    made = makers[of]() if of in makers else answers[of].model_json_schema(mode="serialization")
    print(json.dumps(made, indent=2))
