"""One side of a comparison: its experiments, the runs of each, and what each run measured.

In: a Collection, or a saved JSON report by `saved_report.py`. Out: `Side`. It reads no documents and judges nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hpcbench.errors import plural
from hpcbench.report.columns import DATA_ONLY
from hpcbench.report.environment import labelled
from hpcbench.report.facts import EvalFacts, Facts, facts_of
from hpcbench.report.memory import memory_of
from hpcbench.report.score_columns import value_columns
from hpcbench.schemas.arguments import EVAL_LOSS_ONLY
from hpcbench.schemas.collection import Collection
from hpcbench.schemas.request import Resources
from hpcbench.schemas.states import JobState

MEMORY_SOURCE = "memory_source"
"""Name of the column that says what measured the peak of memory."""
COMPARED_ENVIRONMENT = (
    "hpcbench",
    "gpus",
    "driver",
    "cpu",
    "resources",
    MEMORY_SOURCE,
    "python",
    "torch",
    "transformers",
    "peft",
    "lm_eval",
)
"""Of what an environment holds, what may change results."""

NOT_MEASURED = "not measured"
"""Why a figure is missing of an experiment whose jobs are all done."""
FIGURES = {column.key: column for column in DATA_ONLY if column.measured}
"""The figures that hpcbench measures, by their name in CSV and JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunScore:
    """A score of one run: of an eval dataset, or of one of its tasks that stands for itself."""

    dataset: str
    task: str | None = None
    """None where the score is the dataset's."""
    metric: str
    """As reports name it, for example `exact_match`."""
    lm_eval_key: str | None = None
    """As samples name it, for example `exact_match,none`; None where only the report is known."""
    value: float
    stderr: float | None = None
    higher_is_better: bool = True
    num_documents: int | None = None
    num_fewshot: int | None = None
    version: str | None = None
    """Of the task, as its author counts."""
    folder: Path | None = None
    """Of the eval job, which holds the samples."""

    @property
    def key(self) -> str:
        """Its name in CSV and JSON."""
        return f"{self.dataset}_{self.metric}" if self.task is None else f"{self.dataset}/{self.task}_{self.metric}"

    @property
    def label(self) -> str:
        """Its name in tables."""
        return f"{self.dataset if self.task is None else self.task} {self.metric}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One experiment: a single run, or one of several repeats."""

    suite: str
    name: str
    folder: Path | None = None
    """Of its results."""
    base: str | None = None
    """The experiment that it is a repeat of."""
    state: str
    main_state: str | None = None
    """Of the job that makes its model; None for a baseline."""
    figures: Mapping[str, float] = field(default_factory=dict)
    reported: Mapping[str, float] = field(default_factory=dict)
    """The figures that a program of the user's reported, by their own names."""
    scores: Mapping[str, RunScore] = field(default_factory=dict)
    """By key."""
    eval_states: Mapping[str, str] = field(default_factory=dict)
    """By eval dataset."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Arguments by name; what is not set is null."""
    environment: Mapping[str, str] = field(default_factory=dict)
    finished_at: str = ""
    """When its last job finished, UTC; empty where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """All runs of one experiment: one, or its repeats."""

    suite: str
    name: str
    runs: tuple[Run, ...]
    """Never empty."""

    @property
    def full_name(self) -> str:
        """Return `suite/experiment`."""
        return f"{self.suite}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What is compared with another: A is before, B after."""

    source: str
    """As it was typed."""
    collected_at: str | None = None
    """Of a saved report."""
    experiments: tuple[Experiment, ...]

    @property
    def suites(self) -> tuple[str, ...]:
        """The names of its suites, in order."""
        return tuple(dict.fromkeys(experiment.suite for experiment in self.experiments))

    @property
    def finished_at(self) -> str | None:
        """When the last of its jobs finished, as far as that is known."""
        return max((run.finished_at for experiment in self.experiments for run in experiment.runs), default="") or None


