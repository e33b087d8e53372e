"""Which of the user's variables sbatch sees: none that would beat what the script says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hpcbench.scheduler.slurm.sbatch_variables import (
    describe_kept,
    hidden_variables,
    in_clean_environment,
    rendered_options,
)
from hpcbench.scheduler.slurm.script import render_script
from hpcbench.schemas import variables
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import Resources
from hpcbench.storage.paths import SuitePaths
from tests.support.job_cases import submission

PATHS = SuitePaths(Path("/logs"), "tuners")


def script(profile: ClusterProfile, **resources: object) -> str:
    wanted = submission(resources=Resources.model_validate({"gpu": 1, **resources}))
    return render_script(wanted, profile=profile, paths=PATHS, after_id=None)


def hidden(*names: str, profile: ClusterProfile | None = None, **resources: object) -> list[str]:
    profile = profile or ClusterProfile()
    return hidden_variables(dict.fromkeys(names, "1"), script(profile, **resources), profile)


def test_an_enclosing_job_is_hidden_but_not_which_slurm_it_is() -> None:
    names = (
        "SLURM_JOB_ID",
        "SLURM_CPU_BIND",
        "SLURM_CONF",
        "SLURM_CLUSTERS",
        "PMIX_RANK",
        variables.SUBMISSION,
        "HOME",
    )
    assert hidden(*names) == [variables.SUBMISSION, "PMIX_RANK", "SLURM_CPU_BIND", "SLURM_JOB_ID"]


@pytest.mark.parametrize(
    ("variable", "profile", "resources"),
    [
        ("SBATCH_PARTITION", {}, {"partition": "a100"}),
        ("SBATCH_PARTITION", {"partition": "a100"}, {}),
        ("SBATCH_ACCOUNT", {"account": "lab"}, {}),
        ("SBATCH_QOS", {"qos": "long"}, {}),
        ("SBATCH_CONSTRAINT", {"constraint": "nvlink"}, {}),
        ("SBATCH_MEM_PER_NODE", {"mem_flag": "mem-per-cpu"}, {"mem_gb": 4}),
        ("SBATCH_MEM_PER_CPU", {}, {"mem_gb": 4}),
        ("SBATCH_MEM_PER_GPU", {"mem_gb": 4}, {}),
        ("SBATCH_GPUS", {"gpu_flag": "gres"}, {}),
        ("SBATCH_GRES", {"gpu_flag": "gpus"}, {"gpu": 0}),
        ("SBATCH_EXCLUSIVE", {"extra_sbatch": {"exclusive": True}}, {}),
        ("SBATCH_RESERVATION", {"extra_sbatch": {"reservation": "course"}}, {}),
        ("SBATCH_WCKEY", {"extra_sbatch": {"wckey": "lab"}}, {}),
    ],
)
def test_a_variable_is_hidden_exactly_where_something_else_is_said(
    variable: str, profile: dict[str, object], resources: dict[str, object]
) -> None:
    said = ClusterProfile.model_validate(profile)
    assert hidden(variable, profile=said, **resources) == [variable]
    assert hidden(variable, profile=ClusterProfile(gpu_flag=None)) == []


def test_what_every_script_says_is_always_hidden() -> None:
    always = ["SBATCH_ARRAY_INX", "SBATCH_CLUSTERS", "SBATCH_CPUS_PER_GPU", "SBATCH_CPUS_PER_TASK", "SBATCH_ERROR"]
    always += ["SBATCH_JOB_NAME", "SBATCH_NO_REQUEUE", "SBATCH_OPEN_MODE", "SBATCH_OUTPUT", "SBATCH_REQUEUE"]
    always += ["SBATCH_SIGNAL", "SBATCH_TIMELIMIT", "SBATCH_WAIT"]
    assert hidden(*always, profile=ClusterProfile(gpu_flag=None, mem_flag=None)) == always


def test_options_end_with_the_first_command() -> None:
    text = "#!/bin/bash\n\n# Parameters\n#SBATCH --time=5\n#SBATCH --exclusive\ntrue\n#SBATCH --qos=x\n"
    assert rendered_options(text) == ["time", "exclusive"]


def test_a_kept_variable_is_told_with_the_jobs_that_it_goes_with() -> None:
    profile = ClusterProfile()
    texts = [script(profile, partition="a100"), script(profile)]
    environ = {"SBATCH_QOS": "long", "SBATCH_PARTITION": "cpu", "SBATCH_TIMELIMIT": "1", "SBATCH_NETWORK": "a\nb"}
    assert describe_kept(environ, texts, profile) == [
        "SBATCH_NETWORK='a\\nb' of your environment goes with every job",
        "SBATCH_PARTITION=cpu of your environment goes with 1 of 2 submissions",
        "SBATCH_QOS=long of your environment goes with every job",
    ]
    assert describe_kept({"SBATCH_TIMELIMIT": "1"}, texts, profile) == []
    assert describe_kept(environ, [], profile) == []


def test_a_submission_sees_its_key_and_nothing_of_an_enclosing_job() -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": "/home/me", "SBATCH_WAIT": "1", "SLURM_JOB_ID": "7"}
    profile = ClusterProfile()
    command = in_clean_environment(["env"], environ, script=script(profile), profile=profile, key="k")
    seen = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.splitlines()
    assert sorted(seen) == sorted(["HOME=/home/me", f"PATH={environ['PATH']}", f"{variables.SUBMISSION}=k"])
