"""How long a training of many samples takes from its start to its first step: one and two ranks, two attempts each.

    python -m tests.benchmarks.first_step [SAMPLES]

In: the number of samples, 50,000 by default. Out: a Markdown table: seconds from the start of the first worker process
to the end of its first step, processor seconds of all processes until their end, and the largest process's peak memory.
The model is tiny, so that the data is what takes the time. A benchmark, not a test: it asserts nothing.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tabulate import tabulate

from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import JobPaths
from tests.support.tiny_models import CHATML, make_job, read_metrics, start_worker

NUM_SAMPLES = 50_000
VOCABULARY = 8_000
WORDS = 4_000
"""Different words that the texts are made of."""
ATTEMPTS = (1, 2)
HEADERS = ("ranks", "attempt", "first step after s", "processor s", "peak MiB of a process")


def main() -> None:
    """Write data and model, train, and print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else NUM_SAMPLES
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", count)
        make_model(folder / "model", folder / "rows.jsonl")
        print(tabulate(list(measure_all(folder)), headers=HEADERS, tablefmt="github", disable_numparse=True))


def write_rows(path: Path, count: int) -> None:
    """Write questions of about 30 words with answers of about 80."""
    draw = random.Random(5)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(WORDS)]
    with path.open("w", encoding="utf-8") as stream:
        for _ in range(count):
            query = " ".join(draw.choices(words, k=draw.randint(20, 40)))
            response = " ".join(draw.choices(words, k=draw.randint(40, 120)))
            stream.write(json.dumps({"query": query, "response": response}) + "\n")


def make_model(folder: Path, rows: Path) -> None:
    """Write a tiny random Qwen2 with a tokenizer of a real one's kind, learned from the beginning of the rows."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>", "<|pad|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(rows.read_text(encoding="utf-8").splitlines()[:2000], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|pad|>", chat_template=CHATML
    )
    tokenizer.save_pretrained(folder)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)


def measure_all(folder: Path) -> Iterator[Sequence[str]]:
    """Train each job twice where the first attempt has left what it left."""
    for ranks in (1, 2):
        job = make_job(
            folder / f"of-{ranks}",
            folder / "model",
            folder / "rows.jsonl",
            ddp=ranks,
            dataset_test_ratio=0.01,
            train_dataset_sample=-1,
            max_steps=1,
            eval_strategy="no",
            save_strategy="no",
        )
        # As plan writes it; what stands there, another data set would have another of.
        inputs = {str(folder / "rows.jsonl"): "a" * 64}
        write_json(job.request, {**(read_json(job.request) or {}), "inputs": inputs})
        for attempt in ATTEMPTS:
            row = [str(ranks), str(attempt), *measure(job, attempt, ranks=ranks, tokens=folder / f"tokens-{ranks}")]
            print(*row, file=sys.stderr, flush=True)
            yield row


def measure(job: JobPaths, number: int, *, ranks: int, tokens: Path) -> tuple[str, str, str]:
    """Return the figures of one attempt."""
    process = start_worker(job, number, ddp=ranks, HPCBENCH_TOKENIZED_DATA=str(tokens))
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(job.attempt(number).log.read_text(encoding="utf-8"))
    first_s = read_metrics(job.attempt(number)).time_to_first_step_s
    return f"{first_s:.1f}", f"{usage.ru_utime + usage.ru_stime:.1f}", f"{usage.ru_maxrss / 1024:.0f}"


if __name__ == "__main__":
    main()