def side_of(collection: Collection, source: str, pattern: str | None = None) -> Side:
    """Return a collection's experiments; of one suite's those alone that match a glob, if there is one."""
    runs = [run_of(facts_of(view)) for suite in collection.suites for view in suite.experiments]
    return Side(source=source, experiments=group_repeats(choose(runs, pattern)))


def choose(runs: Iterable[Run], pattern: str | None) -> list[Run]:
    """Return the runs whose name, or whose experiment's name, is the pattern or matches it."""
    return [
        run
        for run in runs
        if pattern is None
        or any(name == pattern or fnmatchcase(name, pattern) for name in (run.name, run.base) if name is not None)
    ]


def group_repeats(runs: Sequence[Run]) -> tuple[Experiment, ...]:
    """Return runs as experiments in their order; repeats share the place of the first of them."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.suite, run.base or run.name), []).append(run)
    return tuple(
        Experiment(suite=suite, name=name if len(members) > 1 else members[0].name, runs=tuple(members))
        for (suite, name), members in groups.items()
    )


def run_of(facts: Facts) -> Run:
    """Return what one experiment measured."""
    scores = [score for found in facts.evals.values() for score in _scores(found)]
    figures = {key: column.get(facts) for key, column in FIGURES.items()}
    reported = {column.key: column.get(facts) for column in value_columns([facts])}
    return Run(
        suite=facts.view.suite,
        name=facts.view.name,
        folder=next((job.folder.parent for job in facts.view.jobs), None),
        base=facts.view.base_experiment,
        state=facts.state.value,
        main_state=None if facts.view.main is None else facts.view.main.state.value,
        figures=numbers(figures),
        reported=numbers(reported),
        scores={score.key: score for score in scores},
        eval_states={dataset: found.job.state.value for dataset, found in facts.evals.items()},
        settings=facts.raw_args,
        environment={**_environment(facts), **_measured_with(facts)},
        finished_at=max((record.finished_at for record in facts.records), default=""),
    )


def _environment(facts: Facts) -> dict[str, str]:
    record = facts.main_record
    return {} if record is None else environment_of(record.hpcbench_version, record.environment)


def environment_of(version: str, environment: Mapping[str, Any]) -> dict[str, str]:
    """Return what a record says of hardware and software that may change results."""
    known = labelled({"hpcbench": version, **environment})
    return {key: value for key, value in known.items() if key in COMPARED_ENVIRONMENT}


def _measured_with(facts: Facts) -> dict[str, str]:
    """Return the resources that were asked for, and what measured memory."""
    request = next((job.request for job in facts.view.jobs if job.request is not None), None)
    memory = memory_of(facts)
    return {
        **({} if request is None else {"resources": resources_text(request.resources)}),
        **({} if memory is None else {MEMORY_SOURCE: memory.source}),
    }


def resources_text(resources: Resources) -> str:
    """Return what decides the speed of a job besides the hardware itself."""
    parts = (
        plural(resources.gpu, "GPU"),
        plural(resources.ddp, "rank"),
        plural(resources.nodes, "node"),
    )
    return ", ".join(parts)


def numbers(values: Mapping[str, object]) -> dict[str, float]:
    """Return the values that are numbers; True and False are not."""
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _scores(found: EvalFacts) -> list[RunScore]:
    if found.dataset == EVAL_LOSS_ONLY:
        return []
    return [
        RunScore(
            dataset=found.dataset,
            task=task,
            metric=score.metric,
            lm_eval_key=score.lm_eval_key,
            value=score.value,
            stderr=score.stderr,
            higher_is_better=score.higher_is_better,
            num_documents=score.num_samples,
            num_fewshot=score.num_fewshot,
            version=score.version,
            folder=found.job.folder,
        )
        for task, score in ((None, found.score), *found.tasks.items())
        if score is not None
    ]


def missing_text(run: Run, *, dataset: str | None) -> str | None:
    """Return why a run has no figure or no score of an eval dataset: a state, or None where it has none to have."""
    if dataset is not None:
        return _unfinished(run.eval_states.get(dataset))
    return _unfinished(run.main_state)


def _unfinished(state: str | None) -> str | None:
    return None if state == JobState.COMPLETED.value else state
