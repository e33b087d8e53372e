"""From suites to jobs, fingerprints and decisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcbench.plan.arrays import describe_array, make_arrays, make_key, make_late_arrays, take_part
from hpcbench.plan.decide import Action, Decision, Options, decide
from hpcbench.plan.fingerprint import describe_change, fingerprint_parts
from hpcbench.plan.requests import plan_suite
from hpcbench.schemas.arguments import EvalArgs, SftArgs
from hpcbench.schemas.request import JobRequest, Resources
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import Element
from tests.support.job_cases import command, experiment, submission, suite, view

ROOT = Path("/logs")


def plan(*experiments: object) -> tuple[JobRequest, ...]:
    return plan_suite(suite(*experiments), save_dir=ROOT, inputs={})  # type: ignore[arg-type]


def test_an_experiment_is_a_train_job_and_one_eval_per_dataset() -> None:
    datasets = ("ceval", "gsm8k")
    jobs = plan(experiment("lora", eval_dataset=datasets, eval_args={name: EvalArgs() for name in datasets}))
    assert [job.job for job in jobs] == ["train", "eval-ceval", "eval-gsm8k"]
    assert jobs[1].train_folder == "/logs/tuners/lora/train"
    assert jobs[1].train_fingerprint == jobs[0].fingerprint


def test_a_baseline_is_an_eval_without_a_train_job() -> None:
    [job] = plan(experiment("base", cmd="eval"))
    assert (job.cmd, job.job, job.train_folder, job.train_fingerprint) == ("eval", "eval-gsm8k", None, None)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"requirements": Resources(gpu=1, time_min=600, partition="long", mem_gb=64)}, True),
        ({"info": {"note": "for the paper"}}, True),
        ({"requirements": Resources(gpu=2, ddp=2)}, False),
        ({"requirements": Resources(gpu=1, gpu_type="a100")}, False),
        ({"env": {"NCCL_DEBUG": "INFO"}}, False),
        ({"args": SftArgs(model_type="qwen-7b-chat", dataset=("ms-agent",), lora_rank=16)}, False),
    ],
)
def test_the_fingerprint_holds_what_decides_the_result_and_nothing_else(change: dict[str, object], same: bool) -> None:
    before, _ = plan(experiment("lora"))
    after, _ = plan(experiment("lora", **change))
    assert (before.fingerprint == after.fingerprint) is same


@pytest.mark.parametrize(("rank", "is_left_out"), [(8, True), (16, False)])
def test_an_argument_added_later_is_left_out_at_its_default(rank: int, is_left_out: bool) -> None:
    [train, *_] = plan(experiment("lora", args=SftArgs(model_type="qwen-7b-chat", dataset=("a",), lora_rank=rank)))
    args = fingerprint_parts(train, {}, added={"args": frozenset({"lora_rank"})})["args"]
    assert ("lora_rank" not in args) is is_left_out


@pytest.mark.parametrize(
    ("named", "before"), [("sdpa", False), ("flash_attention_2", True), ("eager", None), ("flash_attention_3", None)]
)
def test_an_attention_that_0_2_ran_has_the_fingerprint_of_0_2(named: str, before: bool | None) -> None:
    def print_of(**values: object) -> str:
        args = SftArgs.model_validate({"model_type": "qwen-7b-chat", "dataset": "a", **values})
        return plan(experiment("lora", args=args))[0].fingerprint

    same = [flash for flash in (True, False, None) if print_of(use_flash_attn=flash) == print_of(attn_impl=named)]
    assert same == ([] if before is None else [before])


def test_an_evals_fingerprint_follows_its_train_job() -> None:
    _, before = plan(experiment("lora"))
    _, after = plan(experiment("lora", args=SftArgs(model_type="qwen-7b-chat", dataset=("ms-agent",), seed=7)))
    assert before.fingerprint != after.fingerprint


def test_a_baseline_does_not_change_with_training_arguments() -> None:
    [before] = plan(experiment("base", cmd="eval"))
    [other_rate] = plan(
        experiment("base", cmd="eval", args=SftArgs(model_type="qwen-7b-chat", dataset=("x",), learning_rate=1.0))
    )
    [other_model] = plan(experiment("base", cmd="eval", args=SftArgs(model_type="qwen-14b-chat")))
    assert before.fingerprint == other_rate.fingerprint
    assert before.fingerprint != other_model.fingerprint


def test_a_baseline_of_quantised_weights_is_another_one() -> None:
    def fingerprint(**args: object) -> str:
        [job] = plan(experiment("base", cmd="eval", args=SftArgs(model_type="qwen-7b-chat", **args)))
        return job.fingerprint

    assert len({fingerprint(), fingerprint(quantization_bit=4), fingerprint(quantization_bit=8)}) == 3
    assert fingerprint(quantization_bit=4) != fingerprint(quantization_bit=4, bnb_4bit_quant_type="fp4")
    assert fingerprint() == fingerprint(bnb_4bit_quant_type="fp4")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            {"dataset": ("/a/train.jsonl#5", "/b/train.jsonl#30")},
            {"dataset": ("/b/train.jsonl#5", "/a/train.jsonl#30")},
        ),
        (
            {"model_id_or_path": "/a/train.jsonl", "ref_model_id_or_path": "/b/train.jsonl"},
            {"model_id_or_path": "/b/train.jsonl", "ref_model_id_or_path": "/a/train.jsonl"},
        ),
    ],
)
def test_files_of_one_name_that_change_places_are_another_job(one: dict[str, object], other: dict[str, object]) -> None:
    inputs = {"/a/train.jsonl": "1" * 64, "/b/train.jsonl": "2" * 64}
    fingerprints = set()
    for values in (one, other):
        args = SftArgs.model_validate({"model_type": "m", "dataset": ("ms-agent",), **values})
        fingerprints.add(plan_suite(suite(experiment("lora", args=args)), save_dir=ROOT, inputs=inputs)[0].fingerprint)
    assert len(fingerprints) == 2


def test_the_content_of_local_data_is_part_of_the_fingerprint_and_its_place_is_not() -> None:
    def fingerprint(path: str, content: str) -> str:
        args = SftArgs(model_type="qwen-7b-chat", dataset=(path,))
        return plan_suite(suite(experiment("lora", args=args)), save_dir=ROOT, inputs={path: content})[0].fingerprint

    assert fingerprint("/a/train.jsonl", "1") == fingerprint("/b/train.jsonl", "1")
    assert fingerprint("/a/train.jsonl", "1") != fingerprint("/a/train.jsonl", "2")


def test_a_change_is_described_by_its_arguments() -> None:
    old, _ = plan(experiment("lora"))
    new, _ = plan(experiment("lora", args=SftArgs(model_type="qwen-7b-chat", dataset=("ms-agent",), lora_rank=16)))
    assert describe_change(old, new) == "args.lora_rank: 8 -> 16"


def decide_train(state: JobState, options: Options | None = None) -> tuple[Action, str]:
    request = plan(command("a"))[0]
    [decision] = decide([request], {("a", "train"): view(request, state)}, options or Options(), cluster="slurm")
    return decision.action, decision.why


@pytest.mark.parametrize(
    ("state", "action"),
    [
        (JobState.PLANNED, Action.SUBMIT),
        (JobState.PENDING, Action.SKIP),
        (JobState.RUNNING, Action.SKIP),
        (JobState.UNKNOWN, Action.SKIP),
        (JobState.COMPLETED, Action.SKIP),
        (JobState.OUT_OF_MEMORY, Action.SKIP),
        (JobState.FAILED, Action.SKIP),
        (JobState.CANCELLED, Action.SKIP),
        (JobState.LOST, Action.SKIP),
    ],
)
def test_only_what_was_never_run_is_submitted_without_being_asked(state: JobState, action: Action) -> None:
    assert decide_train(state)[0] is action


def test_a_failed_job_is_run_again_on_request_and_names_the_command_otherwise() -> None:
    assert decide_train(JobState.FAILED) == (Action.SKIP, "is failed: hpcbench why tuners/a")
    retry = Options(retry=frozenset({JobState.FAILED}))
    assert decide_train(JobState.FAILED, retry) == (Action.SUBMIT, "retry: was failed")


def test_a_job_that_nobody_here_can_ask_is_run_again_only_when_that_is_said() -> None:
    [request] = plan(command("a"))
    for far in ({"submitter": "ada"}, {"elsewhere": "other"}, {}):
        unknown = {("a", "train"): view(request, JobState.UNKNOWN, reason="was submitted by ada", **far)}
        [usual] = decide([request], unknown, Options(), cluster="slurm")
        [asked] = decide([request], unknown, Options(retry=frozenset({JobState.UNKNOWN})), cluster="slurm")
        assert usual.action is Action.SKIP
        assert usual.why.startswith("is unknown: was submitted by ada")
        assert ("--retry unknown" in usual.why, asked.action is Action.SUBMIT) == (bool(far), bool(far))


def test_a_retry_of_one_job_leaves_the_others_of_its_experiment_alone() -> None:
    train, first, second = plan(command("a", evals=("x", "y")))
    views = {
        ("a", "train"): view(train, JobState.COMPLETED),
        ("a", "eval-x"): view(first, JobState.FAILED),
        ("a", "eval-y"): view(second, JobState.FAILED),
    }
    options = Options(retry=frozenset({JobState.FAILED}), retry_jobs=frozenset({("a", "eval-x")}))
    decisions = decide([train, first, second], views, options, cluster="slurm")
    assert [decision.action for decision in decisions] == [Action.SKIP, Action.SUBMIT, Action.SKIP]


def test_evals_go_out_with_their_train_job() -> None:
    decisions = decide(plan(command("a", evals=("x",))), {}, Options(), cluster="slurm")
    assert [(d.request.job, d.action, d.after_parent) for d in decisions] == [
        ("train", Action.SUBMIT, False),
        ("eval-x", Action.SUBMIT, True),
    ]


def test_a_new_eval_of_a_completed_train_job_goes_out_alone() -> None:
    train, score = plan(command("a", evals=("x",)))
    decisions = decide([train, score], {("a", "train"): view(train, JobState.COMPLETED)}, Options(), cluster="slurm")
    assert [(d.action, d.after_parent) for d in decisions] == [(Action.SKIP, False), (Action.SUBMIT, False)]


def test_an_eval_dataset_that_is_added_later_runs_alone_and_changes_no_other() -> None:
    before = plan(experiment("lora", eval_dataset=("gsm8k", "arc"), eval_args={}))
    added = {"gsm8k_1shot": EvalArgs(task="gsm8k", num_fewshot=1)}
    after = plan(experiment("lora", eval_dataset=("gsm8k_1shot", "gsm8k", "arc"), eval_args=added))
    assert {each.fingerprint for each in before} < {each.fingerprint for each in after}
    views = {each.ref: view(each, JobState.COMPLETED) for each in before}
    decisions = decide(after, views, Options(), cluster="local")
    submitted = [each for each in decisions if each.action is Action.SUBMIT]
    assert [(each.request.job, each.after_parent) for each in submitted] == [("eval-gsm8k_1shot", False)]
    assert {each.why for each in decisions if each.action is Action.SKIP} == {"already completed"}


def test_an_eval_of_a_train_job_under_way_follows_it_unless_it_was_cancelled() -> None:
    train, score = plan(command("a", evals=("x",)))
    running = replace(view(train, JobState.RUNNING), scheduler_id="7_0", cluster="slurm")
    decisions = decide([train, score], {("a", "train"): running}, Options(), cluster="slurm")
    assert [(d.action, d.after_parent) for d in decisions] == [(Action.SKIP, False), (Action.SUBMIT, True)]
    cancelled = {("a", "train"): running, ("a", "eval-x"): view(score, JobState.CANCELLED)}
    assert decide([train, score], cancelled, Options(), cluster="slurm")[1].action is Action.WAIT


def test_an_eval_cannot_wait_for_a_train_job_of_another_scheduler() -> None:
    train, score = plan(command("a", evals=("x",)))
    running = {("a", "train"): replace(view(train, JobState.RUNNING), scheduler_id="7_0", cluster="local")}
    decision = decide([train, score], running, Options(), cluster="slurm")[1]
    assert decision.action is Action.WAIT
    assert decision.why == "its train job is still under way on local; submit again when it is done"
    assert decide([train, score], running, Options(), cluster="local")[1].action is Action.SUBMIT


def test_late_evals_keep_the_indices_of_their_train_jobs() -> None:
    decisions = [replace(d, after_parent=True) for d in decisions_for(3, ("x",)) if d.request.job != "train"]
    elements = {5 + i: Element(experiment=f"e{i}", job="train", fingerprint="f") for i in (0, 2)}
    parent = submission(elements=elements)
    places = {("e0", "train"): (parent, 5), ("e2", "train"): (parent, 7)}
    [(found, batch)] = make_late_arrays(decisions, places)
    assert found is parent
    assert {index: first.experiment for index, (first,) in batch.requests.items()} == {5: "e0", 7: "e2"}


def test_a_new_eval_waits_while_nobody_knows_of_its_train_job_and_is_blocked_when_it_failed() -> None:
    train, score = plan(command("a", evals=("x",)))
    running = decide([train, score], {("a", "train"): view(train, JobState.UNKNOWN)}, Options(), cluster="slurm")
    failed = decide([train, score], {("a", "train"): view(train, JobState.FAILED)}, Options(), cluster="slurm")
    assert (running[1].action, failed[1].action) == (Action.WAIT, Action.SKIP)
    assert failed[1].why == "blocked: its train job is failed"


def decisions_for(count: int, evals: tuple[str, ...]) -> list[Decision]:
    return decide(plan(*[command(f"e{i}", evals=evals) for i in range(count)]), {}, Options(), cluster="slurm")


def test_jobs_of_one_shape_share_an_array_and_evals_share_its_indices() -> None:
    [batch] = make_arrays(decisions_for(3, ("x", "y")), 1001)
    assert {i: r.experiment for i, (r,) in batch.requests.items()} == {0: "e0", 1: "e1", 2: "e2"}
    assert [evals.job for evals in batch.children] == ["eval-x", "eval-y"]
    assert all(
        {i: r.experiment for i, (r,) in evals.requests.items()} == {0: "e0", 1: "e1", 2: "e2"}
        for evals in batch.children
    )


def test_different_resources_are_different_arrays() -> None:
    small = command("small")
    large = replace(command("large"), requirements=Resources(gpu=0, cpus=8))
    batches = make_arrays(decide(plan(small, large), {}, Options(), cluster="slurm"), 1001)
    assert [[r.experiment for (r,) in b.requests.values()] for b in batches] == [["small"], ["large"]]


def test_baselines_come_before_trainings() -> None:
    requests = plan(command("trained"), experiment("base", cmd="eval", eval_requirements=Resources(gpu=0, cpus=1)))
    batches = make_arrays(decide(requests, {}, Options(), cluster="slurm"), 1001)
    assert [b.job for b in batches] == ["eval", "train"]


@given(count=st.integers(1, 40), size=st.integers(1, 12))
def test_no_job_is_lost_or_doubled_in_arrays(count: int, size: int) -> None:
    batches = make_arrays(decisions_for(count, ("x",)), size)
    trains = [r.experiment for b in batches for (r,) in b.requests.values()]
    evals = [r.experiment for b in batches for e in b.children for (r,) in e.requests.values()]
    assert trains == evals == [f"e{i}" for i in range(count)]
    assert all(max(b.requests) < size for b in batches)


@given(count=st.integers(2, 20))
def test_halving_an_array_keeps_every_job_and_the_pairing(count: int) -> None:
    [batch] = make_arrays(decisions_for(count, ("x",)), 1001)
    half = count // 2
    parts = [take_part(batch, range(half)), take_part(batch, range(half, count))]
    pairs = [
        (part.requests[i][0].experiment, part.children[0].requests[i][0].experiment)
        for part in parts
        for i in part.requests
    ]
    assert pairs == [(f"e{i}", f"e{i}") for i in range(count)]


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_keys_are_safe_as_slurm_job_names(name: str, job: str) -> None:
    key = make_key(name, job)
    assert len(key) <= 64
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def test_without_arrays_every_job_goes_out_alone() -> None:
    batches = make_arrays(decisions_for(2, ("x",)), 1)
    assert [(len(b.requests), len(b.children)) for b in batches] == [(1, 1), (1, 1)]
    parent = describe_array(batches[0], "slurm", None).model_copy(update={"scheduler_id": "7"})
    assert (parent.array, describe_array(batches[0].children[0], "slurm", parent).array) == (False, False)
    assert parent.element_id(0) == "7"


def test_a_job_whose_request_cannot_be_read_is_not_submitted_again() -> None:
    [request] = plan(command("a"))
    for state in (JobState.RUNNING, JobState.COMPLETED):
        [decision] = decide(
            [request], {("a", "train"): replace(view(request, state), request=None)}, Options(), cluster="slurm"
        )
        assert decision.action is Action.SKIP


def test_a_changed_train_job_waits_for_the_evals_that_read_its_checkpoint() -> None:
    train, score = plan(command("a", evals=("x",)))
    new = plan(replace(command("a", evals=("x",)), env={"NEW": "1"}))
    views = {("a", "train"): view(train, JobState.COMPLETED), ("a", "eval-x"): view(score, JobState.RUNNING)}
    decisions = decide(new, views, Options(force=True), cluster="slurm")
    assert [d.action for d in decisions] == [Action.CHANGED, Action.CHANGED]
    assert decisions[0].why == "its eval-x is running and needs its model: cancel that first"
