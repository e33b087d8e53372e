"""An eval job from request to metrics: baseline, adapter and merged model; speed, groups, filters, failure modes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from transformers import Qwen2ForCausalLM

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import EvalArgs, SftArgs
from hpcbench.schemas.metrics import EvalMetrics, Parameters
from hpcbench.schemas.request import JobRequest
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import AttemptPaths, JobPaths
from hpcbench.worker.data.templates import Template
from hpcbench.worker.evaluate import evaluate, subject
from hpcbench.worker.evaluate.model import ChatPrompts, EvalModel
from hpcbench.worker.evaluate.tasks import BUILT_IN_FOLDER, load_eval_tasks
from hpcbench.worker.measure.loss import mean_cross_entropy
from tests.support import evaluations
from tests.support.places import ROOT, shared
from tests.support.tiny_image_models import make_image_model, write_image_rows

pytestmark = [
    pytest.mark.train,
    # peft 0.21 asks transformers 5.23 for an attribute by its old name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

CHOICES = ["north", "south", "east", "west"]


@dataclass(frozen=True)
class World:
    """Folders that all tests share."""

    base: Path
    train: Path
    merged_train: Path
    tasks: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Make a base model, a training that left adapters, another that left the merged model, and local eval tasks."""
    root = tmp_path_factory.mktemp("eval")
    base = evaluations.save_model(root / "base")
    train = evaluations.write_train_record(root / "train")
    adapted = evaluations.save_adapter(base, train / "checkpoints" / "best")
    (train / "checkpoints" / "last").mkdir()
    merged_train = evaluations.write_train_record(root / "merged_train")
    adapted.merge_and_unload().save_pretrained(merged_train / "checkpoints" / "best")
    questions = [{"question": f"Where is city {n}?", "choices": CHOICES, "answer": n % 4} for n in range(24)]
    evaluations.write_task(root / "tasks", "where", questions, **evaluations.CHOICE_TASK)
    words = [{"question": f"word {n}", "answer": "x" * n} for n in range(7)]
    evaluations.write_task(root / "tasks", "words", words, **evaluations.GENERATION_TASK)
    return World(base=base, train=train, merged_train=merged_train, tasks=root / "tasks")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep datasets' cache out of the user's home."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets-cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def run_eval(folder: Path, request: JobRequest) -> EvalMetrics:
    """Run an eval job in this process and return its metrics."""
    job = JobPaths(folder)
    write_json(job.request, request.model_dump(mode="json"))
    evaluate.run(request, job, job.attempt(1))
    value = read_json(job.attempt(1).metrics)
    return EvalMetrics.model_validate(value)


def read_samples(folder: Path) -> list[dict[str, Any]]:
    text = JobPaths(folder).attempt(1).samples.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def logprobs(folder: Path) -> torch.Tensor:
    """Return the log-probability of each choice of each document, [documents, choices]."""
    rows = sorted(read_samples(folder), key=lambda row: int(row["doc_id"]))
    return torch.tensor([[choice[0] for choice in row["responses"]["none"]] for row in rows])


def test_adapter_in_a_fresh_process_differs_from_the_baseline_and_equals_the_merged_model(
    world: World, tmp_path: Path
) -> None:
    options = {"eval_args": {"include_path": (str(world.tasks),)}}
    adapter = evaluations.make_request(world.base, "where", train_folder=str(world.train), **options)
    write_json(tmp_path / "adapter" / "job.json", adapter.model_dump(mode="json"))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hpcbench.worker", "adapter", "adapter/attempt-1"]
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fresh = EvalMetrics.model_validate(read_json(tmp_path / "adapter" / "attempt-1" / "metrics.json"))

    baseline = run_eval(tmp_path / "baseline", evaluations.make_request(world.base, "where", **options))
    merging = {"eval_args": {**options["eval_args"], "merge_lora": True}}
    on_the_fly = evaluations.make_request(world.base, "where", train_folder=str(world.train), **merging)
    merged_here = run_eval(tmp_path / "merged_here", on_the_fly)
    full = evaluations.make_request(world.base, "where", train_folder=str(world.merged_train), **options)
    merged_before = run_eval(tmp_path / "merged_before", full)

    values = logprobs(tmp_path / "adapter")
    assert values.shape == (24, 4)
    assert (values - logprobs(tmp_path / "baseline")).abs().max() > 0.1
    for name, metrics in (("merged_here", merged_here), ("merged_before", merged_before)):
        assert (values - logprobs(tmp_path / name)).abs().max() < 1e-3
        for metric in ("acc,none", "acc_norm,none"):
            assert metrics.tasks["where"].metrics[metric] == pytest.approx(
                fresh.tasks["where"].metrics[metric], abs=1e-3
            )
    assert fresh.tasks["where"].metrics != baseline.tasks["where"].metrics


