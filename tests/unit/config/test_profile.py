"""Cluster profiles: how they are found and refused, and the sbatch script that each shipped one gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.config.profile import load_profile, read_profile
from hpcbench.errors import ConfigError
from hpcbench.scheduler.slurm.script import render_script
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import Resources
from hpcbench.storage.paths import SuitePaths
from tests.conftest import Golden
from tests.support.job_cases import submission
from tests.support.places import ROOT

SHIPPED = ROOT / "configs" / "clusters"
NAMES = sorted(file.stem for file in SHIPPED.glob("*.yaml"))
PATHS = SuitePaths(Path("/shared/logs"), "tuners")


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Give a user without profiles, in an empty folder, on a machine that has sbatch."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text("#!/bin/sh\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return {"HOME": str(tmp_path / "home")}


def write_profile(environ: dict[str, str], name: str, text: str) -> Path:
    folder = Path(environ["HOME"]) / ".config" / "hpcbench" / "clusters"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.yaml"
    file.write_text(text)
    return file


def test_there_is_one_profile_for_each_kind_of_cluster() -> None:
    expected = ["apptainer", "gpus", "gpus-per-node", "gpus-per-task", "gres", "no-accounting", "no-arrays", "slurm"]
    assert expected == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_script_of_each_shipped_profile(name: str, golden: Golden) -> None:
    profile = read_profile(SHIPPED / f"{name}.yaml")
    if profile.python is None and profile.container is None:
        profile = profile.model_copy(update={"python": "/shared/venv/bin/python"})
    wanted = submission(cluster=name, resources=Resources(gpu=4, ddp=4, nodes=2, gpu_type="a100"))
    after = None
    if not profile.arrays:
        element = {0: wanted.elements[0].model_copy(update={"job": "eval-gsm8k"})}
        update = {"array": False, "elements": element, "after_key": "train", "key": wanted.key.replace("train", "eval")}
        wanted = wanted.model_copy(update=update)
        after = "4711"
    golden(f"slurm/profile-{name}.sh", render_script(wanted, profile=profile, paths=PATHS, after_id=after))


def test_the_plain_profile_is_what_hpcbench_assumes_without_one() -> None:
    assert read_profile(SHIPPED / "slurm.yaml").model_dump() == ClusterProfile().model_dump()


def test_a_job_without_gpus_gets_no_driver_in_its_container() -> None:
    profile = ClusterProfile.model_validate({"container": {"image": "/images/a b.sif"}})
    text = render_script(submission(resources=Resources(gpu=0)), profile=profile, paths=PATHS, after_id=None)
    assert "apptainer exec --bind /shared/logs '/images/a b.sif' python -P -m hpcbench.job" in text


def test_an_unknown_key_is_refused_with_its_line_and_what_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("partition: gpu\naccont: lab\ncontainer:\n  image: x.sif\n  bind: [/data]\ntime_min: soon\n")
    with pytest.raises(ConfigError) as caught:
        read_profile(file)
    problems = {problem.path: problem for problem in caught.value.problems}
    assert sorted(problems) == ["accont", "container.bind", "time_min"]
    assert (problems["accont"].line, problems["accont"].hint) == (2, "did you mean 'account'?")
    assert (problems["container.bind"].line, problems["container.bind"].hint) == (5, "did you mean 'binds'?")
    assert problems["time_min"].line == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time_min: 4:00", "time_min: got 4:00\n  expected: a valid integer"),
        ("time_min: soon", "time_min: got 'soon'\n  expected: a valid integer"),
        ("cpus_per_gpu: '4 cores'", "cpus_per_gpu: got '4 cores'\n  expected: a valid integer"),
        ("cpus_per_gpu: 0", "cpus_per_gpu: got 0\n  expected: greater than or equal to 1"),
        ("setup: module load x", "setup: got 'module load x'\n  expected: a list"),
        ("env: [A]", "env: got a list\n  expected: a mapping (key: value)"),
        ("container: x.sif", "container: got 'x.sif'\n  expected: a mapping (key: value)"),
        ("requeue: maybe", "requeue: got 'maybe'\n  expected: a valid boolean"),
        ("gpu_flag: gpu", "gpu_flag: got 'gpu'\n  expected: 'gres', 'gpus', 'gpus-per-node' or 'gpus-per-task'"),
    ],
)
def test_a_wrong_value_is_shown_as_written_with_what_is_expected(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_profile(file)
    assert [problem.render() for problem in caught.value.problems] == [f"{file}:1: {message}"]


def test_numbers_may_be_quoted_and_names_made_of_digits_keep_their_zeros(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("cpus_per_gpu: '4'\naccount: 0123\nqos: 10:30\nextra_sbatch: {comment: 007}\n")
    profile = read_profile(file)
    assert profile.cpus_per_gpu == 4
    assert (profile.account, profile.qos, profile.extra_sbatch) == ("0123", "10:30", {"comment": "007"})


def test_texts_that_look_like_floats_are_texts_where_texts_belong(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "account: 12e4\nenv: {EPS: 1e-3, VERSION: 1.50}\nextra_sbatch: {nice: 1e2}\npoll_s: 2.5e1\nmem_gb: 1e2\n"
    )
    profile = read_profile(file)
    assert (profile.account, profile.env) == ("12e4", {"EPS": "1e-3", "VERSION": "1.50"})
    assert (profile.extra_sbatch, profile.poll_s, profile.mem_gb) == ({"nice": "1e2"}, 25.0, 100.0)


def test_options_that_are_hpcbenchs_own_are_refused_with_their_line_and_what_to_use(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    names = ("output: x", "array: 0-3", "job-name: x", "wait: true", "wrap: x", "gres: gpu:1", "mem: 4G", "part: x")
    file.write_text("time_min: soon\nextra_sbatch:\n" + "".join(f"  {name}\n" for name in names))
    with pytest.raises(ConfigError) as caught:
        read_profile(file)
    problems = {problem.path: problem for problem in caught.value.problems}
    assert problems.pop("time_min").line == 1
    assert [problem.line for problem in problems.values()] == list(range(3, 11))
    assert [path.removeprefix("extra_sbatch.") for path in problems] == [name.split(":")[0] for name in names]
    hints = {path.removeprefix("extra_sbatch."): problem.hint or "" for path, problem in problems.items()}
    assert "array_throttle" in hints["array"]
    assert "submit --wait" in hints["wait"]
    assert "gpu_flag" in hints["gres"]
    assert "mem_gb" in hints["mem"]
    assert "--partition" in hints["part"]


@pytest.mark.parametrize(
    "text",
    [
        "extra_sbatch: {mail-type: FAIL, exclusive: true, nice: 100, time-min: 5, wait-all-nodes: 1, comment: x}",
        "gpu_flag: gpus\nextra_sbatch: {gres: 'lscratch:100'}",
        "gpu_flag: null\nextra_sbatch: {gpus-per-socket: 1}",
        "gpu_flag: null\nextra_sbatch: {gres: 'gpu:1'}",
        "mem_flag: null\nextra_sbatch: {mem-per-gpu: 4G}",
    ],
)
def test_options_that_nothing_else_gives_are_taken(text: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    assert read_profile(file).extra_sbatch


@pytest.mark.parametrize("gres", ["gpu:1", "lscratch:10,gpu:a100:2", "gres/gpu:1", "gpu"])
def test_a_second_flag_for_gpus_is_refused(gres: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"gpu_flag: gpus\nextra_sbatch: {{gres: '{gres}'}}")
    with pytest.raises(ConfigError, match="gpu_flag in the profile"):
        read_profile(file)


def test_a_default_time_beyond_the_cap_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("time_min: 600\ntime_max_min: 480\n")
    with pytest.raises(ConfigError, match=r"time_min \(600\) is longer than time_max_min \(480\)"):
        read_profile(file)


@pytest.mark.parametrize("text", ["- a\n", "1: 2\n", "a: [\n", "\tpartition: x\n"])
def test_a_file_that_is_not_a_profile_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        read_profile(file)


def test_a_host_is_known_by_either_of_its_names(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    # /etc/hosts often makes the one of them "localhost".
    monkeypatch.setattr("socket.getfqdn", lambda: "localhost")
    monkeypatch.setattr("socket.gethostname", lambda: "login7")
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/sbatch")
    write_profile(environ, "uni", "hosts: ['login*']\n")
    found = load_profile("auto", environ)
    assert found is not None
    assert found.name == "uni"


def test_auto_takes_the_profile_whose_hosts_match(environ: dict[str, str]) -> None:
    write_profile(environ, "default", "partition: any\n")
    write_profile(environ, "uni", "hosts: ['login*']\npartition: uni\n")
    found = [load_profile(environ=environ, host=host) for host in ("login03.hpc.uni.edu", "LOGIN1", "frontend")]
    assert [profile and profile.partition for profile in found] == ["uni", "uni", "any"]


def test_a_broken_profile_of_another_cluster_is_in_nobodys_way(environ: dict[str, str]) -> None:
    write_profile(environ, "aaa", "hosts: [\n")
    write_profile(environ, "uni", "hosts: [login]\n")
    profile = load_profile(environ=environ, host="login")
    assert profile is not None
    assert profile.name == "uni"


def test_auto_without_profiles_is_a_plain_slurm(environ: dict[str, str]) -> None:
    assert load_profile(environ=environ, host="login") == ClusterProfile()


def test_auto_without_sbatch_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert load_profile(environ={}, host="login") is None


def test_a_misspelt_profile_is_refused_with_the_nearest(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'apptainer'"):
        load_profile("aptainer", environ)


def test_a_missing_key_is_reported_at_the_line_of_its_parent(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("partition: gpu\ncontainer:\n  nv: true\nsetup:\n  - a\n  - [b]\n")
    with pytest.raises(ConfigError) as caught:
        read_profile(file)
    assert {problem.path: problem.line for problem in caught.value.problems} == {"container.image": 2, "setup.1": 6}


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("partition: a\npartition: b\n")
    with pytest.raises(ConfigError, match="given twice; first on line 1"):
        read_profile(file)


def test_the_file_of_a_profile_is_not_one_of_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("")
    assert read_profile(file).file == file
    assert "file" not in read_profile(file).model_dump()
    assert ClusterProfile().file is None
