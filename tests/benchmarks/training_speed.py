"""What the arguments for speed are worth on a CPU: processor time and peak memory of a step, in one run.

    python -m tests.benchmarks.training_speed MODEL [--steps N]

In: a model folder, for example of 15 million parameters with a vocabulary of 32,000. Out: a Markdown table. Each row is two
trainings in processes of their own, of 2 and of 2 + N steps, whose difference is the time of N steps: loading, and the
compilation of the first steps, fall out. Processor time, with one thread, because other work may share the machine. A
benchmark, not a test: it asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

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
FIRST_STEPS: Final = 2


def main() -> None:
    """Run all rows and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--only", choices=ROWS, action="append")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        print(json.dumps(_train(options.model, **json.loads(options.worker))))
        return
    lines = []
    for name in options.only or ROWS:
        short, long = (_measure(options.model, name, steps) for steps in (FIRST_STEPS, FIRST_STEPS + options.steps))
        seconds = (long["cpu_s"] - short["cpu_s"]) / options.steps
        lines.append(
            (name, f"{seconds:.2f}", f"{long['peak_gib']:.2f}", f"{long['loss']:.4f}", f"{short['cpu_s']:.0f}")
        )
        print(lines[-1], file=sys.stderr, flush=True)
    header = ("training", "CPU s per step", "peak host GiB", "last loss", "CPU s of start and 2 steps")
    print(tabulate(lines, header, tablefmt="github", disable_numparse=True))


def _measure(model: Path, name: str, steps: int) -> dict[str, float]:
    given = json.dumps({"steps": steps, "values": ROWS[name]})
    command = [sys.executable, "-m", "tests.benchmarks.training_speed", str(model), "--worker", given]
    run = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


def _train(model: Path, *, steps: int, values: dict[str, Any]) -> dict[str, float]:
    """Train full on rows whose first half is prompt, and return processor time, peak memory and the last loss."""
    chooser = random.Random(3)
    text = " ".join(chooser.choice(("once", "upon", "a", "time", "there", "was", "dog")) for _ in range(60))
    with tempfile.TemporaryDirectory() as scratch:
        rows = Path(scratch) / "rows.jsonl"
        rows.write_text((json.dumps({"query": text, "response": text}) + "\n") * 64, encoding="utf-8")
        usual: dict[str, Any] = {"sft_type": "full", "batch_size": 8, "gradient_accumulation_steps": 1}
        usual |= {"dataset_test_ratio": 0, "save_strategy": "no", "learning_rate": 1e-4, "template_type": "chatml"}
        job = make_job(Path(scratch) / "job", model, rows, max_steps=steps, **{**usual, **values})
        losses = [line["loss"] for line in read_history(train_here(job)) if "loss" in line]
    used, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime + children.ru_utime + children.ru_stime
    return {"cpu_s": cpu_s, "peak_gib": used.ru_maxrss / 2**20, "loss": losses[-1]}


if __name__ == "__main__":
    main()