def test_metrics_of_a_baseline_say_what_ran(world: World, tmp_path: Path) -> None:
    request = evaluations.make_request(world.base, "where", eval_args={"include_path": (str(world.tasks),)})

    metrics = run_eval(tmp_path / "job", request)

    row = metrics.tasks["where"]
    assert (metrics.dataset, metrics.primary_task, metrics.primary_metric) == ("where", "where", "acc,none")
    assert set(row.metrics) == {"acc,none", "acc_stderr,none", "acc_norm,none", "acc_norm_stderr,none"}
    accuracy, stderr = row.metrics["acc,none"], row.metrics["acc_stderr,none"]
    assert isinstance(accuracy, float)
    assert stderr == pytest.approx((accuracy * (1 - accuracy) / 23) ** 0.5)
    assert (row.num_samples, row.num_samples_available, row.num_fewshot) == (24, 24, 0)
    assert row.higher_is_better == {"acc": True, "acc_norm": True}
    assert (metrics.checkpoint, metrics.checkpoint_choice) == (None, "baseline")
    assert metrics.chat_template_applied is True
    assert metrics.parameters is not None
    assert metrics.parameters.trainable == 0
    assert metrics.dtypes == {"weights": "float32"}
    assert metrics.attention == "sdpa"
    assert metrics.debug is False
    assert metrics.infer is None
    assert metrics.unknown["infer"] == "these eval tasks score given answers and generate nothing"
    assert metrics.memory[0].host_rss_gib is not None
    assert (metrics.lm_eval_version or "").startswith("0.4.")
    progress = read_json(JobPaths(tmp_path / "job").progress)
    assert progress is not None
    assert (progress["phase"], progress["done"], progress["total"]) == ("evaluating", 0, 96)


def test_limit_marks_the_result_debug_and_samples_can_be_left_out(world: World, tmp_path: Path) -> None:
    options = {"include_path": (str(world.tasks),), "limit": 3, "log_samples": False}

    metrics = run_eval(tmp_path / "job", evaluations.make_request(world.base, "where", eval_args=options))

    assert metrics.debug is True
    assert (metrics.tasks["where"].num_samples, metrics.tasks["where"].num_samples_available) == (3, 24)
    assert not JobPaths(tmp_path / "job").attempt(1).samples.exists()


def test_metrics_of_a_training_name_the_checkpoint_and_its_parameters(world: World, tmp_path: Path) -> None:
    options = {"include_path": (str(world.tasks),), "limit": 1}
    request = evaluations.make_request(world.base, "where", train_folder=str(world.train), eval_args=options)

    metrics = run_eval(tmp_path / "job", request)

    assert metrics.checkpoint == str(world.train / "checkpoints" / "best")
    assert metrics.checkpoint_choice == "best"
    assert metrics.parameters == Parameters(trainable=10, total=1000)
    assert metrics.dtypes == {"weights": "float32", "adapter": "float32"}


def generate_alone(model: Any, prefix: list[int], *, stop: str, tokenizer: Any, limit: int) -> list[int]:
    """Decode greedily, one row, one token at a time, no cache, no padding: the slow truth."""
    tokens: list[int] = []
    while len(tokens) < limit:
        with torch.no_grad():
            token = int(model(torch.tensor([prefix + tokens])).logits[0, -1].argmax())
        tokens.append(token)
        if token == tokenizer.eos_token_id or stop in tokenizer.decode(tokens):
            break
    return tokens


