"""The profile that a suite was submitted with is found again, wherever it lies and whatever it calls itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.config.profile import file_to_remember, load_profile
from hpcbench.plan.decide import Options
from hpcbench.scheduler import registry as choose
from hpcbench.scheduler.registry import scheduler_of
from hpcbench.scheduler.slurm.scheduler import SlurmScheduler
from hpcbench.schemas.suite_folder import read_suite
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit.carry_out import submit_suite
from hpcbench.submit.destination import Destination
from hpcbench.submit.retry import load_submitted_suite
from tests.support.fake_scheduler import FakeScheduler
from tests.support.suite_writer import load

TEXT = '{cmd: command, device: cpu, args: {command: ["true"]}, experiment: [{name: a}]}'


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder, with a home of its own, on a machine with Slurm."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("hpcbench.scheduler.registry.shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.chdir(tmp_path)
    choose._warn_once.cache_clear()  # what an earlier test said
    (tmp_path / "config" / "hpcbench" / "clusters").mkdir(parents=True)
    return tmp_path


def write_profile(file: Path, name: str | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("poll_s: 77\n" + (f"name: {name}\n" if name else ""))
    return file


def submit(home: Path, cluster: str) -> str:
    """Submit a suite with this `--cluster`; return the cluster's name."""
    profile = load_profile(cluster)
    assert profile is not None
    scheduler = FakeScheduler(name=profile.name)
    destination = Destination(save_dir=home / "logs", scheduler=scheduler, profile_file=file_to_remember(profile))
    submit_suite(load(home, TEXT), destination, Options())
    return profile.name


def poll_s(home: Path, cluster: str) -> float | None:
    scheduler = scheduler_of(cluster, home / "logs")
    assert isinstance(scheduler, SlurmScheduler)
    assert scheduler.name == cluster
    return scheduler.poll_s


@pytest.mark.parametrize(
    ("file", "name", "typed"),
    [
        ("my.yaml", None, "./my.yaml"),
        ("my.yaml", "uni", "./my.yaml"),
        ("config/hpcbench/clusters/my.yaml", "uni", "my"),
        ("configs/clusters/my.yaml", None, "my"),
    ],
)
def test_a_profile_that_its_name_does_not_lead_to_is_remembered(
    file: str, name: str | None, typed: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_profile(home / file, name)
    cluster = submit(home, typed)
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    assert poll_s(home, cluster) == 77
    again = load_profile(load_submitted_suite(home / "logs", "demo")[1])
    assert (again is not None and again.poll_s, again is not None and again.file) == (77, written)


def test_a_profile_that_its_name_leads_to_goes_by_its_name(home: Path) -> None:
    write_profile(home / "config" / "hpcbench" / "clusters" / "my.yaml")
    assert file_to_remember(load_profile("my")) is None
    cluster = submit(home, "my")
    assert load_submitted_suite(home / "logs", "demo")[1] == "my"
    assert poll_s(home, cluster) == 77


def test_a_suite_that_remembers_no_profile_is_read_and_the_loss_is_said(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_profile(home / "my.yaml")
    submit(home, "./my.yaml")
    paths = SuitePaths(home / "logs", "demo")
    value = read_json(paths.plan)
    assert value is not None
    del value["profile_file"]
    write_json(paths.plan, value)
    assert read_suite(paths) is not None
    assert [poll_s(home, "my") for _ in range(2)] == [30, 30]
    assert caplog.text.count("my: its profile's settings, such as poll_s, are not known") == 1
    assert load_submitted_suite(home / "logs", "demo")[1] == "my"
