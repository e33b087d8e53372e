"""The sbatch text, compared with golden files; and the names of submitit that it is made with."""

from __future__ import annotations

import inspect
import shlex
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError
from submitit.slurm.slurm import SlurmExecutor, _make_sbatch_string

from hpcbench.cluster.save_dir import save_dir_error
from hpcbench.scheduler.slurm.script import gpu_flags, memory_flags, render_script
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import Resources
from hpcbench.storage.paths import SuitePaths
from tests.conftest import Golden
from tests.support.job_cases import submission

PATHS = SuitePaths(Path("/shared/my logs"), "tuners")


def render(profile: ClusterProfile, *, after_id: str | None = None, **changes: object) -> str:
    return render_script(submission(**changes), profile=profile, paths=PATHS, after_id=after_id)


def test_a_train_array_on_a_plain_cluster(golden: Golden) -> None:
    golden("slurm/plain.sh", render(ClusterProfile(python="/shared/venv/bin/python")))


def test_an_eval_array_waits_for_its_train_array(golden: Golden) -> None:
    text = render(
        ClusterProfile(python="/shared/venv/bin/python"),
        after_id="4711",
        key="tuners-eval-gsm8k-261121000000-0011aabb",
        after_key="tuners-train-261121000000-0011aabb",
        resources=Resources(gpu=1),
    )
    golden("slurm/eval.sh", text)


def test_everything_a_profile_may_say(golden: Golden) -> None:
    profile = ClusterProfile(
        name="full",
        keep="adapter",
        partition="a100",
        account="00123",
        qos="long",
        gpu_flag="gpus-per-node",
        mem_flag="mem-per-cpu",
        cpus_per_gpu=8,
        constraint="nvlink",
        exclude="node[7-8]",
        array_throttle=4,
        requeue=False,
        setup=("module purge", "module load cuda/12.4", "source /shared/venv/bin/activate"),
        python="/shared/venv/bin/python",
        env={"NCCL_SOCKET_IFNAME": "ib0", "QUOTED": "a b'c"},
        offline=False,
        extra_sbatch={"mail-type": "FAIL", "exclusive": True},
    )
    resources = Resources(gpu=8, ddp=8, nodes=2, gpu_type="a100", time_min=2880, mem_gb=128)
    golden("slurm/full.sh", render(profile, resources=resources))


@pytest.mark.parametrize("key", ["lab", "submitit", "submitit-lab"])
def test_a_wckey_is_the_profiles_and_never_submitits(key: str) -> None:
    assert "wckey" not in render(ClusterProfile())
    assert f"#SBATCH --wckey={key}\n" in render(ClusterProfile(extra_sbatch={"wckey": key}))


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("gres", {"gres": "gpu:a100:2"}),
        ("gpus", {"gpus": "a100:4"}),
        ("gpus-per-node", {"gpus-per-node": "a100:2"}),
        ("gpus-per-task", {"gpus-per-task": "a100:2"}),
        (None, {}),
    ],
)
def test_exactly_one_flag_asks_for_gpus(flag: str | None, expected: dict[str, str]) -> None:
    profile = ClusterProfile.model_validate({"gpu_flag": flag})
    assert gpu_flags(Resources(gpu=4, ddp=4, nodes=2, gpu_type="a100"), profile) == expected


@pytest.mark.parametrize(
    ("flag", "gpu", "expected"),
    [
        ("mem", 4, {"mem": "65536M"}),
        ("mem-per-cpu", 4, {"mem-per-cpu": "8192M"}),
        ("mem-per-gpu", 4, {"mem-per-gpu": "32768M"}),
        ("mem-per-gpu", 0, {"mem": "65536M"}),
        (None, 4, {}),
    ],
)
def test_exactly_one_flag_asks_for_a_nodes_memory(flag: str | None, gpu: int, expected: dict[str, str]) -> None:
    profile = ClusterProfile.model_validate({"mem_flag": flag})
    assert memory_flags(Resources(gpu=gpu, nodes=2, mem_gb=64), profile, cpus=8) == expected


def test_a_job_without_gpus_asks_for_none() -> None:
    assert gpu_flags(Resources(gpu=0), ClusterProfile()) == {}


# What a folder's name may hold where jobs go to Slurm; see `save_dir_error`.
FOLDERS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\\").filter(lambda c: ord(c) >= 32 and c != "\x7f"),
    min_size=1,
).filter(lambda name: name not in {".", ".."})


def words_of(text: str) -> list[list[str]]:
    """Return the words of each line as bash takes them, an #SBATCH line's without the comment sign."""
    return [shlex.split(line.removeprefix("#SBATCH ")) for line in text.split("\n") if not line.startswith("# ")]


@example("a\u2028touch PWNED\u2028\x85", "b\u2028c")
@given(FOLDERS, st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n")))
def test_whatever_a_path_or_a_value_holds_no_other_word_of_the_script_changes(folder: str, value: str) -> None:
    def words_at(save_dir: Path, text: str) -> list[list[str]]:
        profile = ClusterProfile(python="python", scratch=text, env={"VALUE": text})
        assert save_dir_error(save_dir, profile) is None
        script = render_script(submission(), profile=profile, paths=SuitePaths(save_dir, "tuners"), after_id=None)
        return words_of(script)

    def put_in(word: str) -> str:
        path = f"/{folder}"
        return word.replace("/HERE", path.replace("%", "%%") if word.startswith("--output=") else path)

    plain = words_at(Path("/HERE"), "WORDS")
    expected = [[put_in(word) if "/HERE" in word else word.replace("WORDS", value) for word in line] for line in plain]
    assert words_at(Path("/", folder), value) == expected


@pytest.mark.parametrize(
    "changes",
    [
        {"partition": "gpu\ntouch PWNED"},
        {"account": "lab\n"},
        {"constraint": "a\x1bb"},
        {"extra_sbatch": {"mail-type": "FAIL\ntouch PWNED"}},
        {"extra_sbatch": {"x\ntouch PWNED": True}},
        {"env": {"A;touch PWNED": "1"}},
    ],
)
def test_a_profile_cannot_end_a_line_of_the_script(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ClusterProfile.model_validate(changes)


def test_a_container_takes_no_save_dir_that_its_bind_would_split() -> None:
    profile = ClusterProfile.model_validate({"container": {"image": "a.sif"}})
    assert save_dir_error(Path("/a:b"), profile) == "its name holds :, which --bind of a container splits"
    assert save_dir_error(Path("/a:b"), ClusterProfile()) is None


def test_submitit_still_has_the_names_that_the_adapter_uses() -> None:
    parameters = set(inspect.signature(_make_sbatch_string).parameters)
    assert {
        "command",
        "folder",
        "setup",
        "signal_delay_s",
        "additional_parameters",
        "use_srun",
        "dependency",
    } <= parameters
    for name in ("_submit_command", "_make_submission_file_text", "_make_submission_command"):
        assert callable(getattr(SlurmExecutor, name))
    assert callable(SlurmExecutor._get_job_id_from_submission_command)