def test_generated_tokens_are_counted_as_if_each_row_ran_alone(world: World, tmp_path: Path) -> None:
    tokenizer = evaluations.make_tokenizer()
    model = Qwen2ForCausalLM.from_pretrained(world.base).eval()
    template = Template.from_args(SftArgs(model_id_or_path="x"), tokenizer)
    prefixes = [template.prefix_ids([{"role": "user", "content": f"word {n}"}]) for n in range(7)]
    free = [generate_alone(model, prefix, stop="\n", tokenizer=tokenizer, limit=12) for prefix in prefixes]
    stop = str(tokenizer.decode(free[0][4:6]))
    alone = [generate_alone(model, prefix, stop=stop, tokenizer=tokenizer, limit=12) for prefix in prefixes]
    assert len({len(tokens) for tokens in alone}) > 1, "rows of a batch must end at different times"
    options = {"include_path": (str(world.tasks),), "batch_size": 3, "gen_kwargs": {"until": [stop]}}

    metrics = run_eval(tmp_path / "job", evaluations.make_request(world.base, "words", eval_args=options))

    assert metrics.infer is not None
    assert metrics.infer.num_tokens == sum(len(tokens) for tokens in alone)
    assert metrics.infer.num_prompt_tokens == sum(len(prefix) for prefix in prefixes)
    assert metrics.infer.batch_size == 3
    assert metrics.infer.tokens_per_second == pytest.approx(metrics.infer.num_tokens / metrics.infer.time_s)
    assert (metrics.infer.prefill_tokens_per_second or 0) > 0
    assert (metrics.infer.decode_tokens_per_second or 0) > 0
    answers = {row["doc_id"]: row["responses"]["none"] for row in read_samples(tmp_path / "job")}
    assert [answers[n] for n in range(7)] == [str(tokenizer.decode(tokens)).split(stop)[0] for tokens in alone]
    assert "infer" not in metrics.unknown


def write_arc(folder: Path, sizes: dict[str, int], rows: dict[str, list[dict[str, Any]]]) -> Path:
    for name, size in sizes.items():
        include = str(BUILT_IN_FOLDER / "arc" / f"{name}.yaml")
        evaluations.write_task(folder, name, rows[name][:size], include=include)
    return folder


def assert_arc_is_weighted(metrics: EvalMetrics, sizes: dict[str, int]) -> None:
    assert (metrics.primary_task, metrics.primary_metric) == ("arc", "acc,none")
    assert set(metrics.tasks) == {"arc", "arc_easy", "arc_challenge"}
    for metric in ("acc,none", "acc_norm,none"):
        parts = [(float(metrics.tasks[name].metrics[metric] or 0), size) for name, size in sizes.items()]
        assert metrics.tasks["arc"].metrics[metric] == pytest.approx(
            sum(value * size for value, size in parts) / sum(size for _, size in parts)
        )
    assert metrics.tasks["arc"].num_samples == sum(sizes.values())
    assert isinstance(metrics.tasks["arc"].metrics["acc_stderr,none"], float)


def test_arc_is_easy_and_challenge_by_size(world: World, tmp_path: Path) -> None:
    def row(number: int, key: str) -> dict[str, Any]:
        choices = {"text": [f"{word} {number}" for word in CHOICES], "label": ["A", "B", "C", "D"]}
        return {"id": str(number), "question": f"Where is {number}?", "choices": choices, "answerKey": key}

    sizes = {"arc_easy": 9, "arc_challenge": 4}
    rows = {name: [row(number, "ABCD"[number % 4]) for number in range(9)] for name in sizes}
    folder = write_arc(tmp_path / "arc", sizes, rows)

    request = evaluations.make_request(world.base, "arc", eval_args={"include_path": (str(folder),)})

    assert_arc_is_weighted(run_eval(tmp_path / "job", request), sizes)


def test_arc_with_real_questions(world: World, tmp_path: Path) -> None:
    source = shared("data/arc")
    sizes = {"arc_easy": 20, "arc_challenge": 8}
    files = {"arc_easy": "ARC-Easy-test.hf.jsonl", "arc_challenge": "ARC-Challenge-test.hf.jsonl"}
    rows = {
        name: [json.loads(line) for line in (source / file).read_text(encoding="utf-8").splitlines()]
        for name, file in files.items()
    }
    folder = write_arc(tmp_path / "arc", sizes, rows)
    options = {"include_path": (str(folder),), "max_length": 512}

    request = evaluations.make_request(world.base, "arc", eval_args=options)

    assert_arc_is_weighted(run_eval(tmp_path / "job", request), sizes)


