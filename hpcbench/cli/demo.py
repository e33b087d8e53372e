"""The verb that runs the quickstart, `configs/quickstart.yaml`: demo. It never writes into the package."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from hpcbench.cli.conventions import add_verb


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    add_verb(app, demo, group="Run", example="hpcbench demo --save-dir /tmp/hpcbench-demo")


def demo(
    save_dir: Annotated[
        Path, typer.Option("--save-dir", metavar="DIR", help="Root of all results.", show_default=True)
    ] = Path("logs"),
) -> None:
    """Run the quickstart on this machine and report it, in about a minute.

    It teaches a tiny model pig latin in three ways and compares. It needs the worker's libraries but neither GPU nor
    network. A second run finds the results and runs nothing again.
    """
    from hpcbench.cli.submit import submit
    from hpcbench.cluster.save_dir import resolve_save_dir, usual_save_dir
    from hpcbench.config.loading import load_suites
    from hpcbench.errors import HpcbenchError
    from hpcbench.invocation import repeat_save_dir
    from hpcbench.plan.requests import plan_suite
    from hpcbench.report import render
    from hpcbench.schemas.libraries import missing_libraries
    from hpcbench.status.gather import gather
    from hpcbench.storage.json_files import write_text
    from hpcbench.storage.package_data import shipped_file
    from hpcbench.storage.paths import SuitePaths

    file = shipped_file("configs", "quickstart.yaml")
    root = resolve_save_dir(save_dir, None)
    usual = os.environ.get("HPCBENCH_SAVE_DIR")
    if usual_save_dir(Path(usual) if usual else None) != root:
        repeat_save_dir(root)
    [suite] = load_suites([file])
    if missing := missing_libraries(plan_suite(suite, save_dir=root, inputs={})):
        has_not = f"demo: {sys.executable} has no {', '.join(missing)}"
        raise HpcbenchError(has_not, hint="pip install 'hpcbench-llm[worker]'")
    submit([file], cluster="local", save_dir=root)
    collection = gather(root, [suite.name])
    for name, text in (
        ("report.md", render(collection, format="markdown")),
        ("report.html", render(collection, format="html")),
    ):
        report = SuitePaths(root, suite.name).folder / name
        write_text(report, text)
        print(f"wrote {report}")
