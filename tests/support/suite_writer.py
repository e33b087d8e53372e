"""Writes suites for tests and loads them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from hpcbench.config.loading import load_suites
from hpcbench.errors import ConfigError
from hpcbench.schemas.suite import Experiment, Suite

HEAD = "cmd: sft\nargs: {model_type: qwen2.5-7b-instruct, dataset: ms-agent}\n"
"""The least that a suite needs besides its experiments."""


def load(folder: Path, text: str, *overrides: str, name: str = "demo.yaml") -> Suite:
    """Write one suite and load it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    (suite,) = load_suites([path], overrides=overrides)
    return suite


def load_one(folder: Path, text: str, *overrides: str) -> Experiment:
    """Write a suite of one experiment and load it."""
    (experiment,) = load(folder, text, *overrides).experiments
    return experiment


def messages_of(paths: Sequence[Path], *overrides: str) -> list[str]:
    """Return the messages, without expectations and hints, of suites that must not load."""
    try:
        load_suites(paths, overrides=overrides)
    except ConfigError as error:
        return [problem.message for problem in error.problems]
    raise AssertionError("the suite loads")


def refusal(folder: Path, text: str, *overrides: str) -> str:
    """Return the whole error text of a suite that must not load, with its file called demo.yaml."""
    try:
        load(folder, text, *overrides)
    except ConfigError as error:
        return str(error).replace(f"{folder}/", "")
    raise AssertionError("the suite loads")
