"""Download what jobs will read: `python -m hpcbench.worker.prefetch < requests.json`, on a machine with internet.

In: job requests, as JSON on standard input. Out: a line for each model, dataset and eval dataset, and exit code 1 when
one failed. It takes the way to each of them that the job will take, only online; what is local is left alone. With
`--check FILE` it stays offline and writes what a job would find.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from hpcbench.catalog.hubs import OnHub
from hpcbench.errors import PREFETCH, HpcbenchError, WorkerError, first_line
from hpcbench.hub.models import find_files
from hpcbench.model_files.folder import read_model_folder
from hpcbench.schemas.arguments import EVAL_LOSS_ONLY, EvalArgs, SftArgs
from hpcbench.schemas.request import JobRequest
from hpcbench.storage.json_files import write_json
from hpcbench.worker.requirements import require

ONLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE", "TRANSFORMERS_OFFLINE")
OTHER_WEIGHTS = ["*.pth", "*.pt", "*.msgpack", "*.h5", "*.onnx", "*.gguf", "consolidated*.safetensors"]
"""Weights in forms that transformers does not load."""
PICKLED_WEIGHTS = ["*.bin"]
"""Taken only where a repository has no safetensors; torch then reads tensors from them and runs no code."""

Task = tuple[str, Callable[[], str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of one model, dataset or eval dataset."""

    name: str
    ok: bool
    message: str
    error: str | None = None
    """The kind of error."""
    hint: str | None = None
    """What to do about it, where that is known."""


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
            sys.stdout.write(_describe(results[-1]))
            sys.stdout.flush()
    if target is not None:
        write_json(target, {"schema_version": 1, "found": [asdict(result) for result in results]})
    return 0 if all(result.ok for result in results) else 1


def _try(name: str, fetch: Callable[[], str]) -> Found:
    try:
        return Found(name=name, ok=True, message=fetch())
    except HpcbenchError as error:
        return Found(name=name, ok=False, message=first_line(error), error=type(error).__name__, hint=error.hint)
    except Exception as error:  # noqa: BLE001  # one that is missing must not keep the others away
        return Found(name=name, ok=False, message=first_line(error), error=type(error).__name__)


def _describe(result: Found) -> str:
    # That it should be prefetched helps nobody whose prefetch has just failed.
    hint = f"\n  hint: {result.hint}" if result.hint is not None and PREFETCH not in result.hint else ""
    return f"{result.name}: {'' if result.ok else 'failed: '}{result.message}{hint}\n"


def list_tasks(requests: Sequence[JobRequest], *, download: bool) -> Iterator[Task]:
    """Yield each model, dataset and eval dataset of the requests with what fetches it; equal ones have equal names."""
    for request in requests:
        args, eval_args = request.args, request.eval_args
        if args is not None:
            yield (
                f"model {args.model_id_or_path or args.model_type}",
                partial(fetch_model if download else find_model, args),
            )
        if args is not None and (request.trains or (eval_args is not None and eval_args.eval_loss)):
            registry = () if args.dataset_info is None else (f"({args.dataset_info})",)
            names = " ".join([*_dataset_names(args), *registry])
            yield f"data {names}", partial(fetch_data if download else find_data, args)
        task = request.eval_task
        if task is not None and task != EVAL_LOSS_ONLY and eval_args is not None and not eval_args.command:
            files = f" ({', '.join(eval_args.local_data.values())})" if eval_args.local_data else ""
            yield f"eval {task}{files}", partial(fetch_eval, task, eval_args)


def _dataset_names(args: SftArgs) -> list[str]:
    mixed = args.train_dataset_mix_ds if args.train_dataset_mix_ratio > 0 else ()
    return [*args.dataset, *args.val_dataset, *mixed]


def fetch_model(args: SftArgs) -> str:
    """Download a model's weights, configuration and tokenizer; return where they are.

    Raises:
        WorkerError: it is not one that can be loaded, or parts of it are missing on its hub.
    """
    from hpcbench.worker.models.source import model_place

    place = model_place(args)
    if not isinstance(place, OnHub):
        return f"local: {_check_model_folder(place)}"
    folder = _download_model(place, ignore=[*OTHER_WEIGHTS, *PICKLED_WEIGHTS])
    if not any(folder.glob("*.safetensors")):
        folder = _download_model(place, ignore=OTHER_WEIGHTS)
    return str(_check_model_folder(folder))


