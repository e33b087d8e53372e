"""Experiments as trackers know them: a run with its configuration, a curve per figure, and its results.

In: a Collection and, below its jobs' folders, the histories. Out: values. It knows no tracker and writes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hpcbench.report.csv_table import data_columns, score_values
from hpcbench.report.facts import Facts, facts_of
from hpcbench.report.score_columns import value_columns
from hpcbench.schemas.collection import Collection, JobView
from hpcbench.schemas.history import History, read_history
from hpcbench.schemas.states import ALIVE, JobState
from hpcbench.storage.clock import parse_moment
from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import JobPaths

EVAL = "eval_"
NOT_RESULTS = ("_stderr", "_num_samples", "_num_prompts_cut", "_debug")
Setting = str | float | bool
"""A value of a run's configuration; int is a float to the type checker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What was measured at one optimizer step."""

    step: int
    time_s: float
    """Unix time: the start of the training and the optimizer steps since; evaluations are not in it."""
    figures: Mapping[str, float]
    """By `train/...` and `eval/...`, as transformers' Trainer names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One experiment."""

    id: str
    """The same for the same suite, experiment and configuration."""
    suite: str
    name: str
    group: str
    """What its repeats have in common: their name without the repeat."""
    state: JobState
    started_s: float
    config: Mapping[str, Setting]
    points: tuple[Point, ...]
    """By step, ascending."""
    results: Mapping[str, float]
    """By `result/<column of the CSV report>`."""

    @property
    def finished_s(self) -> float:
        """Unix time of its last point."""
        return self.points[-1].time_s if self.points else self.started_s

    @property
    def last_step(self) -> int:
        """Step of its last point."""
        return self.points[-1].step if self.points else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What a tracker holds of a run's points."""

    num_points: int = 0
    digest: str = ""
    """Of these points."""


def runs_of(collection: Collection) -> Iterator[Run]:
    """Yield the experiments that have a curve or a result."""
    for suite in collection.suites:
        for view in suite.experiments:
            run = _run_of(facts_of(view))
            if run is not None and (run.points or run.results):
                yield run


def sent_of(run: Run) -> Sent:
    """Return what a tracker holds that has all points of a run."""
    return Sent(num_points=len(run.points), digest=_digest(run.points))


def points_to_add(run: Run, sent: Sent) -> tuple[Point, ...] | None:
    """Return the points that a tracker lacks; None where it holds others, as after a step that was done again."""
    if sent.num_points and sent.digest != _digest(run.points[: sent.num_points]):
        return None
    return run.points[sent.num_points :]


def _digest(points: tuple[Point, ...]) -> str:
    text = json.dumps([[point.step, point.time_s, sorted(point.figures.items())] for point in points])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _run_of(facts: Facts) -> Run | None:
    main = next(iter(facts.view.jobs), None)
    if main is None:
        return None
    history = History() if facts.view.main is None else read_history(JobPaths(main.folder))
    started_s = _started_s(main)
    fingerprint = "" if main.request is None else main.request.fingerprint
    identity = f"{facts.view.suite}\n{facts.view.name}\n{fingerprint}"
    return Run(
        id=hashlib.sha256(identity.encode()).hexdigest()[:16],
        suite=facts.view.suite,
        name=facts.view.name,
        group=facts.view.base_experiment or facts.view.name,
        state=facts.state,
        started_s=started_s,
        config=_config(facts, fingerprint),
        points=_points(history, started_s, is_over=facts.state not in ALIVE),
        results=_results(facts),
    )


def _points(history: History, started_s: float, *, is_over: bool) -> tuple[Point, ...]:
    """Return a point per step; of a training under way without the last, whose evaluation may still be missing."""
    points = []
    time_s = started_s
    steps = sorted({*history.train, *history.evals})
    for step in steps if is_over else steps[:-1]:
        train, evaluated = history.train.get(step, {}), history.evals.get(step, {})
        time_s += train.get("step_time_s", 0.0)
        figures = {f"train/{name}": value for name, value in train.items()}
        figures |= {f"eval/{name.removeprefix(EVAL)}": value for name, value in evaluated.items()}
        points.append(Point(step=step, time_s=time_s, figures=dict(sorted(figures.items()))))
    return tuple(points)


def _results(facts: Facts) -> dict[str, float]:
    columns = [column for column in (*data_columns([facts]).values(), *value_columns([facts])) if column.measured]
    values = {column.key: column.get(facts) for column in columns}
    values |= {key: value for key, value in score_values(facts).items() if not key.endswith(NOT_RESULTS)}
    return {
        f"result/{key}": float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _config(facts: Facts, fingerprint: str) -> dict[str, Setting]:
    """Return the arguments and what they ran on; lists as their items, nothing for what is not set."""
    values: dict[str, object] = {**facts.raw_args, "cmd": facts.view.cmd, "fingerprint": fingerprint}
    request = None if facts.view.main is None else facts.view.main.request
    if request is not None:
        resources = request.resources
        values |= {"gpu": resources.gpu, "ddp": resources.ddp, "nodes": resources.nodes, "repeat": request.repeat}
    return {name: _setting(value) for name, value in sorted(values.items()) if value not in (None, (), [], {})}


def _setting(value: object) -> Setting:
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    return json.dumps(value, sort_keys=True, default=str)


def _started_s(job: JobView) -> float:
    """Return when the training began, else when its job did; 0 where neither is known."""
    paths = JobPaths(job.folder)
    attempts = paths.attempts()
    first = None if not attempts else read_json(attempts[0].started)
    texts = [None if first is None else first.get("at"), None if job.record is None else job.record.started_at]
    moments = (parse_moment(text) for text in texts if isinstance(text, str))
    moment = next((moment for moment in moments if moment is not None), None)
    return 0.0 if moment is None else moment.timestamp()
