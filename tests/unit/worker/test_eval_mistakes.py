"""Mistakes of eval tasks are told in sentences, before a model is loaded where that is possible."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="the eval worker needs the `eval` extra")

from lm_eval.tasks import TaskManager

from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import EvalArgs
from hpcbench.worker.evaluate import tasks as eval_tasks
from hpcbench.worker.evaluate.failures import explain_running
from hpcbench.worker.evaluate.headline import choose_headline
from hpcbench.worker.evaluate.task_checks import check_tasks, may_show_its_own_answer, wanted_shots
from hpcbench.worker.evaluate.tasks import load_eval_tasks
from tests.unit.worker.test_eval_tasks import write_task


@pytest.fixture(autouse=True)
def small_and_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test may reach the hub, fill the user's cache or read the 13,000 files of lm-eval."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    monkeypatch.setattr(eval_tasks, "TaskManager", functools.partial(TaskManager, include_defaults=False))


def loading(folder: Path, name: str = "t") -> WorkerError:
    with pytest.raises(WorkerError) as caught:
        load_eval_tasks(name, EvalArgs(include_path=(str(folder),)))
    return caught.value


def checking(folder: Path, name: str = "t", **eval_args: Any) -> WorkerError:
    loaded = load_eval_tasks(name, EvalArgs(include_path=(str(folder),)))
    with pytest.raises(WorkerError) as caught:
        check_tasks(loaded.leaves, EvalArgs(**eval_args))
    return caught.value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "its task file has the key 'colour', which lm-eval does not know"),
        ({"test_split": "dev"}, "its data has no split or column 'dev'"),
        ({"fewshot_split": "train", "num_fewshot": 1}, "its data has no split or column 'train'"),
        (
            {"doc_to_text": "{{question"},
            (
                "a template of its task file (doc_to_text, doc_to_target, doc_to_choice) is wrong: unexpected end of "
                "template, expected 'end of print statement'."
            ),
        ),
        (
            {"output_type": "multi"},
            (
                "lm-eval cannot use its task file: Got invalid output_type 'multi', must be in "
                "'loglikelihood,multiple_choice,loglikelihood_rolling,generate_until'"
            ),
        ),
        (
            {"metric_list": [{"metric": "acuracy"}]},
            "its metric_list names a metric that lm-eval does not have, without an `aggregation`",
        ),
    ],
)
def test_a_wrong_task_file_is_told_in_a_sentence(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_task(tmp_path, "t", **changes)

    error = loading(tmp_path)

    assert error.message == f"eval dataset 't': {message}"
    assert error.hint is not None


def test_an_empty_data_file_is_told(tmp_path: Path) -> None:
    write_task(tmp_path, "t")
    (tmp_path / "t.jsonl").write_text("", encoding="utf-8")

    error = loading(tmp_path)

    assert error.message == "eval dataset 't': its data file holds no rows"
    assert error.hint == "check data_files in the task file"


def test_a_broken_data_file_is_told_with_the_libraries_reason(tmp_path: Path) -> None:
    write_task(tmp_path, "t")
    (tmp_path / "t.jsonl").write_text('{"question": \n', encoding="utf-8")

    assert loading(tmp_path).message.startswith("eval dataset 't': its data cannot be loaded here: JSON parse error")


@pytest.mark.parametrize(
    ("code", "message", "hint"),
    [
        (
            None,
            "its Python code is not there: Cannot import module 'helpers' for function 'docs' (from YAML in {folder})",
            "put helpers.py beside the task file, or install the package that has it where jobs run",
        ),
        (
            "x = 1\n",
            (
                "its Python code lacks a function: Module '{folder}/helpers.py' has no function 'docs' (from YAML in "
                "{folder})"
            ),
            "correct the task file; lm-eval's docs/task_guide.md lists its keys",
        ),
        (
            "import no_such_package\n",
            "it needs a package that is not installed: No module named 'no_such_package'",
            "install no_such_package where jobs run",
        ),
        (
            "def docs(:\n",
            "its Python code {folder}/helpers.py:1 is not valid: invalid syntax",
            "correct that file",
        ),
        (
            "def docs(rows):\n    return 1 / 0\n",
            "its Python code failed: division by zero",
            "the job's log has the traceback",
        ),
    ],
)
def test_a_tasks_own_code_is_told_apart(tmp_path: Path, code: str | None, message: str, hint: str) -> None:
    write_task(tmp_path, "t")
    with (tmp_path / "t.yaml").open("a", encoding="utf-8") as file:
        file.write("process_docs: !function helpers.docs\n")
    if code is not None:
        (tmp_path / "helpers.py").write_text(code, encoding="utf-8")

    error = loading(tmp_path)

    assert error.message == "eval dataset 't': " + message.format(folder=tmp_path)
    assert error.hint == hint


def test_a_broken_task_file_is_named_where_the_task_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("task: t\n  output_type: [\n", encoding="utf-8")

    error = loading(tmp_path)

    place = f"{tmp_path}/t.yaml:2"
    reason = "not YAML: mapping values are not allowed here"
    assert error.message == f"eval dataset 't': not found, and {place} cannot be used: {reason}"
    assert error.hint == "correct that file, or leave its folder out of eval_args.include_path"


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        (
            {"metric_list": [{"metric": "exact_mach", "aggregation": "mean", "higher_is_better": True}]},
            "eval task 't': unknown metric 'exact_mach' in its metric_list",
            "did you mean 'exact_match'?",
        ),
        (
            {"metric_list": [{"metric": "acc", "aggregation": "meen", "higher_is_better": True}]},
            "eval task 't': the metric 'acc' has an `aggregation` that lm-eval does not know",
            "mean, median, perplexity, weighted_perplexity, bits_per_byte, f1, bleu, ...",
        ),
        (
            {"doc_to_image": "{{question}}"},
            "eval task 't': takes images or sound, and hpcbench evaluates on text only",
            "evaluate a text task",
        ),
        (
            {"unsafe_code": True},
            "eval task 't': runs code that the model writes (`unsafe_code: true`), which hpcbench does not do",
            "run lm-eval in a sandbox by eval_args.command, with --confirm_run_unsafe_code",
        ),
    ],
)
def test_what_would_fail_after_the_run_is_told_before(
    tmp_path: Path, changes: dict[str, Any], message: str, hint: str
) -> None:
    write_task(tmp_path, "t", **changes)

    error = checking(tmp_path)

    assert (error.message, error.hint) == (message, hint)


@pytest.mark.parametrize(
    ("changes", "shots", "message", "hint"),
    [
        (
            {"num_fewshot": 50},
            None,
            "50-shot prompts need 50 rows to take examples from, and its split 'test' has 2",
            "set num_fewshot to at most 2",
        ),
        (
            {"fewshot_split": "test"},
            2,
            (
                "2-shot prompts need 2 rows to take examples from, and its split 'test' has 2, one of which is the question "
                "itself"
            ),
            "set num_fewshot to at most 1",
        ),
    ],
)
def test_more_shots_than_rows_are_told_before_a_model_is_loaded(
    tmp_path: Path, changes: dict[str, Any], shots: int | None, message: str, hint: str
) -> None:
    write_task(tmp_path, "t", **changes)

    error = checking(tmp_path, num_fewshot=shots)

    assert (error.message, error.hint) == (f"eval task 't': {message}", hint)


@pytest.mark.parametrize(
    ("changes", "leaks"),
    [({}, True), ({"fewshot_split": "test"}, False), ({"fewshot_config": {"samples": [{"question": "x"}]}}, False)],
)
def test_examples_from_the_evaluated_split_may_show_the_answer(
    tmp_path: Path, changes: dict[str, Any], *, leaks: bool
) -> None:
    write_task(tmp_path, "t", **changes)
    (task,) = load_eval_tasks("t", EvalArgs(include_path=(str(tmp_path),))).leaves

    assert may_show_its_own_answer(task, 1) is leaks
    assert may_show_its_own_answer(task, 0) is False


def test_a_task_fixed_at_no_shots_runs_so_and_says_it(tmp_path: Path) -> None:
    write_task(tmp_path, "t", num_fewshot=0)
    tasks = load_eval_tasks("t", EvalArgs(include_path=(str(tmp_path),)))
    asked = EvalArgs(num_fewshot=5)

    check_tasks(tasks.leaves, asked)

    assert wanted_shots(tasks.leaves[0], 5) == 0
    assert choose_headline(tasks, {}, asked).notices[-1:] == ("t: fixed at 0 shots, not 5",)
    assert all("fixed" not in notice for notice in choose_headline(tasks, {}, EvalArgs()).notices)


def test_a_mistake_that_shows_up_in_the_run_is_told_and_the_machines_faults_pass() -> None:
    with (
        pytest.raises(WorkerError, match="eval dataset 't': its Python code failed: it names 'label', which is not th"),
        explain_running("t"),
    ):
        raise KeyError("label")
    with pytest.raises(RuntimeError, match="CUDA"), explain_running("t"):
        raise RuntimeError("CUDA error")
