"""Checkpoints: what an interrupted training resumes from, and what a finished one leaves.

In: folders that the Trainer wrote to a staging place. Out: `resume/checkpoint-N`, `resume/best-N` and
`checkpoints/best`, `last`, `step-N`: each either whole or not there, put in place by one rename, and only while the
claim is still ours. Rank 0 alone calls what writes. Files of equal content are hard links where the file system has
them.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from hpcbench.errors import WorkerError
from hpcbench.storage.json_files import read_json, sync_folder, write_json
from hpcbench.storage.paths import MANIFEST, TRAINER_STATE, TUNER_STATE, JobPaths
from hpcbench.worker.parallel import deepspeed
from hpcbench.worker.placing import check_claim, find_damage, flush

logger = logging.getLogger(__name__)

_STATE_FILES: Final = (
    "optimizer*.pt",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*.pth",
    TRAINER_STATE,
    TUNER_STATE,
    *deepspeed.STATE_FILES,
)
# The Trainer's pickle of its arguments, peft's model card, DeepSpeed's scripts, the list of the resume point's files.
_NEVER_KEPT: Final = ("training_args.bin", "README.md", "zero_to_fp32.py", "zero_to_torch.py", MANIFEST)


def read_step(named: str) -> int:
    """Return the step of a checkpoint folder that `resume_from_checkpoint` names.

    Raises:
        WorkerError: it holds no state to go on from.
    """
    path = Path(named) / TRAINER_STATE
    if not path.is_file():
        raise WorkerError(
            f"resume_from_checkpoint: {named} holds no training state ({TRAINER_STATE})",
            hint="only checkpoints kept with only_save_model: false can be resumed from",
        )
    step = (read_json(path) or {}).get("global_step")
    if not isinstance(step, int):
        raise WorkerError(f"resume_from_checkpoint: {path} names no step", hint="name a whole checkpoint")
    return step


@dataclass(slots=True, kw_only=True)
class ResumePoint:
    """How far a training is, as its resumable checkpoint has it."""

    step: int = 0
    best_step: int | None = None
    best_eval_loss: float | None = None
    eval_pending: bool = False
    """The evaluation due at this step was put off, to leave in time."""
    num_bad_losses: int = 0
    """Losses in a row up to this step that were not finite."""
    named_step: int | None = None
    """Step of the checkpoint that the training's first attempt was told to go on from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The finished checkpoints, relative to the job's folder."""

    best: str | None
    last: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointStore:
    """The checkpoints of one job."""

    job: JobPaths
    fingerprint: str
    """Only checkpoints of this configuration are resumed from."""
    num_ranks: int
    """Only checkpoints of as many ranks are resumed from."""
    attempt: str
    """Name of this attempt, for the staging folder."""
    token: str | None
    """The claim's token, or None where nothing is claimed."""
    keeps_best: bool = True
    """Whether the best weights are kept at all."""

    @property
    def staging(self) -> Path:
        """The folder that the Trainer writes to."""
        return self.job.resume / f".staging-{self.attempt}"

    @property
    def staged_last(self) -> Path:
        """Where the last weights wait for the end, if no resumable checkpoint has them."""
        return self.staging / "last"

    def has_resumable(self, step: int) -> bool:
        """Return whether the resumable checkpoint of a step is there and whole."""
        folder = self.job.resume / f"checkpoint-{step}"
        return folder.is_dir() and self._find_problem(folder) is None

    def prepare(self) -> None:
        """Make the staging folder, and remove what killed attempts left in theirs."""
        for folder in self.job.resume.glob(".*"):
            shutil.rmtree(folder, ignore_errors=True)
        self.staging.mkdir(parents=True, exist_ok=True)

    def find(self) -> tuple[Path, ResumePoint] | None:
        """Return the newest whole checkpoint of this configuration, or None."""
        for step, folder in sorted(_numbered(self.job.resume, "checkpoint"), reverse=True):
            problem = self._find_problem(folder)
            if problem is None:
                manifest = read_json(folder / MANIFEST) or {}
                best_step = manifest.get("best_step")
                if best_step is None or not self.keeps_best or (self.job.resume / f"best-{best_step}").is_dir():
                    return folder, ResumePoint(
                        step=step,
                        best_step=best_step,
                        best_eval_loss=manifest.get("best_eval_loss"),
                        eval_pending=bool(manifest.get("eval_pending")),
                        num_bad_losses=manifest.get("num_bad_losses", 0),
                        named_step=manifest.get("named_step"),
                    )
                problem = f"its best weights, best-{best_step}, are not there"
            logger.warning("%s: not resumed from: %s", folder, problem)
        return None

    def place_resumable(self, point: ResumePoint) -> Path:
        """Put the staged `checkpoint-N` in place, and remove the checkpoints that it supersedes.

        Raises:
            WorkerError: another process has claimed the job.
        """
        name = f"checkpoint-{point.step}"
        staged = self.staging / name
        for pattern in _NEVER_KEPT:
            (staged / pattern).unlink(missing_ok=True)
        files = {
            path.relative_to(staged).as_posix(): path.stat().st_size for path in staged.rglob("*") if path.is_file()
        }
        write_json(
            staged / MANIFEST,
            {
                "schema_version": 1,
                "fingerprint": self.fingerprint,
                "num_ranks": self.num_ranks,
                **asdict(point),
                "files": files,
            },
        )
        target = self.job.resume / name
        self._place(staged, target)
        if point.best_step == point.step and self.keeps_best:
            self.place_best(target, step=point.step)
        for step, folder in _numbered(self.job.resume, "checkpoint"):
            if step != point.step:
                shutil.rmtree(folder, ignore_errors=True)
        for step, folder in _numbered(self.job.resume, "best"):
            if step != point.best_step:
                shutil.rmtree(folder, ignore_errors=True)
        return target

    def place_best(self, source: Path, *, step: int) -> None:
        """Keep the files in `source` as the best so far; older ones go when the next checkpoint is in place."""
        staged = self.staging / f"best-{step}"
        _link_tree(source, staged, with_state=True)
        self._place(staged, self.job.resume / f"best-{step}")

    def keep_step(self, source: Path, *, step: int, num_kept: int | None, with_state: bool) -> None:
        """Keep a checkpoint on the way as `checkpoints/step-N`, and only the newest `num_kept` (None: all)."""
        staged = self.staging / f"step-{step}"
        _link_tree(source, staged, with_state=with_state)
        self._place(staged, self.job.checkpoints / f"step-{step}")
        self.prune_steps(num_kept=num_kept)

    def prune_steps(self, *, num_kept: int | None, besides: tuple[int | None, ...] = ()) -> None:
        """Remove all but the newest `num_kept` of `checkpoints/step-N`, and those kept under another name."""
        if num_kept is None:
            return
        folders = sorted(_numbered(self.job.checkpoints, "step"), reverse=True)
        others = [folder for step, folder in folders if step not in besides]
        kept = set(others[:num_kept])
        for _, folder in folders:
            if folder not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def finish(
        self,
        *,
        last_step: int,
        best_step: int | None,
        with_state: bool,
        limit: int,
    ) -> Kept:
        """Put the finished checkpoints in place; the last is staged already, or the resumable one of its step.

        Raises:
            WorkerError: another process has claimed the job.
        """
        last = self.staged_last
        if not last.is_dir():
            _link_tree(self.job.resume / f"checkpoint-{last_step}", last, with_state=with_state)
        for name in _NEVER_KEPT:
            (last / name).unlink(missing_ok=True)
        best = None
        if best_step is not None:
            best = self.staging / "best"
            source = last if best_step == last_step else self.job.resume / f"best-{best_step}"
            _link_tree(source, best, with_state=with_state)
            self._place(best, self.job.checkpoints / "best")
        # save_total_limit: 1 keeps the best, or the last without a best.
        keeps_last = best is None or limit != 1
        if keeps_last:
            self._place(last, self.job.checkpoints / "last")
        if limit > 2:
            self.prune_steps(num_kept=limit - 2, besides=(best_step, last_step))
        return Kept(
            best=None if best is None else f"{self.job.checkpoints.name}/best",
            last=f"{self.job.checkpoints.name}/last" if keeps_last else None,
        )

    def forget_predictions(self) -> None:
        """Remove the answers of an earlier training, before this one begins."""
        shutil.rmtree(self.job.predictions, ignore_errors=True)

    def prune_predictions(self, steps: Collection[int | None]) -> None:
        """Remove the generated answers of all evaluations but those of these steps."""
        kept = {self.job.predictions_of(step) for step in steps if step is not None}
        for path in self.job.predictions.glob("*"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def delete_resumable(self) -> None:
        """Remove everything that a finished job no longer needs."""
        check_claim(self.job, self.token)
        # The profile's scratch makes it a link, which rmtree would leave alone.
        shutil.rmtree(self.job.resume.resolve(), ignore_errors=True)

    def _find_problem(self, folder: Path) -> str | None:
        manifest = read_json(folder / MANIFEST)
        if manifest is None:
            return f"no {MANIFEST}"
        if manifest.get("fingerprint") != self.fingerprint:
            return "it belongs to another configuration"
        if manifest.get("num_ranks") != self.num_ranks:
            return f"it was written by {manifest.get('num_ranks')} ranks, and this job has {self.num_ranks}"
        return find_damage(folder, manifest)

    def _place(self, staged: Path, target: Path) -> None:
        """Flush `staged` to disk and rename it to `target`, replacing what is there."""
        flush(staged)
        target.parent.mkdir(parents=True, exist_ok=True)
        check_claim(self.job, self.token)
        old = self.staging / f"old-{target.name}"
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            # rename(2) replaces a folder only where it is empty.
            target.rename(old)
        staged.rename(target)
        sync_folder(target.parent)
        shutil.rmtree(old, ignore_errors=True)


def _numbered(folder: Path, prefix: str) -> list[tuple[int, Path]]:
    found = []
    for path in folder.glob(f"{prefix}-*"):
        number = path.name.removeprefix(f"{prefix}-")
        if number.isdigit() and path.is_dir():
            found.append((int(number), path))
    return found


def _link_tree(source: Path, target: Path, *, with_state: bool) -> None:
    """Make `target` hold the files of `source`, without the training state unless it is wanted."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    left_out = _NEVER_KEPT if with_state else (*_NEVER_KEPT, *_STATE_FILES)
    for path in sorted(source.iterdir()):
        if any(path.match(pattern) for pattern in left_out):
            continue
        if path.is_dir():  # DeepSpeed's state has a file for each rank
            _link_tree(path, target / path.name, with_state=with_state)
            continue
        try:
            os.link(path, target / path.name)
        except OSError:  # some network and FUSE file systems have no hard links
            shutil.copy2(path, target / path.name)
