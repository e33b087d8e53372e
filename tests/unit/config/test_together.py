"""What `eval_args.together` needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.suite_writer import load, refusal

SUITE = """
cmd: eval
args: {model_type: qwen2.5-7b-instruct}
"""


def test_an_experiment_or_a_dataset_may_differ_from_the_suite(tmp_path: Path) -> None:
    text = (
        SUITE
        + "eval_args: {together: true, per_dataset: {arc: {together: false}}}\n"
        + "eval_dataset: [gsm8k, arc]\nexperiment:\n- name: a\n- name: b\n  eval_args: {together: false}\n"
    )
    found = [[args.together for args in each.eval_args.values()] for each in load(tmp_path, text).experiments]
    assert found == [[True, False], [False, False]]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "eval_args: {together: true, command: score}\n",
            (
                "demo.yaml:4: eval_args.together: `together`: gsm8k has a `command`, which loads its model itself\n"
                "  hint: eval_args: {per_dataset: {gsm8k: {together: false}}}"
            ),
        ),
        (
            "eval_args: {together: true}\neval_requirements: {gpu: 2, ddp: 2, nodes: 2}\n",
            (
                "demo.yaml:5: eval_requirements.nodes: nodes 2 with eval_args.together: "
                "evals that share a job run on one node\n"
                "  expected: nodes: 1\n"
                "  hint: set eval_args.together: false"
            ),
        ),
    ],
)
def test_what_cannot_share_a_job_is_refused(tmp_path: Path, more: str, message: str) -> None:
    assert refusal(tmp_path, f"{SUITE}{more}eval_dataset: gsm8k\nexperiment:\n- name: a\n") == message


def test_the_hint_for_programs_leads_to_a_suite_that_is_taken(tmp_path: Path) -> None:
    given = "eval_args: {together: true, command: score, per_dataset: {gsm8k: {together: false}}}\n"
    load(tmp_path, f"{SUITE}{given}eval_dataset: gsm8k\nexperiment:\n- name: a\n")
