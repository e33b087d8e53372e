"""Infer jobs: answers are those of generate, go on after a kill, and do not depend on what was answered before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import InferArgs, SftArgs
from hpcbench.schemas.metrics import InferMetrics
from hpcbench.schemas.request import JobRequest, Resources
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import AttemptPaths, JobPaths
from hpcbench.worker.infer import infer
from hpcbench.worker.infer.chat import make_replies
from hpcbench.worker.infer.results import read_results
from tests.support import evaluations

pytestmark = pytest.mark.train

INFER_FIELDS = frozenset(InferArgs.model_fields)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluations.save_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    evaluations.save_adapter(base, folder)
    return folder


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "questions.jsonl"
    rows: list[dict[str, str]] = [{"query": f"say {'abc'[: 1 + i % 3]}{i}", "response": "abc"} for i in range(5)]
    rows[2].pop("response")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def make_job(folder: Path, base: Path, data: Path, **values: Any) -> JobPaths:
    own = {name: values.pop(name) for name in INFER_FIELDS & values.keys()}
    args = {"model_id_or_path": str(base), "val_dataset": [str(data)], "dtype": "fp32", "max_new_tokens": 8, **values}
    request = JobRequest(
        suite="suite",
        experiment="experiment",
        job="infer",
        cmd="infer",
        fingerprint="f" * 64,
        device="cpu",
        resources=Resources(gpu=0),
        args=SftArgs(**args),
        infer=InferArgs(**own),
    )
    job = JobPaths(folder)
    write_json(job.request, request.model_dump(mode="json"))
    return job


def answer(job: JobPaths, number: int = 1) -> AttemptPaths:
    from hpcbench.schemas.request import read_request

    attempt = job.attempt(number)
    attempt.folder.mkdir(parents=True)
    infer.run(read_request(job.request), job, attempt)
    return attempt


def metrics_of(attempt: AttemptPaths) -> InferMetrics:
    return InferMetrics.model_validate(read_json(attempt.metrics))


def texts(job: JobPaths) -> list[str]:
    return [row.response for _, row in sorted(read_results(job.results).items())]


def test_greedy_answers_are_those_of_generate_token_by_token(base: Path, questions: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    job = make_job(tmp_path, base, questions, do_sample=False, max_batch_size=2)
    answer(job)

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base)
    for row in read_results(job.results).values():
        ids = tokenizer(row.prompt, add_special_tokens=False, return_tensors="pt")
        output = model.generate(**ids, max_new_tokens=8, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        new = output[0, ids["input_ids"].shape[1] :]
        assert (row.tokens, row.response) == (len(new), tokenizer.decode(new, skip_special_tokens=True))


def test_record_has_speeds_latencies_and_scores(base: Path, questions: Path, tmp_path: Path) -> None:
    metrics = metrics_of(answer(make_job(tmp_path, base, questions, do_sample=False, max_batch_size=2)))

    assert (metrics.num_rows, metrics.num_labels, metrics.checkpoint_choice) == (5, 4, "baseline")
    assert metrics.infer is not None
    assert metrics.infer.num_tokens == sum(row.tokens for row in read_results(tmp_path / "results.jsonl").values())
    assert metrics.infer.prefill_tokens_per_second is not None
    assert metrics.infer.decode_tokens_per_second is not None
    assert metrics.latency is not None
    assert metrics.first_token_latency is not None
    assert metrics.latency.p50_s > metrics.first_token_latency.p50_s
    assert (metrics.results, metrics.unknown) == ("results.jsonl", {})
    assert read_json(tmp_path / "generation_config.json") == {
        "do_sample": False,
        "max_new_tokens": 8,
        "num_beams": 1,
        "repetition_penalty": 1.0,
    }


def test_killed_job_goes_on_where_it_stopped(base: Path, questions: Path, tmp_path: Path) -> None:
    whole = make_job(tmp_path / "whole", base, questions, max_batch_size=2)
    answer(whole)
    killed = make_job(tmp_path / "killed", base, questions, max_batch_size=2)
    lines = whole.results.read_text(encoding="utf-8").splitlines(keepends=True)
    # Three rows, the second of the second batch torn.
    killed.results.write_text("".join(lines[:3]) + lines[3][:40], encoding="utf-8")

    answer(killed)

    rows = [json.loads(line) for line in killed.results.read_text(encoding="utf-8").splitlines()]
    assert [row["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert texts(killed) == texts(whole)


def test_stop_request_ends_between_two_batches(base: Path, questions: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, base, questions)
    attempt = job.attempt(1)
    attempt.folder.mkdir(parents=True)
    write_json(attempt.stop, {"reason": "terminate"})
    from hpcbench.schemas.request import read_request

    infer.run(read_request(job.request), job, attempt)

    assert (attempt.interrupted.exists(), attempt.metrics.exists(), job.results.exists()) == (True, False, False)


def test_sampled_answers_depend_on_the_seed_and_the_row_alone(base: Path, questions: Path, tmp_path: Path) -> None:
    def sample(name: str, **values: Any) -> list[str]:
        job = make_job(tmp_path / name, base, questions, temperature=2.0, top_k=0, top_p=1.0, **values)
        answer(job)
        return texts(job)

    one_by_one = sample("one")

    assert sample("batch", max_batch_size=5) == one_by_one
    assert sample("seed", seed=1) != one_by_one
    assert len(set(one_by_one)) == 5


def test_adapter_of_peft_answers_and_is_merged(base: Path, adapter: Path, questions: Path, tmp_path: Path) -> None:
    from hpcbench.worker.models.loading import load_model

    plain = make_job(tmp_path / "plain", base, questions, do_sample=False, ckpt_dir=str(adapter))
    metrics = metrics_of(answer(plain))
    merged = make_job(
        tmp_path / "merged", base, questions, do_sample=False, ckpt_dir=str(adapter), merge_lora_and_save=True
    )
    metrics_merged = metrics_of(answer(merged))

    assert (metrics.checkpoint, metrics.checkpoint_choice) == (str(adapter), "ckpt_dir")
    assert texts(plain) == texts(merged)
    assert metrics_merged.merged_model == "checkpoints/merged"
    assert load_model(SftArgs(model_id_or_path=str(merged.answered_merged), dtype="fp32"), "cpu") is not None


def test_adapter_of_another_base_is_refused_with_both_names(
    adapter: Path, base: Path, questions: Path, tmp_path: Path
) -> None:
    other = evaluations.save_model(tmp_path / "other")

    with pytest.raises(WorkerError) as caught:
        answer(make_job(tmp_path / "job", other, questions, ckpt_dir=str(adapter)))

    assert caught.value.message == f"ckpt_dir: {adapter} is an adapter of {base}, and the model is {other}"


def test_whole_checkpoint_answers(base: Path, questions: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, base, questions, do_sample=False, ckpt_dir=str(base))

    assert metrics_of(answer(job)).checkpoint == str(base)


def test_stop_words_and_beams(base: Path, questions: Path, tmp_path: Path) -> None:
    greedy = make_job(tmp_path / "greedy", base, questions, do_sample=False)
    answer(greedy)
    word = texts(greedy)[0][3:5]
    stopped = make_job(tmp_path / "stopped", base, questions, do_sample=False, stop_words=[word])
    answer(stopped)
    beams = make_job(tmp_path / "beams", base, questions, do_sample=False, num_beams=3)
    answer(beams)

    assert texts(stopped)[0] == texts(greedy)[0].partition(word)[0]
    assert len(texts(beams)) == 5


def test_a_dialogue_is_answered_as_a_prompt_is_and_shown_while_it_is_generated(
    base: Path, questions: Path, tmp_path: Path
) -> None:
    job = make_job(tmp_path, base, questions, do_sample=False)
    answer(job)
    reply, _ = make_replies(job)
    written: list[str] = []

    found = reply([{"role": "user", "content": "say a0"}], 0, written.append)

    assert found == texts(job)[0]
    assert "".join(written) == found
    assert len(written) > 1


def test_ctrl_c_stops_an_answer_and_keeps_what_there_is(base: Path, questions: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, base, questions, do_sample=False)
    reply, _ = make_replies(job)
    written: list[str] = []

    def stop_behind_three(text: str) -> None:
        written.append(text)
        if len(written) == 3:
            raise KeyboardInterrupt

    assert reply([{"role": "user", "content": "say a0"}], 0, stop_behind_three) == "".join(written)


def test_temperature_zero_takes_the_likeliest_token(base: Path, questions: Path, tmp_path: Path) -> None:
    cold = make_job(tmp_path / "cold", base, questions, temperature=0)
    greedy = make_job(tmp_path / "greedy", base, questions, do_sample=False)
    answer(cold)
    answer(greedy)

    assert texts(cold) == texts(greedy)


def test_results_are_removed_where_they_are_not_to_be_kept(base: Path, questions: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, base, questions, save_result=False, save_generation_config=False, show_dataset_sample=2)
    metrics = metrics_of(answer(job))

    assert (metrics.num_rows, metrics.results, metrics.unknown["results"]) == (2, None, "save_result: false")
    assert not job.results.exists()
    assert not job.generation_config.exists()
