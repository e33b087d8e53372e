"""The command line in this process, for tests that call it thousands of times."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest import mock

from typer.testing import CliRunner

from hpcbench import cli


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class _Terminal(io.TextIOWrapper):
    """Standard output that calls itself a terminal."""

    def isatty(self) -> bool:
        return True


def run_here(*arguments: str, columns: int | None = None) -> Ended:
    """Run `hpcbench ARGUMENTS` as its own process would; an error that has no words of ours is raised.

    Args:
        arguments: what is typed after `hpcbench`.
        columns: width of the terminal that its output goes to, without colours; None is a pipe.
    """
    # Strict and backslashreplace, as Python opens the two on a terminal.
    kind = io.TextIOWrapper if columns is None else _Terminal
    raw_out, raw_err = io.BytesIO(), io.BytesIO()
    out, err = kind(raw_out, "utf-8", errors="strict"), io.TextIOWrapper(raw_err, "utf-8", errors="backslashreplace")
    code = 0
    environ = {} if columns is None else {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}
    with (
        mock.patch.object(sys, "argv", ["hpcbench", *arguments]),
        mock.patch.dict(os.environ, environ),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        out.flush()
        err.flush()
    return Ended(code=code, out=raw_out.getvalue().decode(), err=raw_err.getvalue().decode())


def help_of(*verb: str, width: int = 80) -> str:
    """Return what `hpcbench VERB --help` prints on a terminal of this width, without colours."""
    done = CliRunner(env={"NO_COLOR": "1"}).invoke(
        cli.app, [*verb, "--help"], terminal_width=width, prog_name="hpcbench"
    )
    assert done.exit_code == 0, done.output
    return done.output
