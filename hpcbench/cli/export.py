"""The verb that hands results to trackers: export."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpcbench.cli.completion import complete_from, complete_suites
from hpcbench.cli.conventions import WatchingVerb, add_verb
from hpcbench.cli.options import AsJson, SaveDir, Watch
from hpcbench.errors import ConfigError, Problem, did_you_mean

if TYPE_CHECKING:
    from hpcbench.schemas.collection import Collection
    from hpcbench.tracking import Action, Outcome, Tracker

NAMES = ("tensorboard", "wandb", "trackio", "mlflow")
SCHEMA_VERSION = 1
WORDS: dict[Action, str] = {"created": "created", "added": "added to", "replaced": "replaced", "unchanged": "unchanged"}


MODEL_EXPORT = "a model is exported by hpcbench export-model, or hpcbench submit SUITE, with `cmd: export` in the suite"


class ExportVerb(WatchingVerb):
    """The verb; SWIFT's verb of the same name exports models, so its arguments are told from typing mistakes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse arguments of an export of a model; then parse as usual."""
        from hpcbench.config.layers import ARGUMENTS

        names = (word[2:].partition("=")[0].replace("-", "_") for word in args if word.startswith("--"))
        if not ctx.resilient_parsing and (name := next((name for name in names if name in ARGUMENTS), None)):
            raise _refusal(f"--{name}: an argument of an export of a model", hint=MODEL_EXPORT)
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    add_verb(app, export, group="Results", example="hpcbench export qwen --to tensorboard", cls=ExportVerb)


def export(
    suites: Annotated[
        list[str] | None,
        typer.Argument(metavar="SUITE", help="Suites by name or glob; default: all.", autocompletion=complete_suites),
    ] = None,
    save_dir: SaveDir = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="TRACKER",
            help="tensorboard, wandb, trackio or mlflow.",
            autocompletion=complete_from(NAMES),
        ),
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option(
            "--dir",
            metavar="DIR",
            help="Where the tracker keeps its files; default: runs for tensorboard, else its own.",
        ),
    ] = None,
    project: Annotated[
        str | None, typer.Option("--project", metavar="NAME", help="One project for all; default: one per suite.")
    ] = None,
    watch: Watch = None,
    as_json: AsJson = False,
) -> None:
    """Hand curves and results to TensorBoard, Weights & Biases, trackio or MLflow.

    What is there already is not sent again.
    """
    from hpcbench.cli.output import print_warnings
    from hpcbench.cli.selection import gather_suites
    from hpcbench.cli.watch import watch_changes
    from hpcbench.cluster.save_dir import usual_save_dir

    tracker = _choose_tracker(to)
    root = usual_save_dir(save_dir)
    collection = gather_suites(root, suites)
    if watch is not None:
        watch_changes(
            root,
            [suite.name for suite in collection.suites],
            lambda seen: _send(seen, tracker, folder, project, as_json=as_json),
            every_s=watch or None,
            with_progress=True,
        )
        return
    print_warnings(collection)
    _send(collection, tracker, folder, project, as_json=as_json)


def _choose_tracker(name: str | None) -> Tracker:
    from hpcbench.tracking import TRACKERS

    if name is None:
        raise _refusal("--to is missing", hint=MODEL_EXPORT)
    found = TRACKERS.get(name.lower())
    if found is None:
        raise _refusal(f"--to {name}: unknown", hint=did_you_mean(name, NAMES))
    return found


def _refusal(message: str, *, hint: str | None) -> ConfigError:
    expected = f"--to {', '.join(NAMES)}"
    return ConfigError(
        [Problem(file="hpcbench export", line=None, path="", message=message, expected=expected, hint=hint)]
    )


def _send(collection: Collection, tracker: Tracker, folder: str | None, project: str | None, *, as_json: bool) -> None:
    from hpcbench.tracking import send_results

    outcomes = list(send_results(collection, tracker, folder=folder, project=project))
    if as_json:
        print(json.dumps(_as_json(tracker, outcomes), indent=2), flush=True)
        return
    for suite in dict.fromkeys(outcome.run.suite for outcome in outcomes):
        counts = Counter(outcome.action for outcome in outcomes if outcome.run.suite == suite)
        told = ", ".join(f"{counts[action]} {word}" for action, word in WORDS.items() if counts[action])
        print(f"{suite}: {told}", flush=True)
    where = folder or tracker.default_folder
    if not outcomes:
        print("nothing to send yet: no experiment has a curve or a result")
    else:
        place = Path(where or "").resolve()
        store = "" if where is None else f" --backend-store-uri {shlex.quote(f'sqlite:///{place}/mlflow.db')}"
        home = "" if where is None else f"TRACKIO_DIR={shlex.quote(str(place))} "
        print(f"look: {tracker.look.format(folder=shlex.quote(where or ''), home=home, store=store)}")


def _as_json(tracker: Tracker, outcomes: list[Outcome]) -> dict[str, object]:
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "hpcbench-export",
        "tracker": tracker.name,
        "runs": [
            {
                "suite": outcome.run.suite,
                "experiment": outcome.run.name,
                "id": outcome.run.id,
                "num_points": len(outcome.run.points),
                "action": outcome.action,
            }
            for outcome in outcomes
        ],
    }
