"""Models and datasets of two hubs: fetched by prefetch through their clients, read by offline jobs from the caches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcbench.catalog.hubs import OnHub
from hpcbench.data.sources import find_dataset
from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.notes import Failure
from hpcbench.schemas.request import JobRequest, Resources
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import AttemptPaths, JobPaths
from hpcbench.worker.data.datasets import hub_of, read_dataset
from hpcbench.worker.data.samples import load_splits
from hpcbench.worker.models.loading import load_model
from hpcbench.worker.models.source import model_source
from hpcbench.worker.prefetch import fetch_model, find_model
from tests.support.model_hubs import DownloadHub, download_environment, open_hubs
from tests.support.tiny_models import make_model_folder

pytestmark = pytest.mark.train

TURNS = [{"from": "user", "value": "Q"}, {"from": "assistant", "value": "A"}]
SUITE = {
    "cmd": "sft",
    "device": "cpu",
    "args": {"dtype": "fp32", "trust_remote_code": True},
    "experiment": [
        {"name": "hf", "args": {"model": "me/tiny", "dataset": "b-mc2/sql-create-context"}},
        {"name": "ms", "args": {"model_type": "tiny-ms", "dataset": ["ms-agent", "blossom-math-zh"]}},
    ],
}


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What prefetch printed, and the caches that it filled."""

    suite: Path
    output: str
    offline: dict[str, str]
    huggingface: DownloadHub
    modelscope: DownloadHub


def write_rows(file: Path, *rows: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def fill_hubs(root: Path) -> None:
    base = make_model_folder(root / "base")
    shutil.copytree(base, root / "huggingface/models/me/tiny")
    shutil.copytree(base, root / "modelscope/models/me/Tiny.1")
    (root / "modelscope/models/me/Tiny.1/model.onnx").write_bytes(b"other weights")
    row = {"question": "Q", "context": "C", "answer": "A"}
    write_rows(root / "huggingface/datasets/b-mc2/sql-create-context/data.jsonl", *[row] * 4)
    row = {"input": "Q", "output": "W", "answer": "A"}
    write_rows(root / "huggingface/datasets/Azure99/blossom-math-v2/math.jsonl", *[row] * 4)
    # As ModelScope describes datasets: NAME.json says which file a split is.
    agents = root / "modelscope/datasets/iic/ms_agent"
    write_rows(agents / "rows.jsonl", *[{"conversations": repr(TURNS)}] * 4)
    (agents / "ms_agent.json").write_text(json.dumps({"default": {"train": {"meta": "rows.jsonl", "file": ""}}}))


def run(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hpcbench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environ})


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Downloaded]:
    root = tmp_path_factory.mktemp("hubs")
    fill_hubs(root)
    config = root / "config" / "hpcbench"
    config.mkdir(parents=True)
    (config / "models.yaml").write_text("tiny-ms: {modelscope: me/Tiny.1, lora_target_modules: [q_proj], source: here}")
    suite = root / "suite.yaml"
    suite.write_text(json.dumps(SUITE), encoding="utf-8")
    own = {"XDG_CONFIG_HOME": str(root / "config")}
    with open_hubs(root) as (huggingface, modelscope):
        done = run({**download_environment(huggingface, modelscope, root / "caches"), **own}, "prefetch", str(suite))
        assert done.returncode == 0, done.stdout + done.stderr
        offline = {**download_environment(huggingface, modelscope, root / "caches", offline=True), **own}
        yield Downloaded(suite, done.stdout, offline, huggingface, modelscope)


@pytest.fixture
def offline(downloaded: Downloaded, monkeypatch: pytest.MonkeyPatch) -> Downloaded:
    for name, value in downloaded.offline.items():
        monkeypatch.setenv(name, value)
    return downloaded


def test_prefetch_takes_each_model_and_dataset_from_the_hub_that_has_it(downloaded: Downloaded) -> None:
    assert "model tiny-ms: " in downloaded.output
    assert not [path for path in downloaded.huggingface.asked if "Tiny.1" in path or "ms_agent" in path]
    assert not [path for path in downloaded.modelscope.asked if "sql-create" in path or "/me/tiny/" in path]
    # Both hubs have this one.
    assert [path for path in downloaded.huggingface.asked if "blossom-math-v2" in path]
    assert not [path for path in downloaded.modelscope.asked if "blossom-math-v2" in path]


def test_a_job_reads_a_modelscope_model_from_its_cache_without_other_weights(offline: Downloaded) -> None:
    args = SftArgs(model_type="tiny-ms", dtype="fp32")
    folder = Path(model_source(args))
    assert folder.parts[-5:] == ("modelscope", "models", "me--Tiny.1", "snapshots", "master")
    assert not (folder / "model.onnx").exists()
    assert load_model(args, "cpu").config.model_type == "qwen2"
    assert offline.output


def test_a_job_reads_modelscope_data_from_its_cache(offline: Downloaded) -> None:
    num_asked = len(offline.modelscope.asked)
    splits = load_splits(SftArgs(model_type="tiny-ms", dataset=("ms-agent",)))
    assert [message["content"] for message in splits.train[0].messages] == ["Q", "A"]
    assert len(offline.modelscope.asked) == num_asked


def test_doctor_finds_all_of_it_without_asking_a_hub(downloaded: Downloaded, tmp_path: Path) -> None:
    num_asked = len(downloaded.huggingface.asked) + len(downloaded.modelscope.asked)
    place = ["--cluster", "local", "--no-job", "--json", "--save-dir", str(tmp_path)]
    done = run(downloaded.offline, "doctor", str(downloaded.suite), *place)
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {check["level"] for name, check in checks.items() if name.startswith(("model", "data"))} == {"ok"}
    assert len(downloaded.huggingface.asked) + len(downloaded.modelscope.asked) == num_asked


