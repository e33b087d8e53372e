"""One side of a comparison from a JSON report that `collect` wrote.

In: the report's file. Out: a `Side`. Scores of single documents are read from the folders that the report names, where
they are still there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hpcbench.compare.runs import (
    FIGURES,
    MEMORY_SOURCE,
    Run,
    RunScore,
    Side,
    choose,
    environment_of,
    group_repeats,
    numbers,
)
from hpcbench.errors import ReportError
from hpcbench.invocation import quoted
from hpcbench.schemas.arguments import EVAL_LOSS_ONLY, SftArgs
from hpcbench.schemas.report_file import KIND, ReportedExperiment, ReportedJob, ReportedScore, ReportFile
from hpcbench.schemas.request import EVAL_PREFIX
from hpcbench.storage.json_files import read_json


def side_of_report(path: Path, source: str, *, suite: str | None = None, pattern: str | None = None) -> Side:
    """Return the experiments of a saved report; of one suite and those that match a glob, where these are given.

    Raises:
        ReportError: the file is not a JSON report of hpcbench 0.3 or later.
    """
    value = read_json(path)
    if value is None or value.get("kind") != KIND:
        raise ReportError(f"{path}: not a JSON report", hint=f"{quoted('collect', '-o', 'report.json')} writes one")
    try:
        report = ReportFile.model_validate(value)
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"]))
        raise ReportError(
            f"{path}: {place}: cannot be compared",
            hint=f"versions before 0.3 wrote no scores; {quoted('collect', '-o', 'report.json')} writes a new report",
        ) from error
    runs = [
        _run(found.name, experiment)
        for found in report.suites
        if suite in {None, found.name}
        for experiment in found.experiments
    ]
    return Side(source=source, collected_at=report.collected_at, experiments=group_repeats(choose(runs, pattern)))


def _run(suite: str, experiment: ReportedExperiment) -> Run:
    main = next((job for job in experiment.jobs if not job.job.startswith(EVAL_PREFIX)), None)
    scores = [
        _score(score, score.value, experiment.jobs)
        for score in experiment.scores
        if score.dataset != EVAL_LOSS_ONLY and score.value is not None
    ]
    return Run(
        suite=suite,
        name=experiment.name,
        folder=next((job.folder.parent for job in experiment.jobs if job.folder is not None), None),
        base=experiment.base_experiment,
        state=experiment.state,
        main_state=None if main is None else main.state,
        figures=numbers({key: value for key, value in experiment.values.items() if key in FIGURES}),
        reported=numbers(experiment.reported),
        scores={score.key: score for score in scores},
        eval_states=dict(_eval_states(experiment.evals)),
        settings=_settings(experiment.arguments),
        environment=_environment(experiment),
        finished_at=max((job.finished_at or "" for job in experiment.jobs), default=""),
    )


def _score(score: ReportedScore, value: float, jobs: Sequence[ReportedJob]) -> RunScore:
    return RunScore(
        dataset=score.dataset,
        task=score.task,
        metric=score.metric,
        lm_eval_key=score.lm_eval_key,
        value=value,
        stderr=score.stderr,
        higher_is_better=score.higher_is_better,
        num_documents=score.num_samples,
        num_fewshot=score.num_fewshot,
        version=score.version,
        folder=next((job.folder for job in jobs if job.job == f"{EVAL_PREFIX}{score.dataset}"), None),
    )


def _eval_states(evals: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in evals.items():
        if key.endswith("_state") and isinstance(value, str):
            yield key.removesuffix("_state"), value


def _settings(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments that were set, with the others at their defaults where they are a training's."""
    try:
        return SftArgs.model_validate(arguments).model_dump()
    except ValidationError:
        return arguments


def _environment(experiment: ReportedExperiment) -> dict[str, str]:
    """Return what the report says of the experiment's environment, which it has in the form of records."""
    version, source = experiment.values.get("hpcbench_version"), experiment.values.get(MEMORY_SOURCE)
    return {
        **({} if version is None else environment_of(str(version), experiment.environment)),
        **({} if source is None else {MEMORY_SOURCE: str(source)}),
    }
