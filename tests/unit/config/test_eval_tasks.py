"""Plan reads local eval tasks without lm-eval, refuses what cannot run, and knows lm-eval's names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcbench.catalog.lm_eval_names import names_version
from hpcbench.config import eval_tasks
from hpcbench.data.task_files import Function, read_task_folder
from tests.support.places import shared
from tests.support.suite_writer import load, refusal

SUITE = """
cmd: eval
args: {model_type: qwen2.5-7b-instruct}
eval_args: {include_path: tasks}
"""


def write_task(folder: Path, name: str = "t", *, code: str = "", num_rows: int = 3, **changes: Any) -> Path:
    """Write a local multiple-choice task with its rows; `None` leaves a key out, `code` are more lines of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / f"{name}.jsonl"
    rows = [{"question": f"{number}?", "choices": ["yes", "no"], "answer": 0} for number in range(num_rows)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        **changes,
    }
    text = yaml.safe_dump({key: value for key, value in config.items() if value is not None})
    file = folder / f"{name}.yaml"
    file.write_text(text + code, encoding="utf-8")
    return file


def said(folder: Path, name: str = "t", **eval_args: Any) -> str:
    """Return what plan says of a suite that evaluates this name and must not load, with short paths."""
    text = f"{SUITE}eval_dataset: [{name}]\nexperiment: [{{name: a, eval_args: {json.dumps(eval_args)}}}]\n"
    return refusal(folder, text)


def loads(folder: Path, name: str = "t", **eval_args: Any) -> tuple[str, ...]:
    """Load a suite that evaluates this name, and return its remarks but for those on the model."""
    text = f"{SUITE}eval_dataset: [{name}]\nexperiment: [{{name: a, eval_args: {json.dumps(eval_args)}}}]\n"
    return tuple(remark for remark in load(folder, text).remarks if "model" not in remark)


def test_a_task_that_can_run_is_taken(tmp_path: Path) -> None:
    write_task(tmp_path / "tasks", num_fewshot=3)

    assert loads(tmp_path) == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"output_type": "multiple_choise"},
            ("tasks/t.yaml: eval task 't': unknown output_type 'multiple_choise'; expected: loglikelihood, "
            "multiple_choice, loglikelihood_rolling, generate_until\n  hint: did you mean 'multiple_choice'?"),
        ),
        (
            {"test_split": None},
            ("tasks/t.yaml: eval task 't': neither test_split nor validation_split\n"
            "  hint: name the split that is evaluated"),
        ),
        (
            {"unsafe_code": True},
            "tasks/t.yaml: eval task 't': runs code that the model writes (`unsafe_code: true`), which hpcbench does not do",
        ),
        (
            {"doc_to_image": "x"},
            "tasks/t.yaml: eval task 't': takes images or sound, and hpcbench evaluates on text only",
        ),
        (
            {"test_split": "dev"},
            "tasks/t.yaml: eval task 't': test_split: 'dev' is not a split of its data\n  hint: data_files has test",
        ),
        (
            {"dataset_kwargs": {"data_files": "rows.jsonl"}, "test_split": "train"},
            ("tasks/t.yaml: eval task 't': data_files: 'rows.jsonl' would be looked for in the job's folder\n"
            "  hint: write an absolute path: jobs run in folders of their own"),
        ),
        (
            {"dataset_kwargs": {"data_files": {"test": "/nowhere/x.jsonl"}}},
            "tasks/t.yaml: eval task 't': data_files: no such file: /nowhere/x.jsonl",
        ),
        (
            {"num_rows": 0},
            "tasks/t.yaml: eval task 't': data_files: tasks/t.jsonl: is empty",
        ),
        (
            {"num_fewshot": 50},
            ("tasks/t.yaml: eval task 't': 50-shot prompts need 50 rows to take examples from, and its split 'test' has 3"
            "\n  hint: set num_fewshot to at most 3"),
        ),
        (
            {"num_fewshot": 3, "fewshot_split": "test"},
            ("tasks/t.yaml: eval task 't': 3-shot prompts need 3 rows to take examples from, and its split 'test' has 3, "
            "one of which is the question itself\n  hint: set num_fewshot to at most 2"),
        ),
    ],
)  # fmt: skip
def test_a_task_that_cannot_run_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_task(tmp_path / "tasks", **changes)

    assert said(tmp_path) == message


