"""The verb about environments of other frameworks: environment."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from hpcbench.cli.conventions import add_verb
from hpcbench.errors import PlanError


class Action(StrEnum):
    """What is done."""

    CREATE = "create"
    LIST = "list"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    add_verb(app, environment, group="Set up", example="hpcbench environment create trl")


def environment(
    action: Annotated[Action, typer.Argument(metavar="create|list", help="Make one, or list what can be made.")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Which one to make.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="DIR", help="Where to; jobs have to see it. Default: ~/venvs/NAME."),
    ] = None,
    python: Annotated[
        str | None, typer.Option("--python", metavar="PYTHON", help="Python to make it with. Default: this one.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Make it anew where it exists.")] = False,
) -> None:
    """Make an environment for another framework, or list what can be made.

    Trainings by other frameworks, unsloth and vLLM run in Pythons of their own, which a cluster profile names. The
    packages and versions are those of a list that comes with hpcbench.
    """
    from hpcbench.cluster.environments import create_environment, list_environments, usual_folder
    from hpcbench.config.profile import local_file

    if action is Action.LIST:
        if name is not None:
            raise PlanError(f"environment list: {name} is not used", hint="list shows all that can be made")
        for each, file in list_environments().items():
            print(f"{each}: {file}")
        return
    if name is None:
        raise PlanError("environment create: no name", hint="hpcbench environment list shows what can be made")
    made = create_environment(name, (folder or usual_folder(name)).absolute(), python=python, force=force)
    print(f"made {made}")
    print(f"write `environments: {{{name}: {made}}}` into your cluster profile, or {local_file(os.environ)}")
