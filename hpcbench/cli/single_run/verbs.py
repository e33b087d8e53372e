"""The verbs that run one job here and now: sft, eval.

In: what a person types. Out: text, exit codes as in `cli.py`. It holds no logic of its own. Options are not typer's:
they are made from the arguments' models, which are imported only when such a verb runs.
"""

from __future__ import annotations

import os
import sys

import typer

from hpcbench.cli.conventions import EXIT_FAILED

_RAW = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb in (sft, evaluate):
        name = "eval" if verb is evaluate else verb.__name__
        app.command(name, context_settings=_RAW, add_help_option=False)(verb)


def sft(context: typer.Context) -> None:
    """Fine-tune one model here and now, with the arguments of the original's sft.sh."""
    _run("sft", context.args)


def evaluate(context: typer.Context) -> None:
    """Evaluate one model here and now."""
    _run("eval", context.args)


def _run(name: str, words: list[str]) -> None:
    from hpcbench.cli.single_run.help_text import help_text
    from hpcbench.cli.single_run.options import VERBS
    from hpcbench.cli.single_run.run import run_here

    verb = VERBS[name]
    if {"-h", "--help"} & set(words):
        import shutil

        sys.stdout.write(help_text(verb, width=shutil.get_terminal_size().columns))
        return
    if not run_here(verb, words, default_root=os.environ.get("HPCBENCH_SAVE_DIR")):
        raise typer.Exit(EXIT_FAILED)