def test_shots_of_the_suite_are_checked_against_the_rows(tmp_path: Path) -> None:
    write_task(tmp_path / "tasks")
    write_task(tmp_path / "tasks", "fixed", num_fewshot=0)

    assert "4-shot prompts need 4 rows to take examples from, and its split 'test' has 3" in said(
        tmp_path, num_fewshot=4
    )
    assert loads(tmp_path, num_fewshot=3) == ()
    assert loads(tmp_path, "fixed", num_fewshot=4) == ()


def test_too_few_rows_for_the_shots_of_a_shared_case(tmp_path: Path) -> None:
    case = yaml.safe_load(shared("data/cases/eval-too-few-rows-for-shots.yaml").read_text(encoding="utf-8"))
    assert case["num_fewshot"] == 50
    write_task(tmp_path / "tasks", "nofew", **{**case, "dataset_kwargs": None})
    file = tmp_path / "tasks" / "nofew.yaml"
    data = {"dataset_kwargs": {"data_files": {"test": str(tmp_path / "tasks" / "nofew.jsonl")}}}
    file.write_text(file.read_text(encoding="utf-8") + yaml.safe_dump(data), encoding="utf-8")

    assert "eval task 'nofew': 50-shot prompts need 50 rows" in said(tmp_path, "nofew")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (None, "no helpers.py in tasks\n  hint: put helpers.py there"),
        ("def doc(rows): ...\n", "tasks/helpers.py defines no 'docs'\n  hint: did you mean 'doc'?"),
        ("def docs(:\n", "tasks/helpers.py:1 is not valid Python: invalid syntax"),
    ],
)
def test_a_helper_that_is_not_there_is_refused(tmp_path: Path, module: str | None, message: str) -> None:
    write_task(tmp_path / "tasks", code="process_docs: !function helpers.docs\n")
    if module is not None:
        (tmp_path / "tasks" / "helpers.py").write_text(module, encoding="utf-8")

    assert said(tmp_path) == f"tasks/t.yaml: eval task 't': !function helpers.docs: {message}"


def test_code_is_never_run(tmp_path: Path) -> None:
    write_task(tmp_path / "tasks", code="process_docs: !function helpers.docs\n")
    code = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\ndef docs(rows): return rows\n"
    (tmp_path / "tasks" / "helpers.py").write_text(code, encoding="utf-8")

    assert loads(tmp_path) == ()
    assert not (tmp_path / "tasks" / "ran").exists()


def test_a_python_object_in_a_task_file_is_refused(tmp_path: Path) -> None:
    write_task(tmp_path / "tasks", code="extra: !!python/object/apply:os.system ['true']\n")

    assert "this file cannot be used: could not determine a constructor for the tag" in said(tmp_path)


def test_a_broken_file_is_named_with_its_line_where_the_task_is_not_found(tmp_path: Path) -> None:
    write_task(tmp_path / "tasks", "good")
    (tmp_path / "tasks" / "bad.yaml").write_text("task: bad\n  x: [\n", encoding="utf-8")

    assert loads(tmp_path, "good") == ()
    assert said(tmp_path, "bad") == (
        "tasks/bad.yaml:2: eval dataset 'bad' is not found, and this file cannot be used: "
        "not YAML: mapping values are not allowed here"
    )


def test_a_group_that_calls_a_task_which_nothing_defines_is_refused(tmp_path: Path) -> None:
    write_task(tmp_path / "tasks", "mine")
    group = tmp_path / "tasks" / "group.yaml"
    group.write_text("group: t\ntask: [mine, gsm8k, minne, {task: arc_easy, num_fewshot: 0}]\n", encoding="utf-8")
    assert said(tmp_path) == (
        f"tasks/group.yaml: group 't': no eval task 'minne' in lm-eval {names_version()}\n"
        "  expected: mine, t\n  hint: did you mean 'mine'?"
    )
    group.write_text("group: t\ntask: [mine, gsm8k, {task: arc_easy, num_fewshot: 0}]\n", encoding="utf-8")
    assert loads(tmp_path) == ()


