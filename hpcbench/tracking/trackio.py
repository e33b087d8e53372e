"""trackio: a project per suite, a run per experiment, in trackio's own folder (TRACKIO_DIR) or the one that is given.

In: runs. Out: rows of trackio's store, which `trackio show` and `trackio sync` read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpcbench.tracking.outcome import Action, Outcome
from hpcbench.tracking.runs import Run, Sent, points_to_add, sent_of

NUM_POINTS, DIGEST, GROUP = "hpcbench_num_points", "hpcbench_digest", "_Group"
RESULTS = "hpcbench_results"


def send(runs: Iterable[Run], *, folder: str | None, project: str | None) -> Iterator[Outcome]:
    """Put runs into trackio's store; yield what was done with each.

    Args:
        runs: what to send.
        folder: trackio's folder; None for the one it is set to.
        project: name of the project; None is the suite's.
    """
    if folder is not None:
        os.environ["TRACKIO_DIR"] = str(Path(folder).resolve())  # which it reads when it is imported
    from trackio.sqlite_storage import SQLiteStorage

    for run in runs:
        yield Outcome(run=run, action=_send_one(SQLiteStorage, run, project or run.suite))


def _send_one(store: Any, run: Run, project: str) -> Action:
    config = store.get_run_config(project, run.name, run_id=run.id)
    action: Action = "unchanged"
    added = points_to_add(run, Sent() if config is None else _read_sent(config))
    if config is None:
        action = "created"
    elif added is None or (config[RESULTS] not in ({}, dict(run.results))):
        # Rows are never changed, and results that were shown were those of an earlier state.
        store.delete_run(project, run.name, run_id=run.id)
        config, added, action = None, run.points, "replaced"
    known = {} if config is None else config[RESULTS]
    rows = [(point.step, point.time_s, dict(point.figures)) for point in added or ()]
    if run.results and not known:
        rows.append((run.last_step, run.finished_s, dict(run.results)))
    if rows:
        store.bulk_log(
            project,
            run.name,
            [figures for _, _, figures in rows],
            steps=[step for step, _, _ in rows],
            timestamps=[datetime.fromtimestamp(time_s, UTC).isoformat() for _, time_s, _ in rows],
            config=_config(run),
            run_id=run.id,
        )
    return "added" if rows and action == "unchanged" else action


def _config(run: Run) -> dict[str, object]:
    sent = sent_of(run)
    ours = {GROUP: run.group, NUM_POINTS: sent.num_points, DIGEST: sent.digest, RESULTS: dict(run.results)}
    return {**run.config, **ours}


def _read_sent(config: Mapping[str, Any]) -> Sent:
    return Sent(num_points=config[NUM_POINTS], digest=config[DIGEST])
