"""Slurm: submit through submitit, ask with one squeue and at most one sacct, whatever the number of jobs.

The cluster's name is queried only where neither command lists any of the jobs and slurm.conf does not give it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from pathlib import Path

from hpcbench.errors import SchedulerError, SubmitError
from hpcbench.scheduler.protocol import Answer, Place, SchedulerJob, cluster_elsewhere
from hpcbench.scheduler.slurm.client import SlurmClient
from hpcbench.scheduler.slurm.cluster_facts import correspond_count, max_array_size
from hpcbench.scheduler.slurm.commands import SUBMIT_COMMANDS, TRANSIENT
from hpcbench.scheduler.slurm.reasons import NEVER_SATISFIED, explain_reason, read_reason
from hpcbench.scheduler.slurm.sbatch_variables import describe_kept
from hpcbench.scheduler.slurm.states import SACCT_FORMAT, SQUEUE_FORMAT, SlurmRow, parse_sacct, parse_squeue
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.request import Resources
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import JobSettings, Submission
from hpcbench.storage.paths import SuitePaths

IDS_PER_QUERY = 8000  # ids that fit into one argument (128 KiB), so that sacct is asked once; an array is one id
# Not an accounting that is down: then nothing is known of ended jobs, rather than nothing to be known.
NO_ACCOUNTING = re.compile(
    r"accounting storage is disabled|accounting_storage/none|accounting_storage plugin", re.IGNORECASE
)
SQUEUE = ("squeue", "--me", "--states=all", "--noheader", "-r")
_QUEUED_ID = re.compile(r"\d+(?:_\d+|\+\d+)?")


class SlurmScheduler:
    """A Slurm cluster as its clients on this machine see it."""

    def __init__(self, profile: ClusterProfile, save_dir: Path, client: SlurmClient | None = None) -> None:
        self._profile = profile
        self._save_dir = save_dir
        self._client = SlurmClient() if client is None else client

    @property
    def name(self) -> str:
        """The profile's name."""
        return self._profile.name

    @property
    def cluster_name(self) -> str | None:
        """Slurm's ClusterName, asked once; None when the cluster does not answer."""
        return self._client.config.get("ClusterName")

    @property
    def queue_name(self) -> str:
        """The one Slurm that this machine's commands talk to: a profile says how to ask for jobs, not where."""
        return "slurm"

    @property
    def runs_here(self) -> bool:
        """False: a cluster runs the jobs."""
        return False

    @property
    def poll_s(self) -> float | None:
        """The profile's `poll_s`."""
        return self._profile.poll_s

    def job_settings(self, resources: Resources) -> JobSettings:
        """Return the profile's part in jobs."""
        from hpcbench.scheduler.slurm.script import job_settings

        return job_settings(resources, self._profile)

    def render(self, submission: Submission, after_id: str | None) -> str:
        """Return the sbatch script."""
        from hpcbench.scheduler.slurm.script import render_script  # submitit is not needed to look at the queue

        return render_script(submission, profile=self._profile, paths=self._paths(submission), after_id=after_id)

    def describe_environment(self, texts: Sequence[str]) -> list[str]:
        """Return what sbatch takes from the user's SBATCH_ variables besides what these scripts say."""
        return describe_kept(os.environ, texts, self._profile)

    def submit(self, submission: Submission, after_id: str | None) -> str:
        """Submit one script; see `Scheduler.submit`."""
        from hpcbench.scheduler.slurm.script import submit_script

        missing = [name for name in SUBMIT_COMMANDS if shutil.which(name) is None]
        if missing:
            raise SubmitError(f"{', '.join(missing)}: not found on this machine")
        text = self.render(submission, after_id)
        try:
            return submit_script(text, submission=submission, profile=self._profile, paths=self._paths(submission))
        except SubmitError as error:
            if TRANSIENT.search(error.message):
                raise SchedulerError(f"sbatch did not answer: {error.message}") from error
            raise

    def find(self, keys: Sequence[str]) -> Mapping[str, str]:
        """Return the ids of submissions by job name, from the queue and then from accounting."""
        if not keys:
            return {}
        self._client.wait_for_sbatch(keys)
        text = self._client.query([*SQUEUE, f"--format={SQUEUE_FORMAT}", f"--name={','.join(keys)}"])
        rows = list(parse_squeue(text))
        found = {row.name: row.job_id for row in rows}
        missing = [key for key in keys if key not in found]
        if missing:
            since = (datetime.now().astimezone() - timedelta(days=30)).strftime("%Y-%m-%dT%H:%M:%S")
            # sacct finds jobs that never started only with -S and -E, and begins at midnight without them (22.05).
            rows, _, warning = self._sacct(["-S", since, "-E", "now", f"--name={','.join(missing)}"])
            if warning:
                raise SchedulerError(warning)
            found |= {row.name: row.job_id for row in rows if row.name in missing}
        return {key: found[key] for key in keys if key in found}

    def query(self, submissions: Sequence[Submission]) -> Answer:
        """Query all elements: one squeue, then one sacct for those that the queue has forgotten."""
        wanted = {s.key: s for s in submissions if s.scheduler_id is not None}
        if not wanted:
            return Answer(history_known=True)
        # No -j: a purged id makes squeue fail (22.05, if it is the only one). The name guards against ids used again.
        jobs = _match(parse_squeue(self._client.query([*SQUEUE, f"--format={SQUEUE_FORMAT}"])), wanted)
        gone = [
            submission
            for submission in wanted.values()
            if any((submission.key, index) not in jobs for index in submission.elements)
        ]
        history_known = True
        warnings: list[str] = []
        gone_ids = list(dict.fromkeys(s.scheduler_id for s in gone if s.scheduler_id is not None))
        for start in range(0, len(gone_ids), IDS_PER_QUERY):
            ids = ",".join(gone_ids[start : start + IDS_PER_QUERY])
            rows, answered, warning = self._sacct(["-j", ids])
            history_known &= answered
            warnings += [warning] if warning else []
            for place, job in _match(rows, wanted).items():
                jobs.setdefault(place, job)
        return Answer(
            jobs=jobs,
            history_known=history_known,
            history_failed=bool(warnings),
            elsewhere=self._find_elsewhere(list(wanted.values()), {key for key, _ in jobs}),
            warnings=tuple(dict.fromkeys(warnings)),
        )

    def _find_elsewhere(self, wanted: Sequence[Submission], seen: AbstractSet[str]) -> dict[str, str]:
        """Return the submissions of another cluster that Slurm did not list, with its name."""
        named = [submission for submission in wanted if submission.cluster_name is not None]
        silent = [submission for submission in named if submission.key not in seen]
        if not silent:
            return {}
        told = (submission.cluster_name for submission in named if submission.key in seen)
        here = next(told, None) or self.cluster_name  # a key is unique, so a job that was seen names the cluster
        return {s.key: other for s in silent if (other := cluster_elsewhere(s, here)) is not None}

    def release(self, element_ids: Iterable[str]) -> None:
        """Drop the dependency of jobs that take the model of one that has completed."""
        self._client.release(list(element_ids))

    def cancel(self, element_ids: Sequence[str]) -> None:
        """Cancel jobs; ids that are gone are skipped."""
        self._client.cancel(element_ids)

    def max_array_size(self) -> int:
        """Return one more than the largest array index to use on this cluster; 1 where arrays are not allowed."""
        if not self._profile.arrays:
            return 1
        if self._profile.max_array_size is not None and self._profile.release_evals:
            return self._profile.max_array_size
        config = self._client.config
        size = self._profile.max_array_size or max_array_size(config)
        return size if self._profile.release_evals else min(size, correspond_count(config))

    def room_left(self) -> int | None:
        """Return how many more jobs the profile lets you have in the queue, or None where it sets no limit."""
        if self._profile.max_submitted is None:
            return None
        lines = self._client.query(["squeue", "--me", "-r", "--noheader", "--format=%i"]).splitlines()
        queued = sum(_QUEUED_ID.fullmatch(line.strip()) is not None for line in lines)  # and not a banner
        return max(self._profile.max_submitted - queued, 0)

    def _sacct(self, options: Sequence[str]) -> tuple[list[SlurmRow], bool, str]:
        """Return accounting's rows, whether it answered, and a warning; without accounting there is none."""
        try:
            command = ["sacct", *_accounted_clusters(), "-X", "-n", "-P", f"--format={SACCT_FORMAT}", *options]
            return list(parse_sacct(self._client.query(command))), True, ""
        except SchedulerError as error:
            if NO_ACCOUNTING.search(error.message):
                return [], False, ""
            without = "ended jobs without a record are shown as unknown"
            return [], False, f"accounting did not answer ({error.message}); {without}"

    def _paths(self, submission: Submission) -> SuitePaths:
        return SuitePaths(self._save_dir, submission.suite)


