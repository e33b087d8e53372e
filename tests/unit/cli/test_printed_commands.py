"""Every command that hpcbench prints works as printed, in the shell in which it was printed."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcbench.cli.conventions import EXIT_USAGE
from hpcbench.invocation import command, new_invocation, repeat_save_dir
from tests.support.typed_commands import run_here

SAVE_DIR = "my runs"
"""A name that has to be quoted, and not the one that verbs look into by themselves."""
SUITE = "the suites/first.yaml"
PLACEHOLDERS = {"CONFIG", "NAME"}


@pytest.fixture(autouse=True)
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a folder with a suite of three commands, of which one fails and one depends on --set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HPCBENCH_SAVE_DIR", raising=False)
    value = {
        "cmd": "command",
        "device": "cpu",
        "requirements": {"gpu": 0},
        "experiment": [
            {"name": "good", "args": {"command": ["true"]}},
            {"name": "bad", "args": {"command": ["sh", "-c", "exit 3"]}},
        ],
    }
    Path(SUITE).parent.mkdir()
    Path(SUITE).write_text(json.dumps(value), encoding="utf-8")
    return tmp_path


def printed_commands(text: str) -> Iterator[list[str]]:
    """Yield the commands in a text, as words: in backticks, or at the end of a line."""
    found = re.findall(r"`(hpcbench [^`]*)`", text)
    found += re.findall(r"^[^`\n]*?(?:: |; )(hpcbench [a-z]+ .*?)(?: +\(.*\))?$", text, re.MULTILINE)
    yield from (words for line in found if PLACEHOLDERS.isdisjoint(words := shlex.split(line)))


def type_all(text: str) -> list[str]:
    """Type each command in a text, and return their verbs; none may be refused."""
    verbs = []
    for words in printed_commands(text):
        done = run_here(*(word for word in words[1:] if word != "-f"))
        assert done.code != EXIT_USAGE, (words, done.err)
        assert "no such" not in done.err + done.out, (words, done.err)
        verbs.append(words[1])
    return verbs


def submit(*more: str) -> str:
    done = run_here("submit", SUITE, "--cluster", "local", "--save-dir", SAVE_DIR, "--set", "max_attempts=3", *more)
    return done.out + done.err


def test_those_of_a_submit() -> None:
    assert type_all(submit()) == ["logs", "retry", "submit", "collect"]


def test_those_of_a_submit_that_skips_a_failed_job() -> None:
    submit()
    assert type_all(submit()) == ["why", "logs", "retry", "submit", "collect"]


@pytest.mark.parametrize(("name", "verbs"), [("good", ["collect"]), ("bad", ["retry", "submit"])])
def test_those_of_why(name: str, verbs: list[str]) -> None:
    submit()
    done = run_here("why", name, "--save-dir", SAVE_DIR)
    assert type_all(done.out) == verbs


def test_the_submit_that_why_names_means_the_same_jobs(shell: Path) -> None:
    submit()
    [_, words] = printed_commands(run_here("why", "bad", "--save-dir", SAVE_DIR).out)
    assert words == [
        *("hpcbench", "submit", str(shell / SUITE), "--only", "bad", "--force"),
        *("--cluster", "local", "--set", "max_attempts=3", "--save-dir", str(shell / SAVE_DIR)),
    ]
    plan = run_here("plan", *(word for word in words[2:] if word != "--force"))
    assert "changed since" not in plan.out, "without --set it would be another configuration"


def test_those_of_a_report() -> None:
    submit()
    done = run_here("collect", "--save-dir", SAVE_DIR)
    assert set(type_all(done.out)) == {"logs", "retry", "submit"}


@pytest.mark.parametrize(
    ("typed", "verbs"),
    [
        ("status nothing-like-it", ["status"]),
        ("logs good/nothing", ["status"]),
        ("submit --only xyz", ["plan"]),
    ],
)
def test_those_of_a_hint(typed: str, verbs: list[str]) -> None:
    submit()
    verb, *rest = typed.split()
    suite = [SUITE] if verb == "submit" else []
    done = run_here(verb, *suite, *rest, "--save-dir", SAVE_DIR)
    assert done.code == EXIT_USAGE
    assert type_all(done.err) == verbs


def test_a_save_dir_of_the_shells_environment_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCBENCH_SAVE_DIR", SAVE_DIR)
    done = run_here("submit", SUITE, "--cluster", "local")
    assert "full report: hpcbench collect first -o report.html\n" in done.out
    assert type_all(done.out) == ["logs", "retry", "submit", "collect"]


def test_a_command_is_quoted_and_repeats_the_save_dir_where_the_verb_takes_it() -> None:
    with new_invocation():
        repeat_save_dir(Path("/my runs"))
        assert command("why", "a suite/x") == "hpcbench why 'a suite/x' --save-dir '/my runs'"
        assert command("prefetch", "a.yaml") == "hpcbench prefetch a.yaml"
    assert command("why") == "hpcbench why"
