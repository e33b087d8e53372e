"""Makes models, data and job folders for training tests, and runs the worker in this process or another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.metrics import TrainMetrics
from hpcbench.schemas.request import JobRequest, Resources
from hpcbench.storage.json_files import JsonObject, read_json, write_json
from hpcbench.storage.paths import AttemptPaths, JobPaths

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_tokenizer(merges: tuple[tuple[str, str], ...] = ()) -> Any:
    """Return a byte-level tokenizer: without merges a byte is a token, so expected tokens can be written out."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = [*alphabet, *("".join(pair) for pair in merges)]
    core = Tokenizer(models.BPE(vocab={entry: i for i, entry in enumerate(entries)}, merges=list(merges)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in ("<|im_start|>", "<|im_end|>", "<|pad|>")]
    core.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|pad|>", chat_template=CHATML
    )


def make_model_folder(folder: Path, *, dropout: float = 0.1, width: int = 32, inner: int = 48) -> Path:
    """Write a random Qwen2 in fp32, of 24 thousand parameters if not made wider, and its tokenizer."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(7)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        attention_dropout=dropout,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_llama_folder(
    folder: Path, *, num_layers: int = 2, dropout: float = 0.0, width: int = 32, inner: int = 48
) -> Path:
    """Write a random Llama with an untied head in fp32, and its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        attention_dropout=dropout,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_chats(path: Path, *, count: int) -> Path:
    """Write chats whose answers are 3 to 12 letters long."""
    rows = []
    for index in range(count):
        word = "abcdefghijkl"[: 3 + index % 10] + str(index)
        messages = [{"role": "user", "content": f"say {word}"}, {"role": "assistant", "content": word}]
        rows.append({"messages": messages})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def make_job(folder: Path, base_model: Path, dataset: Path, *, ddp: int = 1, **args: Any) -> JobPaths:
    """Write a job's request: 20 training rows, 4 validation rows, 10 steps of 2 x 2 in two epochs."""
    defaults: dict[str, Any] = {
        "model_id_or_path": str(base_model),
        "dataset": [str(dataset)],
        "dataset_test_ratio": 0.17,
        "dtype": "fp32",
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 2,
        "eval_steps": 4,
        "learning_rate": 5e-3,
        "lora_target_modules": "ALL",
        "lora_dropout_p": 0.1,
        "dataloader_num_workers": 0,
    }
    request = JobRequest(
        suite="suite",
        experiment="experiment",
        job="train",
        cmd="sft",
        fingerprint="f" * 64,
        device="cpu",
        resources=Resources(gpu=0, ddp=ddp),
        args=SftArgs(**{**defaults, **args}),
    )
    job = JobPaths(folder)
    write_json(job.request, request.model_dump(mode="json"))
    return job


def prepare(base_model: Path, **values: Any) -> tuple[Any, SftArgs]:
    """Return the model with the tuner that the arguments name, and the arguments."""
    from hpcbench.worker.models import loading
    from hpcbench.worker.tuners import load_tuner

    args = SftArgs(model_id_or_path=str(base_model), dtype="fp32", **values)
    return load_tuner(args.tuner).prepare(loading.load_model(args, "cpu"), args), args


def train_here(job: JobPaths, number: int = 1) -> AttemptPaths:
    """Train in this process, as one attempt."""
    from hpcbench.schemas.request import read_request
    from hpcbench.worker.train import sft

    attempt = job.attempt(number)
    attempt.folder.mkdir(parents=True, exist_ok=True)
    sft.run(read_request(job.request), job, attempt)
    return attempt


def start_worker(job: JobPaths, number: int = 1, *, ddp: int = 1, **env: str) -> subprocess.Popen[bytes]:
    """Start the worker as its own process, under torchrun for several ranks."""
    attempt = job.attempt(number)
    attempt.folder.mkdir(parents=True, exist_ok=True)
    launcher = [sys.executable, "-m"]
    if ddp > 1:
        launcher += ["torch.distributed.run", "--standalone", f"--nproc_per_node={ddp}", "-m"]
    with attempt.log.open("wb") as log:
        return subprocess.Popen(
            [*launcher, "hpcbench.worker", str(job.folder), str(attempt.folder)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **env},
        )


def read_metrics(attempt: AttemptPaths) -> TrainMetrics:
    return TrainMetrics.model_validate(read_json(attempt.metrics))


def read_history(attempt: AttemptPaths) -> list[JsonObject]:
    return [json.loads(line) for line in attempt.history.read_text(encoding="utf-8").splitlines()]


def read_weights(folder: Path) -> dict[str, Any]:
    """Return the tensors of a checkpoint."""
    from safetensors.torch import load_file

    tensors: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors.update(load_file(path))
    assert tensors, f"no weights in {folder}"
    return tensors