@pytest.mark.parametrize("inner", ["", "  "])
def test_a_key_that_is_given_twice_is_refused_where_yaml_would_take_the_last(tmp_path: Path, inner: str) -> None:
    text = f"task: t\nmetadata:\n  version: 1\n{inner}metadata: 2\n{inner}metadata: 3\n"
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "t.yaml").write_text(text, encoding="utf-8")
    (line, first) = (5, 4) if inner else (4, 2)
    assert said(tmp_path) == (
        f"tasks/t.yaml:{line}: eval dataset 't' is not found, and this file cannot be used: "
        f"metadata is given twice; first on line {first}"
    )


def test_two_files_of_one_name_are_told_where_lm_eval_would_take_the_first(tmp_path: Path) -> None:
    write_task(tmp_path / "tasks")
    write_task(tmp_path / "tasks" / "more")

    (fault,) = read_task_folder(tmp_path / "tasks").faults
    assert fault.message.startswith("defines 't', which ")


def test_tasks_of_groups_and_tags_are_checked_too(tmp_path: Path) -> None:
    write_task(tmp_path / "tasks", "one", tag="mine", num_fewshot=9)
    group = {"group": "both", "task": [{"group": "inner", "task": ["one"]}]}
    (tmp_path / "tasks" / "both.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")

    for name in ("mine", "both"):
        assert "eval task 'one': 9-shot prompts need 9 rows" in said(tmp_path, name)


def test_included_files_give_keys_and_their_own_win(tmp_path: Path) -> None:
    (tmp_path / "base").write_text("output_type: multiple_choice\nnum_fewshot: 2\nf: !function a.b\n", encoding="utf-8")
    (tmp_path / "t.yaml").write_text("task: t\ninclude: base\nnum_fewshot: 1\n", encoding="utf-8")

    config = read_task_folder(tmp_path).tasks["t"].config

    assert (config["output_type"], config["num_fewshot"]) == ("multiple_choice", 1)
    assert config["f"] == Function("a.b", tmp_path)


def test_a_file_that_includes_itself_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("task: t\ninclude: t.yaml\n", encoding="utf-8")

    (fault,) = read_task_folder(tmp_path).faults
    assert fault.message == "t.yaml includes itself"


def test_a_name_that_lm_eval_does_not_have_is_refused_where_its_version_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tasks").mkdir()
    monkeypatch.setattr(eval_tasks, "is_installed", lambda _: True)

    assert said(tmp_path, "gsm8kk").endswith(
        "eval_dataset: no eval task 'gsm8kk' in lm-eval 0.4.13\n  hint: did you mean 'gsm8k'?"
    )
    for name in ("arc", "gsm8k", "mmlu_flan_cot_zeroshot", "'tmmluplus_education_(profession_level)'"):
        assert loads(tmp_path, name) == ()


def test_a_name_that_cannot_be_checked_is_a_remark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tasks").mkdir()
    monkeypatch.setattr(eval_tasks, "is_installed", lambda _: False)

    (remark,) = loads(tmp_path, "gsm8kk")
    expected = "not checked: 'gsm8kk' is not a task of lm-eval 0.4.13, and jobs may have another version"
    assert remark == f"{expected}; did you mean 'gsm8k'?"


def test_an_eval_program_may_have_any_name(tmp_path: Path) -> None:
    assert loads(tmp_path / "x", "t", include_path=None, command=["true"]) == ()


def test_examples_as_rounds_of_a_chat_need_the_chat_template(tmp_path: Path) -> None:
    write_task(tmp_path / "tasks")

    text = said(tmp_path, fewshot_as_multiturn=True, apply_chat_template=False)

    assert "t: `fewshot_as_multiturn` writes rounds of a chat, which `apply_chat_template: false` rules out" in text
    assert loads(tmp_path, fewshot_as_multiturn=True) == ()
