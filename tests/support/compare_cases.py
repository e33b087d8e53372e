"""Sides that comparisons are tested with: experiments with the scores of single documents, as jobs leave them on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from hpcbench.compare.runs import Side, side_of
from hpcbench.schemas.collection import Collection, ExperimentView, SuiteView
from hpcbench.schemas.metrics import EvalMetrics, TaskResult, TrainMetrics
from hpcbench.schemas.states import JobState
from hpcbench.storage.paths import JobPaths
from tests.support.report_parts import COLLECTED_AT, LAPTOP, LORA, PIG_LATIN, make_job, train_metrics

Scores = Sequence[float | None]
"""Per document, in order."""


def zeros_and_ones(both: int, only_before: int, only_after: int, neither: int) -> tuple[list[float], list[float]]:
    """Return two lists of scores of 0 or 1 that agree and differ so often."""
    before = [1.0] * (both + only_before) + [0.0] * (only_after + neither)
    after = [1.0] * both + [0.0] * only_before + [1.0] * only_after + [0.0] * neither
    return before, after


def samples_text(tasks: Mapping[str, Scores], metric: str, *, first_document: int = 0, hashes: bool = True) -> str:
    """Return a job's `samples.jsonl`."""
    lines = [
        {
            "task": task,
            "doc_id": number,
            **({"doc_hash": f"{task}-{first_document + number}"} if hashes else {}),
            "prompt": "?",
            "target": "!",
            "responses": {"none": "!"},
            "metrics": {metric: score},
        }
        for task, scores in tasks.items()
        for number, score in enumerate(scores)
    ]
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def experiment(
    folder: Path,
    name: str,
    scores: Mapping[str, Scores] | Scores | None = None,
    *,
    suite: str = "suite",
    base: str | None = None,
    args: Mapping[str, Any] | None = None,
    value: float | None = None,
    stderr: float | None = 0.03,
    metric: str = "exact_match,none",
    higher_is_better: bool = True,
    num_fewshot: int = 0,
    first_document: int = 0,
    hashes: bool = True,
    samples: bool = True,
    eval_state: JobState = JobState.COMPLETED,
    train: TrainMetrics | bool = True,
    train_state: JobState = JobState.COMPLETED,
    environment: Mapping[str, Any] | None = None,
) -> ExperimentView:
    """Return one experiment with a training and, with scores, an eval of `words` whose samples lie in `folder`.

    Args:
        folder: the save directory.
        name: of the experiment.
        scores: of the documents, of one task or by task; None for no eval.
        suite: its suite.
        base: the experiment that it is a repeat of.
        args: arguments of the training, over those of the quickstart.
        value: the score; the mean over all documents where it is not given.
        stderr: lm-eval's standard error.
        metric: lm-eval's key.
        higher_is_better: which scores are better.
        num_fewshot: of the eval.
        first_document: number of the first document, which tells documents apart.
        hashes: whether samples name their documents.
        samples: whether samples are written at all.
        eval_state: of the eval; any but completed has no score.
        train: what the training measured; True for the quickstart's figures, False for a baseline.
        train_state: of the training; any but completed has no figures.
        environment: where it ran; a laptop by default.
    """
    merged = PIG_LATIN | LORA | dict(args or {})
    where = dict(LAPTOP if environment is None else environment)
    main = None
    if train is not False:
        figures = quickstart_figures() if train is True else train
        main = make_job(
            name,
            "train",
            suite=suite,
            args=merged,
            state=train_state,
            environment=where,
            metrics=figures if train_state is JobState.COMPLETED else None,
        )
        main = replace(main, folder=folder / suite / name / "train")
    evals = []
    if scores is not None:
        tasks = dict(scores) if isinstance(scores, Mapping) else {"words": scores}
        known = [score for task in tasks.values() for score in task if score is not None]
        score = fmean(known) if value is None else value
        metrics = _eval_metrics(tasks, metric, score, stderr, higher_is_better=higher_is_better, shots=num_fewshot)
        job = make_job(
            name,
            "eval-words",
            suite=suite,
            cmd="eval",
            args=merged,
            state=eval_state,
            environment=where,
            metrics=metrics if eval_state is JobState.COMPLETED else None,
        )
        job = replace(job, folder=folder / suite / name / "eval-words")
        evals.append(job)
        if samples and eval_state is JobState.COMPLETED:
            path = JobPaths(job.folder).attempt(1).samples
            path.parent.mkdir(parents=True)
            path.write_text(samples_text(tasks, metric, first_document=first_document, hashes=hashes), encoding="utf-8")
    cmd = "eval" if main is None else "sft"
    return ExperimentView(suite=suite, name=name, base_experiment=base, cmd=cmd, main=main, evals=tuple(evals))


def quickstart_figures(*, seconds: float = 150.0, eval_loss: float = 0.4, memory_gib: float = 1.8) -> TrainMetrics:
    """Return the figures of a training of the quickstart."""
    return train_metrics(
        trainable=1_221_120,
        total=135_736_128,
        train_loss=0.6,
        eval_loss=eval_loss,
        num_samples=1920,
        train_time_s=seconds,
        host_rss_gib=memory_gib,
        tokens_per_sample=38,
    )


def _eval_metrics(
    tasks: Mapping[str, Scores], metric: str, value: float, stderr: float | None, *, higher_is_better: bool, shots: int
) -> EvalMetrics:
    name, _, kind = metric.partition(",")
    task = "words"
    result = TaskResult(
        metrics={metric: value, f"{name}_stderr,{kind}": "N/A" if stderr is None else stderr},
        num_samples=sum(len(scores) for scores in tasks.values()),
        num_fewshot=shots,
        version="1.0",
        higher_is_better={name: higher_is_better},
        primary_metric=metric,
    )
    return EvalMetrics(dataset=task, primary_metric=metric, primary_task=task, tasks={task: result})


def collection_of(*views: ExperimentView) -> Collection:
    """Return a collection of these experiments, by suite."""
    suites = dict.fromkeys(view.suite for view in views)
    return Collection(
        suites=tuple(
            SuiteView(name=suite, experiments=tuple(view for view in views if view.suite == suite)) for suite in suites
        ),
        collected_at=COLLECTED_AT,
    )


def side(*views: ExperimentView, source: str = "A") -> Side:
    """Return a side of these experiments."""
    return side_of(collection_of(*views), source)
