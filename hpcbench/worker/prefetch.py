"""Download what jobs will read: `python -m hpcbench.worker.prefetch < requests.json`, on a machine with internet.

In: job requests, as JSON on standard input. Out: a line for each model, dataset and eval dataset, and exit code 1 when
one failed. It takes the way to each of them that the job will take, only online; what is local is left alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from hpcbench.arguments import EVAL_LOSS_ONLY, SftArgs
from hpcbench.request import JobRequest

ONLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")
IGNORED = ["*.bin", "*.pth", "*.pt", "*.msgpack", "*.h5", "*.onnx", "*.gguf"]
"""Weights in other formats than safetensors, which hpcbench does not load."""

Task = tuple[str, Callable[[], str]]


def main() -> int:
    """Fetch everything that the requests on standard input name; return the exit code."""
    for name in ONLINE:
        os.environ.pop(name, None)
    requests = [JobRequest.model_validate(value) for value in json.load(sys.stdin)]
    failed = False
    for name, fetch in dict(list_tasks(requests)).items():
        try:
            result = fetch()
        except Exception as error:  # noqa: BLE001  # one that is missing must not keep the others away
            lines = str(error).strip().splitlines() or [type(error).__name__]
            result, failed = f"failed: {lines[0]}", True
        sys.stdout.write(f"{name}: {result}\n")
        sys.stdout.flush()
    return 1 if failed else 0


def list_tasks(requests: list[JobRequest]) -> Iterator[Task]:
    """Yield each model, dataset and eval dataset of the requests with what fetches it; equal ones have equal names."""
    for request in requests:
        args, eval_args = request.args, request.eval_args
        if args is not None:
            yield f"model {args.model_name}", partial(fetch_model, args)
        if args is not None and (request.cmd == "sft" or (eval_args is not None and eval_args.eval_loss)):
            names = " ".join([*args.dataset, *args.val_dataset])
            yield f"data {names}", partial(fetch_data, args)
        dataset = request.eval_dataset
        if dataset is not None and dataset != EVAL_LOSS_ONLY and eval_args is not None and not eval_args.command:
            yield f"eval {dataset}", partial(fetch_eval, dataset, eval_args.include_path)


def fetch_model(args: SftArgs) -> str:
    """Download a model's safetensors, configuration and tokenizer; return where they are."""
    from hpcbench.worker.model import model_source

    source = model_source(args)
    if Path(source).is_dir():
        return f"local: {source}"
    from huggingface_hub import snapshot_download

    return str(snapshot_download(source, ignore_patterns=IGNORED))


def fetch_data(args: SftArgs) -> str:
    """Read the training data as a training would; return how many rows there are."""
    from hpcbench.worker.data import load_splits

    splits = load_splits(args)
    return f"{len(splits.train)} training and {len(splits.validation)} validation rows"


def fetch_eval(dataset: str, include_path: tuple[str, ...]) -> str:
    """Load an eval dataset's tasks as an eval would; return the headline's name."""
    from hpcbench.worker.eval_tasks import load_eval_tasks

    return f"ready as {load_eval_tasks(dataset, include_path).name}"


if __name__ == "__main__":
    sys.exit(main())
