"""What the command line does beyond typer: exit codes, readers that leave early, `--watch` with or without a number.

In: arguments as they were typed, and errors. Out: arguments that typer understands, and exit codes.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from hpcbench.errors import ConfigError, PlanError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
"""What a shell shows for a program that SIGPIPE ended, as `cat` in `cat file | head` is."""
WATCH = "--watch"
BY_PROFILE = 0.0
"""The value of a `--watch` without a number."""


def exit_code(error: Exception) -> int:
    """Return the exit code for an expected error: 2 for wrong usage or config, else 1."""
    return EXIT_USAGE if isinstance(error, ConfigError | PlanError) else EXIT_FAILED


class Verbs(TyperGroup):
    """All verbs; a reader of their output that leaves early, as `head` does, is no error to talk about."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb that was named."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except BrokenPipeError as error:
            discard_output()
            raise typer.Exit(EXIT_BROKEN_PIPE) from error


class WatchingCommand(TyperCommand):
    """A verb whose `--watch` may stand alone or name seconds: `--watch`, `--watch 60`, `--watch=60`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a `--watch` that stands alone its value, then parse as usual."""
        return super().parse_args(ctx, list(complete_watch(args)))


def complete_watch(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the arguments, `--watch=0` for a `--watch` that no number follows (pure)."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        yield f"{WATCH}={BY_PROFILE:.0f}" if argument == WATCH and not _is_number(following) else argument


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def discard_output() -> None:
    """Send what is still to be written nowhere, so that Python's last flush does not fail as well."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
