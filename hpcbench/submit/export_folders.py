"""Folders that exports are to write to and that are there already: found before anything waits in a queue.

In: what a submit does with each job. Out: problems with the suite's file and line. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hpcbench.errors import Problem
from hpcbench.plan.decide import Action, Decision
from hpcbench.schemas.suite import Suite
from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import MANIFEST


def find_taken_folders(suite: Suite, decisions: Iterable[Decision]) -> list[Problem]:
    """Return each `output_dir` of an export that would run and that something other than this export made."""
    line_of = {experiment.name: experiment.line for experiment in suite.experiments}
    problems = []
    for decision in decisions:
        request = decision.request
        if decision.action is not Action.SUBMIT or request.export is None or request.cmd != "export":
            continue
        folder = None if request.export.output_dir is None else Path(request.export.output_dir)
        if folder is None or not folder.exists() or _is_made_by(folder, request.fingerprint):
            continue
        problem = Problem(
            file=str(suite.file),
            line=line_of.get(request.experiment),
            path=f"experiment[{request.experiment}].args.output_dir",
            message=f"{folder} exists already, and this export has not made it",
            expected="a folder that does not exist yet",
            hint="name another folder, or move that one away",
        )
        problems.append(problem)
    return problems


def _is_made_by(folder: Path, fingerprint: str) -> bool:
    manifest = read_json(folder / MANIFEST) if folder.is_dir() else None
    # A fingerprint that was too costly to compute is empty; then the job compares.
    return manifest is not None and (not fingerprint or manifest.get("fingerprint") == fingerprint)
