"""Another framework's process: started, stopped, and what it says where it fails."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from hpcbench.frameworks import RECIPES, Recipe, Run
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.notes import Stop
from hpcbench.storage.paths import AttemptPaths
from hpcbench.worker.framework.run import FrameworkFailedError, train


def recipe_of(*words: str) -> Recipe:
    """Return TRL's recipe with another program."""

    def command(_run: Run, _programs: Path, _file: str) -> Sequence[str]:
        return words

    return dataclasses.replace(RECIPES["trl"], command=command)


def run_in(folder: Path) -> Run:
    args = SftArgs(model_id_or_path="/models/base")
    return Run(args=args, model=folder, rows=folder, output=folder, num_train_rows=1, num_val_rows=0)


def attempt_in(folder: Path) -> AttemptPaths:
    return AttemptPaths(folder / "attempt-1")


def test_a_program_that_ends_well_is_measured(tmp_path: Path) -> None:
    measured = train(recipe_of("sh", "-c", "sleep 0.1"), run_in(tmp_path), tmp_path / "f", attempt_in(tmp_path), {})
    assert measured is not None
    assert measured.wall_time_s >= 0.1
    assert measured.peak_rss_bytes > 100_000


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        ("Traceback (most recent call last):\nValueError: no such template", "TRL: ValueError: no such template"),
        ("[rank0]: torch.OutOfMemoryError: CUDA out of memory.", "TRL: torch.OutOfMemoryError: CUDA out of memory."),
        ("usage: x\ntrl sft: error: unrecognized arguments: --a", "TRL: unrecognized arguments: --a"),
        ("nothing of use", "TRL: exit code 3"),
    ],
)
def test_a_program_that_fails_is_named_by_its_last_error(printed: str, message: str, tmp_path: Path) -> None:
    script = tmp_path / "fail.sh"
    script.write_text(f"cat <<'END'\n{printed}\nEND\nexit 3\n")
    with pytest.raises(FrameworkFailedError) as error:
        train(recipe_of("sh", str(script)), run_in(tmp_path), tmp_path / "f", attempt_in(tmp_path), {})
    assert error.value.message == message


def test_a_program_that_is_not_there_is_named_with_how_it_comes_there(tmp_path: Path) -> None:
    with pytest.raises(FrameworkFailedError) as error:
        train(recipe_of("/nowhere/trl"), run_in(tmp_path), tmp_path / "f", attempt_in(tmp_path), {})
    assert str(error.value) == (
        "/nowhere/trl cannot be started: No such file or directory\n"
        "  hint: make the environment anew: `hpcbench environment create trl --force`"
    )


def test_a_stop_ends_the_program(tmp_path: Path) -> None:
    attempt = attempt_in(tmp_path)
    attempt.folder.mkdir()

    def ask() -> None:
        time.sleep(0.1)
        Stop(reason="terminate").write(attempt.stop)

    threading.Thread(target=ask).start()
    assert train(recipe_of("sleep", "60"), run_in(tmp_path), tmp_path / "f", attempt, {}) is None
