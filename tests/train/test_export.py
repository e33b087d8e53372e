"""Exports: what they write, that it is the model, and what a kill at any moment leaves.

GPTQ's and AWQ's libraries take seconds to import and to quantise, so that most of their tests are long ones.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import ExportArgs, SftArgs
from hpcbench.schemas.metrics import ExportMetrics
from hpcbench.schemas.record import Record
from hpcbench.schemas.request import EXPORT, JobRequest, Resources
from hpcbench.schemas.states import JobState
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import MANIFEST, JobPaths
from hpcbench.worker.export import export as exporting
from hpcbench.worker.export.result_folder import ResultFolder
from hpcbench.worker.models import loading
from hpcbench.worker.train.result import inspect_model
from tests.support.evaluations import CHOICE_TASK, make_request, write_task
from tests.support.methods import read_args
from tests.support.tiny_models import make_job, make_model_folder, prepare, read_metrics, read_weights, train_here
from tests.train.test_resume import stop_in_step
from tests.train.test_tuners import losses

pytestmark = pytest.mark.train

IDS = torch.arange(40).reshape(2, 20)
MARGIN = {("gptq", 8): 1.01, ("gptq", 4): 1.10, ("awq", 4): 1.10, ("bnb", 4): 1.10}
"""Perplexity of a quantised model over that of the model that it was made of, at most."""
FINGERPRINT = "e" * 64


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose layers have sizes that GPTQ and AWQ take."""
    return make_model_folder(tmp_path_factory.mktemp("wide") / "model", width=128, inner=256)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, wide: Path, chats: Path) -> JobPaths:
    """A training whose adapter is exported, completed."""
    job = make_job(tmp_path_factory.mktemp("trained") / "train", wide, chats, max_steps=4)
    metrics = read_metrics(train_here(job))
    write_record(job, metrics)
    return job


def write_record(job: JobPaths, metrics: Any) -> None:
    request = read_json(job.request) or {}
    record = Record(
        hpcbench_version="0",
        suite="suite",
        experiment="experiment",
        job=request["job"],
        cmd=request["cmd"],
        state=JobState.COMPLETED,
        fingerprint=request["fingerprint"],
        metrics=metrics,
        started_at="2026-11-28T00:00:00Z",
        finished_at="2026-11-28T00:01:00Z",
    )
    write_json(job.record, record.model_dump(mode="json"))


def make_export(folder: Path, base: Path, data: Path, *, parent: JobPaths | None = None, **values: Any) -> JobPaths:
    """Write an export's request: 16 rows to calibrate on, in groups of 32 weights."""
    defaults: dict[str, Any] = {"quant_n_samples": 16, "group_size": 32, "quant_batch_size": 4}
    if parent is not None:
        defaults |= {"ckpt_from": "experiment", "checkpoint": "last"}
    request = JobRequest(
        suite="suite",
        experiment="made",
        job=EXPORT,
        cmd="export",
        fingerprint=FINGERPRINT,
        train_folder=None if parent is None else str(parent.folder),
        train_fingerprint=None if parent is None else "f" * 64,
        device="cpu",
        resources=Resources(gpu=0),
        args=SftArgs(model_id_or_path=str(base), dataset=(str(data),), dtype="fp32", dataset_test_ratio=0.17),
        export=ExportArgs(**{**defaults, **values}),
    )
    job = JobPaths(folder)
    write_json(job.request, request.model_dump(mode="json"))
    return job


def export_here(job: JobPaths, number: int = 1) -> ExportMetrics:
    """Export in this process, as one attempt."""
    attempt = job.attempt(number)
    attempt.folder.mkdir(parents=True, exist_ok=True)
    exporting.run(JobRequest.model_validate(read_json(job.request)), job, attempt)
    return ExportMetrics.model_validate(read_json(attempt.metrics))


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(IDS).logits
    return found


# Merging


def test_an_adapter_is_merged_into_a_folder_of_its_own(tmp_path: Path, trained: JobPaths, wide: Path) -> None:
    job = make_export(tmp_path / "export", wide, tmp_path, parent=trained)
    metrics = export_here(job)
    folder = job.exported
    assert metrics.output_model == str(folder)
    assert (metrics.merged, metrics.quant_bits, metrics.checkpoint_choice) == (True, None, "last")
    assert metrics.parameters is not None
    assert metrics.parameters.total == sum(tensor.numel() for tensor in read_weights(wide).values())
    assert metrics.bits_per_weight == pytest.approx(32, rel=0.05)
    args = SftArgs(model_id_or_path=str(wide), dtype="fp32")
    expected = logits(loading.load_checkpoint(args, trained.checkpoints / "last", "cpu"))
    torch.testing.assert_close(logits(loading.load_checkpoint(args, folder, "cpu")), expected, rtol=1e-4, atol=1e-5)
    assert (folder / "tokenizer.json").is_file()
    assert not job.resume.exists()


