"""Chains of jobs that take each other's models: of any length, element by element."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from hpcbench.plan.arrays import make_arrays, make_late_arrays, take_part
from hpcbench.plan.decide import MODEL_GONE, Action, Options, decide
from hpcbench.schemas.arguments import CommandArgs
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import Element
from hpcbench.schemas.suite import Experiment
from tests.support.job_cases import command, submission, view
from tests.unit.plan.test_plan import plan


def chain(name: str, *, evals: tuple[str, ...] = ("x",)) -> tuple[Experiment, Experiment]:
    """Return an experiment that makes a model, and one that takes it, makes another, and evaluates that."""
    maker, taker = command(name), command(f"{name}-merged", evals=evals)
    taken = CommandArgs(command=("true",), ckpt_from=name, output_model="model")
    return replace(maker, command=CommandArgs(command=("true",), output_model="model")), replace(taker, command=taken)


def chains(count: int) -> list[Experiment]:
    return [experiment for i in range(count) for experiment in chain(f"e{i}")]


def test_three_stages_are_three_arrays_of_the_same_indices() -> None:
    [first] = make_arrays(decide(plan(*chains(3)), {}, Options(), cluster="slurm"), 1001)
    [second] = first.children
    [third] = second.children
    assert [{i: r.experiment for i, (r,) in a.requests.items()} for a in (first, second, third)] == [
        {0: "e0", 1: "e1", 2: "e2"},
        {0: "e0-merged", 1: "e1-merged", 2: "e2-merged"},
        {0: "e0-merged", 1: "e1-merged", 2: "e2-merged"},
    ]
    assert first.num_jobs == 9


def test_two_that_take_one_model_alike_go_out_in_two_arrays() -> None:
    maker, one = chain("a")
    [first] = make_arrays(decide(plan(maker, one, replace(one, name="b")), {}, Options(), cluster="slurm"), 1001)
    assert [{i: r.experiment for i, (r,) in child.requests.items()} for child in first.children] == [
        {0: "a-merged"},
        {0: "b"},
    ]


@given(count=st.integers(2, 20))
def test_halving_keeps_every_stage_at_its_index(count: int) -> None:
    [whole] = make_arrays(decide(plan(*chains(count)), {}, Options(), cluster="slurm"), 1001)
    parts = [take_part(whole, range(count // 2)), take_part(whole, range(count // 2, count))]
    found = [
        (
            p.requests[i][0].experiment,
            p.children[0].requests[i][0].parent,
            p.children[0].children[0].requests[i][0].parent,
        )
        for p in parts
        for i in p.requests
    ]
    assert found == [(f"e{i}", (f"e{i}", "train"), (f"e{i}-merged", "train")) for i in range(count)]


def test_late_stages_follow_the_one_that_is_under_way() -> None:
    requests = plan(*chains(1))
    running = replace(view(requests[0], JobState.RUNNING), scheduler_id="7_5", cluster="slurm")
    decisions = decide(requests, {("e0", "train"): running}, Options(), cluster="slurm")
    assert [(d.action, d.after_parent) for d in decisions] == [
        (Action.SKIP, False),
        (Action.SUBMIT, True),
        (Action.SUBMIT, True),
    ]
    parent = submission(elements={5: Element(experiment="e0", job="train", fingerprint="f")})
    [(found, late)] = make_late_arrays(
        [d for d in decisions if d.action is Action.SUBMIT], {("e0", "train"): (parent, 5)}
    )
    assert (found, list(late.requests), list(late.children[0].requests)) == (parent, [5], [5])


def test_a_stage_behind_a_blocked_one_says_so() -> None:
    requests = plan(*chains(1))
    views = {
        ("e0", "train"): view(requests[0], JobState.FAILED),
        ("e0-merged", "train"): view(requests[1], JobState.BLOCKED),
    }
    assert [d.why for d in decide(requests, views, Options(), cluster="slurm")] == [
        "is failed: hpcbench why tuners/e0",
        "blocked: the train job of e0 is failed",
        "blocked: its train job is blocked",
    ]


def test_a_maker_that_was_not_asked_for_is_not_run() -> None:
    requests = plan(*chains(1))
    [taken, score] = decide(requests[1:], {}, Options(), cluster="slurm")
    assert (taken.action, taken.why) == (
        Action.SKIP,
        "blocked: the train job of e0 is planned and was not asked for",
    )
    assert score.action is Action.SKIP
    done = {("e0", "train"): view(requests[0], JobState.COMPLETED)}
    assert [d.action for d in decide(requests[1:], done, Options(), cluster="slurm")] == [Action.SUBMIT] * 2
    stale = {("e0", "train"): view(requests[0].model_copy(update={"fingerprint": "0"}), JobState.COMPLETED)}
    [changed, _] = decide(requests[1:], stale, Options(), cluster="slurm")
    assert (changed.action, changed.why) == (Action.CHANGED, "the train job of e0 changed")


def test_a_model_that_is_gone_is_made_again_all_the_way_up() -> None:
    requests = plan(*chains(1))
    views = {r.ref: view(r, JobState.COMPLETED) for r in requests[:2]}
    gone = dict.fromkeys((r.ref for r in requests[1:]), MODEL_GONE)
    plain = decide(requests, views, Options(), cluster="slurm", no_model=gone)
    assert [d.action for d in plain] == [Action.SKIP, Action.SKIP, Action.CHANGED]
    forced = decide(requests, views, Options(force=True), cluster="slurm", no_model=gone)
    assert [(d.action, d.after_parent) for d in forced] == [
        (Action.SUBMIT, False),
        (Action.SUBMIT, True),
        (Action.SUBMIT, True),
    ]
