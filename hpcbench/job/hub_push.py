"""After a training with push_to_hub: its weights and a model card in one folder, pushed to a model hub.

Never undoes the training: its record is written before the push begins. The push is a process that may be stopped at
any time; this one imports no hub's library.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from hpcbench.hub.model_card import public_base, render_card
from hpcbench.hub.repository import command_by_hand
from hpcbench.job.context import JobContext
from hpcbench.job.job_claim import Claim, holds_claim
from hpcbench.job.stop_reason import StopRequest
from hpcbench.processes.process_tree import kill_tree
from hpcbench.processes.start import module_command, start_child
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.metrics import TrainMetrics
from hpcbench.schemas.notes import Push
from hpcbench.schemas.record import Record, write_record
from hpcbench.schemas.request import JobRequest
from hpcbench.schemas.states import JobState
from hpcbench.storage.json_files import write_text
from hpcbench.storage.paths import MANIFEST, PEFT_CONFIG, TRAINER_STATE, TUNER_STATE, AttemptPaths, JobPaths

logger = logging.getLogger(__name__)

LIMIT_S: Final = 3600.0  # the job's GPUs are idle meanwhile
POLL_S: Final = 0.2

_PUSHED: Final = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt", "*.py")  # never a pickle
_NOT_PUSHED: Final = (TRAINER_STATE, TUNER_STATE, MANIFEST)
_LARGEST_CONFIG_BYTES: Final = 1 << 20  # larger JSON files are vocabularies and indices, which hold no paths


def wants_push(request: JobRequest, record: Record) -> bool:
    """Return whether a training's record is one whose weights are to be pushed (pure)."""
    is_asked = request.trains and request.args is not None and request.args.push_to_hub
    return is_asked and record.state is JobState.COMPLETED and isinstance(record.metrics, TrainMetrics)


def push_weights(
    request: JobRequest, record: Record, *, context: JobContext, claim: Claim, stop: StopRequest
) -> Record:
    """Push the weights of a completed training, write how that ended into its record, and return it."""
    args, metrics, job = request.args, record.metrics, context.paths
    if args is None or not isinstance(metrics, TrainMetrics):
        raise TypeError("only a training is pushed")
    attempt = job.attempt(claim.attempt)
    url, reason = None, None
    try:
        build_folder(request, record, job)
        url, reason = run_push(request, job, attempt, stop)
    except OSError as error:
        reason = f"the folder cannot be made: {error.strerror}: {error.filename}"
    if url is not None:
        logger.info("pushed to %s", url)
        shutil.rmtree(job.hub, ignore_errors=True)
        unknown = {name: why for name, why in metrics.unknown.items() if name != "pushed_to"}
        update: dict[str, Any] = {"pushed_to": url, "unknown": unknown}
    else:
        text = f"not pushed: {reason}; by hand: {command_by_hand(args, job.hub)}"
        logger.warning("%s", text)
        update = {"unknown": {**metrics.unknown, "pushed_to": text}}
    updated = record.model_copy(update={"metrics": metrics.model_copy(update=update)})
    if holds_claim(job.claim, claim.token):
        write_record(updated, attempt.record, job.record)
    return updated


def choose_sources(args: SftArgs, metrics: TrainMetrics, job: JobPaths) -> dict[str, Path]:
    """Return the checkpoints to push by their place in the repository, the empty name being its top.

    Raises:
        FileNotFoundError: no checkpoint was kept.
    """
    best, last = metrics.best_checkpoint, metrics.last_checkpoint
    top = (last or best) if args.push_hub_strategy in {"end", "push_last"} else (best or last)  # whichever was kept
    if top is None:
        raise FileNotFoundError(errno.ENOENT, "no checkpoint was kept", str(job.checkpoints))
    sources = {"": job.folder / top}
    if args.push_hub_strategy == "checkpoint" and last is not None:
        sources["last-checkpoint"] = job.folder / last
    if args.push_hub_strategy == "all_checkpoints":
        kept = sorted(path for path in job.checkpoints.iterdir() if path.is_dir() and path != job.hub)
        sources |= {f"checkpoints/{path.name}": path for path in kept}
    return sources


def build_folder(request: JobRequest, record: Record, job: JobPaths) -> None:
    """Make the folder that is pushed: links to the checkpoints' files, configurations without local paths, the card.

    Raises:
        OSError: a checkpoint is not there, or the disk is full.
    """
    args, metrics = request.args, record.metrics
    if args is None or not isinstance(metrics, TrainMetrics):
        raise TypeError("only a training is pushed")
    shutil.rmtree(job.hub, ignore_errors=True)
    sources = choose_sources(args, metrics, job)
    names = {str(job.folder): job.folder.parent.name}
    if args.model_id_or_path is not None and args.model_id_or_path.startswith("/"):
        names[args.model_id_or_path.rstrip("/")] = public_base(args)[0]
    for place, source in sources.items():
        target = job.hub / place
        target.mkdir(parents=True, exist_ok=True)
        for path in _list_pushed(source):
            _copy(path, target / path.name, names)
    has_peft = (job.hub / PEFT_CONFIG).is_file()
    library = "peft" if has_peft else "transformers" if (job.hub / "config.json").is_file() else "hpcbench"
    card = render_card(request, record, library=library, checkpoint=sources[""].name)
    write_text(job.hub / "README.md", card)


def _list_pushed(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in _NOT_PUSHED and any(path.match(pattern) for pattern in _PUSHED):
            yield path


def _copy(source: Path, target: Path, names: Mapping[str, str]) -> None:
    """Link a file; a configuration that names local folders is written anew without them."""
    if source.suffix == ".json" and source.stat().st_size <= _LARGEST_CONFIG_BYTES:
        try:
            value = json.loads(source.read_text(encoding="utf-8"))
        except ValueError as error:
            raise OSError(errno.EINVAL, "not JSON", str(source)) from error
        cleaned = _without_places(value, names)
        if cleaned != value:
            write_text(target, json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n")
            return
    try:
        os.link(source, target)
    except OSError:  # some network and FUSE file systems have no hard links
        shutil.copy2(source, target)


def _without_places(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _without_places(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_places(item, names) for item in value]
    if isinstance(value, str):
        for place, name in names.items():
            if value == place or value.startswith(f"{place}/"):
                return name + value[len(place) :].rstrip("/")
    return value


def run_push(
    request: JobRequest, job: JobPaths, attempt: AttemptPaths, stop: StopRequest, *, limit_s: float = LIMIT_S
) -> tuple[str | None, str | None]:
    """Push the folder in a process of its own; return the repository's address, or None and the reason."""
    attempt.push.unlink(missing_ok=True)
    argv = module_command("hpcbench.worker.hub_push", str(job.folder), str(job.hub), str(attempt.push))
    # The switches that keep a training off the network are the launcher's alone and not in here.
    env = {**os.environ, **request.env}
    # Slurm sends the notice of a time limit to all processes of a job; this one is stopped by its parent.
    child = start_child(argv, env=env, log=attempt.push_log, dispositions={signal.SIGUSR2: signal.SIG_IGN})
    started = time.monotonic()
    while child.poll() is None:
        time.sleep(POLL_S)
        if stop.reason is not None or time.monotonic() - started > limit_s:
            kill_tree(child)
            child.wait()
            why = "the job was asked to stop" if stop.reason is not None else f"it took more than {limit_s:.0f} s"
            return None, why
    found = Push.read(attempt.push) or Push()
    if found.url is not None:
        return found.url, None
    return None, found.error or f"the push ended with exit code {child.returncode}; see {attempt.push_log}"