def test_what_pissa_took_out_of_the_base_is_drawn_by_the_seed_of_the_training(
    tmp_path: Path, wide: Path, chats: Path
) -> None:
    drawn: dict[str, Any] = {"init_lora_weights": "pissa_niter_1", "seed": 7}
    trained = make_job(tmp_path / "train", wide, chats, max_steps=2, **drawn)
    write_record(trained, read_metrics(train_here(trained)))
    made = export_here(make_export(tmp_path / "export", wide, tmp_path, parent=trained)).output_model
    args = SftArgs(model_id_or_path=str(wide), dtype="fp32", **drawn)
    expected = logits(loading.load_checkpoint(args, trained.checkpoints / "last", "cpu"))
    torch.testing.assert_close(logits(loading.load_checkpoint(args, Path(made), "cpu")), expected, rtol=1e-4, atol=1e-5)


def test_a_merged_model_has_the_tokens_of_its_checkpoint(tmp_path: Path, wide: Path, chats: Path) -> None:
    trained = make_job(tmp_path / "train", wide, chats, max_steps=1)
    write_record(trained, read_metrics(train_here(trained)))
    last = trained.checkpoints / "last"
    tokenizer = AutoTokenizer.from_pretrained(str(last))
    tokenizer.chat_template = "{{ messages[0].content }}"
    tokenizer.save_pretrained(str(last))
    made = export_here(make_export(tmp_path / "export", wide, tmp_path, parent=trained)).output_model
    assert AutoTokenizer.from_pretrained(made).chat_template == tokenizer.chat_template


def test_a_finished_folder_is_taken_as_it_is_where_a_kill_came_before_the_metrics(
    tmp_path: Path, trained: JobPaths, wide: Path
) -> None:
    job = make_export(tmp_path / "export", wide, tmp_path, parent=trained)
    first = export_here(job)
    job.attempt(1).metrics.unlink()
    made = {path: path.stat().st_mtime_ns for path in job.exported.iterdir()}
    assert export_here(job, 2) == first
    assert {path: path.stat().st_mtime_ns for path in job.exported.iterdir()} == made


def test_no_folder_is_written_onto_nor_removed(tmp_path: Path, trained: JobPaths, wide: Path) -> None:
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("years", encoding="utf-8")
    job = make_export(tmp_path / "export", wide, tmp_path, parent=trained, output_dir=str(other))
    with pytest.raises(WorkerError) as caught:
        export_here(job)
    message = f"output_dir: {other} exists already, and this job has not made it; nothing was written"
    assert caught.value.message == message
    assert caught.value.hint == "name a folder that does not exist yet, or move that one away"
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "mine"]


def test_a_folder_that_was_changed_is_not_taken_for_the_result(tmp_path: Path, trained: JobPaths, wide: Path) -> None:
    job = make_export(tmp_path / "export", wide, tmp_path, parent=trained)
    export_here(job)
    (job.exported / "tokenizer.json").unlink()
    with pytest.raises(WorkerError, match=r"it has changed since: tokenizer.json is missing"):
        export_here(job, 2)


def test_a_folder_asked_for_gets_the_model(tmp_path: Path, trained: JobPaths, wide: Path) -> None:
    place = tmp_path / "models" / "merged"
    job = make_export(tmp_path / "export", wide, tmp_path, parent=trained, output_dir=str(place))
    assert export_here(job).output_model == str(place)
    assert [path.name for path in place.parent.iterdir()] == ["merged"]
    manifest = read_json(place / MANIFEST) or {}
    assert manifest["fingerprint"] == FINGERPRINT
    assert manifest["files"].keys() == {path.name for path in place.iterdir()} - {MANIFEST}