def test_a_job_without_the_download_names_hub_cache_and_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    with pytest.raises(WorkerError) as caught:
        model_source(SftArgs(model_type="internlm-20b", trust_remote_code=True))
    assert caught.value.message == (
        f"model: ModelScope's Shanghai_AI_Laboratory/internlm-20b is not in the local cache ({tmp_path})"
    )
    assert caught.value.hint == (
        "run `hpcbench prefetch CONFIG` where there is internet, or give model_id_or_path: a local folder"
    )
    with pytest.raises(WorkerError, match=r"ModelScope's iic/ms_agent is not in the local cache") as caught:
        list(read_dataset(find_dataset("ms-agent", registry=None)))
    assert caught.value.hint == "run `hpcbench prefetch CONFIG` where there is internet, or name a local file"


def test_the_users_choice_decides_where_both_hubs_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    source = find_dataset("alpaca-en", registry=None)
    monkeypatch.delenv("USE_MODELSCOPE_HUB", raising=False)
    assert hub_of(source) == OnHub(hub="huggingface", id="vicgalle/alpaca-gpt4")
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    assert hub_of(source) == OnHub(hub="modelscope", id="AI-ModelScope/alpaca-gpt4-data-en")
    # Hugging Face alone has it.
    assert hub_of(find_dataset("gsm8k", registry=None)) == OnHub(hub="huggingface", id="openai/gsm8k")


def test_pickled_weights_are_loaded_and_found_but_no_code_in_them_runs(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    base = make_model_folder(tmp_path / "base")
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    args = SftArgs(model_id_or_path=str(base), dtype="fp32")
    assert find_model(args) == f"here: {base}"
    assert load_model(args, "cpu").config.model_type == "qwen2"
    torch.save({"weight": Path("a")}, base / "pytorch_model.bin")
    with pytest.raises(
        WorkerError, match=r"its pytorch_model\.bin holds more than tensors: Weights only load failed"
    ) as caught:
        load_model(args, "cpu")
    assert caught.value.hint is not None


def test_a_failed_job_names_the_command_for_its_own_suite_in_log_and_record(tmp_path: Path) -> None:
    request = JobRequest(
        suite="s",
        experiment="e",
        job="train",
        cmd="sft",
        fingerprint="f" * 64,
        device="cpu",
        resources=Resources(gpu=0),
        args=SftArgs(model_type="internlm-20b", trust_remote_code=True, dtype="fp32", dataset=("ms-agent",)),
        suite_file="/my suites/a.yaml",
    )
    job, attempt = JobPaths(tmp_path), AttemptPaths(tmp_path / "attempt-1")
    write_json(job.request, request.model_dump(mode="json"))
    command = [sys.executable, "-m", "hpcbench.worker", str(job.folder), str(attempt.folder)]
    environ = {**os.environ, "MODELSCOPE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert done.returncode == 1
    failure = Failure.model_validate_json(attempt.failure(0).read_text())
    told = "run `hpcbench prefetch '/my suites/a.yaml'` where there is internet"
    assert failure.hint == f"{told}, or give model_id_or_path: a local folder"
    assert told in done.stderr


def test_what_a_hub_does_not_have_is_said_with_what_to_check(downloaded: Downloaded, tmp_path: Path) -> None:
    suite = {
        "cmd": "sft",
        "device": "cpu",
        "args": {"dataset": "ms-agent", "trust_remote_code": True},
        "experiment": [
            {"name": "hf", "args": {"model": "me/nothing"}},
            {"name": "ms", "args": {"model_type": "internlm-20b"}},
        ],
    }
    file = tmp_path / "suite.yaml"
    file.write_text(json.dumps(suite), encoding="utf-8")
    switches = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")
    done = run({**downloaded.offline, **dict.fromkeys(switches, "0")}, "prefetch", str(file))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("model me/nothing: failed: "))
    assert lines[at].startswith("model me/nothing: failed: Hugging Face's me/nothing cannot be downloaded: Repository")
    hint = "  hint: check the id, the network, and for what is not public the login (`hf auth login`)"
    assert lines[at + 1] == hint
    at = next(number for number, line in enumerate(lines) if line.startswith("model internlm-20b: failed: "))
    assert "ModelScope's Shanghai_AI_Laboratory/internlm-20b cannot be downloaded: " in lines[at]
    assert lines[at + 1] == hint.replace("hf auth login", "modelscope login")


def test_prefetch_without_the_client_of_modelscope_says_what_to_install(
    offline: Downloaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(WorkerError, match=r"reading ModelScope's me/Tiny\.1 needs modelscope") as caught:
        fetch_model(SftArgs(model_type="tiny-ms"))
    assert caught.value.hint == "pip install 'hpcbench-llm[modelscope]' into the Python that runs the jobs"
    assert offline.output


def test_a_download_that_lacks_a_shard_is_fetched_again(offline: Downloaded) -> None:
    folder = Path(model_source(SftArgs(model_type="tiny-ms")))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WorkerError, match=r"lacks 1 of the 2 files") as caught:
        find_model(SftArgs(model_type="tiny-ms"))
    assert caught.value.hint == "run `hpcbench prefetch CONFIG` where there is internet"
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model-00001-of-00002.safetensors").rename(folder / "model.safetensors")
    assert offline.output
