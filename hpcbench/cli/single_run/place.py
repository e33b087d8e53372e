"""Where a run of `hpcbench sft` leaves its results: below the model's name, under a name or the next version number.

A version's folder is made at once, so that two runs that start together get two numbers.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from hpcbench.config.names import OLD_NAME_LENGTH, fit_name, name_error
from hpcbench.errors import PlanError
from hpcbench.schemas.suite import Experiment, Suite
from hpcbench.schemas.suite_folder import read_suite
from hpcbench.storage.paths import SuitePaths


def suite_of(experiment: Experiment, *, root: Path, name: str | None, prefix: str | None) -> Suite:
    """Return the suite of the experiment's model with this run in it.

    It is called `name`, else the next version after `prefix` (None: the tuner's name); its own name does not count.

    Raises:
        PlanError: the folder holds results of another suite of that name.
    """
    args = experiment.args
    label = suite_label("model" if args is None else args.model_name)
    paths = SuitePaths(root, label)
    file = root / f"{label}.yaml"
    _refuse_foreign(paths, file)
    if name is None:
        name = _next_version(paths, prefix or ("run" if args is None else args.method))
    return Suite(name=label, file=file, experiments=(replace(experiment, suite=label, name=name),), grows=True)


def suite_label(model: str) -> str:
    """Return a model's name as the name of a suite."""
    label = fit_name(re.sub(r"[^A-Za-z0-9._+=-]+", "_", model), OLD_NAME_LENGTH)
    return label if name_error(label) is None else fit_name(f"model_{label}", OLD_NAME_LENGTH)


def _refuse_foreign(paths: SuitePaths, file: Path) -> None:
    known = read_suite(paths)
    if known is not None and known.plan.suite_file not in {"", str(file)}:
        raise PlanError(
            f"{paths.folder}: holds the results of {known.plan.suite_file}", hint="name another --output_dir"
        )


def _next_version(paths: SuitePaths, prefix: str) -> str:
    number = 0
    while True:
        name = fit_name(f"{prefix}-v{number}", OLD_NAME_LENGTH)
        folder = paths.folder / name
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            if not folder.parent.is_dir():
                raise PlanError(f"{folder.parent}: is a file", hint="name another --output_dir") from None
            number += 1
        except OSError as error:
            raise PlanError(f"{folder}: cannot be made: {error.strerror}", hint="name another --output_dir") from error
        else:
            return name
