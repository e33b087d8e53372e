"""Standard input, output and error of a process of hpcbench, usable whatever the shell or the scheduler gave it.

In: streams that may be closed, or have an encoding without most letters. Out: the same, escaping what they cannot
encode; a closed one leads nowhere, so that no file takes its descriptor.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys


def open_streams() -> None:
    """Make the three streams usable: what an ASCII terminal cannot show is escaped (`backslashreplace`)."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # its descriptor was closed, as by `>&-`
            # In this order each open takes the lowest descriptor that is free, which is the closed one.
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123  # for the process's life
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # half a character in a pipe must not stop it


def flush_or_discard() -> None:
    """Write what is left of standard output; where it cannot be written, as on a full disk, drop it."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        discard_output()


def discard_output() -> None:
    """Send what is still to be written nowhere, so that Python's last flush does not fail as well."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