def test_an_export_that_was_stopped_goes_on_after_the_merge(
    tmp_path: Path, trained: JobPaths, wide: Path, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_export(tmp_path / "export", wide, chats, parent=trained, quant_bits=4, quant_method="bnb")
    # The first question is asked once the weights are merged, the second once they are in place.
    asked = iter([False, True])
    monkeypatch.setattr(exporting, "stop_requested", lambda _attempt: next(asked))
    attempt = job.attempt(1)
    attempt.folder.mkdir(parents=True)
    exporting.run(JobRequest.model_validate(read_json(job.request)), job, attempt)
    assert (read_json(attempt.interrupted) or {})["phase"] == "exporting"
    assert not attempt.metrics.exists()
    assert job.merged.is_dir()
    assert not job.exported.exists()
    monkeypatch.setattr(exporting, "stop_requested", lambda _attempt: False)
    monkeypatch.setattr(exporting, "_merge", lambda *_: pytest.fail("merged again"))
    metrics = export_here(job, 2)
    assert (metrics.resumed_stages, metrics.merged) == (("merge",), True)
    assert metrics.merge_time_s is not None
    assert not job.resume.exists()


def test_what_a_killed_attempt_left_half_written_is_not_a_result(tmp_path: Path, trained: JobPaths, wide: Path) -> None:
    job = make_export(tmp_path / "export", wide, tmp_path, parent=trained)
    result = ResultFolder(place=job.exported, job=job, fingerprint=FINGERPRINT, token=None)
    (result.begin() / "model.safetensors").write_bytes(b"half")
    assert result.find_made() is None
    export_here(job)
    assert [path.name for path in job.checkpoints.iterdir()] == ["export"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"merge_lora": True}, "is a whole model and holds no adapter"),
        ({}, "is a whole model, and quant_bits is 0"),
    ],
)
def test_a_whole_model_has_nothing_to_merge(tmp_path: Path, wide: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkerError, match=message):
        export_here(make_export(tmp_path / "export", wide, tmp_path, ckpt_dir=str(wide), **values))


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, trained: JobPaths, base_model: Path) -> None:
    job = make_export(tmp_path / "export", base_model, tmp_path, ckpt_dir=str(trained.checkpoints / "last"))
    with pytest.raises(WorkerError, match=r"adapter cannot be loaded: size mismatch for .*: copying a param") as caught:
        export_here(job)
    assert caught.value.hint == f"it belongs to another base than {base_model}: name that one"
    assert not job.exported.exists()


def test_too_few_rows_to_calibrate_on_are_refused(tmp_path: Path, wide: Path, chats: Path) -> None:
    job = make_export(tmp_path / "export", wide, chats, quant_bits=4, quant_n_samples=256)
    with pytest.raises(WorkerError) as caught:
        export_here(job)
    assert caught.value.message == f"quant_n_samples: 256 rows to calibrate on, and {chats} has 20"
    assert caught.value.hint == "set quant_n_samples: 20, or name more data in dataset"
    assert not job.checkpoints.exists()


# Quantising


def quantised(folder: Path, base: Path, data: Path, method: str, bits: int) -> ExportMetrics:
    return export_here(make_export(folder, base, data, quant_method=method, quant_bits=bits))


@pytest.fixture(scope="module")
def gptq(tmp_path_factory: pytest.TempPathFactory, wide: Path, chats: Path) -> ExportMetrics:
    return quantised(tmp_path_factory.mktemp("gptq") / "export", wide, chats, "gptq", 4)


def test_gptq_is_written_loaded_counted_and_described(gptq: ExportMetrics, wide: Path, chats: Path) -> None:
    assert (gptq.quant_method, gptq.quant_bits, gptq.group_size) == ("gptq", 4, 32)
    assert (gptq.calibration_datasets, gptq.num_calibration_samples) == ((str(chats),), 16)
    assert gptq.dtypes["weights"] == "float16+float32+int4"  # biases of 16 bits
    assert gptq.dtypes["quantization"].startswith("4 bit gptq, groups of 32, ")
    facts = []
    for base in (wide, Path(gptq.output_model)):
        prepared, _ = prepare(base, lora_target_modules="ALL")
        facts.append(inspect_model(prepared, trains_base=False, tokens=None, autocast="none"))
    assert facts[0].parameters == facts[1].parameters
    assert set(facts[0].target_modules) == set(facts[1].target_modules)


