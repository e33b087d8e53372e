"""What a program writes to HPCBENCH_METRICS becomes flat figures; one that cannot be kept has its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hpcbench.errors import RecordError
from hpcbench.job.outcome import Ending, conclude
from hpcbench.job.program_figures import MAX_FIGURES, OTHERS, Figures, read_figures
from hpcbench.schemas.metrics import CommandMetrics, EvalMetrics, Metrics
from hpcbench.schemas.record import Cause
from hpcbench.schemas.states import JobState
from hpcbench.storage.json_files import dump_json
from hpcbench.storage.paths import JobPaths
from tests.support.job_cases import command
from tests.unit.plan.test_plan import plan


def read(folder: Path, text: str) -> Figures:
    (folder / "values.json").write_text(text, encoding="utf-8")
    found = read_figures(folder / "values.json")
    assert found is not None
    return found


def end(folder: Path, text: str, *, is_eval: bool = False) -> tuple[JobState, Cause | None, Metrics | None]:
    """Conclude a program that left this text and exit code 0."""
    job = JobPaths(folder)
    job.attempt(1).folder.mkdir(parents=True)
    job.attempt(1).values.write_text(text, encoding="utf-8")
    request = plan(command("a", evals=("arc",)))[1 if is_eval else 0]
    return conclude(request, Ending(exit_code=0), job=job, attempt=job.attempt(1))


def test_nested_figures_are_flat_with_dots_and_lists_by_index(tmp_path: Path) -> None:
    text = '{"loss": 1.5, "rouge": {"f1": 0.25, "by": [{"k": 1}, 2]}, "name": "x", "ok": true}'

    found = read(tmp_path, text)

    assert found.values == {
        "loss": 1.5, "rouge.f1": 0.25, "rouge.by.0.k": 1.0, "rouge.by.1": 2.0, "name": "x", "ok": True,
    }  # fmt: skip
    assert found.unknown == {}


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        ('{"a": NaN}', "a", "reported as NaN"),
        ('{"a": [Infinity]}', "a.0", "reported as Infinity"),
        ('{"a": {"b": -Infinity}}', "a.b", "reported as -Infinity"),
        ('{"a": null}', "a", "reported as null"),
        ('{"a": []}', "a", "reported as an empty list"),
        ('{"a": {}}', "a", "reported as an empty object"),
        (f'{{"a": 1{"0" * 400}}}', "a", "reported as a number that is too large"),
        (f'{{"a": {"[" * 30}1{"]" * 30}}}', "a" + ".0" * 19, "nested deeper than 20 levels"),
    ],
)
def test_a_figure_that_is_no_number_is_named_and_the_rest_kept(
    tmp_path: Path, text: str, name: str, reason: str
) -> None:
    found = read(tmp_path, f'{text[:-1]}, "loss": 2}}')

    assert found.values == {name: None, "loss": 2.0}
    assert found.unknown == {name: reason}


def test_a_name_given_twice_keeps_the_first(tmp_path: Path) -> None:
    found = read(tmp_path, '{"a": 1, "a": 2, "b": {"c": 3}, "b.c": 4}')

    assert found.values == {"a": 1.0, "b.c": 3.0}
    assert found.unknown == dict.fromkeys(("a", "b.c"), "reported more than once; the first is kept")


def test_names_texts_and_their_number_are_bounded(tmp_path: Path) -> None:
    figures = {"n" * 500: 1, "text": "x" * 5000, "half": "\ud800"} | {f"m{number}": number for number in range(1200)}

    found = read(tmp_path, json.dumps(figures))

    assert len(found.values) == MAX_FIGURES
    assert found.values["n" * 200] == 1.0
    assert (found.values["text"], found.values["half"]) == ("x" * 1000, "?")
    assert found.unknown == {
        "text": "text of 5,000 characters, cut to 1,000",
        OTHERS: "203 more figures not kept: at most 1,000 are",
    }
    assert dump_json(found.values).encode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("0.5", "holds the number 0.5, not a JSON object"),
        ("[1]", "holds a list, not a JSON object"),
        ('"loss"', "holds text, not a JSON object"),
        ("null", "holds null, not a JSON object"),
        ("loss=1", "holds no JSON: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_a_file_without_a_json_object_is_a_failure_in_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    state, cause, _ = end(tmp_path, text)

    assert state is JobState.FAILED
    assert cause is not None
    assert cause.message == f"HPCBENCH_METRICS {message}"
    assert cause.hint == 'write one JSON object to the file that HPCBENCH_METRICS names, for example {"accuracy": 0.5}'


def test_deep_nesting_is_a_failure_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "values.json").write_text('{"a":' + "[" * 100_000, encoding="utf-8")

    with pytest.raises(RecordError, match=r"HPCBENCH_METRICS holds no JSON: "):
        read_figures(tmp_path / "values.json")


def test_a_commands_figures_are_in_its_record_with_their_reasons(tmp_path: Path) -> None:
    state, _, found = end(tmp_path, '{"train": {"loss": NaN, "steps": 3}}')

    assert state is JobState.COMPLETED
    assert found == CommandMetrics(
        values={"train.loss": None, "train.steps": 3.0}, unknown={"train.loss": "reported as NaN"}
    )


def test_an_eval_programs_scores_are_its_numbers(tmp_path: Path) -> None:
    text = '{"acc": 0.5, "acc_stderr": 0.1, "by": {"easy": NaN}, "note": "x", "num_samples": 4}'

    state, _, found = end(tmp_path, text, is_eval=True)

    assert state is JobState.COMPLETED
    assert isinstance(found, EvalMetrics)
    assert found.primary_metric == "acc"
    assert found.tasks["arc"].metrics == {"acc": 0.5, "acc_stderr": 0.1, "by.easy": None}
    assert found.tasks["arc"].num_samples == 4
    assert found.unknown == {"by.easy": "reported as NaN", "note": "not a number, as an eval's figures are"}


def test_settings_beside_the_scores_of_an_eval_program_are_not_its_score(tmp_path: Path) -> None:
    _, _, found = end(tmp_path, '{"config": {"lr": 0.0001}, "accuracy": 0.9}', is_eval=True)

    assert isinstance(found, EvalMetrics)
    assert found.primary_metric == "accuracy"


def test_an_eval_program_whose_first_figure_is_nan_has_no_score_and_says_so(tmp_path: Path) -> None:
    _, _, found = end(tmp_path, '{"acc": NaN, "f1": 0.5}', is_eval=True)

    assert isinstance(found, EvalMetrics)
    assert found.primary_metric == "acc"
    assert found.unknown["primary_metric"] == "acc was reported as NaN"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{}", ""),
        ('{"acc": NaN}', " (acc: reported as NaN)"),
        ('{"acc": "good"}', " (acc: not a number, as an eval's figures are)"),
    ],
)
def test_an_eval_program_without_a_number_has_failed(tmp_path: Path, text: str, reason: str) -> None:
    state, cause, _ = end(tmp_path, text, is_eval=True)

    assert state is JobState.FAILED
    assert cause is not None
    expected = 'the eval program wrote no {"metric": number} to the file named by HPCBENCH_METRICS'
    assert cause.message == expected + reason


@pytest.mark.parametrize("count", ["Infinity", "-1", "1.5"])
def test_a_count_that_counts_nothing_is_named(tmp_path: Path, count: str) -> None:
    state, _, found = end(tmp_path, f'{{"acc": 1, "num_samples": {count}}}', is_eval=True)

    assert state is JobState.COMPLETED
    assert isinstance(found, EvalMetrics)
    assert found.tasks["arc"].num_samples == 0
    assert found.unknown["num_samples"].startswith("reported as ")
