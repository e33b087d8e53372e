"""Trainings from preferences: TRL's losses to the last digit, rewards that rise, resumes that change nothing."""

from __future__ import annotations

import json
import math
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoTokenizer, set_seed

from hpcbench.worker.data.batches import BatchPlan
from hpcbench.worker.train.preference import load_loss
from tests.support.tiny_models import (
    make_job,
    make_model_folder,
    prepare,
    read_history,
    read_metrics,
    read_weights,
    train_here,
)

pytestmark = [
    pytest.mark.train,
    # TRL 1.16 asks transformers 5.23 by a name that is to go.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

PROMPT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
NUM_PAIRS = 40
STEPS = 20


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("base"), dropout=0.0)


def pairs(count: int = NUM_PAIRS) -> list[dict[str, str]]:
    words = ["abcdefghijkl"[: 3 + index % 10] + str(index) for index in range(count)]
    return [{"prompt": f"say {word}", "chosen": word, "rejected": word[::-1] + "x"} for word in words]


def write_pairs(folder: Path, count: int = NUM_PAIRS) -> Path:
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in pairs(count)), encoding="utf-8")
    return file


def train(folder: Path, base: Path, rlhf_type: str, **args: Any) -> Any:
    values = {"dataset_test_ratio": 0, "max_steps": STEPS, "lora_dropout_p": 0, **args}
    folder.mkdir(exist_ok=True)
    return train_here(make_job(folder / "job", base, write_pairs(folder), rlhf_type=rlhf_type, **values))


def losses_of_trl(folder: Path, base: Path, rlhf_type: str, **config: Any) -> list[float]:
    """Return the losses of TRL's own trainer on the same rows in the same order, tokenized by TRL."""
    rows: list[dict[str, Any]] = [{**row, "prompt": PROMPT.format(row["prompt"])} for row in pairs()]
    if rlhf_type == "kto":
        rows = [
            {"prompt": row["prompt"], "completion": row[name], "label": name == "chosen"}
            for row in rows
            for name in ("chosen", "rejected")
        ]
    plan = BatchPlan(num_samples=len(rows), batch_size=2, seed=42)
    order: list[int] = []
    while len(order) < STEPS * 4:
        order += chain(*plan)
        plan.set_epoch(plan.epoch + 1)
    set_seed(42)
    model, args = prepare(base, lora_target_modules="ALL", rlhf_type=rlhf_type, batch_size=2)
    loss = load_loss(args)
    trainer_class = loss.trainer.__bases__[1]
    trainer = trainer_class(
        model=model,
        args=loss.config(
            output_dir=str(folder / "trl"), max_steps=STEPS, per_device_train_batch_size=2, gradient_accumulation_steps=2,
            learning_rate=5e-3, lr_scheduler_type="cosine", warmup_steps=1, weight_decay=0.01, optim="adamw_torch",
            activation_checkpointing=False, bf16=False, use_cpu=True, logging_steps=1, report_to="none",
            save_strategy="no", train_sampling_strategy="sequential", disable_tqdm=True, **config,
        ),
        train_dataset=Dataset.from_list([rows[index] for index in order]),
        processing_class=AutoTokenizer.from_pretrained(base),
    )  # fmt: skip
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize(
    ("rlhf_type", "config"),
    [
        ("dpo", {}),
        *(
            pytest.param(name, config, marks=pytest.mark.long)
            for name, config in (
                ("kto", {}),
                ("orpo", {}),
                ("cpo", {}),
                ("simpo", {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 1.0}),
            )
        ),
    ],
)
def test_losses_are_those_of_trl_itself(tmp_path: Path, base: Path, rlhf_type: str, config: dict[str, Any]) -> None:
    attempt = train(tmp_path, base, rlhf_type)
    ours = [line["loss"] for line in read_history(attempt)]
    assert ours == pytest.approx(losses_of_trl(tmp_path, base, rlhf_type, **config), rel=1e-5)
    assert len(ours) == STEPS
    assert ours[-1] < ours[0]


