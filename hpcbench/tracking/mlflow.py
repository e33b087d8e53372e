"""MLflow: an experiment per suite, a run per experiment, found again by its tag `hpcbench.id`.

In: runs. Out: runs in the store that MLFLOW_TRACKING_URI or `folder` names. It never touches a run of others.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hpcbench.schemas.states import ALIVE, FINISHED_WELL
from hpcbench.tracking.outcome import Action, Outcome
from hpcbench.tracking.runs import Point, Run, Sent, points_to_add, sent_of

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.entities import Run as Stored
    from mlflow.tracking import MlflowClient

ID_TAG, SENT_TAG, GROUP_TAG = "hpcbench.id", "hpcbench.sent", "hpcbench.group"
MOST_METRICS, MOST_PARAMS, LONGEST_PARAM = 1000, 100, 6000
"""Metrics and parameters of one request, characters of a value (MLflow's REST API, runs/log-batch)."""
ItemT = TypeVar("ItemT")


def send(runs: Iterable[Run], *, folder: str | None, project: str | None) -> Iterator[Outcome]:
    """Put runs into MLflow; yield what was done with each.

    Args:
        runs: what to send.
        folder: where the store is: a folder, in which it is a file of SQLite, or None for the one MLflow is set to.
        project: name of MLflow's experiment; None is the suite's.
    """
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # it tells each step of making a store
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri=None if folder is None else f"sqlite:///{Path(folder).resolve()}/mlflow.db")
    places: dict[str, str] = {}
    for run in runs:
        name = project or run.suite
        if name not in places:
            found = client.get_experiment_by_name(name)
            places[name] = client.create_experiment(name) if found is None else found.experiment_id
        yield Outcome(run=run, action=_send_one(client, run, places[name]))


def _send_one(client: MlflowClient, run: Run, experiment_id: str) -> Action:
    stored = _find(client, run, experiment_id)
    action: Action = "unchanged"
    if stored is not None and (added := points_to_add(run, _read_sent(stored.data.tags))) is None:
        client.delete_run(stored.info.run_id)
        stored, action = None, "replaced"
    if stored is None:
        action = "created" if action == "unchanged" else action
        stored, added = _create(client, run, experiment_id), run.points
    run_id, known = stored.info.run_id, stored.data.metrics
    results = [_metric(run.finished_s, run.last_step, *item) for item in run.results.items() if _is_new(known, *item)]
    metrics = [metric for point in added or () for metric in _metrics(point)] + results
    for part in _parts(metrics, MOST_METRICS):
        client.log_batch(run_id, metrics=part)
    if metrics:
        client.set_tag(run_id, SENT_TAG, _sent_text(sent_of(run)))
    status = "RUNNING" if run.state in ALIVE else "FINISHED" if run.state in FINISHED_WELL else "FAILED"
    if stored.info.status != status:
        client.update_run(run_id, status=status)
        if run.state not in ALIVE:
            client.set_terminated(run_id, status, end_time=_ms(run.finished_s))
    if action == "unchanged" and (metrics or stored.info.status != status):
        return "added"
    return action


def _find(client: MlflowClient, run: Run, experiment_id: str) -> Stored | None:
    found = client.search_runs([experiment_id], f"tags.`{ID_TAG}` = '{run.id}'", max_results=1)
    return found[0] if found else None


def _create(client: MlflowClient, run: Run, experiment_id: str) -> Stored:
    from mlflow.entities import Param

    tags = {ID_TAG: run.id, SENT_TAG: _sent_text(Sent()), GROUP_TAG: run.group}
    stored = client.create_run(experiment_id, start_time=_ms(run.started_s), tags=tags, run_name=run.name)
    params = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in run.config.items()]
    for part in _parts(params, MOST_PARAMS):
        client.log_batch(stored.info.run_id, params=part)
    return stored


def _is_new(known: Mapping[str, float], name: str, value: float) -> bool:
    return known.get(_allowed(name)) != value


def _metrics(point: Point) -> Iterator[Metric]:
    yield from (_metric(point.time_s, point.step, name, value) for name, value in point.figures.items())


def _metric(time_s: float, step: int, name: str, value: float) -> Metric:
    from mlflow.entities import Metric

    return Metric(_allowed(name), value, _ms(time_s), step)


def _allowed(name: str) -> str:
    """Return a name with the characters that MLflow takes: letters, digits, `_ - . : / ` and space."""
    return "".join(char if char.isalnum() or char in "_-.:/ " else "_" for char in name)


def _parts(items: Sequence[ItemT], size: int) -> Iterator[Sequence[ItemT]]:
    yield from (items[start : start + size] for start in range(0, len(items), size))


def _ms(time_s: float) -> int:
    return round(time_s * 1000)


def _sent_text(sent: Sent) -> str:
    return json.dumps([sent.num_points, sent.digest])


def _read_sent(tags: Mapping[str, str]) -> Sent:
    num_points, digest = json.loads(tags[SENT_TAG])
    return Sent(num_points=num_points, digest=digest)
