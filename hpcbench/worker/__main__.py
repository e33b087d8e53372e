"""The process behind the wall: `python -m hpcbench.worker JOB_FOLDER ATTEMPT_FOLDER`, under torchrun for several ranks.

In: `job.json`, the environment that the supervisor made. Out: what the room of its command writes; in every failure
`failure-rank<R>.json` and exit code 1. With `--wait` other jobs may follow; see `turns.py`. It never writes the record,
which is the supervisor's.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shlex
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from hpcbench.errors import PREFETCH, HpcbenchError, WorkerError
from hpcbench.invocation import repeat_save_dir
from hpcbench.processes.standard_streams import open_streams
from hpcbench.schemas.notes import Failure
from hpcbench.storage.paths import AttemptPaths, JobPaths
from hpcbench.worker.ranks import Ranks
from hpcbench.worker.signals import die_with_launcher, ignore_signals
from hpcbench.worker.turns import USAGE, Turn, read_turn, wait_for_next

if TYPE_CHECKING:
    # Loaded in main(): until die_with_launcher has run, nothing slow may happen.
    from hpcbench.schemas.request import JobRequest
    from hpcbench.worker.evaluate.subject import Subject

logger = logging.getLogger("hpcbench.worker")


def main(argv: list[str]) -> int:
    """Run one job, and those that follow it; return the exit code."""
    turn = read_turn(argv)
    if turn is None:
        sys.stderr.write(f"{USAGE}\n")
        return 2
    rank = Ranks.from_environment().rank
    turn.attempt.folder.mkdir(parents=True, exist_ok=True)
    ignore_signals(turn.attempt)
    open_streams()
    logging.basicConfig(
        level=logging.INFO if rank == 0 else logging.WARNING,
        format=f"%(asctime)s rank {rank} %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("httpx", "filelock", "fsspec", "urllib3", "datasets"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # torchao comes with gptqmodel, and warns of each GPU kernel that this torch cannot load.
    for noisy in ("torchao", "torch.utils._pytree"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    loaded: dict[str, Subject] = {}
    following: Turn | None = turn
    while following is not None:
        turn = following
        ignore_signals(turn.attempt)
        run_turn(turn, rank, loaded)
        following = wait_for_next(turn)
    _leave_group()
    return 0


def run_turn(turn: Turn, rank: int, loaded: dict[str, Subject]) -> None:
    """Run one job, which takes from `loaded` what the one before it left there; a failure ends this process."""
    from hpcbench.schemas.request import read_request

    suite_file = ""
    try:
        request = read_request(turn.job.request)
        repeat_save_dir(turn.job.folder.absolute().parents[2])  # SAVE_DIR/SUITE/EXPERIMENT/JOB
        suite_file = request.suite_file
        run_request(request, turn.job, turn.attempt, loaded)
    except BaseException as error:
        if isinstance(error, HpcbenchError):
            _name_suite(error, suite_file)
        # A program of others has said what is wrong, and its words are to be the end of the log.
        logger.error("rank %d failed", rank, exc_info=None if getattr(error, "is_logged", False) else error)
        write_failure(turn.attempt, rank, error)
        # A rank that waits in a collective would keep interpreter shutdown waiting too.
        sys.stderr.flush()
        os._exit(1)


def run_request(
    request: JobRequest, job: JobPaths, attempt: AttemptPaths, loaded: dict[str, Subject] | None = None
) -> None:
    """Hand the request to the room of its command.

    Raises:
        WorkerError: the command is not one for a worker, or a library that it needs is missing.
    """
    from hpcbench.worker.requirements import check_libraries

    check_libraries(request)
    if request.framework is not None:
        from hpcbench.worker.framework import run

        run.run(request, job, attempt)
        return
    from hpcbench.worker.parallel import deepspeed

    deepspeed.import_if_asked(request.args if request.trains else None, request.device)
    if request.environment == "unsloth":
        from hpcbench.worker.models import unsloth_backend

        unsloth_backend.import_first()
    if request.trains and request.device == "cuda" and request.resources.gpu > request.resources.ddp > 1:
        from hpcbench.worker.parallel.placement import see_own_gpus

        gpus_each = request.resources.gpu // request.resources.ddp
        num_local_ranks = request.resources.ddp // request.resources.nodes
        see_own_gpus(os.environ, gpus_each=gpus_each, num_local_ranks=num_local_ranks)
    _prepare_libraries()
    if request.trains:
        from hpcbench.worker.train import sft

        sft.run(request, job, attempt)
    elif request.cmd == "export":
        from hpcbench.worker.export import export

        export.run(request, job, attempt)
    elif request.cmd == "infer":
        from hpcbench.worker.infer import infer

        infer.run(request, job, attempt)
    elif request.cmd == "eval":
        from hpcbench.worker.evaluate import evaluate

        evaluate.run(request, job, attempt, loaded)
    else:
        raise WorkerError(f"cmd {request.cmd} is not run by a worker")


def _name_suite(error: HpcbenchError, suite_file: str) -> None:
    """Put the job's own suite into a hint that names some suite: log, record and display then show the same command."""
    if error.hint is not None and suite_file:
        error.hint = error.hint.replace(PREFETCH, f"hpcbench prefetch {shlex.quote(suite_file)}")


def write_failure(attempt: AttemptPaths, rank: int, error: BaseException) -> None:
    """Write why this rank failed, for the record and for people."""
    type_name = getattr(error, "type_name", type(error).__name__)
    message, hint = str(error) or type(error).__name__, None
    if isinstance(error, HpcbenchError):
        message, hint = error.message, error.hint
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.cuda.OutOfMemoryError):
        type_name = "OutOfMemoryError"
        # torch appends advice on the settings of its allocator.
        message = message.split(" See documentation")[0].split(" If reserved but")[0]
        hint = "reduce batch_size or max_length, or set gradient_checkpointing: true"
    trace = "".join(traceback.format_exception(error))
    try:
        Failure(type=type_name, message=message, hint=hint, traceback=trace, rank=rank).write(attempt.failure(rank))
    except OSError:
        logger.exception("the failure cannot be written")


def _prepare_libraries() -> None:
    """Use as many threads as the supervisor gave this rank, and keep progress bars out of the log file."""
    # The processes of preprocess_num_proc are forked, which tokenizers' own threads may deadlock in.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # huggingface_hub reads it once, when it is imported.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import torch
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()

    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > 0:
        torch.set_num_threads(int(threads))


def _leave_group() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process at once: taking torch down takes seconds, which the record may lack between TERM and KILL."""
    # Workers of data loaders: os._exit skips the exit handler of multiprocessing that ends them.
    for child in multiprocessing.active_children():
        child.terminate()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    die_with_launcher()
    leave(main(sys.argv[1:]))