def test_gsm8k_filters_work_on_a_local_copy_of_the_built_in_task(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"question": f"How many? {n}", "answer": f"so\n#### {n}"} for n in (18, 18, 7)]
    include = str(BUILT_IN_FOLDER / "gsm8k" / "gsm8k.yaml")
    folder = evaluations.write_task(tmp_path / "tasks", "gsm8k", rows, include=include)
    text = evaluations.make_tokenizer()("#### 18\nor rather 7<|im_end|>", return_tensors="pt")["input_ids"]

    def answer(_self: EvalModel, context: torch.Tensor, **_kwargs: Any) -> torch.Tensor:
        return torch.cat([context, text.expand(len(context), -1)], dim=1)

    monkeypatch.setattr(EvalModel, "_model_generate", answer)
    options = {"include_path": (str(folder),), "num_fewshot": 1}

    metrics = run_eval(tmp_path / "job", evaluations.make_request(world.base, "gsm8k", eval_args=options))

    row = metrics.tasks["gsm8k"]
    assert metrics.primary_metric == "exact_match,strict-match"
    assert row.metrics["exact_match,strict-match"] == pytest.approx(2 / 3)
    assert row.metrics["exact_match,flexible-extract"] == pytest.approx(1 / 3)
    assert (row.num_fewshot, row.version) == (1, "3.0")
    sample = read_samples(tmp_path / "job")[0]
    assert sample["responses"] == {"strict-match": "18", "flexible-extract": "7"}


