"""What the arguments for speed are worth on a CPU: processor time and peak memory of a step, in one run.

    python -m tests.benchmarks.training_speed MODEL [--steps N]

In: a model folder, for example of 15 million parameters with a vocabulary of 32,000. Out: a Markdown table. Each row is two
trainings, of 1 and of 1 + N steps, whose difference is the time of N steps: loading falls out, and so does the
compilation of the first step.
Processor time, with one thread, because other work may share the machine. A benchmark, not a test: it asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from tabulate import tabulate

from tests.support.tiny_models import make_job, read_history, train_here

CHUNKED: Final = {"chunked_cross_entropy": True}
ROWS: Final[Mapping[str, dict[str, Any]]] = {
    "plain": {},
    "optim: adamw_torch_fused": {"optim": "adamw_torch_fused"},
    "chunked_cross_entropy: true": CHUNKED,
    "gradient_checkpointing: true": {"gradient_checkpointing": True},
    "torch_compile: true": {"torch_compile": True},
    "torch_compile and chunked_cross_entropy": {"torch_compile": True, **CHUNKED},
}


def main() -> None:
    """Run all rows and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--only", choices=ROWS, action="append")
    options = parser.parse_args()
    torch.set_num_threads(1)
    _train(options.model, 1)  # the first one in a process imports more
    lines = []
    for name in options.only or ROWS:
        short_s, _, _ = _train(options.model, 1, **ROWS[name])
        long_s, peak_gib, loss = _train(options.model, 1 + options.steps, **ROWS[name])
        seconds = (long_s - short_s) / options.steps
        lines.append((name, f"{seconds:.2f}", f"{peak_gib:.2f}", f"{loss:.4f}", f"{short_s:.1f}"))
        print(lines[-1], file=sys.stderr, flush=True)
    header = ("training", "CPU s per step", "peak host GiB", "last loss", "CPU s of a training of one step")
    print(tabulate(lines, header, tablefmt="github", disable_numparse=True))


def _train(model: Path, steps: int, **values: Any) -> tuple[float, float, float]:
    """Train full on rows whose first half is prompt; return processor time, peak memory in GiB and the last loss."""
    # Forgets the peak of resident memory so far, see proc(5).
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    started_s = time.process_time()
    chooser = random.Random(3)
    text = " ".join(chooser.choice(("once", "upon", "a", "time", "there", "was", "dog")) for _ in range(60))
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rows.jsonl"
        rows.write_text((json.dumps({"query": text, "response": text}) + "\n") * 64, encoding="utf-8")
        usual: dict[str, Any] = {"sft_type": "full", "batch_size": 8, "gradient_accumulation_steps": 1}
        usual |= {"dataset_test_ratio": 0, "save_strategy": "no", "learning_rate": 1e-4, "template_type": "chatml"}
        job = make_job(Path(scratch) / "job", model, rows, max_steps=steps, **{**usual, **values})
        losses = [line["loss"] for line in read_history(train_here(job)) if "loss" in line]
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak_kib = int(status.split("VmHWM:")[1].split()[0])
    return time.process_time() - started_s, peak_kib / 2**20, losses[-1]


if __name__ == "__main__":
    main()
