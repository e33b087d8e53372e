"""Which checkpoints go, and that records never do."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hpcbench.plan.requests import plan_suite
from hpcbench.retention import count_freed, find_removals, kept_names, remove
from hpcbench.schemas.cluster_profile import Keep
from hpcbench.schemas.collection import Collection, ExperimentView, SuiteView
from hpcbench.schemas.metrics import Parameters, TrainMetrics
from hpcbench.schemas.states import JobState
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import SuitePaths
from tests.support.job_cases import experiment, record, suite, view
from tests.support.typed_commands import run_here

METRICS = TrainMetrics(
    parameters=Parameters(trainable=1, total=2),
    num_steps=1,
    num_samples=1,
    num_tokens=1,
    best_checkpoint="checkpoints/best",
    last_checkpoint="checkpoints/last",
)


def finished(root: Path, *, train: JobState = JobState.COMPLETED, evals: JobState = JobState.COMPLETED) -> Collection:
    """Return an experiment on disk with its checkpoints, in these states."""
    requests = plan_suite(suite(experiment("lora")), save_dir=root, inputs={})
    folder = root / "tuners" / "lora" / "train"
    for name in ("best", "last", "step-10"):
        (folder / "checkpoints" / name).mkdir(parents=True)
        (folder / "checkpoints" / name / "model").write_bytes(b"x" * 100)
    (folder / "record.json").write_text("{}")
    (folder / "attempt-1").mkdir()
    views = [
        view(requests[0], train, folder=folder, record=record(train, metrics=METRICS)),
        view(requests[1], evals, record=None if evals is JobState.RUNNING else record(evals)),
    ]
    shown = ExperimentView(suite="tuners", name="lora", cmd="sft", main=views[0], evals=(views[1],))
    return Collection(suites=(SuiteView(name="tuners", experiments=(shown,)),), collected_at="")


@pytest.mark.parametrize(("keep", "left"), [("best", ["best"]), ("last", ["last"]), ("none", [])])
def test_the_policy_says_what_stays(keep: Keep, left: list[str], tmp_path: Path) -> None:
    removals = find_removals(finished(tmp_path), (), keep)
    assert remove(removals) == []
    train = tmp_path / "tuners" / "lora" / "train"
    assert sorted(entry.name for entry in (train / "checkpoints").iterdir()) == left
    assert (train / "record.json").exists()
    assert (train / "attempt-1").exists()


@pytest.mark.parametrize(
    ("train", "evals"),
    [
        (JobState.RUNNING, JobState.COMPLETED),
        (JobState.FAILED, JobState.COMPLETED),
        (JobState.COMPLETED, JobState.RUNNING),
        (JobState.COMPLETED, JobState.FAILED),
        (JobState.COMPLETED, JobState.PENDING),
    ],
)
def test_nothing_goes_before_all_is_recorded(train: JobState, evals: JobState, tmp_path: Path) -> None:
    assert find_removals(finished(tmp_path, train=train, evals=evals), (), "none") == []


def test_an_eval_that_ran_out_of_gpu_memory_is_recorded(tmp_path: Path) -> None:
    assert find_removals(finished(tmp_path, evals=JobState.OUT_OF_MEMORY), (), "best")


@pytest.mark.parametrize(("file", "left"), [("adapter_config.json", ["best"]), ("tuner.json", ["best"]), ("x", [])])
def test_adapters_may_stay_where_whole_models_go(file: str, left: list[str], tmp_path: Path) -> None:
    collection = finished(tmp_path)
    checkpoints = tmp_path / "tuners" / "lora" / "train" / "checkpoints"
    (checkpoints / "best" / file).write_text("{}")
    assert remove(find_removals(collection, (), "adapter")) == []
    assert [entry.name for entry in checkpoints.iterdir()] == left


def test_what_somebody_else_has_removed_meanwhile_is_no_failure(tmp_path: Path) -> None:
    removals = find_removals(finished(tmp_path), (), "none")
    assert remove(removals) == []
    assert remove(removals) == []


def test_an_eval_that_left_the_suite_but_runs_still_needs_its_checkpoint(tmp_path: Path) -> None:
    collection = finished(tmp_path)
    [found] = collection.suites
    running = replace(found.experiments[0].evals[0], state=JobState.RUNNING, in_suite=False)
    other = replace(found.experiments[0], evals=(running,))
    assert find_removals(replace(collection, suites=(replace(found, others=(other,)),)), (), "none") == []


def test_names_choose(tmp_path: Path) -> None:
    collection = finished(tmp_path)
    assert find_removals(collection, ["full*"], "none") == []
    assert len(find_removals(collection, ["tuners/lo*"], "none")) == 3


def test_without_a_best_checkpoint_the_last_stays() -> None:
    assert kept_names(METRICS.model_copy(update={"best_checkpoint": None}), "best") == {"last"}


def test_a_file_that_stays_under_another_name_frees_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "model").write_bytes(b"x" * 100)
    (tmp_path / "b" / "model").hardlink_to(tmp_path / "a" / "model")
    assert count_freed([tmp_path / "a"]) == 0
    assert count_freed([tmp_path / "a", tmp_path / "b"]) == 100


def test_what_lies_on_scratch_goes_too(tmp_path: Path) -> None:
    collection = finished(tmp_path)
    scratch = tmp_path / "scratch"
    train = tmp_path / "tuners" / "lora" / "train"
    (train / "checkpoints").rename(scratch)
    (train / "checkpoints").symlink_to(scratch)
    remove(find_removals(collection, (), "none"))
    assert list(scratch.iterdir()) == []


def test_the_verb_frees_what_the_policy_says_and_leaves_every_record(tmp_path: Path) -> None:
    paths = SuitePaths(tmp_path, "tuners")
    requests = plan_suite(suite(experiment("lora"), experiment("evaluating")), save_dir=tmp_path, inputs={})
    for request in requests:
        job = paths.job(request.experiment, request.job)
        write_json(job.request, request.model_dump(mode="json"))
        if request.job == "train":
            for name in ("best", "last"):
                (job.checkpoints / name).mkdir(parents=True)
                (job.checkpoints / name / "model").write_bytes(b"x")
        if (request.experiment, request.job) != ("evaluating", "eval-gsm8k"):
            done = record(
                experiment=request.experiment,
                job=request.job,
                fingerprint=request.fingerprint,
                metrics=METRICS if request.job == "train" else None,
            )
            write_json(job.record, done.model_dump(mode="json"))
    experiments = [{"name": name, "cmd": "sft", "jobs": ["train", "eval-gsm8k"]} for name in ("lora", "evaluating")]
    write_json(paths.plan, {"suite": "tuners", "cluster": "local", "experiments": experiments})
    files = {path for path in tmp_path.rglob("*") if path.is_file()}
    checkpoints = paths.job("lora", "train").checkpoints

    asked = run_here("clean", "--dry-run", "--save-dir", str(tmp_path))
    assert (asked.code, f"would remove {checkpoints / 'last'}" in asked.out) == (0, True)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == files
    for keep, gone in (("best", "last"), ("none", "best")):
        ended = run_here("clean", "--keep", keep, "--save-dir", str(tmp_path))
        assert (ended.code, ended.err) == (0, "")
        assert f"remove {checkpoints / gone}\n" in ended.out
        files.remove(checkpoints / gone / "model")
        assert {path for path in tmp_path.rglob("*") if path.is_file()} == files


class Killed(BaseException):
    """Ends a removal where a kill would."""


@pytest.mark.parametrize("on_scratch", [False, True])
@pytest.mark.parametrize("again", ["best", "none"])
def test_what_a_killed_removal_left_goes_with_the_next(
    again: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, on_scratch: bool
) -> None:
    collection = finished(tmp_path)
    train = tmp_path / "tuners" / "lora" / "train"
    old = train / "old-0123" / "checkpoints"
    places = {name: tmp_path / "scratch" / name if on_scratch else train / name for name in ("resume", "checkpoints")}
    for name, place in places.items():
        (train / name / "step-1").mkdir(parents=True, exist_ok=True)
        if on_scratch:
            place.parent.mkdir(exist_ok=True)
            (train / name).rename(place)
            (train / name).symlink_to(place)
    (old / "best").mkdir(parents=True)

    def kill(folder: Path) -> None:
        raise Killed(folder)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", kill)
        for removal in find_removals(collection, (), "none"):
            with pytest.raises(Killed):
                remove([removal])
    left = [*tmp_path.rglob("*.removed")]
    assert len(left) == 6
    removals = find_removals(collection, (), again)
    assert {removal.folder.resolve() for removal in removals} == set(left)
    assert remove(removals) == []
    assert [*tmp_path.rglob("*.removed")] == []
    assert (train / "record.json").exists()


def test_a_checkpoint_that_is_asked_for_is_never_replaced_by_the_other() -> None:
    without_best = METRICS.model_copy(update={"best_checkpoint": None})
    assert METRICS.choose_checkpoint(None) == ("best", "checkpoints/best")
    assert without_best.choose_checkpoint(None) == ("last", "checkpoints/last")
    assert without_best.choose_checkpoint("best") == ("best", None)
