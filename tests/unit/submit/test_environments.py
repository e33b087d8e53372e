"""Jobs that need an environment wait for nothing: without one they are refused, and the hint leads to success."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpcbench.config.profile import environments_of, read_profile
from hpcbench.errors import ConfigError
from hpcbench.scheduler.registry import open_scheduler
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import Resources
from hpcbench.schemas.suite import Suite
from hpcbench.submit.destination import find_unmade_environments
from tests.support.suite_writer import HEAD, load

TEXT = (
    HEAD + "experiment:\n"
    "  - {name: plain}\n"
    "  - {name: fast, args: {tuner_backend: unsloth}}\n"
    "  - {name: fast-full, args: {tuner_backend: unsloth, sft_type: full}}\n"
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder of cluster profiles."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "config" / "hpcbench" / "clusters"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return load(tmp_path, TEXT)


def test_without_an_environment_the_first_experiment_is_named_and_how_to_make_it(suite: Suite, home: Path) -> None:
    file = home / "ours.yaml"
    file.write_text("partition: gpu\n")
    (problem,) = find_unmade_environments([suite], read_profile(file))
    assert (problem.file, problem.line, problem.path) == (str(suite.file), 5, "fast")
    assert problem.message == (
        "needs a Python with unsloth of its own, and there is no environment 'unsloth' (and 1 more experiments)"
    )
    assert problem.expected == f"`environments: {{unsloth: /path/to/python}}` in {file}"
    assert problem.hint == (
        "`hpcbench environment create unsloth` on storage that jobs see makes one; then write "
        f"`environments: {{unsloth: ~/venvs/unsloth/bin/python}}` into {file}"
    )


@pytest.mark.parametrize("where", ["ours", "local"])
def test_what_the_hint_says_to_write_makes_the_suite_planned(where: str, suite: Suite, home: Path) -> None:
    file = home / f"{where}.yaml"
    if where == "ours":
        file.write_text("partition: gpu\n")
    (problem,) = find_unmade_environments([suite], None if where == "local" else read_profile(file))
    written = re.search(r"write `(.*)` into (.*)$", problem.hint or "")
    assert written is not None
    with Path(written[2]).open("a") as stream:
        stream.write(written[1] + "\n")
    assert find_unmade_environments([suite], None if where == "local" else read_profile(file)) == []


def test_the_plain_slurm_has_no_profile_to_write_into_so_init_is_named(suite: Suite) -> None:
    (problem,) = find_unmade_environments([suite], ClusterProfile())
    assert (problem.hint or "").endswith("into a cluster profile, which `hpcbench init` writes")


def test_experiments_that_are_not_asked_for_need_nothing(suite: Suite) -> None:
    assert find_unmade_environments([suite], ClusterProfile(), only=["plain"]) == []


def test_jobs_of_a_cluster_and_of_this_machine_know_their_environments(home: Path, tmp_path: Path) -> None:
    pythons = {"unsloth": "/venvs/unsloth/bin/python"}
    (home / "local.yaml").write_text("environments: {unsloth: /venvs/unsloth/bin/python}\n")
    for profile in (None, ClusterProfile(environments=pythons)):
        settings = open_scheduler(profile, tmp_path / "logs").job_settings(Resources())
        assert settings.environments == pythons


def test_the_file_of_this_machine_holds_environments_alone(home: Path) -> None:
    (home / "local.yaml").write_text("environments: {}\npartition: gpu\n")
    with pytest.raises(ConfigError) as caught:
        environments_of(None, {"XDG_CONFIG_HOME": str(home.parents[1])})
    assert str(caught.value) == (
        f"{home}/local.yaml:2: partition: has no effect without a scheduler, where only `environments` is read\n"
        "  expected: `environments` alone"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{unsloth: python3}",
            "unsloth: 'python3' is not the absolute path of a Python such as /venvs/unsloth/bin/python",
        ),
        ("{a b: /bin/python}", "'a b' is not the name of an environment: letters, digits, `.`, `_` and `-`"),
    ],
)
def test_environments_of_a_profile_are_checked(text: str, message: str, home: Path) -> None:
    (home / "ours.yaml").write_text(f"environments: {text}\n")
    with pytest.raises(ConfigError, match=re.escape(f"ours.yaml:1: environments: {message}")):
        read_profile(home / "ours.yaml")
