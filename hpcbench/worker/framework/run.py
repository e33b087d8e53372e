"""One training by another framework, from its request to its checkpoints and metrics.

In: the job request, its files; this process runs in the framework's environment. Out: rows and settings for the
framework, its checkpoints, `history.jsonl` and `metrics.json`; or `interrupted.json` where the supervisor asked to
stop. This process imports nothing heavy, so that what is measured of the job is the framework's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import yaml

from hpcbench.catalog.hubs import OnHub
from hpcbench.errors import PREFETCH, WorkerError
from hpcbench.frameworks import RECIPES, Recipe, Run
from hpcbench.frameworks.logs import find_checkpoints, find_resumable, read_logs, read_tail
from hpcbench.frameworks.recipe import WrittenRows
from hpcbench.hub.models import find_files, locate_model
from hpcbench.invocation import quoted
from hpcbench.model_files.modules import ALL, DEFAULT, choose_default, module_names
from hpcbench.model_files.weights import read_weights
from hpcbench.processes.process_tree import descendants, signal_pid
from hpcbench.processes.start import start_child
from hpcbench.schemas.arguments import SftArgs
from hpcbench.schemas.notes import Interrupted, Started
from hpcbench.schemas.request import JobRequest
from hpcbench.storage.json_files import read_json, write_json, write_text
from hpcbench.storage.paths import TRAINER_STATE, AttemptPaths, JobPaths
from hpcbench.worker.framework.figures import Measured, assemble_metrics, count_base, write_history
from hpcbench.worker.progress_file import History, Progress
from hpcbench.worker.signals import stop_requested

logger = logging.getLogger(__name__)

POLL_S: Final = 0.2
SETTINGS_FILE: Final = "settings.yaml"
_ERROR: Final = re.compile(
    r"^(?:\[rank\d+\]: ?)?([A-Za-z_][\w.]*(?:Error|Exception|Interrupt)\b.*)$|^[\w. -]+: error: (.+)$"
)
"""The last line of a traceback, or what a command line is refused with."""
_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.safetensors.index.json")


class FrameworkFailedError(WorkerError):
    """The framework's own program failed."""

    type_name = "FrameworkFailed"
    is_logged = True
    """Its own words are the end of the log, and no traceback of hpcbench's comes after them."""


def run(request: JobRequest, job: JobPaths, attempt: AttemptPaths) -> None:
    """Train as requested and leave the results in the job's folder.

    Raises:
        WorkerError: the request cannot be carried out, or the framework failed.
    """
    args = request.args
    if args is None or request.framework is None:
        raise WorkerError(f"{job.request}: a training by a framework without its arguments")
    recipe = RECIPES[request.framework]
    progress = Progress(job)
    progress.update("loading")
    folder = attempt.folder / "framework"
    model = _find_model(args, folder)
    num_base = count_base(model)
    progress.update("tokenizing")
    rows = _write_rows(args, folder, recipe)
    current = Run(
        args=args,
        model=model,
        rows=folder,
        output=job.checkpoints,
        num_train_rows=rows.num_train,
        num_val_rows=rows.num_val,
        num_ranks=request.resources.ddp,
        device=request.device,
        targets=_find_targets(args, model),
        resume=_find_resume(job),
    )
    extra = {} if request.framework_args is None else request.framework_args.framework_args
    settings = _write_files(recipe, current, extra)
    step = 0 if current.resume is None else _step_of(current.resume)
    Started(fingerprint=request.fingerprint, resumed_from_step=step).write(attempt.started)
    progress.update("training")
    measured = train(recipe, current, settings, attempt, request.env)
    if measured is None:
        Interrupted(step=max(find_checkpoints(current.output), default=None)).write(attempt.interrupted)
        return
    progress.update("saving")
    logs = read_logs(current.output, attempt.log, log_files=recipe.logs)
    with contextlib.closing(History(attempt.history)) as history:
        write_history(history, logs)
        history.sync()
    metrics = assemble_metrics(
        recipe,
        current,
        job,
        rows=rows,
        logs=logs,
        measured=measured,
        num_base=num_base,
        extra=extra,
        resumed_from=step,
    )
    _tidy(current, keeps_checkpoints=args.save_strategy != "no")
    write_json(attempt.metrics, metrics.model_dump(mode="json"))


def _find_model(args: SftArgs, folder: Path) -> Path:
    """Return the model's folder, of one of a hub's cache a link with the model's name, by which frameworks know it."""
    place = locate_model(args, os.environ)
    found = None if place is None else find_files(place, os.environ)
    if found is None:
        raise WorkerError(
            f"model: {place or args.model_type} is not on this machine",
            hint=f"run `{PREFETCH}` where there is internet, or give model_id_or_path: a local folder",
        )
    if not isinstance(place, OnHub):
        return found
    link = folder / "model" / place.id.rpartition("/")[2]
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(found, target_is_directory=True)
    return link


