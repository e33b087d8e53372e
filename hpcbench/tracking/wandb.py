"""Weights & Biases: a project per suite, a run per experiment, online or offline as WANDB_MODE says.

In: runs. Out: runs there, and `hpcbench-sent.json` in the folder of their files, which says what each has: offline
there is no server to ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hpcbench.schemas.states import ALIVE, FINISHED_WELL
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.tracking.outcome import Action, Outcome
from hpcbench.tracking.runs import Point, Run, Sent, points_to_add, sent_of

SENT_FILE = "hpcbench-sent.json"
FOLDER = "wandb"
"""Where wandb itself writes below its `dir`."""


def send(runs: Iterable[Run], *, folder: str | None, project: str | None) -> Iterator[Outcome]:
    """Hand runs to wandb; yield what was done with each.

    Args:
        runs: what to send.
        folder: below which wandb makes its own, `wandb`; None is the current one.
        project: name of the project; None is the suite's.
    """
    root = Path(folder or ".")
    root.mkdir(parents=True, exist_ok=True)
    for run in runs:
        file = root / FOLDER / SENT_FILE
        # Read again for each, and written after each: an export that was interrupted goes on.
        sent = read_json(file) or {}
        key = f"{project or run.suite}/{run.id}"
        action, sent[key] = _send_one(run, sent.get(key), folder=root, project=project or run.suite)
        if action != "unchanged":
            write_json(file, sent)
        yield Outcome(run=run, action=action)


def _send_one(run: Run, known: dict[str, Any] | None, *, folder: Path, project: str) -> tuple[Action, dict[str, Any]]:
    now = sent_of(run)
    revision = 1 if known is None else int(known["revision"])
    entry: dict[str, Any] = {
        "num_points": now.num_points,
        "digest": now.digest,
        "results": dict(run.results),
        "state": run.state.value,
        "revision": revision,
    }
    if known == entry:
        return "unchanged", entry
    action: Action = "created" if known is None else "added"
    added = run.points
    if known is not None:
        missing = points_to_add(run, Sent(num_points=known["num_points"], digest=known["digest"]))
        # A run's steps only grow at wandb, so steps that were done again make another run.
        entry["revision"] = revision + 1 if missing is None else revision
        action, added = ("replaced", run.points) if missing is None else ("added", missing)
    _log(run, added, run_id=f"{run.id}-{entry['revision']}", folder=folder, project=project)
    return action, entry


def _log(run: Run, points: Iterable[Point], *, run_id: str, folder: Path, project: str) -> None:
    import wandb

    quiet = wandb.Settings(
        silent=True, console="off", save_code=False, disable_git=True, x_disable_stats=True, x_disable_meta=True
    )
    there = wandb.init(
        project=project,
        id=run_id,
        name=run.name,
        group=run.group,
        config=dict(run.config),
        dir=str(folder),
        resume="allow",
        reinit="create_new",
        settings=quiet,
    )
    for point in points:
        there.log({**point.figures, "train/elapsed_s": point.time_s - run.started_s}, step=point.step)
    there.summary.update({**run.results, "state": run.state.value})
    there.finish(exit_code=0 if run.state in FINISHED_WELL | ALIVE else 1)
