"""The command line in this process, for tests that call it thousands of times."""

from __future__ import annotations

import io
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


def run_here(*arguments: str) -> Ended:
    """Run `hpcbench ARGUMENTS` as its own process would; an error that has no words of ours is raised."""
    # Strict and backslashreplace, as Python opens the two on a terminal.
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors=errors) for errors in ("strict", "backslashreplace"))
    code = 0
    with mock.patch.object(sys, "argv", ["hpcbench", *arguments]), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        out.flush()
        err.flush()
    return Ended(code=code, out=out.buffer.getvalue().decode(), err=err.buffer.getvalue().decode())


def help_of(*verb: str, width: int = 80) -> str:
    """Return what `hpcbench VERB --help` prints on a terminal of this width, without colours."""
    done = CliRunner(env={"NO_COLOR": "1"}).invoke(
        cli.app, [*verb, "--help"], terminal_width=width, prog_name="hpcbench"
    )
    assert done.exit_code == 0, done.output
    return done.output