def test_margins_rise_and_are_recorded(tmp_path: Path, base: Path) -> None:
    attempt = train(tmp_path, base, "dpo", max_steps=8, dataset_test_ratio=0.1, eval_steps=4)
    rewards, history = read_metrics(attempt).rewards, read_history(attempt)
    assert rewards is not None
    assert rewards.reference == "the model without its adapter"
    steps = [line for line in history if "loss" in line]
    assert steps[0]["reward_margin"] == rewards.first_reward_margin == 0
    assert rewards.train_reward_margin == steps[-1]["reward_margin"] > 0.1
    best = min((line for line in history if "eval_loss" in line), key=lambda line: line["eval_loss"])
    assert rewards.reward_margin == best["eval_reward_margin"] > 0.1
    assert rewards.reward_margin == pytest.approx(best["eval_rewards_chosen"] - best["eval_rewards_rejected"])
    assert rewards.reward_accuracy == 1


def test_eval_loss_does_not_depend_on_the_batch_size(tmp_path: Path, base: Path) -> None:
    values: dict[str, Any] = {"max_steps": 2, "dataset_test_ratio": 0.13}
    losses = [
        read_metrics(train(tmp_path / str(size), base, "dpo", eval_batch_size=size, **values)).eval_loss
        for size in (1, 4)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("sft_type", ["lora", pytest.param("full", marks=pytest.mark.long)])
def test_a_resumed_training_ends_bit_by_bit_as_one_that_went_through(
    tmp_path: Path, base: Path, sft_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Any] = {
        "sft_type": sft_type,
        "max_steps": 6,
        "save_steps": 2,
        "dataset_test_ratio": 0.1,
        "lora_dropout_p": 0.1,
    }
    whole = train(tmp_path / "whole", base, "dpo", **values)
    (tmp_path / "resumed").mkdir()
    job = make_job(tmp_path / "resumed" / "job", base, write_pairs(tmp_path / "resumed"), rlhf_type="dpo", **values)
    with monkeypatch.context() as patched:
        # As a supervisor's note that the time limit is near.
        patched.setattr("hpcbench.worker.train.trainer.stop_requested", lambda _attempt: True)
        train_here(job)
    attempts = [job.attempt(1), train_here(job, 2)]
    resumed = [line for attempt in attempts for line in read_history(attempt)]

    def without_times(lines: list[Any]) -> list[Any]:
        return [{name: value for name, value in line.items() if name != "step_time_s"} for line in lines]

    assert without_times(resumed) == without_times(read_history(whole))
    ends = [read_weights(folder / "checkpoints" / "last") for folder in (tmp_path / "whole" / "job", job.folder)]
    assert ends[0].keys() == ends[1].keys()
    assert all(bool((ends[0][name] == ends[1][name]).all()) for name in ends[0])


def test_texts_are_learned_whole_in_pieces(tmp_path: Path, base: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(
        "".join(json.dumps({"text": "ab " * (5 * count)}) + "\n" for count in range(1, 7)), encoding="utf-8"
    )
    values: dict[str, Any] = {
        "plain_text": True,
        "truncation_strategy": "split",
        "max_length": 32,
        "dataset_test_ratio": 0,
    }
    attempt = train_here(make_job(tmp_path / "job", base, file, sft_type="full", num_train_epochs=1, **values))
    metrics = read_metrics(attempt)
    lengths = [15 * count + 1 for count in range(1, 7)]  # a byte is a token, and each text ends
    assert metrics.num_tokens == sum(lengths)
    assert metrics.num_train_rows == sum(-(-length // 32) for length in lengths)
    assert metrics.rewards is None


@pytest.mark.parametrize("sft_type", ["lora", "full"])
def test_the_reference_of_a_training_that_takes_weights_over_is_the_model_with_them(
    tmp_path: Path, base: Path, chats: Path, sft_type: str
) -> None:
    first = make_job(tmp_path / "first", base, chats, sft_type=sft_type, max_steps=6, lora_dropout_p=0)
    train_here(first)
    last = first.checkpoints / "last"
    job = train(
        tmp_path / "then", base, "dpo", sft_type=sft_type, max_steps=1,
        resume_from_checkpoint=str(last), resume_only_model=True,
    )  # fmt: skip
    # Of a model that is its own reference all rewards are 0.
    assert read_history(job)[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    rewards = read_metrics(job).rewards
    assert rewards is not None
    assert rewards.reference == str(last)
