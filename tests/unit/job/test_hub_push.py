"""Finished weights go to a model hub, here one that this process plays."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpcbench.errors import WorkerError
from hpcbench.job.context import JobContext, read_context
from hpcbench.job.hub_push import push_weights, run_push, wants_push
from hpcbench.job.job_claim import Claim, take_claim
from hpcbench.job.stop_reason import StopRequest
from hpcbench.plan.requests import plan_suite
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.metrics import TrainMetrics
from hpcbench.schemas.record import Record
from hpcbench.schemas.request import read_request
from hpcbench.schemas.submission import Element, write_submission
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import SuitePaths
from hpcbench.worker import hub_push as worker_push
from tests.support.fake_hub import OWNER, open_hub
from tests.support.job_cases import experiment, submission, suite
from tests.support.job_cases import record as make_record
from tests.unit.config.test_push_arguments import make_metrics

TOKEN = "hf_never_written_anywhere"
SCHEDULER = {"SLURM_JOB_ID": "99", "SLURM_ARRAY_JOB_ID": "98", "SLURM_ARRAY_TASK_ID": "0", "SLURM_NODEID": "0"}

needs_hub = pytest.mark.skipif(find_spec("huggingface_hub") is None, reason="needs huggingface_hub")


@pytest.fixture
def trained(tmp_path: Path) -> tuple[JobContext, Claim, Record]:
    """Return a completed training that asks for a push, with its claim, its record and its best checkpoint."""
    suite_paths = SuitePaths(tmp_path / "logs", "tuners")
    mine = submission(elements={0: Element(experiment="a", job="train", fingerprint="f" * 64)})
    write_submission(suite_paths, mine)
    context = read_context(suite_paths.submission(mine.key), None, SCHEDULER)
    args = SftArgs(model_id_or_path=str(tmp_path / "model"), dataset=(str(tmp_path / "rows.jsonl"),), push_to_hub=True)
    request = plan_suite(suite(experiment("a", args=args)), save_dir=tmp_path, inputs={})[0]
    write_json(context.paths.request, request.model_dump(mode="json"))
    claim = take_claim(context)
    assert claim is not None
    best = context.paths.checkpoints / "best"
    best.mkdir(parents=True)
    (best / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 40)
    (best / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / "model"), "r": 8}))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "optimizer.pt"):
        (best / name).write_text('{"a": 1}')
    context.paths.attempt(claim.attempt).folder.mkdir(parents=True, exist_ok=True)
    metrics = make_metrics(last=None).model_copy(update={"unknown": {"pushed_to": "not pushed: the job ended before"}})
    found = make_record(metrics=metrics.model_dump(mode="json"), environment={"packages": {"peft": "1.2.3"}})
    write_json(context.paths.record, found.model_dump(mode="json"))
    return context, claim, found


def push(trained: tuple[JobContext, Claim, Record]) -> tuple[Record, TrainMetrics]:
    context, claim, found = trained
    request = read_request(context.paths.request)
    assert wants_push(request, found)
    updated = push_weights(request, found, context=context, claim=claim, stop=StopRequest())
    assert read_json(context.paths.record) == updated.model_dump(mode="json")
    assert isinstance(updated.metrics, TrainMetrics)
    return updated, updated.metrics


@pytest.fixture(autouse=True)
def login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    # The hub's own store for large files cannot be played; without it they go over HTTP.
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)


@needs_hub
def test_the_best_weights_and_their_card_are_pushed(
    tmp_path: Path, trained: tuple[JobContext, Claim, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, _, before = trained
    best = context.paths.checkpoints / "best"
    with open_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.files |= {"model.safetensors": b"of an earlier push", "LICENSE": b"the user's"}
        updated, metrics = push(trained)
    assert updated.state == before.state
    assert metrics.pushed_to == f"{hub.url}/{OWNER}/model-lora"
    assert "pushed_to" not in metrics.unknown
    assert hub.created == [{"name": "model-lora", "organization": None, "visibility": "private"}]
    assert hub.tokens <= {f"Bearer {TOKEN}", ""}
    kept = {"adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert set(hub.files) == {*kept, "README.md", "adapter_config.json", "LICENSE"}
    assert all(hub.files[name] == (best / name).read_bytes() for name in kept)
    config = json.loads(hub.files["adapter_config.json"])
    original = json.loads((best / "adapter_config.json").read_text())
    assert original["base_model_name_or_path"].startswith("/")
    assert config == {**original, "base_model_name_or_path": "model"}
    card = hub.files["README.md"].decode()
    assert f"| eval_loss (best checkpoint) | {metrics.eval_loss:.4f} |" in card
    assert "library_name: peft\n" in card
    assert "\nlicense:" not in card
    assert "Made with peft 1.2.3." in card
    written = b"".join(path.read_bytes() for path in (tmp_path / "logs").rglob("*") if path.is_file())
    assert TOKEN.encode() not in written
    assert str(tmp_path).encode() not in b"".join(hub.files.values())
    assert not context.paths.hub.exists()


@needs_hub
def test_without_a_network_the_training_stays_and_the_command_by_hand_works(
    trained: tuple[JobContext, Claim, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, _, before = trained
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    updated, metrics = push(trained)
    assert updated.state == before.state == "completed"
    assert metrics.pushed_to is None
    reason, command = metrics.unknown["pushed_to"].split("; by hand: ")
    assert reason.startswith("not pushed: ConnectError: ")
    words = shlex.split(command)
    assert words == ["hf", "upload", "model-lora", str(context.paths.hub), ".", "--private"]
    with open_hub() as hub:
        hf = Path(sys.executable).with_name("hf")
        subprocess.run([hf, *words[1:]], env={**os.environ, "HF_ENDPOINT": hub.url}, check=True, capture_output=True)
    assert set(hub.files) == {path.name for path in context.paths.hub.iterdir()}


def test_a_push_that_hangs_is_left_when_the_job_must_stop(
    trained: tuple[JobContext, Claim, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, _, _ = trained
    request = read_request(context.paths.request)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        stopped = run_push(request, context.paths, context.paths.attempt(1), StopRequest(warned_at=1.0))
        late = run_push(request, context.paths, context.paths.attempt(1), StopRequest(), limit_s=0.1)
    assert stopped == (None, "the job was asked to stop")
    assert late == (None, "it took more than 0 s")


def test_modelscope_gets_the_folder_under_the_users_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []

    class HubApi:
        def login(self, token: str) -> None:
            calls.append(("login", token))

        def repo_exists(self, repository: str) -> bool:
            return repository == "me/there"

        def create_model(self, repository: str, *, visibility: int) -> None:
            calls.append(("create_model", (repository, visibility)))

        def upload_folder(self, **options: Any) -> None:
            calls.append(("upload_folder", (options["repo_id"], options["folder_path"])))

    config = SimpleNamespace(get_user_info=lambda: ("me", "me@example.org"))
    for name in ("modelscope", "modelscope.hub"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(__spec__=SimpleNamespace(name=name)))
    monkeypatch.setitem(sys.modules, "modelscope.hub.api", SimpleNamespace(HubApi=HubApi, ModelScopeConfig=config))
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "secret")
    args = SftArgs(model_type="qwen-7b-chat", push_to_hub=True, hub="modelscope")
    assert worker_push.push(args, tmp_path) == "https://modelscope.cn/models/me/qwen-7b-chat-lora"
    assert calls == [
        ("login", "secret"),
        ("create_model", ("me/qwen-7b-chat-lora", 1)),
        ("upload_folder", ("me/qwen-7b-chat-lora", str(tmp_path))),
    ]
    calls.clear()
    worker_push.push(args.model_copy(update={"hub_model_id": "me/there"}), tmp_path)
    assert [name for name, _ in calls] == ["login", "upload_folder"]
    assert worker_push.describe_error(ValueError("bad token secret")) == "ValueError: bad token $MODELSCOPE_API_TOKEN"


def test_modelscope_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    args = SftArgs(model_type="qwen-7b-chat", push_to_hub=True, hub="modelscope")
    with pytest.raises(WorkerError, match=r"hpcbench-llm\[modelscope\]"):
        worker_push.check_hub(args)
    worker_push.check_hub(args.model_copy(update={"push_to_hub": False}))
