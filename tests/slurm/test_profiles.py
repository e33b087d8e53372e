"""Profiles, init, doctor, clean and refusals on the real test Slurm."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from hpcbench.config.profile import read_profile
from hpcbench.scheduler.slurm.commands import run_command
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.submission import read_submissions
from hpcbench.storage.paths import SuitePaths
from tests.support.places import ROOT
from tests.support.slurm_cluster.cluster import Cluster
from tests.support.slurm_suites import (
    command_experiment,
    command_suite,
    hpcbench,
    states,
    submit,
    view,
    wait_until,
    wait_until_over,
    write_suite,
)

pytestmark = pytest.mark.slurm

NO_ARRAYS = ROOT / "configs" / "clusters" / "no-arrays.yaml"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder of profiles."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "hpcbench" / "clusters"


def test_single_jobs_also_release_their_evals_where_nodes_may(slurm_cluster: Cluster, tmp_path: Path) -> None:
    profile = ClusterProfile(name="single", arrays=False)
    suite = command_suite([command_experiment(f"e{i}", ("true",), evals=["score"]) for i in range(3)])
    assert len(submit(suite, tmp_path, profile=profile).submitted) == 6
    assert set(states(wait_until_over(tmp_path), "eval-score").values()) == {"completed"}


def test_evals_that_can_never_run_are_cancelled_by_slurm_or_by_the_next_command(
    slurm_cluster: Cluster, tmp_path: Path
) -> None:
    # release_evals: false, as if the train job's supervisor had died before it could do so.
    suite = command_suite([command_experiment("bad", ("false",), evals=["score"])])
    evals = {}
    for kill, word in ((True, "yes"), (False, "no")):
        profile = ClusterProfile(name="bound", release_evals=False, kill_on_invalid_dep=kill)
        _, evals[word] = submit(suite, tmp_path / word, profile=profile).submitted
        script = SuitePaths(tmp_path / word, "commands").script(evals[word].key).read_text()
        assert f"#SBATCH --kill-on-invalid-dep={word}\n" in script

    def reasons(word: str) -> list[str]:
        asked = ["squeue", "--me", "-h", "-r", "--states=PENDING", f"--name={evals[word].key}", "--format=%r"]
        return run_command(asked).split()

    wait_until(lambda: reasons("no") == ["DependencyNeverSatisfied"], what="Slurm gives the eval up")
    wait_until(lambda: not reasons("yes"), what="Slurm cancels the eval")
    hpcbench("status", "--save-dir", str(tmp_path / "no"))
    wait_until(lambda: not reasons("no"), what="hpcbench cancels the eval")
    for word in evals:
        assert states(wait_until_over(tmp_path / word), "eval-score") == {"bad": "blocked"}


def test_without_release_arrays_hold_what_slurm_keeps_apart(slurm_cluster: Cluster, tmp_path: Path) -> None:
    profile = ClusterProfile(name="held", release_evals=False)
    commands = [("false",) if i == 11 else ("true",) for i in range(12)]
    suite = command_suite([command_experiment(f"e{i:02}", commands[i], evals=["score"]) for i in range(12)])
    outcome = submit(suite, tmp_path, profile=profile)
    assert sorted(len(s.elements) for s in outcome.submitted) == [2, 2, 10, 10]
    evals = states(wait_until_over(tmp_path), "eval-score")
    assert [name for name, state in evals.items() if state != "completed"] == ["e11"]


def test_a_job_in_a_container_leaves_slurm_commands_to_the_batch_script(
    slurm_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # There is no apptainer here: a stand-in that shows the job none of Slurm's commands, as an image would.
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    for name in ("sh", "true", "false", "echo"):
        (inside / name).symlink_to(str(shutil.which(name)))
    shim = outside / "apptainer"
    shim.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nwhile [ "$1" != image.sif ]; do shift; done\nshift\nPATH={inside} exec "$@"\n'
    )
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{outside}:{os.environ['PATH']}")
    profile = ClusterProfile.model_validate(
        {"name": "images", "python": sys.executable, "container": {"image": "image.sif", "binds": ["/data"]}}
    )
    # More than the ten that Slurm judges by itself, and one that fails.
    commands = [("false",) if i == 12 else ("true",) for i in range(13)]
    suite = command_suite([command_experiment(f"e{i:02}", commands[i], evals=["score"]) for i in range(13)])
    outcome = submit(suite, tmp_path / "logs", profile=profile)
    evals = states(wait_until_over(tmp_path / "logs"), "eval-score")
    assert [name for name, state in evals.items() if state != "completed"] == ["e12"]
    assert (tmp_path / "calls").read_text().startswith(f"exec --bind {tmp_path}/logs --bind /data image.sif ")
    marks = SuitePaths(tmp_path / "logs", "commands").start_marks(outcome.submitted[0].key)
    trains_id = outcome.submitted[1].scheduler_id
    assert (marks / "0.after.done").read_text() == f"release {trains_id}_0\n"
    assert (marks / "12.after.done").read_text() == f"cancel {trains_id}_12\n"


def test_what_can_never_run_is_refused_before_sbatch(slurm_cluster: Cluster, tmp_path: Path, home: Path) -> None:
    suite_file = write_suite(
        tmp_path / "greedy.yaml",
        {
            "cmd": "command",
            "args": {"command": ["true"]},
            "experiment": [
                {"name": "wide", "requirements": {"gpu": 5}},
                {"name": "long", "requirements": {"gpu": 1, "time": "9h"}},
                {"name": "strange", "requirements": {"gpu": 1, "gpu_type": "h100"}},
                {"name": "fine", "requirements": {"gpu": 4, "cpus_per_gpu": 2, "time": "8h"}},
            ],
        },
    )
    for verb in ("submit", "plan"):
        done = hpcbench(verb, str(suite_file), "--save-dir", str(tmp_path / "logs"), check=False)
        assert done.returncode == 2
        assert "wide: requirements.gpu: 5 GPUs on one node are more than any node has" in done.stderr
        assert "long: requirements.time: 540 minutes are more than any partition allows" in done.stderr
        assert (
            "strange: requirements.gpu_type: no node that such a job may run on has GPUs of type 'h100'" in done.stderr
        )
        assert "3 problems found; nothing was submitted" in done.stderr
        assert "fine" not in done.stderr
    assert not (tmp_path / "logs").exists()
    done = hpcbench("plan", str(suite_file), "--only", "fine", "--save-dir", str(tmp_path / "logs"))
    assert "1 job in 1 submission" in done.stdout


def test_a_submit_limit_is_topped_up(slurm_cluster: Cluster, tmp_path: Path, home: Path) -> None:
    # Nothing of other tests is left in the queue, for the limit counts all of a user's jobs.
    wait_until(lambda: not run_command(["squeue", "--me", "-h"]), what="an empty queue")
    home.mkdir(parents=True)
    (home / "small.yaml").write_text("max_submitted: 3\n")
    go = tmp_path / "go"
    suite_file = write_suite(
        tmp_path / "five.yaml",
        {
            "cmd": "command",
            "device": "cpu",
            "requirements": {"gpu": 0, "mem_gb": 0.1, "time": "10m"},
            "args": {"command": ["sh", "-c", f"while [ ! -e {go} ]; do sleep 0.1; done"]},
            "experiment": [{"name": f"e{i}"} for i in range(5)],
        },
    )
    arguments = ("submit", str(suite_file), "--cluster", "small", "--save-dir", str(tmp_path / "logs"))
    first = hpcbench(*arguments)
    assert "five: 2 jobs left planned (no more may go out now); submit again later" in first.stdout
    assert "five: 3 jobs submitted" in first.stdout
    assert "five: 0 jobs submitted" in hpcbench(*arguments).stdout
    go.touch()
    wait_until(lambda: not run_command(["squeue", "--me", "-h"]), what="the first three to end")
    assert "five: 2 jobs submitted" in hpcbench(*arguments).stdout
    assert sum(len(s.elements) for s in read_submissions(SuitePaths(tmp_path / "logs", "five"))) == 5
    assert set(states(wait_until_over(tmp_path / "logs"), "train").values()) == {"completed"}


def test_init_writes_a_profile_that_submits(slurm_cluster: Cluster, tmp_path: Path, home: Path) -> None:
    done = hpcbench("init", "--name", "mine")
    assert done.stdout.splitlines()[0] == f"wrote {home / 'mine.yaml'}"
    profile = read_profile(home / "mine.yaml")
    assert (profile.partition, profile.time_max_min, profile.cpus_per_gpu) == ("gpu", 480, 2)
    again = hpcbench("init", "--name", "mine", check=False)
    assert again.returncode == 2
    assert "already exists" in again.stderr
    assert yaml.safe_load(hpcbench("init", "--force", "-o", "-").stdout)["partition"] == "gpu"
    suite = command_suite([command_experiment("a", ("true",))])
    submit(suite, tmp_path / "logs", profile=profile)
    assert view(wait_until_over(tmp_path / "logs"), "a", "train").state == "completed"


def test_init_and_doctor_outlive_a_cluster_that_does_not_answer(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shims = tmp_path / "bin"
    shims.mkdir()
    for name in ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr", "sshare"):
        shim = shims / name
        shim.write_text("#!/bin/sh\necho 'Unable to contact slurm controller (connect failure)' >&2\nexit 1\n")
        shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shims}:{os.environ['PATH']}")
    done = hpcbench("init", "-o", str(tmp_path / "empty.yaml"))
    assert "sinfo did not answer" in done.stderr
    assert read_profile(tmp_path / "empty.yaml").partition is None
    done = hpcbench("doctor", "--cluster", "slurm", "--no-job", "--save-dir", str(tmp_path / "logs"), check=False)
    assert done.returncode == 1
    assert "error    settings: scontrol show config does not answer" in done.stdout


def test_doctor_sends_a_real_job_and_leaves_nothing(slurm_cluster: Cluster, home: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=".doctor-test-", dir=Path.home()) as folder:
        # /tmp would be refused as node-local.
        save_dir = Path(folder) / "logs"
        home.mkdir(parents=True)
        (home / "cpu.yaml").write_text(f"gpu_flag: null\nmem_gb: 2\nsave_dir: {save_dir}\n")
        done = hpcbench("doctor", "--cluster", "cpu", "--json")
        answer = json.loads(done.stdout)
        found = {check["name"]: check for check in answer["checks"]}
        assert answer["error"] == 0
        assert found["job"]["message"] == "a tiny job ran and wrote into the save dir"
        assert found["python"]["message"].startswith(sys.executable)
        assert found["packages"]["message"].startswith("torch ")
        assert found["GPU"]["message"] == "none asked for (gpu_flag: null)"
        assert not save_dir.exists()

        (home / "broken.yaml").write_text("python: /no/such/python\nmem_gb: 1\ngpu_flag: null\n")
        done = hpcbench("doctor", "--cluster", "broken", "--save-dir", str(save_dir), check=False)
        assert done.returncode == 1
        assert "error    job: it ended without a result in" in done.stdout
        assert "/no/such/python" in done.stdout
        (home / "wrong.yaml").write_text("partition: nowhere\ngpu_flag: null\n")
        done = hpcbench("doctor", "--cluster", "wrong", "--save-dir", str(save_dir), check=False)
        assert "error    profile partition: there is no partition 'nowhere'" in done.stdout
        assert "error    job: " in done.stdout
        assert "invalid partition" in done.stdout


def test_doctor_refuses_a_node_local_save_dir(slurm_cluster: Cluster, tmp_path: Path) -> None:
    done = hpcbench("doctor", "--cluster", "slurm", "--no-job", "--save-dir", str(tmp_path), check=False)
    assert done.returncode == 1
    assert f"error    save dir: {tmp_path}: /tmp is node-local" in done.stdout
