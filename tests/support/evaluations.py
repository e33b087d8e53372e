"""A tiny random model, local eval tasks and finished train jobs for the evaluation's tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from hpcbench.schemas.arguments import EvalArgs, SftArgs
from hpcbench.schemas.metrics import Parameters, TrainMetrics
from hpcbench.schemas.record import Record
from hpcbench.schemas.request import JobRequest, Resources
from hpcbench.schemas.states import JobState
from hpcbench.storage.json_files import write_json

SPECIAL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
QWEN_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are Qwen.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Shaped like Qwen2.5's: a default system prompt, and a line break after every message."""


def make_tokenizer(chat_template: str | None = QWEN_TEMPLATE) -> PreTrainedTokenizerFast:
    """Return a byte-level tokenizer: 256 bytes and three special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={char: i for i, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def make_model(tokenizer: Any, *, seed: int = 0, layers: int = 2) -> Qwen2ForCausalLM:
    """Return a random Qwen2 that prefers printable letters, so that answers are readable and long."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.3,
    )
    model = Qwen2ForCausalLM(config)
    letters = tokenizer.convert_tokens_to_ids([chr(code) for code in range(ord("a"), ord("z") + 1)])
    with torch.no_grad():
        quiet = torch.ones(len(tokenizer), 1)
        quiet[letters] = 0
        model.lm_head.weight.mul_(1 - 0.99 * quiet)
    model.eval()
    return model


def save_model(folder: Path, *, chat_template: str | None = QWEN_TEMPLATE) -> Path:
    """Write the tiny model and its tokenizer as an ordinary model folder."""
    tokenizer = make_tokenizer(chat_template)
    make_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_adapter(base: Path, folder: Path) -> PeftModel:
    """Write a LoRA adapter that changes what the model says, and return the adapted model."""
    model = Qwen2ForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"]))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    adapted.save_pretrained(str(folder))
    return adapted.eval()


def write_task(folder: Path, name: str, rows: Sequence[dict[str, Any]], **config: Any) -> Path:
    """Write a local eval task with its documents; None removes a key that `include` brings."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    files = {"train": str(data), "validation": str(data), "test": str(data)}
    base = {"task": name, "dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": files}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**base, **config}), encoding="utf-8")
    return folder


GENERATION_TASK = {
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 12},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
CHOICE_TASK = {
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "doc_to_choice": "{{choices}}",
    "metric_list": [
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
    ],
}


def make_request(model: Path, dataset: str, **changes: Any) -> JobRequest:
    """Return an eval job's request; `args` and `eval_args` are dictionaries of what differs."""
    args = {"model_id_or_path": str(model), "dtype": "fp32", **changes.pop("args", {})}
    return JobRequest(
        suite="s",
        experiment="e",
        job=f"eval-{dataset}",
        cmd="eval",
        fingerprint="0" * 64,
        device="cpu",
        resources=Resources(gpu=0),
        args=SftArgs(**args),
        eval_dataset=dataset,
        eval_args=EvalArgs(**changes.pop("eval_args", {})),
        **changes,
    )


def write_train_record(folder: Path, **changes: Any) -> Path:
    """Write the record of a completed training whose checkpoints are `checkpoints/best` and `checkpoints/last`."""
    metrics = TrainMetrics(
        parameters=Parameters(trainable=10, total=1000),
        num_steps=4,
        num_samples=8,
        num_tokens=80,
        best_checkpoint="checkpoints/best",
        last_checkpoint="checkpoints/last",
    )
    values: dict[str, Any] = {
        "hpcbench_version": "0",
        "suite": "s",
        "experiment": "e",
        "job": "train",
        "cmd": "sft",
        "state": JobState.COMPLETED,
        "fingerprint": "1" * 64,
        "metrics": metrics,
        "started_at": "2026-01-01T00:00:00+00:00",
        "finished_at": "2026-01-01T00:01:00+00:00",
    }
    write_json(folder / "record.json", Record(**{**values, **changes}).model_dump(mode="json"))
    return folder
