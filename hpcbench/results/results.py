"""What is known about the experiments of a save directory, as frames of pandas, which is imported only for them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpcbench.errors import ReportError, did_you_mean
from hpcbench.report import render
from hpcbench.report.document import build_document, counts_text
from hpcbench.report.facts import EvalFacts, Facts, facts_of
from hpcbench.report.table import Table
from hpcbench.results.table_html import table_html
from hpcbench.schemas.collection import Collection
from hpcbench.schemas.history import History, read_history
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.schemas.samples import Sample, read_samples
from hpcbench.schemas.suite_folder import read_suites
from hpcbench.status.gather import gather
from hpcbench.storage.paths import JobPaths

if TYPE_CHECKING:
    import pandas as pd

ANALYSIS_EXTRA = "pip install 'hpcbench-llm[analysis]'"
NAMES = ("suite", "experiment", "base_experiment", "model_type", "dataset", "tuner", "metric", "task")
"""Columns that stay texts: an experiment may be called 1e-4 or 001."""


def load(save_dir: str | os.PathLike[str] = "logs", *suites: str, ask_scheduler: bool = True) -> Results:
    """Return the results below a save directory.

    Args:
        save_dir: what `--save-dir` names.
        *suites: names or globs of suites; all without one.
        ask_scheduler: whether the scheduler is asked about jobs that left no record yet, as `hpcbench status` does;
            without it their state is `unknown`.

    Raises:
        ReportError: there is no such folder, or no such suite in it.
    """
    root = Path(save_dir).expanduser()
    names = [suite.plan.suite for suite in read_suites(root)]
    if not names:
        raise ReportError(
            f"{root}: no suites found", hint="name the folder that `hpcbench submit` was given: --save-dir"
        )
    unknown = [glob for glob in suites if not any(fnmatchcase(name, glob) for name in names)]
    if unknown:
        hint = did_you_mean(unknown[0], names) or f"there are: {', '.join(names)}"
        raise ReportError(f"{root}: no such suite: {unknown[0]}", hint=hint)
    chosen = [name for name in names if not suites or any(fnmatchcase(name, glob) for glob in suites)]
    collection = gather(root, chosen, release_held=False, find=None if ask_scheduler else lambda _: None)
    return Results(save_dir=root, collection=collection)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Results:
    """The results of some suites at the time of `load`.

    In a notebook it shows itself as the tables of the report.
    """

    save_dir: Path
    """Where they were loaded from."""
    collection: Collection
    """What they are made of, without a promise: its form may change with any version."""

    @property
    def experiments(self) -> tuple[str, ...]:
        """All experiments, as `suite/name`, in the order of the suites' files."""
        return tuple(f"{view.suite}/{view.name}" for suite in self.collection.suites for view in suite.experiments)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What made the look incomplete."""
        return self.collection.warnings

    def frame(self, *, long: bool = False) -> pd.DataFrame:
        """Return a row per experiment with the columns of `collect --format csv`: raw values, units in the names.

        Args:
            long: a row per experiment and metric instead, as `collect --format long`.

        Raises:
            ReportError: pandas is not installed.
        """
        pandas = _pandas()
        text = render(self.collection, format="long" if long else "csv")
        # Texts like "NA" or "None" are names; what is not known is an empty field.
        names = dict.fromkeys(NAMES, "str")
        return pandas.read_csv(io.StringIO(text), dtype=names, keep_default_na=False, na_values=[""])

    def history(self, experiment: str) -> pd.DataFrame:
        """Return the course of a training: a row per step, with `loss`, `learning_rate`, ... and `eval_loss`.

        Args:
            experiment: its name, or `suite/name`.

        Raises:
            ReportError: there is no such experiment, or pandas is not installed.
        """
        pandas = _pandas()
        main = self._find(experiment).view.main
        history = History() if main is None else read_history(JobPaths(main.folder))
        steps = sorted({*history.train, *history.evals})
        rows = {step: {**history.train.get(step, {}), **history.evals.get(step, {})} for step in steps}
        return pandas.DataFrame.from_dict(rows, orient="index").rename_axis("step")

    def samples(self, experiment: str, dataset: str | None = None) -> pd.DataFrame:
        """Return the documents of an experiment's evals: prompt, target, responses by filter, and a column per metric.

        Args:
            experiment: its name, or `suite/name`.
            dataset: of one eval dataset alone.

        Raises:
            ReportError: there is no such experiment or eval dataset, or pandas is not installed.
        """
        pandas = _pandas()
        facts = self._find(experiment)
        if dataset is not None and dataset not in facts.evals:
            hint = did_you_mean(dataset, list(facts.evals)) or f"there are: {', '.join(facts.evals) or 'none'}"
            raise ReportError(f"{experiment}: not evaluated on {dataset}", hint=hint)
        evals = [found for name, found in facts.evals.items() if dataset in {None, name}]
        columns = ["dataset", "task", "doc_id", "doc_hash", "prompt", "target"]
        rows = [row for found in evals for row in _sample_rows(found)]
        return pandas.DataFrame(rows, columns=None if rows else columns)

    def __repr__(self) -> str:
        counts = (
            f"{suite.name}: {counts_text([facts_of(view) for view in suite.experiments])}"
            for suite in self.collection.suites
        )
        return "\n".join([f"Results of {self.save_dir}", *counts])

    def _repr_html_(self) -> str:
        """Return the report's tables, which notebooks show."""
        document = build_document(self.collection, ReportOptions())
        tables: list[tuple[str, Table]] = [
            (f"{suite.name}: {suite.counts}" if number == 0 else table.title, table)
            for suite in document.suites
            for number, table in enumerate(suite.tables)
        ]
        return "\n".join(table_html(table, caption=caption) for caption, table in tables)

    def _find(self, experiment: str) -> Facts:
        views = [view for suite in self.collection.suites for view in suite.experiments]
        found = [view for view in views if experiment in {view.name, f"{view.suite}/{view.name}"}]
        if not found:
            hint = did_you_mean(experiment, [*(view.name for view in views), *self.experiments])
            raise ReportError(
                f"{self.save_dir}: no such experiment: {experiment}", hint=hint or "see Results.experiments"
            )
        if len(found) > 1:
            names = ", ".join(f"{view.suite}/{view.name}" for view in found)
            raise ReportError(
                f"{self.save_dir}: several experiments are called {experiment}", hint=f"name one of: {names}"
            )
        return facts_of(found[0])


def _sample_rows(found: EvalFacts) -> Iterator[dict[str, object]]:
    for sample in read_samples(JobPaths(found.job.folder)):
        yield {
            "dataset": found.dataset,
            **sample.model_dump(include={"task", "doc_id", "doc_hash", "prompt", "target"}),
            **_responses(sample),
            **sample.metrics,
        }


def _responses(sample: Sample) -> dict[str, object]:
    return {f"response,{name}": response for name, response in sample.responses.items()}


def _pandas() -> Any:
    try:
        return import_module("pandas")
    except ImportError as error:
        raise ReportError("frames need pandas, which is not installed", hint=ANALYSIS_EXTRA) from error
