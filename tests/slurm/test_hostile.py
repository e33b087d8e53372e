"""Names, arguments and paths that mean something to a shell or to Slurm: they arrive as they are, or are refused."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.states import JobState
from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import SuitePaths
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import (
    command_experiment,
    command_suite,
    hpcbench,
    states,
    submit,
    view,
    wait_until_over,
    write_suite,
)

pytestmark = pytest.mark.slurm

# Whoever runs this leaves a file PWNED.
CANARIES = (
    "$(touch PWNED_BY_ARG)",
    "`touch PWNED_BY_ARG`",
    "; touch PWNED_BY_ARG #",
    "\ntouch PWNED_BY_ARG\n",
    "' ; touch PWNED_BY_ARG ; '",
    "&& touch PWNED_BY_ARG",
)
WORDS = (
    *CANARIES,
    "",
    " ",
    "-x",
    "--help",
    "%j %x %A",
    "..",
    "~",
    "*",
    "\\",
    '"',
    "é日🙂",
    "{",
    "\u2028touch PWNED_BY_ARG\u2028",
    "a" * 100_000,
)
# All that a folder's name may hold; a line of its own to whoever takes U+2028 for the end of one.
FOLDER = 'a b\' "c" ;&|<>(){}*?! #$(touch PWNED)`touch PWNED` %j%x%A%a%% é日 \u2028touch PWNED\u2028'
TELL = "import json, os, sys; json.dump([sys.argv[1:], os.environ.get('HOSTILE')], open('seen.json', 'w'))"
CPU = {"gpu": 0, "mem_gb": 0.1, "time": "10m"}


def check_no_canary(*folders: Path) -> None:
    """Check that nothing was run by a shell, on the login node, in a batch script or in a job."""
    assert [file for folder in folders for file in folder.rglob("PWNED*")] == []


def test_hostile_arguments_and_paths_arrive_as_they_are(
    slurm_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / FOLDER
    place.mkdir()
    monkeypatch.chdir(place)
    tell = [sys.executable, "-c", TELL]
    suite_file = write_suite(
        place / "hostile.yaml",
        {
            "cmd": "command",
            "device": "cpu",
            "requirements": CPU,
            "eval_requirements": CPU,
            "eval_dataset": ["score"],
            "eval_args": {"command": ["sh", "-c", 'echo "{\\"acc\\": 1}" > "$HPCBENCH_METRICS"', *CANARIES]},
            "experiment": [
                {"name": "words", "args": {"command": [*tell, *WORDS]}, "env": {"HOSTILE": "".join(CANARIES)}},
                {"name": "too-long", "args": {"command": ["true", "a" * 200_000]}},
                {"name": "no-program", "args": {"command": [CANARIES[0]]}},
            ],
        },
    )
    # As a user types it: relative, in the folder itself.
    done = hpcbench("submit", str(suite_file), "--save-dir", "logs")
    assert "6 jobs submitted" in done.stdout
    collection = wait_until_over(place / "logs")
    assert states(collection, "train") == {"words": "completed", "too-long": "failed", "no-program": "failed"}
    assert states(collection, "eval-score")["words"] == "completed"
    assert view(collection, "too-long", "train").reason == "cannot be started: true: Argument list too long"
    assert (
        view(collection, "no-program", "train").reason == f"cannot be started: {CANARIES[0]}: No such file or directory"
    )
    attempt = place / "logs" / "hostile" / "words" / "train" / "attempt-1"
    assert json.loads((attempt / "seen.json").read_text()) == [list(WORDS), "".join(CANARIES)]
    paths = SuitePaths(place / "logs", "hostile")
    # Slurm's own logs are where they belong, and nothing lies beside: `%j` in a folder's name is not a pattern.
    assert len(list(paths.slurm_logs.glob("*_0.out"))) == 2
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [FOLDER]
    scripts = [file.read_text() for file in paths.submissions.glob("*.sh")]
    assert ["PWNED_BY_ARG" in script for script in scripts] == [False, False]
    for verb in ("status", "why", "collect"):
        hpcbench(verb, "--save-dir", "logs")
    assert "0 jobs submitted" in hpcbench("submit", str(suite_file), "--save-dir", "logs").stdout
    check_no_canary(tmp_path)


def test_hostile_texts_of_a_training_stay_out_of_the_script(
    slurm_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "tr'ain; $(touch PWNED).jsonl"
    data.write_text('{"query": "a", "response": "b"}\n')
    suite_file = write_suite(
        tmp_path / "texts.yaml",
        {
            "cmd": "sft",
            "args": {"model_type": "qwen2.5-7b-instruct", "system": "".join(CANARIES), "dataset": [str(data)]},
            "info": {"note": CANARIES[0]},
            "experiment": [{"name": "a+b=c"}],
        },
    )
    shown = hpcbench("plan", str(suite_file), "--script", "--save-dir", str(tmp_path / "logs")).stdout
    assert "#SBATCH --job-name=texts-train-" in shown
    assert "PWNED" not in shown
    check_no_canary(tmp_path)


def test_hostile_names_are_refused_together(slurm_cluster: Cluster, tmp_path: Path) -> None:
    names = ["$(touch PWNED)", "a;b", "a b", "a\nb", "..", "../up", "-x", "%j", "é", "a" * 129, "", "submissions"]
    value: dict[str, Any] = {
        "cmd": "command",
        "args": {"command": ["true"]},
        "eval_dataset": ["../up", "$(touch PWNED)", "a\nb"],
        "requirements": {"partition": "gpu\ntouch PWNED", "gpu_type": "$(touch PWNED)"},
        "experiment": [{"name": name} for name in names] + [{"name": "fine", "env": {"A;touch PWNED": "1"}}],
    }
    done = hpcbench("submit", str(write_suite(tmp_path / "$(x).yaml", value)), cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "the name '$(x)' holds" in done.stderr
    for words in ("'$(touch PWNED)' holds", "'a;b' holds", "'a b' holds", "'..' starts", "'-x' starts", "'%j' holds"):
        assert f"the name {words}" in done.stderr
    for words in ("'é' holds", "a name of 129 characters", "an empty name", "'submissions' is taken"):
        assert words in done.stderr
    for words in (
        "partition: got 'gpu\\ntouch PWNED'",
        "gpu_type: got '$(touch PWNED)'",
        "'A;touch PWNED' is not the name of an environment variable",
    ):
        assert words in done.stderr
    assert "the name 'a\\nb' holds characters that cannot be printed" in done.stderr
    assert not (tmp_path / "logs").exists()
    check_no_canary(tmp_path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a\ntouch PWNED\n", "holds a line break"),
        ("a\\b", "holds a backslash"),
        (os.fsdecode(b"a\xff"), "is not UTF-8"),
        ("a" * 256, "cannot be made: File name too long"),
    ],
    ids=["line break", "backslash", "bytes", "too long"],
)
def test_a_save_dir_that_slurm_would_misread_is_refused(
    slurm_cluster: Cluster, tmp_path: Path, name: str, words: str
) -> None:
    suite = write_suite(
        tmp_path / "one.yaml",
        {"cmd": "command", "device": "cpu", "args": {"command": ["true"]}, "experiment": [{"name": "a"}]},
    )
    done = hpcbench("submit", str(suite), "--save-dir", str(tmp_path / name), cwd=tmp_path, check=False)
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["one.yaml"]


def test_a_very_long_save_dir_works(slurm_cluster: Cluster, tmp_path: Path) -> None:
    save_dir = tmp_path.joinpath(*["d" * 200] * 10)
    submit(command_suite([command_experiment("a", ("true",), evals=["score"])]), save_dir)
    assert {job.state for job in wait_until_over(save_dir).jobs} == {JobState.COMPLETED}
    assert list((save_dir / "commands" / "slurm").glob("*_0.out"))


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Run with another umask, which children inherit."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_files_carry_the_users_umask(slurm_cluster: Cluster, tmp_path: Path) -> None:
    suite = command_suite([command_experiment("a", ("touch", "made-by-the-program"), evals=["score"])])
    for mask in (0o027, 0o077):
        with umask(mask):
            submit(suite, tmp_path / f"{mask:o}")
    for mask in (0o027, 0o077):
        save_dir = tmp_path / f"{mask:o}"
        assert {job.state for job in wait_until_over(save_dir).jobs} == {JobState.COMPLETED}
        entries = list(save_dir.rglob("*"))
        assert any(entry.name == "made-by-the-program" for entry in entries)
        assert any(entry.suffix == ".out" for entry in entries)
        wrong = {
            str(entry.relative_to(save_dir)): oct(mode)
            for entry in entries
            if (mode := entry.stat().st_mode & 0o777) != (0o777 if entry.is_dir() else 0o666) & ~mask
        }
        assert wrong == {}


def test_names_that_slurm_knows_arrive_in_the_queue(slurm_cluster: Cluster, tmp_path: Path) -> None:
    # The longest suite name that is allowed; Slurm's job name is our key and stays unique.
    suite_name = "s" * 64
    suite = command_suite([command_experiment("e" * 64, ("true",), suite=suite_name)])
    outcome = submit(suite, tmp_path, profile=ClusterProfile())
    [submission] = outcome.submitted
    assert len(submission.key) == 64
    assert run_command(
        ["squeue", "--me", "--states=all", "--noheader", f"--name={submission.key}", "--format=%F"]
    ).split() == [submission.scheduler_id]
    assert {job.state for job in wait_until_over(tmp_path).jobs} == {JobState.COMPLETED}
    request = read_json(SuitePaths(tmp_path, suite_name).job("e" * 64, "train").request)
    assert request is not None
    assert request["suite"] == suite_name
