"""The `report:` block: which options it sets, and what is refused in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.schemas.report_options import ReportOptions
from tests.support.suite_writer import HEAD, load, refusal

EXPERIMENT = "experiment: [{name: a}]\n"


def report(folder: Path, block: str) -> ReportOptions:
    return load(folder, f"{HEAD}report: {block}\n{EXPERIMENT}").report


def test_the_block_sets_the_options_of_collect(tmp_path: Path) -> None:
    found = report(tmp_path, '{layout: pivot, columns: "gsm8k, eval_loss", by: [lora_rank], best: eval_loss, top: "5"}')
    assert found == ReportOptions(
        layout="pivot", columns=("gsm8k", "eval_loss"), by=("lora_rank",), best="eval_loss", top=5
    )


@pytest.mark.parametrize("block", ["null", "{}", "{layout: null}"])
def test_what_is_left_out_is_left_to_the_report(tmp_path: Path, block: str) -> None:
    below = ReportOptions(layout="swift", top=3)
    assert report(tmp_path, block).over(below) == below


def test_a_suite_without_a_block_leaves_all_to_the_report(tmp_path: Path) -> None:
    assert load(tmp_path, HEAD + EXPERIMENT).report.model_fields_set == set()


def test_an_unknown_key_is_refused_with_the_keys_that_there_are(tmp_path: Path) -> None:
    assert refusal(tmp_path, f"{HEAD}report: {{colums: [gsm8k]}}\n{EXPERIMENT}") == (
        "demo.yaml:3: report.colums: unknown key 'colums'\n"
        f"  expected: {', '.join(ReportOptions.model_fields)}\n"
        "  hint: did you mean 'columns'?"
    )


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ("[gsm8k]", "demo.yaml:3: report: got a list\n  expected: a mapping (key: value)\n"),
        ("{layout: tabel}", "report.layout: unknown value 'tabel'\n  expected: table, swift, pivot, lm-eval\n"),
        ("{top: 0}", "report.top: got 0\n  expected: integer, 1 or more"),
        ("{columns: {a: 1}}", "report.columns: got a mapping\n  expected: text, or a list of text"),
    ],
)
def test_values_are_checked(tmp_path: Path, block: str, text: str) -> None:
    assert text in refusal(tmp_path, f"{HEAD}report: {block}\n{EXPERIMENT}")


def test_an_experiment_has_no_block(tmp_path: Path) -> None:
    text = refusal(tmp_path, HEAD + "experiment: [{name: a, report: {top: 1}}]\n")
    assert text.startswith("demo.yaml:3: experiment[a].report: unknown key 'report'\n")
