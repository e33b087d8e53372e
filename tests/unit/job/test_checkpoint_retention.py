"""The profile's `keep`: applied by the last job of an experiment and by submit, and never at an eval's expense."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.job.checkpoint_retention import reduce_own_checkpoints
from hpcbench.job.child_release import own_children
from hpcbench.job.context import read_context
from hpcbench.plan.decide import MODEL_GONE, Action, Options
from hpcbench.schemas.cluster_profile import Keep
from hpcbench.schemas.metrics import Metrics
from hpcbench.schemas.record import PUSH_PENDING
from hpcbench.schemas.request import JobRequest
from hpcbench.schemas.states import JobState
from hpcbench.schemas.suite import Experiment
from hpcbench.storage.json_files import JsonObject, read_json, write_json
from hpcbench.storage.paths import SuitePaths
from hpcbench.submit.carry_out import submit_suite
from hpcbench.submit.destination import Destination
from hpcbench.submit.send_arrays import SubmitResult
from tests.support.fake_scheduler import PENDING, FakeScheduler
from tests.support.job_cases import experiment, record, suite
from tests.unit.test_retention import METRICS

ONE = experiment("lora", eval_dataset=("gsm8k",))
TWO = experiment("lora", eval_dataset=("gsm8k", "arc"))


def submit(
    save_dir: Path,
    *experiments: Experiment,
    keep: Keep | None = None,
    scheduler: FakeScheduler | None = None,
    options: Options | None = None,
) -> SubmitResult:
    destination = Destination(save_dir=save_dir, scheduler=scheduler or FakeScheduler(), keep=keep)
    return submit_suite(suite(*experiments), destination, options or Options())


def finish(save_dir: Path, request: JobRequest, state: JobState = JobState.COMPLETED) -> None:
    """Leave what a job leaves: its record and, of a training, its checkpoints."""
    job = SuitePaths(save_dir, "tuners").job(request.experiment, request.job)
    metrics: Metrics | None = METRICS if request.job == "train" else None
    left = record(
        state, experiment=request.experiment, job=request.job, fingerprint=request.fingerprint, metrics=metrics
    )
    write_json(job.record, left.model_dump(mode="json"))
    for name in ("best", "last") if metrics is not None else ():
        (job.checkpoints / name).mkdir(parents=True)


def kept(save_dir: Path) -> list[str]:
    return sorted(entry.name for entry in SuitePaths(save_dir, "tuners").job("lora", "train").checkpoints.iterdir())


@pytest.mark.parametrize(
    ("second", "left"),
    [(JobState.COMPLETED, ["best"]), (JobState.OUT_OF_MEMORY, ["best"]), (JobState.FAILED, ["best", "last"])],
)
def test_the_last_job_of_an_experiment_reduces_its_checkpoints(
    second: JobState, left: list[str], tmp_path: Path
) -> None:
    outcome = submit(tmp_path, TWO, experiment("other"))
    train, *evals = [d.request for d in outcome.plan.decisions if d.request.experiment == "lora"]
    last = next(s for s in outcome.submitted if any(e.job == evals[1].job for e in s.elements.values()))
    index = next(i for i, e in last.elements.items() if e.experiment == "lora")
    context = read_context(SuitePaths(tmp_path, "tuners").submission(last.key), index, {})
    finish(tmp_path, train)
    finish(tmp_path, evals[0])
    reduce_own_checkpoints(context, "best")
    assert kept(tmp_path) == ["best", "last"]
    finish(tmp_path, evals[1], second)
    reduce_own_checkpoints(context, "best")
    assert kept(tmp_path) == left


def test_the_end_of_a_job_reads_its_own_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"lora-{number}" for number in range(20)]
    outcome = submit(tmp_path, *(experiment(name) for name in (*names, "lora")), scheduler=FakeScheduler(array_size=1))
    assert len(outcome.submitted) == 42
    paths = SuitePaths(tmp_path, "tuners")
    for decision in outcome.plan.decisions:
        if decision.request.experiment == "lora":
            finish(tmp_path, decision.request)
    own = {s.elements[0].job: s.key for s in outcome.submitted if s.elements[0].experiment == "lora"}
    trains, evals = (read_context(paths.submission(own[job]), None, {}) for job in ("train", "eval-gsm8k"))
    read: list[Path] = []

    def note(path: Path) -> JsonObject | None:
        read.append(path)
        return read_json(path)

    for module in ("schemas.submission", "status.collect", "schemas.record", "schemas.request"):
        monkeypatch.setattr(f"hpcbench.{module}.read_json", note)
    expected = next(s for s in outcome.submitted if s.key == own["eval-gsm8k"])
    assert own_children(trains) == [expected.element_id(0)]
    assert read == [paths.submission(expected.key)]
    read.clear()
    reduce_own_checkpoints(evals, "best")
    assert kept(tmp_path) == ["best"]
    folder = paths.folder / "lora"
    assert [path for path in read if path != paths.plan and not path.is_relative_to(folder)] == []


def test_an_eval_that_left_the_suite_and_may_still_run_keeps_its_checkpoints(tmp_path: Path) -> None:
    before = submit(tmp_path, TWO, scheduler=FakeScheduler(says={"eval-arc": PENDING}))
    for decision in before.plan.decisions:
        if decision.request.job != "eval-arc":
            finish(tmp_path, decision.request)
    outcome = submit(tmp_path, ONE, scheduler=FakeScheduler(says={"eval-arc": PENDING}))
    assert outcome.num_jobs == 0
    paths = SuitePaths(tmp_path, "tuners")
    gsm8k = next(s for s in before.submitted if s.elements[0].job == "eval-gsm8k")
    context = read_context(paths.submission(gsm8k.key), 0, {})
    reduce_own_checkpoints(context, "best")
    assert kept(tmp_path) == ["best", "last"]
    left = next(d.request for d in before.plan.decisions if d.request.job == "eval-arc")
    finish(tmp_path, left)
    reduce_own_checkpoints(context, "best")
    assert kept(tmp_path) == ["best"]


def test_submit_reduces_what_a_dead_node_left(tmp_path: Path) -> None:
    for decision in submit(tmp_path, ONE).plan.decisions:
        finish(tmp_path, decision.request)
    assert submit(tmp_path, ONE, keep=None).plan.removals == ()
    removed = submit(tmp_path, ONE, keep="last").plan.removals
    assert [removal.folder.name for removal in removed] == ["best"]
    assert kept(tmp_path) == ["last"]


def test_an_eval_that_was_added_keeps_the_checkpoint_it_needs(tmp_path: Path) -> None:
    for decision in submit(tmp_path, ONE).plan.decisions:
        finish(tmp_path, decision.request)
    outcome = submit(tmp_path, TWO, keep="none")
    assert (outcome.plan.removals, outcome.num_jobs) == ((), 1)


def test_an_eval_without_a_checkpoint_is_not_submitted_and_force_trains_again(tmp_path: Path) -> None:
    for decision in submit(tmp_path, ONE).plan.decisions:
        finish(tmp_path, decision.request)
    submit(tmp_path, ONE, keep="none")
    assert kept(tmp_path) == []
    assert submit(tmp_path, ONE).num_jobs == 0

    refused = submit(tmp_path, TWO)
    assert refused.num_jobs == 0
    assert [(d.request.job, d.action, d.why) for d in refused.plan.decisions if d.action is Action.CHANGED] == [
        ("eval-arc", Action.CHANGED, MODEL_GONE)
    ]
    forced = submit(tmp_path, TWO, options=Options(force=True))
    assert [(d.request.job, d.action) for d in forced.plan.decisions] == [
        ("train", Action.SUBMIT),
        ("eval-gsm8k", Action.SUBMIT),
        ("eval-arc", Action.SUBMIT),
    ]
    assert forced.plan.decisions[0].why == "its model is gone and another job needs it, --force"


def test_a_forced_run_keeps_the_records_of_the_one_before(tmp_path: Path) -> None:
    requests = [decision.request for decision in submit(tmp_path, ONE).plan.decisions]
    for request in requests:
        finish(tmp_path, request)
    submit(tmp_path, ONE, keep="none")
    assert submit(tmp_path, TWO, options=Options(force=True)).num_jobs == 3
    for request in requests:
        job = SuitePaths(tmp_path, "tuners").job("lora", request.job)
        assert not job.record.exists()
        assert job.old_record(request.fingerprint).exists()


def test_weights_on_their_way_to_a_hub_are_left_alone(tmp_path: Path) -> None:
    train, one_eval = (decision.request for decision in submit(tmp_path, ONE).plan.decisions)
    finish(tmp_path, train)
    finish(tmp_path, one_eval)
    job = SuitePaths(tmp_path, "tuners").job("lora", "train")
    value = read_json(job.record)
    assert value is not None
    value["metrics"]["unknown"] = {"pushed_to": PUSH_PENDING}
    write_json(job.record, value)
    assert submit(tmp_path, ONE, keep="none").plan.removals == ()
    value["metrics"]["unknown"] = {"pushed_to": "not pushed: no network; by hand: hf upload ..."}
    write_json(job.record, value)
    (job.checkpoints / "hub").mkdir()
    # A full model: there is no adapter to keep, but what waits for its push stays.
    submit(tmp_path, ONE, keep="adapter")
    assert kept(tmp_path) == ["hub"]


def test_the_checkpoint_that_is_left_serves_the_evals_that_take_it(tmp_path: Path) -> None:
    for decision in submit(tmp_path, ONE).plan.decisions:
        finish(tmp_path, decision.request)
    submit(tmp_path, ONE, keep="best")
    pending = FakeScheduler(says={"eval-arc": PENDING})
    assert submit(tmp_path, TWO, scheduler=pending).num_jobs == 1
    assert submit(tmp_path, TWO, scheduler=pending, options=Options(force=True)).num_jobs == 0
