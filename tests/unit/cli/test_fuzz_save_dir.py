"""Broken files in a save directory stop no verb that looks at it, whatever is in them and whatever the scheduler says.

`HPCBENCH_FUZZ=10000 pytest tests/unit/cli/test_fuzz_save_dir.py` (or `make fuzz`) tries more of them.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcbench.cli.answers import status_answer
from hpcbench.cli.output import print_status
from hpcbench.errors import SchedulerError
from hpcbench.job.attempts import earlier_attempts
from hpcbench.report import render
from hpcbench.retention import find_removals
from hpcbench.scheduler import registry as choose
from hpcbench.scheduler.protocol import Scheduler, SchedulerJob
from hpcbench.schemas.cluster_profile import ClusterProfile
from hpcbench.schemas.collection import Collection
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.schemas.request import Resources
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import write_submission
from hpcbench.status.explain import explain
from hpcbench.status.gather import gather
from hpcbench.status.logs import log_tail, telling_log
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import JobPaths, SuitePaths
from hpcbench.submit.cancel import cancel_jobs
from hpcbench.submit.retry import find_remedy
from tests.support.fake_scheduler import HELD, FakeScheduler
from tests.support.job_cases import command, record, submission
from tests.support.mutations import mutate_bytes, mutate_json, odd_values
from tests.support.typed_commands import run_here
from tests.unit.plan.test_plan import plan

EXAMPLES = int(os.environ.get("HPCBENCH_FUZZ", "500"))
KEYS = ["experiment", "job", "state", "key", "suite", "cluster", "metrics", "values", "cause", "elements", "0", "", "é"]
ODD = odd_values(KEYS)
RUNNING = SchedulerJob(state=JobState.RUNNING, raw_state="RUNNING")
INTACT = FakeScheduler(says={"train": RUNNING, "eval-x": HELD})
TOLD = st.builds(
    SchedulerJob,
    state=st.sampled_from(JobState),
    raw_state=st.sampled_from(["", "CANCELLED by 0", "OUT_OF_MEMORY", "x\x1b[31m"]),
    reason=st.sampled_from(["", "Dependency", "<b>|`"]),
    expected_start=st.sampled_from([None, "2026-11-21T10:00:00", "N/A"]),
    exit_code=st.sampled_from([None, "0:9", "?"]),
    held_by_dependency=st.booleans(),
)
SCHEDULERS = st.builds(
    FakeScheduler,
    says=st.none() | st.fixed_dictionaries({}, optional={"train": TOLD, "eval-x": TOLD}),
    otherwise=st.none() | TOLD,
    cluster_name=st.sampled_from([None, "testbed"]),
)
VERBS = (
    ("status",),
    ("status", "--json"),
    ("collect",),
    ("collect", "--format", "html"),
    ("collect", "--layout", "swift"),
    ("why", "*"),
    ("logs", "*"),
    ("clean", "--keep", "none", "--dry-run"),
    ("cancel", "--all"),
)
REPORTS = (
    *(partial(render, format=name) for name in ("markdown", "csv", "json", "html")),
    partial(render, format="markdown", options=ReportOptions(layout="swift")),
)
ALWAYS_ANSWER = {"status", "collect", "clean"}


@pytest.fixture(scope="module")
def save_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a save directory with one suite: jobs that are done, failed, running and held, and every kind of file."""
    root = tmp_path_factory.mktemp("root") / "logs"
    paths = SuitePaths(root, "tuners")
    requests = plan(command("done", evals=("x",)), command("failed"), command("running", evals=("x",)))
    for request in requests:
        write_json(paths.job(request.experiment, request.job).request, request.model_dump(mode="json"))
    jobs = {name: [r for r in requests if r.experiment == name] for name in ("done", "failed", "running")}
    experiments = [{"name": name, "cmd": "command", "jobs": [r.job for r in found]} for name, found in jobs.items()]
    write_json(paths.plan, {"suite": "tuners", "cluster": "slurm", "experiments": experiments})
    finished: dict[str, dict[str, Any]] = {
        "done": {"metrics": {"kind": "command", "values": {"a": 1.0}}},
        "failed": {
            "state": JobState.FAILED,
            "cause": {"type": "exit_code", "message": "exit code 3", "exit_code": 3, "lines": ["last words"]},
            "attempts": [
                {
                    "number": 1,
                    "state": "failed",
                    "started_at": "2026-11-21T00:00:00.000Z",
                    "finished_at": "2026-11-21T00:01:00.000Z",
                    "duration_s": 60.0,
                    "host": "node1",
                    "sampled": {"gpu_peak_gib": [1.0], "host_rss_peak_gib": 2.0},
                }
            ],
        },
    }
    for name, values in finished.items():
        job = paths.job(name, "train")
        found = record(experiment=name, fingerprint=jobs[name][0].fingerprint, **values).model_dump(mode="json")
        for path in (job.record, job.attempt(1).record):
            write_json(path, found)
        job.attempt(1).log.write_text("last words\n")
    running = paths.job("running", "train")
    write_json(running.progress, {"phase": "training", "step": 1, "max_steps": 9, "loss": 1.0, "eta_s": 5})
    claim = {"token": "t", "scheduler_id": "1_1", "host": "node1", "node": "gpu1", "restart_count": 0}
    claim |= {"pid": 1, "claimed_at": "2026-11-21T00:00:00.000Z", "key": "tuners-train"}
    for path in (running.claim, running.attempt(1).claim):
        write_json(path, claim)
    write_json(running.attempt(1).started, {"fingerprint": jobs["running"][0].fingerprint, "resumed_from_step": 0})
    lines = ({"step": step, "loss": 1.0, "step_s": 0.1, "num_tokens": 5, "eval_loss": 2.0} for step in (1, 2))
    running.attempt(1).history.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_json(paths.job("failed", "train").cancelled, {"schema_version": 1, "at": "2026-11-21T00:00:00.000Z"})
    chosen = [jobs[name][0] for name in ("done", "running")]
    evals = [r for r in requests if r.job == "eval-x"]
    for key, members, after in (("tuners-train", chosen, None), ("tuners-eval", evals, "tuners-train")):
        elements = {
            index: {"experiment": r.experiment, "job": r.job, "fingerprint": r.fingerprint}
            for index, r in enumerate(members)
        }
        sent = submission(key=key, state="submitted", scheduler_id="1", elements=elements, after_key=after)
        write_submission(paths, sent)
        paths.start_marks(key).mkdir()
    (paths.start_marks("tuners-train") / "0").write_text("1 0 gpu1\n")
    write_json(paths.claim, {"host": "login", "pid": 1, "at": "2026-11-21T00:00:00.000Z", "token": "t"})
    return root


