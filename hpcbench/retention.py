"""Checkpoints of finished experiments, which fill quotas: what may go, and taking it away.

Never a record, a log, a history or an exported model, and nothing of an experiment that is not over: its train job
completed, and each job that takes its model recorded.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from hpcbench.schemas.cluster_profile import Keep
from hpcbench.schemas.collection import Collection, JobView, choose_jobs
from hpcbench.schemas.metrics import CommandMetrics, ExportMetrics, TrainMetrics
from hpcbench.schemas.record import PUSH_PENDING, Record
from hpcbench.schemas.request import JobRef, JobRequest
from hpcbench.schemas.states import FINISHED_WELL, JobState
from hpcbench.storage.paths import PEFT_CONFIG, TUNER_CONFIG, JobPaths

KEEPS: tuple[str, ...] = get_args(Keep)
"""What peft's and hpcbench's own adapters have in their folders, and whole models have not."""
LARGE = ("checkpoints", "resume")
"""The folders of a job that fill quotas; with `scratch` they are links."""
GOING = ".removed"
"""Ends the name of a folder that is being removed."""
HALF_REMOVED = re.compile(rf"\.(.+)\.[0-9a-f]{{8}}{re.escape(GOING)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One folder that can go."""

    experiment: str
    """`suite/experiment`."""
    folder: Path


def is_over(train: JobView | None, takers: Iterable[JobView]) -> bool:
    """Return whether nothing will read a training's checkpoints any more; `takers` take its model (pure)."""
    if train is None or train.state is not JobState.COMPLETED or train.record is None:
        return False
    metrics = train.record.metrics
    if isinstance(metrics, TrainMetrics) and metrics.unknown.get("pushed_to") == PUSH_PENDING:
        # The push reads them; the train job reduces them itself afterwards.
        return False
    return all(view.state in FINISHED_WELL and view.record is not None for view in takers)


def kept_names(metrics: TrainMetrics, keep: Keep) -> set[str]:
    """Return the names below `checkpoints/` that stay; where there is no best or last one, the other (pure)."""
    best, last = metrics.best_checkpoint, metrics.last_checkpoint
    chosen = {"none": None, "best": best or last, "adapter": best or last, "last": last or best}[keep]
    if chosen is None:
        return set()
    # What could not be pushed to a hub waits there for a push by hand.
    return {Path(chosen).name, *(("hub",) if "pushed_to" in metrics.unknown else ())}


def find_removals(collection: Collection, patterns: Sequence[str], keep: Keep) -> list[Removal]:
    """Return the folders that go, of all finished trainings that match a pattern."""
    found: list[Removal] = []
    named = {(job.suite, *job.ref) for job in choose_jobs(collection, patterns)}
    for suite in collection.suites:
        takers: dict[JobRef, list[JobView]] = {}
        for taker in suite.jobs.values():
            if taker.parent is not None:
                takers.setdefault(taker.parent, []).append(taker)
        still_read = {experiment.name for experiment in suite.others}
        for experiment in suite.experiments:
            train = experiment.main
            if train is None or train.record is None or experiment.name in still_read:
                continue
            if not is_over(train, takers.get(train.ref, ())):
                continue
            if (suite.name, *train.ref) not in named:
                continue
            metrics = train.record.metrics
            if isinstance(metrics, TrainMetrics):
                name = f"{suite.name}/{experiment.name}"
                job = JobPaths(train.folder)
                kept = kept_names(metrics, keep)
                if keep == "adapter":
                    kept = {name for name in kept if name == "hub" or _is_adapter(job.checkpoints / name)}
                folders = _superfluous(job, kept, keep)
                found += [Removal(experiment=name, folder=folder) for folder in folders]
    return found


def _is_adapter(checkpoint: Path) -> bool:
    return any((checkpoint / name).is_file() for name in (PEFT_CONFIG, TUNER_CONFIG))


def _superfluous(job: JobPaths, kept: set[str], keep: Keep) -> Iterator[Path]:
    if job.checkpoints.is_dir():
        yield from sorted(f for f in job.checkpoints.iterdir() if f.is_dir() and f.name not in kept)
    if job.resume.is_dir() and any(job.resume.iterdir()):
        yield job.resume
    yield from _half_removed(job)
    if keep == "none":
        for old in job.old_folders():
            for name in LARGE:
                yield from sorted(f for f in old.glob(f"{name}*") if f.is_dir())


def _half_removed(job: JobPaths) -> Iterator[Path]:
    """Yield what a killed removal renamed and did not remove; on scratch it lies beside the link's target."""
    places = {job.folder, *job.old_folders()}
    links = [link for place in places for name in LARGE for link in place.glob(f"{name}*") if link.is_symlink()]
    # Not resolved: a link whose target was renamed leads nowhere, and still says where that was.
    places |= {link.parent / link.readlink().parent for link in links}
    yield from sorted(
        f for place in places for f in place.glob(f".*{GOING}") if f.is_dir() and HALF_REMOVED.match(f.name)
    )


def remove(removals: Sequence[Removal]) -> list[str]:
    """Remove the folders; return what could not be removed, in words."""
    failed = []
    for removal in removals:
        folder = removal.folder.resolve()
        # Renamed first: nobody reads half a checkpoint, and of two that remove it one does.
        left = HALF_REMOVED.match(folder.name)
        name = folder.name if left is None else left[1]
        going = folder.with_name(f".{name}.{secrets.token_hex(4)}{GOING}")
        try:
            folder.rename(going)
            shutil.rmtree(going)
            # A link is scratch's: its content goes, then the link that would lead nowhere.
            if removal.folder.is_symlink():
                removal.folder.unlink()
        except FileNotFoundError:
            continue
        except OSError as error:
            failed.append(f"{removal.folder}: {error.strerror}")
    return failed


def count_freed(folders: Sequence[Path]) -> int:
    """Return the bytes that removing all these folders frees: a file with another link elsewhere frees nothing."""
    links: dict[tuple[int, int], int] = {}
    stats: dict[tuple[int, int], os.stat_result] = {}
    for folder in folders:
        for root, _, files in os.walk(folder.resolve()):
            for name in files:
                try:
                    stat = (Path(root) / name).lstat()
                except OSError:
                    continue
                place = (stat.st_dev, stat.st_ino)
                links[place] = links.get(place, 0) + 1
                stats[place] = stat
    return sum(stats[place].st_size for place, count in links.items() if count >= stats[place].st_nlink)


def find_model(request: JobRequest, record: Record) -> tuple[Path | None, str]:
    """Return the folder of the model that a job takes, None where its parent left none, and why it may not run then.

    An eval may run without, unless it asks for one of the checkpoints: there its program or worker says what is wrong.
    """
    metrics = record.metrics
    if isinstance(metrics, CommandMetrics | ExportMetrics) and metrics.output_model is not None:
        return Path(metrics.output_model), ""
    if not isinstance(metrics, TrainMetrics):
        return None, ""
    asks = request.eval_args or request.export or request.infer
    wanted = None if asks is None else asks.checkpoint
    _, chosen = metrics.choose_checkpoint(wanted)
    if chosen is not None:
        return Path(request.train_folder or "") / chosen, ""
    if wanted is None:
        return None, "" if request.cmd == "eval" else f"{request.parent_name} kept no checkpoint"
    section = "args" if request.eval_args is None else "eval_args"
    return None, f"{request.parent_name} kept no {wanted} checkpoint, which {section}.checkpoint asks for"
