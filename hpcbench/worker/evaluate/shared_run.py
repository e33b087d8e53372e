"""One eval on several ranks: each answers every n-th document, rank 0 puts them in order again.

In: what lm-eval gathers from each rank. Out: the same lists as one rank would have made, document by document. Scores,
hashes and standard errors do not depend on the number of ranks then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import zip_longest
from typing import Any, Final

from hpcbench.errors import WorkerError
from hpcbench.schemas.request import Device
from hpcbench.worker.evaluate.tasks import LoadedTasks
from hpcbench.worker.ranks import Ranks

LONGEST_WAIT: Final = timedelta(days=366)
"""A rank may have the long answers, and the others wait for it; the job's time limit is the only one."""
_MISSING: Final = object()


def join_ranks(ranks: Ranks, device: Device) -> None:
    """Start the process group and take this rank's GPU; nothing for one rank."""
    if ranks.is_alone:
        return
    import torch
    from accelerate import PartialState

    if device == "cuda":
        torch.cuda.set_device(ranks.local_rank)
        PartialState(timeout=LONGEST_WAIT)
    else:
        PartialState(cpu=True, backend="gloo", timeout=LONGEST_WAIT)


@contextmanager
def first_rank_first(ranks: Ranks) -> Iterator[None]:
    """Let the first rank of each node do something before the others, which then find it in the cache."""
    if ranks.is_alone:
        yield
        return
    from accelerate import PartialState

    with PartialState().local_main_process_first():
        yield


def check_enough_documents(tasks: LoadedTasks, limit: int | None, ranks: Ranks) -> None:
    """Raise where a rank would have no document of a task, at which lm-eval fails.

    Raises:
        WorkerError: naming the first such task.
    """
    for task in tasks.leaves:
        count = len(task.eval_docs)
        count = count if limit is None else min(limit, count)
        if count < ranks.count:
            message = f"eval task {task.task_name!r}: {count} documents for {ranks.count} ranks"
            raise WorkerError(message, hint=f"eval_requirements: {{ddp: {count}}}, or fewer")


def in_order(gathered: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what lm-eval gathered from all ranks as one rank would have it.

    Args:
        gathered: by rank, task -> its samples, or task -> metric -> its values. Rank r of n has the documents r, r + n,
            r + 2n and so on.
    """
    return {task: _merge([each[task] for each in gathered]) for task in gathered[0]}


def _merge(parts: Sequence[Any]) -> Any:
    if isinstance(parts[0], Mapping):
        return {metric: _interleave([part[metric] for part in parts]) for metric in parts[0]}
    filters = list(dict.fromkeys(sample["filter"] for part in parts for sample in part))
    samples = (sample for part in parts for sample in part)
    return sorted(samples, key=lambda sample: (filters.index(sample["filter"]), sample["doc_id"]))


def _interleave(values: Sequence[Sequence[Any]]) -> list[Any]:
    rounds = zip_longest(*values, fillvalue=_MISSING)
    return [value for each in rounds for value in each if value is not _MISSING]
