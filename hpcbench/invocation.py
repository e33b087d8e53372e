"""The commands that hpcbench tells people to type: each works in the shell in which the telling command was typed.

In: verbs and their words, and the options of this command line that another command has to repeat. Out: one line as a
shell takes it. It runs nothing. What is not known is a word in capitals, as CONFIG or NAME.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

WITHOUT_SAVE_DIR = frozenset({"environment", "init", "prefetch", "schema", "sft", "eval"})

_save_dir: ContextVar[Path | None] = ContextVar("save_dir", default=None)


@contextmanager
def new_invocation() -> Iterator[None]:
    """Begin a command line, of which nothing is known yet; one process of tests runs thousands."""
    token = _save_dir.set(None)
    try:
        yield
    finally:
        _save_dir.reset(token)


def repeat_save_dir(save_dir: Path) -> None:
    """Have all commands name this save directory: without the option another command would look elsewhere."""
    _save_dir.set(save_dir.absolute())


def command(verb: str, *words: str | Path) -> str:
    """Return `hpcbench VERB WORDS`, quoted, with the options that it has to repeat."""
    save_dir = None if verb in WITHOUT_SAVE_DIR else _save_dir.get()
    options = [] if save_dir is None else ["--save-dir", str(save_dir)]
    return shlex.join(["hpcbench", verb, *map(str, words), *options])


def quoted(verb: str, *words: str | Path) -> str:
    """Return the command in backticks, as it stands in a sentence."""
    return f"`{command(verb, *words)}`"
