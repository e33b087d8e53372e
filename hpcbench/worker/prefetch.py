"""Download what jobs will read: `python -m hpcbench.worker.prefetch < requests.json`, on a machine with internet.

In: job requests, as JSON on standard input. Out: a line for each model, dataset and eval dataset, and exit code 1 when
one failed. It takes the way to each of them that the job will take, only online; what is local is left alone. With
`--check FILE` it stays offline and writes what a job would find.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import EVAL_LOSS_ONLY, SftArgs
from hpcbench.schemas.request import JobRequest
from hpcbench.storage.json_files import write_json

ONLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")
IGNORED = ["*.bin", "*.pth", "*.pt", "*.msgpack", "*.h5", "*.onnx", "*.gguf"]
"""Weights in other formats than safetensors, which hpcbench does not load."""

Task = tuple[str, Callable[[], str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of one model, dataset or eval dataset."""

    name: str
    ok: bool
    message: str
    error: str | None = None
    """The kind of error."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch everything that the requests on standard input name, or check whether it is here; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m hpcbench.worker.prefetch")
    parser.add_argument("--check", type=Path, metavar="FILE", help="download nothing; write what is here to FILE")
    target: Path | None = parser.parse_args(arguments).check
    # The libraries read these once, when they are imported, which is not before the first task.
    for name in ONLINE:
        os.environ.pop(name, None)
        if target is not None:
            os.environ[name] = "1"
    requests = [JobRequest.model_validate(value) for value in json.load(sys.stdin)]
    results = []
    for name, fetch in dict(list_tasks(requests, download=target is None)).items():
        results.append(_try(name, fetch))
        if target is None:
            prefix = "" if results[-1].ok else "failed: "
            sys.stdout.write(f"{name}: {prefix}{results[-1].message}\n")
            sys.stdout.flush()
    if target is not None:
        write_json(target, {"schema_version": 1, "found": [asdict(result) for result in results]})
    return 0 if all(result.ok for result in results) else 1


def _try(name: str, fetch: Callable[[], str]) -> Found:
    try:
        return Found(name=name, ok=True, message=fetch())
    except Exception as error:  # noqa: BLE001  # one that is missing must not keep the others away
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Found(name=name, ok=False, message=lines[0], error=type(error).__name__)


def list_tasks(requests: Sequence[JobRequest], *, download: bool) -> Iterator[Task]:
    """Yield each model, dataset and eval dataset of the requests with what fetches it; equal ones have equal names."""
    for request in requests:
        args, eval_args = request.args, request.eval_args
        if args is not None:
            yield (
                f"model {args.model_id_or_path or args.model_type}",
                partial(fetch_model if download else find_model, args),
            )
        if args is not None and (request.cmd == "sft" or (eval_args is not None and eval_args.eval_loss)):
            mixed = args.train_dataset_mix_ds if args.train_dataset_mix_ratio > 0 else ()
            registry = () if args.dataset_info is None else (f"({args.dataset_info})",)
            names = " ".join([*args.dataset, *args.val_dataset, *mixed, *registry])
            yield f"data {names}", partial(fetch_data, args)
        dataset = request.eval_dataset
        if dataset is not None and dataset != EVAL_LOSS_ONLY and eval_args is not None and not eval_args.command:
            yield f"eval {dataset}", partial(fetch_eval, dataset, eval_args.include_path)


def fetch_model(args: SftArgs) -> str:
    """Download a model's safetensors, configuration and tokenizer; return where they are."""
    from hpcbench.worker.models.loading import model_source

    source = model_source(args)
    if Path(source).is_dir():
        return f"local: {source}"
    from huggingface_hub import snapshot_download

    return str(snapshot_download(source, ignore_patterns=IGNORED))


def find_model(args: SftArgs) -> str:
    """Find a model's configuration and safetensors without the hub; return where they are.

    Raises:
        WorkerError: they are not all on this machine.
    """
    from hpcbench.worker.models.loading import model_source

    source = model_source(args)
    folder = Path(source)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(source, local_files_only=True))
    missing = [what for what in ("config.json", "*.safetensors") if not any(folder.glob(what))]
    if missing:
        raise WorkerError(f"{folder}: {' and '.join(missing)} missing")
    return f"here: {folder}"


def fetch_data(args: SftArgs) -> str:
    """Read the training data as a training would; return how many rows there are."""
    from hpcbench.worker.data.samples import load_splits

    splits = load_splits(args)
    return f"{len(splits.train)} training and {len(splits.validation)} validation rows"


def fetch_eval(dataset: str, include_path: tuple[str, ...]) -> str:
    """Load an eval dataset's tasks as an eval would; return the headline's name."""
    from hpcbench.worker.evaluate.tasks import load_eval_tasks

    return f"ready as {load_eval_tasks(dataset, include_path).name}"


if __name__ == "__main__":
    sys.exit(main())