def _write_rows(args: SftArgs, folder: Path, recipe: Recipe) -> WrittenRows:
    # In a process that ends: torch and tokenizers stay out of what is measured of this one.
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("fork")) as pool:
        return pool.submit(_in_child, args, folder, recipe.name).result()


def _in_child(args: SftArgs, folder: Path, name: str) -> WrittenRows:
    from hpcbench.worker.framework.rows import write_rows

    recipe = next(recipe for recipe in RECIPES.values() if recipe.name == name)
    return write_rows(args, folder, recipe.make_row)


def _find_targets(args: SftArgs, model: Path) -> tuple[str, ...] | None:
    """Return the names of the modules that get an adapter, None for every linear layer but the head.

    Raises:
        WorkerError: DEFAULT is not known for this architecture.
    """
    words = args.lora_target_modules
    if ALL in words:
        return None
    if DEFAULT not in words:
        return words
    found = choose_default(module_names(read_weights(model).names), None)
    if found is None:
        raise WorkerError("lora_target_modules: DEFAULT is not known for this model", hint="name the modules, or ALL")
    return (*found, *(word for word in words if word != DEFAULT))


def _find_resume(job: JobPaths) -> Path | None:
    """Return the checkpoint of an earlier attempt to go on from; without one, nothing of it stays."""
    found = find_resumable(job.checkpoints)
    if found is None:
        _empty(job.checkpoints)
    return found


def _empty(folder: Path) -> None:
    """Remove what is in a folder, which may be a link to scratch."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _tidy(current: Run, *, keeps_checkpoints: bool) -> None:
    """Remove the weights that frameworks save once more beside their last checkpoint."""
    if not keeps_checkpoints:
        _empty(current.output)
        return
    for pattern in _WEIGHTS if find_checkpoints(current.output) else ():
        for path in current.output.glob(pattern):
            path.unlink()


def _step_of(checkpoint: Path) -> int:
    step = (read_json(checkpoint / TRAINER_STATE) or {}).get("global_step")
    return step if isinstance(step, int) else 0


def _write_files(recipe: Recipe, current: Run, extra: Mapping[str, object]) -> Path:
    """Write the framework's files beside the rows; return the one that it is started with."""
    for name, text in recipe.files(current).items():
        write_text(current.rows / name, text)
    path = current.rows / SETTINGS_FILE
    settings = {**recipe.settings(current), **extra}
    write_text(path, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    return path


def train(
    recipe: Recipe, current: Run, settings: Path, attempt: AttemptPaths, given: Mapping[str, str]
) -> Measured | None:
    """Run the framework to its end; return what was measured, None where it was asked to stop.

    Raises:
        WorkerError: it cannot be started, or it failed.
    """
    argv = recipe.command(current, Path(sys.executable).parent, str(settings))
    # hpcbench was lent to this Python; the framework does not need it.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" or name in given}
    env |= {name: value for name, value in recipe.environment(current).items() if name not in given}
    dispositions = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.SIG_DFL}
    started = time.monotonic()
    try:
        child = start_child(argv, env=env, log=attempt.log, cwd=current.rows, dispositions=dispositions)
    except OSError as error:
        raise FrameworkFailedError(
            f"{argv[0]} cannot be started: {error.strerror}",
            hint=f"make the environment anew: {quoted('environment', 'create', recipe.name, '--force')}",
        ) from error
    was_asked, peak_rss_bytes = _wait(child, attempt)
    if was_asked:
        return None
    if child.returncode != 0:
        raise FrameworkFailedError(
            f"{recipe.title}: {_last_error(attempt) or f'exit code {child.returncode}'}",
            hint=f"its settings are in {settings}; {recipe.title} names what it does not take",
        )
    return Measured(peak_rss_bytes=peak_rss_bytes, wall_time_s=time.monotonic() - started)


def _wait(child: subprocess.Popen[bytes], attempt: AttemptPaths) -> tuple[bool, int]:
    """Wait for the framework; return whether it was asked to stop, and its peak resident set in bytes."""
    was_asked = False
    while True:
        # wait4 alone tells the peak of this child and of those that it has waited for (getrusage(2)).
        pid, status, usage = os.wait4(child.pid, os.WNOHANG)
        if pid:
            child.returncode = os.waitstatus_to_exitcode(status)
            return was_asked, usage.ru_maxrss * 1024
        if not was_asked and stop_requested(attempt):
            was_asked = True
            logger.info("asked to stop")
            for each in descendants(child.pid):
                signal_pid(each, signal.SIGTERM)
        time.sleep(POLL_S)


def _last_error(attempt: AttemptPaths) -> str | None:
    """Return the last line of the last traceback in the log, which the framework has printed."""
    matches = (_ERROR.match(line.strip()) for line in reversed(read_tail(attempt.log).splitlines()))
    return next((match[1] or match[2] for match in matches if match is not None), None)
