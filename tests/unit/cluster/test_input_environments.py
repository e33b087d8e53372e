"""Prefetch and doctor look where jobs will: in the caches of the profile, then of the experiment."""

from __future__ import annotations

from hpcbench.cluster.input_environments import group_by_environment
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import JobRequest, Resources


def make_request(experiment: str, **env: str) -> JobRequest:
    return JobRequest(
        suite="s",
        experiment=experiment,
        job="train",
        cmd="sft",
        fingerprint="f" * 64,
        device="cpu",
        resources=Resources(gpu=0),
        args=SftArgs(model_type="m"),
        env=env,
    )


def test_the_profiles_and_then_the_experiments_caches_count() -> None:
    profile = ClusterProfile(env={"HF_HOME": "/scratch/hf", "MODELSCOPE_CACHE": "/scratch/ms"})
    requests = [make_request("a"), make_request("b", HF_HOME="/b", OMP_NUM_THREADS="1"), make_request("c", OTHER="1")]
    found = list(group_by_environment(requests, profile, {"HF_HOME": "/home/hf", "PATH": "/bin"}))
    assert [[request.experiment for request in group] for _, group in found] == [["a", "c"], ["b"]]
    assert [environ["HF_HOME"] for environ, _ in found] == ["/scratch/hf", "/b"]
    assert {environ["MODELSCOPE_CACHE"] for environ, _ in found} == {"/scratch/ms"}
    assert {environ["PATH"] for environ, _ in found} == {"/bin"}


def test_the_experiment_chooses_its_hub() -> None:
    [(environ, _)] = group_by_environment([make_request("a", USE_MODELSCOPE_HUB="1")], None, {})
    assert environ == {"USE_MODELSCOPE_HUB": "1"}