def _download_model(place: OnHub, *, ignore: list[str]) -> Path:
    with _said_for(place):
        if place.hub == "huggingface":
            from huggingface_hub import snapshot_download

            return Path(snapshot_download(place.id, revision=place.revision, ignore_patterns=ignore))
        _prepare_modelscope(place)
        from modelscope.hub.snapshot_download import snapshot_download as download

        return Path(download(place.id, revision=place.revision, ignore_patterns=ignore))


@contextmanager
def _said_for(place: OnHub) -> Iterator[None]:
    """Put what was downloaded, and what to look at, before a client's own words."""
    try:
        yield
    except WorkerError:
        raise
    except Exception as error:  # the clients raise their own, requests', httpx's and OSError
        login = "hf auth login" if place.hub == "huggingface" else "modelscope login"
        raise WorkerError(
            f"{place} cannot be downloaded: {type(error).__name__}: {first_line(error)}",
            hint=f"check the id, the network, and for what is not public the login (`{login}`)",
        ) from error


def _prepare_modelscope(place: OnHub) -> None:
    require("modelscope", for_what=f"reading {place}")
    # It logs every file that it downloads.
    logging.getLogger("modelscope_hub").setLevel(logging.WARNING)


def find_model(args: SftArgs) -> str:
    """Find a model's configuration and weights without the hub; return where they are.

    Raises:
        WorkerError: they are not all on this machine.
    """
    from hpcbench.worker.models.source import model_place, model_source

    place = model_place(args)
    if not isinstance(place, OnHub):
        return f"here: {_check_model_folder(place)}"
    again = f"run `{PREFETCH}` where there is internet"
    folder = find_files(place, os.environ)
    if folder is None:
        model_source(args)  # says it of ModelScope
        raise WorkerError(f"{place} is not in the local cache", hint=again)
    try:
        return f"here: {_check_model_folder(folder)}"
    except WorkerError as error:
        raise WorkerError(error.message, hint=again) from error


def _check_model_folder(folder: Path) -> Path:
    """Return the folder of a model that transformers can load.

    Raises:
        WorkerError: it is not there, or a file is missing or cut off.
    """
    if not folder.is_dir():
        raise WorkerError(f"{folder}: no such folder", hint="give model_id_or_path: a folder, or a hub id")
    if not (folder / "config.json").is_file():
        raise WorkerError(f"{folder}: config.json is missing", hint="download or save the model again")
    read_model_folder(folder)
    return folder


def fetch_data(args: SftArgs) -> str:
    """Download the training data and read it as a training would; return how many rows there are.

    Raises:
        WorkerError: it is not there, or rows cannot be used.
    """
    from hpcbench.data.sources import find_dataset
    from hpcbench.worker.data.datasets import hub_of

    for name in _dataset_names(args):
        source = find_dataset(name, registry=args.dataset_info)
        if source.path is None and (place := hub_of(source)).hub == "modelscope":
            _prepare_modelscope(place)
            from modelscope.hub.snapshot_download import dataset_snapshot_download

            with _said_for(place):
                dataset_snapshot_download(place.id)
    return find_data(args)


def find_data(args: SftArgs) -> str:
    """Read the training data as a training would; return how many rows there are.

    Raises:
        WorkerError: it is not there, or rows cannot be used.
    """
    from hpcbench.worker.data.samples import load_splits

    splits = load_splits(args)
    return f"{len(splits.train)} training and {len(splits.validation)} validation rows"


def fetch_eval(task: str, eval_args: EvalArgs) -> str:
    """Load an eval dataset's tasks as an eval would; return the headline's name."""
    from hpcbench.worker.evaluate.tasks import load_eval_tasks

    return f"ready as {load_eval_tasks(task, eval_args).name}"


if __name__ == "__main__":
    sys.exit(main())
