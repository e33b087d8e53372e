"""Results handed to the tools where people look at curves: TensorBoard, Weights & Biases, trackio, MLflow.

In: a Collection. Out: runs in one of these tools, whose library is imported only then. What is there already is not
sent again; nothing of a save directory is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from hpcbench.errors import ReportError, first_line
from hpcbench.schemas.collection import Collection
from hpcbench.tracking.outcome import Action, Outcome
from hpcbench.tracking.runs import runs_of

__all__ = ["TRACKERS", "Action", "Outcome", "Tracker", "send_results"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracker:
    """One such tool: `hpcbench/tracking/<name>.py` sends to it."""

    name: str
    module: str
    """What it needs, and the name of hpcbench's extra."""
    default_folder: str | None
    """Where it goes without --dir; None leaves that to the tool's own settings."""
    look: str
    """The command that shows it; `{folder}`, `{home}` and `{store}` are where it went."""


TRACKERS: Mapping[str, Tracker] = {
    tracker.name: tracker
    for tracker in (
        Tracker(name="tensorboard", module="tensorboard", default_folder="runs", look="tensorboard --logdir {folder}"),
        Tracker(
            name="wandb",
            module="wandb",
            default_folder=".",
            look="wandb sync {folder}/wandb/offline-run-*",
        ),
        Tracker(name="trackio", module="trackio", default_folder=None, look="{home}trackio show"),
        Tracker(name="mlflow", module="mlflow", default_folder=None, look="mlflow ui{store}"),
    )
}


def send_results(
    collection: Collection, tracker: Tracker, *, folder: str | None = None, project: str | None = None
) -> Iterator[Outcome]:
    """Send what a collection holds; yield what was done with each experiment that has a curve or a result.

    Raises:
        ReportError: the tool's library is not installed, or says why it takes nothing.
    """
    if find_spec(tracker.module) is None:
        raise ReportError(
            f"{tracker.name}: not installed", hint=f"pip install 'hpcbench-llm[{tracker.module}]', then the same again"
        )
    send = import_module(f"hpcbench.tracking.{tracker.name}").send
    try:
        yield from send(runs_of(collection), folder=folder or tracker.default_folder, project=project)
    except Exception as error:
        if type(error).__module__.partition(".")[0] != tracker.module:
            raise
        raise ReportError(f"{tracker.name}: {first_line(error)}") from error