@pytest.fixture(scope="module", autouse=True)
def _local_profile() -> Iterator[None]:
    """Let no cluster of the machine's own be asked, and no profile of its user's be read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hpcbench.cluster.save_dir.load_profile", lambda: None)
        yield


def look(save_dir: Path, report: Callable[[Collection], str]) -> Collection:
    """Do what the verbs do after one look at everything, with one of the reports."""
    collection = gather(save_dir)
    json.dumps(status_answer(collection, collection.all_jobs).model_dump(mode="json"))
    print_status(collection, collection.all_jobs)
    report(collection).encode()
    for job in collection.all_jobs:
        log = telling_log(job)
        explain(job, () if log is None else log_tail(log)).encode()
        find_remedy(job, Resources(), ClusterProfile())
        earlier_attempts(JobPaths(job.folder), before=2, scheduler_id="1_1")
    find_removals(collection, (), "none")
    # A mutated submission may be another cluster's.
    with contextlib.suppress(SchedulerError):
        cancel_jobs(collection.all_jobs, save_dir)
    return collection


def read_tree(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def put_back(root: Path, files: dict[Path, bytes]) -> None:
    """Undo what an example has written and what the verbs have."""
    for path, content in read_tree(root).items():
        if path not in files:
            path.unlink()
        elif content != files[path]:
            path.write_bytes(files[path])


@given(data=st.data(), scheduler=st.just(INTACT) | SCHEDULERS, verb=st.none() | st.sampled_from(VERBS))
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_broken_files_stop_nothing(
    save_dir: Path, data: st.DataObject, scheduler: FakeScheduler, verb: tuple[str, ...] | None
) -> None:
    def scheduler_of(cluster: str, root: Path) -> Scheduler | None:
        return scheduler if cluster == "slurm" else choose.scheduler_of(cluster, root) if cluster == "local" else None

    good = read_tree(save_dir.parent)
    # Plan and submissions say where everything else is.
    leading = [path for path in sorted(good) if path.name in {"suite.json", "tuners-train.json", "tuners-eval.json"}]
    try:
        for _ in range(data.draw(st.integers(1, 2))):
            file = data.draw(st.sampled_from(leading) | st.sampled_from(sorted(good)))
            is_json = file.suffix == ".json"
            mutated = mutate_json(data, good[file], KEYS, ODD) if is_json else mutate_bytes(data, good[file])
            file.write_bytes(mutated)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("hpcbench.status.gather.scheduler_of", scheduler_of)
            patch.setattr("hpcbench.submit.cancel.scheduler_of", scheduler_of)
            if verb is None:
                look(save_dir, data.draw(st.sampled_from(REPORTS)))
            else:
                ended = run_here(*verb, "--save-dir", str(save_dir))
                assert ended.code in ({0} if verb[0] in ALWAYS_ANSWER else {0, 1, 2}), ended
                assert ended.code == 0 or ended.err.strip(), ended
        outside = [path for path in read_tree(save_dir.parent) if not path.is_relative_to(save_dir / "tuners")]
        assert outside == []
    finally:
        put_back(save_dir.parent, good)


@pytest.mark.parametrize("name", ["..", "../../x", "/x", "a/b", "a\x00", "a" * 5000, ""])
@pytest.mark.parametrize("file", ["suite.json", "submissions/tuners-train.json"])
def test_a_name_that_is_no_folder_of_ours_is_not_followed(save_dir: Path, file: str, name: str) -> None:
    good = read_tree(save_dir.parent)
    path = save_dir / "tuners" / file
    value = json.loads(path.read_text())
    if file == "suite.json":
        value["experiments"][0]["name"] = name
    else:
        value["elements"]["0"]["experiment"] = name
    write_json(path, value)
    broken = read_tree(save_dir.parent)
    try:
        with mock.patch("hpcbench.status.gather.scheduler_of", return_value=INTACT):
            shown = run_here("status", "--json", "--save-dir", str(save_dir))
            with mock.patch("hpcbench.submit.cancel.scheduler_of", return_value=INTACT):
                cancelled = run_here("cancel", "--all", "--save-dir", str(save_dir))
        assert (shown.code, cancelled.code) == (0, 0), shown.err + cancelled.err
        assert name not in {job["experiment"] for job in json.loads(shown.out)["jobs"]}
        written = {path.name for path in read_tree(save_dir.parent).keys() - broken.keys()}
        assert written <= {"cancelled.json"}
        assert all(path.is_relative_to(save_dir / "tuners") for path in read_tree(save_dir.parent))
    finally:
        put_back(save_dir.parent, good)


def test_the_intact_save_directory_is_understood(save_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = read_tree(save_dir)
    monkeypatch.setattr("hpcbench.status.gather.scheduler_of", lambda *_: INTACT)
    monkeypatch.setattr("hpcbench.submit.cancel.scheduler_of", lambda *_: INTACT)
    INTACT.cancelled.clear()
    states = {(job.experiment, job.job): job.state for job in look(save_dir, REPORTS[0]).jobs}
    put_back(save_dir, good)
    assert states == {
        ("done", "train"): JobState.COMPLETED,
        ("done", "eval-x"): JobState.PENDING,
        ("failed", "train"): JobState.FAILED,
        ("running", "train"): JobState.RUNNING,
        ("running", "eval-x"): JobState.PENDING,
    }
    assert sorted(INTACT.cancelled) == ["1_0", "1_1"]