def _accounted_clusters() -> list[str]:
    """Return sacct's option for SLURM_CLUSTERS, which all other commands follow without one."""
    clusters = os.environ.get("SLURM_CLUSTERS")
    return [f"--clusters={clusters}"] if clusters else []


def _match(rows: Iterable[SlurmRow], wanted: Mapping[str, Submission]) -> dict[Place, SchedulerJob]:
    """Return the rows that belong to our submissions, given by key: id and name must both be right."""
    jobs: dict[Place, SchedulerJob] = {}
    for row in rows:
        submission = wanted.get(row.name)
        if submission is None or row.job_id != submission.scheduler_id:
            continue
        # A single job, or an array that was cancelled before it was split, stands for all its elements.
        indices = list(submission.elements) if row.index is None else [row.index]
        for index in indices:
            if index in submission.elements:
                jobs[(submission.key, index)] = _scheduler_job(row)
    return jobs


def _scheduler_job(row: SlurmRow) -> SchedulerJob:
    held = row.state is JobState.PENDING and row.has_dependency
    state = JobState.BLOCKED if held and NEVER_SATISFIED in row.reason else row.state
    stuck = read_reason(row.reason) if state is JobState.PENDING else None
    element_id = row.job_id if row.index is None else f"{row.job_id}_{row.index}"
    return SchedulerJob(
        state=state,
        raw_state=row.raw_state,
        reason=explain_reason(row.reason) if state in {JobState.PENDING, JobState.BLOCKED} else "",
        expected_start=row.expected_start if row.state is JobState.PENDING else None,
        exit_code=row.exit_code,
        held_by_dependency=held,
        hint="" if stuck is None else stuck.hint,
        command="" if stuck is None else stuck.command.format(id=element_id),
    )
