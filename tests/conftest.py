"""What all tests share: golden files, and Ctrl-C as in a terminal.

`golden("report/quickstart.md", text)` compares text exactly with `tests/golden/report/quickstart.md`. A difference
fails with a unified diff, a missing file fails as well. `pytest --update-golden` rewrites the files; read the diff
before you commit it.
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcbench.invocation import new_invocation

GOLDEN_FOLDER = Path(__file__).parent / "golden"

Golden = Callable[[str, str], None]

# An ignored signal stays ignored across exec (POSIX), in every program that a test starts: a shell ignores SIGINT for
# background jobs, nohup ignores SIGHUP. A handler is reset to the default action instead.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda _number, _frame: None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files that tests compare with")


@pytest.fixture(autouse=True)
def one_command_line_per_test() -> Iterator[None]:
    """Keep the save directory of one test's command line out of the commands that the next one prints."""
    with new_invocation():
        yield


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Return a function that compares text with a file below `tests/golden/`, or rewrites the file."""
    update = bool(request.config.getoption("--update-golden"))

    def compare(name: str, text: str) -> None:
        path = GOLDEN_FOLDER / name
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            return
        if not path.exists():
            pytest.fail(
                f"{path}: no such golden file; make it with `pytest --update-golden` and read it", pytrace=False
            )
        expected = path.read_text(encoding="utf-8")
        if text != expected:
            diff = difflib.unified_diff(
                expected.splitlines(keepends=True),
                text.splitlines(keepends=True),
                fromfile=f"golden/{name}",
                tofile="this run",
            )
            pytest.fail(
                f"{name} differs; if the change is meant, run `pytest --update-golden`\n{''.join(diff)}", pytrace=False
            )

    return compare
