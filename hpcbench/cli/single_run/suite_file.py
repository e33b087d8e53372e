"""The suite file beside the results of `hpcbench sft`, `<output_dir>/<model>.yaml`: each run is an experiment of it.

It is a suite like any other: `hpcbench retry` reads it, and `hpcbench submit` runs it elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from hpcbench.errors import PlanError
from hpcbench.schemas.request import Resources
from hpcbench.schemas.suite import Experiment
from hpcbench.storage.json_files import write_text

HEADER = "# Written by `hpcbench sft` and its like, one experiment per run. A suite: hpcbench submit takes it.\n"


def put_experiment(file: Path, experiment: Experiment) -> None:
    """Add or replace the experiment in the suite in `file`; raise PlanError where the file is not a suite."""
    entries = _read_entries(file)
    new = describe_experiment(experiment)
    names = [entry.get("name") for entry in entries]
    if experiment.name in names:
        entries[names.index(experiment.name)] = new
    else:
        entries.append(new)
    text = yaml.safe_dump({"experiment": entries}, sort_keys=False, allow_unicode=True, width=120)
    write_text(file, HEADER + text)


def describe_experiment(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment as an entry of a suite file: what differs from the defaults, with absolute paths."""
    entry: dict[str, Any] = {
        "name": experiment.name,
        "cmd": experiment.cmd,
        "device": experiment.device,
        "requirements": _describe_resources(experiment.requirements),
    }
    if experiment.eval_dataset:
        entry["eval_requirements"] = _describe_resources(experiment.eval_requirements)
        entry["eval_dataset"] = list(experiment.eval_dataset)
        given = {
            name: args.model_dump(mode="json", exclude_defaults=True) for name, args in experiment.eval_args.items()
        }
        entry["eval_args"] = {"per_dataset": {name: values for name, values in given.items() if values}}
    if experiment.args is not None:
        entry["args"] = experiment.args.model_dump(mode="json", exclude_defaults=True)
    for own in (experiment.infer, experiment.export):
        if own is not None:
            entry["args"] |= own.model_dump(mode="json", exclude_defaults=True)
    return entry


def _describe_resources(resources: Resources) -> dict[str, Any]:
    return {"gpu": resources.gpu, **resources.model_dump(mode="json", exclude_defaults=True)}


def _read_entries(file: Path) -> list[dict[str, Any]]:
    hint = "move it away, or name another --output_dir"
    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise PlanError(f"{file}: cannot be read: {error}", hint=hint) from error
    entries = value.get("experiment") if isinstance(value, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise PlanError(f"{file}: exists and is not a suite", hint=hint)
    return entries