def test_lora_on_gptq_trains_stops_and_resumes(
    tmp_path: Path, gptq: ExportMetrics, chats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_training(tmp_path, Path(gptq.output_model), chats, monkeypatch)


def test_qalora_on_gptq_trains_is_counted_and_loads(tmp_path: Path, gptq: ExportMetrics, base_model: Path) -> None:
    values: dict[str, Any] = {"qalora_group_size": 32, "lora_rank": 4, "lora_target_modules": "q_proj"}
    model, args = prepare(Path(gptq.output_model), sft_type="qalora", **values)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert {tuple(weight.shape)[-1] for name, weight in trained.items() if "lora_A" in name} == {128 // 32}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    ids = torch.arange(60, 100).reshape(2, 20)
    found = []
    for _ in range(3):
        loss = model.eval()(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    assert found[-1] < found[0]
    expected = logits(model)
    model.save_pretrained(tmp_path / "last")
    assert (logits(loading.load_checkpoint(args, tmp_path / "last", "cpu")) == expected).all()
    with pytest.raises(WorkerError, match="use_qalora: the base's weights are not GPTQ's"):
        prepare(base_model, sft_type="qalora", **values)


def check_training(
    tmp_path: Path, base: Path, chats: Path, monkeypatch: pytest.MonkeyPatch, *, has_learned: bool = False
) -> None:
    """Train on a quantised base; the losses fall where it has not learned yet, and are the same after a stop."""
    reference = make_job(tmp_path / "reference", base, chats, eval_steps=5)
    metrics = read_metrics(train_here(reference))
    found = [loss for loss in losses(reference) if loss is not None]
    assert has_learned or sum(found[-3:]) < sum(found[:3])
    assert "int" in metrics.dtypes["weights"]
    job = make_job(tmp_path / "job", base, chats, eval_steps=5)
    stop_in_step(monkeypatch, 5)
    assert read_json(train_here(job, 1).interrupted) is not None
    stop_in_step(monkeypatch, None)
    train_here(job, 2)
    assert losses(job) == losses(reference)
    expected, resumed = read_weights(reference.checkpoints / "last"), read_weights(job.checkpoints / "last")
    assert all((expected[key] == resumed[key]).all() for key in expected)
    with pytest.raises(WorkerError, match="an adapter cannot be merged into weights of few bits"):
        loading.load_checkpoint(read_args(job), job.checkpoints / "last", "cpu", merge=True)


_PERPLEXITY = """
import json, math, sys
import torch
from hpcbench.schemas.arguments import SftArgs
from hpcbench.worker.data.samples import encode_samples, load_splits
from hpcbench.worker.data.templates import Template
from hpcbench.worker.measure.loss import mean_cross_entropy
from hpcbench.worker.models import loading
torch.set_num_threads(1)
args = SftArgs(model_id_or_path=sys.argv[1], dataset=(sys.argv[2],), dtype="fp32", dataset_test_ratio=0.17)
tokenizer = loading.load_tokenizer(args)
rows = encode_samples(load_splits(args).validation, Template.from_args(args, tokenizer)).rows
loss, _ = mean_cross_entropy(loading.load_model(args, "cpu"), rows, 2, "cpu", pad_token_id=tokenizer.pad_token_id)
print(json.dumps(math.exp(loss)))
"""


def perplexity_in_a_fresh_process(folder: Path, data: Path) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _PERPLEXITY, str(folder), str(data)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    return float(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, wide: Path, chats: Path) -> Path:
    """A model that has learned the chats, so that its weights mean something."""
    values: dict[str, Any] = {"sft_type": "full", "num_train_epochs": 12, "learning_rate": 3e-3, "eval_steps": 1000}
    job = make_job(tmp_path_factory.mktemp("learned") / "train", wide, chats, **values)
    train_here(job)
    return job.checkpoints / "last"


@pytest.mark.long
@pytest.mark.parametrize(("method", "bits"), MARGIN)
def test_a_quantised_model_is_as_good_in_a_fresh_process_trains_and_is_evaluated(  # noqa: PLR0917  # fixtures
    tmp_path: Path, learned: Path, chats: Path, monkeypatch: pytest.MonkeyPatch, method: str, bits: int
) -> None:
    job = make_export(tmp_path / "export", learned, chats, quant_method=method, quant_bits=bits)
    metrics = export_here(job)
    plain = perplexity_in_a_fresh_process(learned, chats)
    found = perplexity_in_a_fresh_process(job.exported, chats)
    print(f"{method} {bits}: perplexity {plain:.4f} -> {found:.4f}, {metrics.bits_per_weight:.2f} bits a weight")
    assert plain < 100  # 259 before it has learned anything
    assert found / plain < MARGIN[method, bits]
    if method != "bnb":  # of which test_quantization.py has more
        check_training(tmp_path, job.exported, chats, monkeypatch, has_learned=True)
    write_record(job, metrics)
    check_eval(tmp_path, job, learned)


def check_eval(tmp_path: Path, made: JobPaths, base: Path) -> None:
    """Evaluate what an export made, as its eval job does."""
    from hpcbench.worker.evaluate import evaluate

    rows = [{"question": f"say {word}", "choices": [word, "no"], "answer": 0} for word in ("abc0", "abcd1", "abcde2")]
    tasks = tmp_path / "tasks"
    write_task(tasks, "letters", rows, **CHOICE_TASK)
    request = make_request(
        base,
        "letters",
        train_folder=str(made.folder),
        train_fingerprint=FINGERPRINT,
        eval_args={"include_path": (str(tasks),)},
    )
    job = JobPaths(tmp_path / "eval")
    write_json(job.request, request.model_dump(mode="json"))
    attempt = job.attempt(1)
    attempt.folder.mkdir(parents=True)
    evaluate.run(request, job, attempt)
    scores = read_json(attempt.metrics) or {}
    assert (scores["checkpoint"], scores["checkpoint_choice"]) == (str(made.exported), "output_model")
    assert scores["tasks"]["letters"]["num_samples"] == 3
    assert "quantization" in scores["dtypes"]
    assert math.isfinite(scores["tasks"]["letters"]["metrics"]["acc,none"])