def test_eval_loss_of_a_baseline_is_that_of_its_validation_split(world: World, tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    rows = [{"query": f"word {n}", "response": "north" * (n + 1)} for n in range(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = {"include_path": (str(world.tasks),), "limit": 1, "eval_loss": True}
    args = {"dataset": (str(data),), "dataset_test_ratio": 0.5}

    metrics = run_eval(tmp_path / "job", evaluations.make_request(world.base, "where", args=args, eval_args=options))

    from hpcbench.worker.data.samples import encode_samples, load_splits

    sft_args = SftArgs(model_id_or_path=str(world.base), **args)
    template = Template.from_args(sft_args, evaluations.make_tokenizer())
    encoded = encode_samples(load_splits(sft_args).validation, template).rows
    model = Qwen2ForCausalLM.from_pretrained(world.base)
    assert metrics.num_val_rows == len(encoded) == 4
    assert metrics.eval_loss == pytest.approx(mean_cross_entropy(model, encoded, 2, "cpu")[0], rel=1e-5)


@pytest.mark.parametrize("name", ["where", "words"])
def test_bare_text_gives_what_lm_evals_own_model_gives(world: World, name: str) -> None:
    tokenizer = evaluations.make_tokenizer()
    model = Qwen2ForCausalLM.from_pretrained(world.base)
    ours = EvalModel(
        model, tokenizer, prompts=None, batch_size=3, max_length=None, between_batches=lambda _done, _total: None
    )
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3)
    options = EvalArgs(gen_kwargs={"until": ["e", "n"], "max_gen_toks": 30})
    answers = []
    for lm in (ours, theirs):
        lm.prompts = None
        results = evaluate.run_lm_eval(
            lm, load_eval_tasks(name, EvalArgs(include_path=(str(world.tasks),))), options, system=None
        )
        assert results is not None
        rows = results["results"][name]
        answers.append((rows, [sample["filtered_resps"] for sample in results["samples"][name]]))

    assert answers[0] == answers[1]


def test_bare_text_where_no_template_is_wanted(world: World, tmp_path: Path) -> None:
    options = {"include_path": (str(world.tasks),), "limit": 1, "apply_chat_template": False}
    request = evaluations.make_request(world.base, "words", args={"system": "Be brief."}, eval_args=options)

    metrics = run_eval(tmp_path / "job", request)

    assert metrics.chat_template_applied is False
    assert read_samples(tmp_path / "job")[0]["prompt"] == "Be brief.\n\nword 0"


def test_stop_leaves_between_batches_without_metrics(world: World, tmp_path: Path) -> None:
    job = JobPaths(tmp_path / "job")
    request = evaluations.make_request(world.base, "words", eval_args={"include_path": (str(world.tasks),)})
    write_json(job.attempt(1).stop, {"reason": "time limit"})

    evaluate.run(request, job, job.attempt(1))

    assert job.attempt(1).interrupted.is_file()
    assert not job.attempt(1).metrics.exists()


def test_answers_as_long_as_the_context_are_refused(world: World, tmp_path: Path) -> None:
    options = {"include_path": (str(world.tasks),), "gen_kwargs": {"max_gen_toks": 512}}
    request = evaluations.make_request(world.base, "words", eval_args=options)

    with pytest.raises(WorkerError, match="answers of up to 512 tokens leave no room for a prompt in a context of 512"):
        run_eval(tmp_path / "job", request)


def test_progress_counts_every_request_once(world: World) -> None:
    seen: list[tuple[int, int]] = []
    tokenizer = evaluations.make_tokenizer()
    template = Template.from_args(SftArgs(model_id_or_path="x"), tokenizer)
    lm = EvalModel(
        evaluations.make_model(tokenizer),
        tokenizer,
        prompts=ChatPrompts(template),
        batch_size=2,
        max_length=None,
        between_batches=lambda done, total: seen.append((done, total)),
    )

    evaluate.run_lm_eval(
        lm, load_eval_tasks("words", EvalArgs(include_path=(str(world.tasks),))), EvalArgs(), system=None
    )

    assert seen == [(0, 7), (2, 7), (4, 7), (6, 7)]


def test_evals_that_share_a_model_load_it_once_and_score_as_alone(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def request_of(dataset: str, **more: Any) -> JobRequest:
        options = {"include_path": (str(world.tasks),), "together": True, **more}
        return evaluations.make_request(world.base, dataset, train_folder=str(world.train), eval_args=options)

    requests = [request_of("where"), request_of("words", gen_kwargs={"do_sample": True, "temperature": 1.5})]
    alone = [run_eval(tmp_path / request.job, request) for request in requests]
    loads: list[str] = []
    load = subject.load_subject

    def count(args: SftArgs, eval_args: EvalArgs, request: JobRequest, *more: Any) -> subject.Subject:
        loads.append(request.job)
        return load(args, eval_args, request, *more)

    monkeypatch.setattr(subject, "load_subject", count)
    loaded: dict[str, subject.Subject] = {}
    for request, expected in zip(requests, alone, strict=True):
        job = JobPaths(tmp_path / f"shared-{request.job}")
        evaluate.run(request, job, job.attempt(1), loaded)
        found = EvalMetrics.model_validate(read_json(job.attempt(1).metrics))
        assert found.tasks == expected.tasks
        mine, theirs = job.attempt(1).samples, JobPaths(tmp_path / request.job).attempt(1).samples
        assert mine.read_text(encoding="utf-8") == theirs.read_text(encoding="utf-8")
    assert loads == ["eval-where"]
    job = JobPaths(tmp_path / "merged")
    evaluate.run(request_of("where", merge_lora=True), job, job.attempt(1), loaded)
    assert loads == ["eval-where", "eval-where"]
    assert len(loaded) == 1


def test_request_without_dataset_or_with_a_program_is_refused(world: World, tmp_path: Path) -> None:
    attempt = AttemptPaths(tmp_path / "attempt-1")
    request = evaluations.make_request(world.base, "words").model_copy(update={"eval_dataset": None})
    with pytest.raises(WorkerError, match="an eval needs eval_dataset and args"):
        evaluate.run(request, JobPaths(tmp_path), attempt)

    request = evaluations.make_request(world.base, "words", eval_args={"command": ("true",)})
    with pytest.raises(WorkerError, match=r"eval_args.command is run by the job's supervisor"):
        evaluate.run(request, JobPaths(tmp_path), attempt)


def test_an_image_model_is_evaluated_on_texts_and_on_the_loss_of_rows_with_images(tmp_path: Path) -> None:
    model = make_image_model(tmp_path / "model", "qwen2_vl")
    rows = write_image_rows(tmp_path / "rows", count=4)
    documents = [{"question": "q?", "answer": 0, "choices": ["a", "b"]}]
    tasks = evaluations.write_task(tmp_path / "tasks", "choice", documents, **evaluations.CHOICE_TASK)
    request = evaluations.make_request(
        model,
        "choice",
        args={"dataset": [str(rows)], "dataset_test_ratio": 0.5},
        eval_args={"include_path": [str(tasks)], "eval_loss": True},
    )
    attempt = JobPaths(tmp_path / "job").attempt(1)
    attempt.folder.mkdir(parents=True)
    evaluate.run(request, JobPaths(tmp_path / "job"), attempt)
    metrics = EvalMetrics.model_validate(read_json(attempt.metrics))
    assert metrics.tasks["choice"].num_samples == 1
    assert metrics.num_val_rows == 2
    assert metrics.eval_loss is not None
