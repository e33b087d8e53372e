"""What an eval tells beside its scores: prompts that were cut, groups without a score, examples that may leak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcbench.errors import WorkerError
from hpcbench.schemas.metrics import EvalMetrics
from hpcbench.storage.json_files import read_json
from hpcbench.storage.paths import JobPaths
from hpcbench.worker.evaluate import evaluate
from tests.support import evaluations
from tests.support.places import shared

pytestmark = [pytest.mark.train]

LETTERS = "abcdefgh"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny model's folder."""
    return evaluations.save_model(tmp_path_factory.mktemp("scores") / "base")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep datasets' cache out of the user's home."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.getbasetemp() / "datasets-cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def write_choices(folder: Path, name: str, questions: list[str], **config: Any) -> None:
    rows = [{"question": question, "choices": ["yes", "no"], "answer": 0} for question in questions]
    evaluations.write_task(folder, name, rows, **{**evaluations.CHOICE_TASK, **config})


def write_words(folder: Path, name: str, questions: list[str], **config: Any) -> None:
    rows = [{"question": question, "answer": "x"} for question in questions]
    evaluations.write_task(folder, name, rows, **{**evaluations.GENERATION_TASK, **config})


def run_eval(folder: Path, base: Path, name: str, **eval_args: Any) -> EvalMetrics:
    request = evaluations.make_request(base, name, eval_args={"include_path": (str(folder / "tasks"),), **eval_args})
    job = JobPaths(folder / "job")
    evaluate.run(request, job, job.attempt(1))
    return EvalMetrics.model_validate(read_json(job.attempt(1).metrics))


@pytest.mark.parametrize("template", [True, False])
def test_documents_whose_prompt_is_cut_are_counted_once(tmp_path: Path, base: Path, *, template: bool) -> None:
    questions = ["short", *(letter * 200 for letter in LETTERS[:3])]
    write_choices(tmp_path / "tasks", "choices", questions)
    write_words(tmp_path / "tasks", "words", questions)
    both = {"group": "both", "task": ["choices", "words"]}
    (tmp_path / "tasks" / "both.yaml").write_text(yaml.safe_dump(both), encoding="utf-8")

    metrics = run_eval(tmp_path, base, "both", max_length=150, apply_chat_template=template)

    choices, words = metrics.tasks["choices"], metrics.tasks["words"]
    assert (choices.num_samples, choices.num_prompts_cut) == (4, 3)
    # An answer is a space and "yes" or, shorter, "no"; its last token is only predicted. Twelve are for a generation.
    assert choices.prompt_limit_tokens in {147, 148}
    assert (words.num_prompts_cut, words.prompt_limit_tokens) == (3, 138)


def test_a_group_whose_score_none_of_its_tasks_has_says_why_and_keeps_theirs(tmp_path: Path, base: Path) -> None:
    write_words(tmp_path / "tasks", "words", ["a", "b"])
    write_words(tmp_path / "tasks", "others", ["c"])
    group = {"group": "both", "task": ["words", "others"], "aggregate_metric_list": [{"metric": "acc"}]}
    (tmp_path / "tasks" / "both.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")

    metrics = run_eval(tmp_path, base, "both")

    reason = "the group's score is defined by acc, which none of its tasks has: they report exact_match"
    assert (metrics.primary_metric, metrics.unknown["primary_metric"]) == (None, reason)
    assert metrics.mean_over_documents is False
    assert {name: row.primary_metric for name, row in metrics.tasks.items()} == {
        "words": "exact_match,none",
        "others": "exact_match,none",
    }


def test_a_group_without_a_score_has_the_mean_over_its_documents_and_says_so(tmp_path: Path, base: Path) -> None:
    write_choices(tmp_path / "tasks", "first", ["a", "b"], tag=["mine"])
    write_choices(tmp_path / "tasks", "second", ["c"], tag=["mine"], num_fewshot=1)

    metrics = run_eval(tmp_path, base, "mine")

    assert (metrics.primary_metric, metrics.mean_over_documents) == ("acc,none", True)
    own = "its own; with `fewshot_split` in the task file lm-eval leaves it out"
    leak = f"second: examples come from the split that is evaluated, so that a question may be among {own}"
    assert metrics.notices == (leak,)


def test_tasks_that_lack_the_metric_of_their_group_are_named(tmp_path: Path, base: Path) -> None:
    write_choices(tmp_path / "tasks", "choices", ["a", "b"])
    write_words(tmp_path / "tasks", "words", ["c"])
    group = {"group": "both", "task": ["choices", "words"], "aggregate_metric_list": [{"metric": "acc"}]}
    (tmp_path / "tasks" / "both.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")

    metrics = run_eval(tmp_path, base, "both")

    assert metrics.primary_metric == "acc,none"
    assert metrics.notices == ("both: acc is of 1 of 2 tasks, without words",)


def test_a_metric_that_is_listed_and_not_reported_is_named(tmp_path: Path, base: Path) -> None:
    listed = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("ter", "acc")]
    write_choices(tmp_path / "tasks", "choices", ["a", "b"], metric_list=listed)

    metrics = run_eval(tmp_path, base, "choices")

    assert metrics.primary_metric == "acc,none"
    assert metrics.notices == ("choices: lm-eval reports no ter for a task of output_type multiple_choice",)


def test_an_answer_longer_than_the_context_is_told_with_its_document(tmp_path: Path, base: Path) -> None:
    rows = [{"question": "a", "choices": ["yes" * 100, "no"], "answer": 0}]
    evaluations.write_task(tmp_path / "tasks", "choices", rows, **evaluations.CHOICE_TASK)

    with pytest.raises(WorkerError) as caught:
        run_eval(tmp_path, base, "choices", max_length=64)

    message = "eval task 'choices': document 0 has an answer of 300 tokens in a context of 64"
    assert caught.value.message == message
    assert caught.value.hint == "correct doc_to_choice or doc_to_target in the task file"


def test_the_shared_group_without_an_aggregate_has_its_tasks_and_a_reason(tmp_path: Path, base: Path) -> None:
    group = shared("data/cases/eval-group-without-aggregate.yaml").read_text(encoding="utf-8")
    write_words(tmp_path / "tasks", "gen_ok", ["a", "b"])
    (tmp_path / "tasks" / "group.yaml").write_text(group, encoding="utf-8")

    metrics = run_eval(tmp_path, base, "grp_wrong")

    assert metrics.tasks["gen_ok"].primary_metric == "exact_match,none"
    assert metrics.unknown["primary_metric"].startswith(
        "the group's score is defined by acc, which none of its tasks has"
    )


def test_arguments_of_generation_that_do_not_exist_are_told(tmp_path: Path, base: Path) -> None:
    write_words(tmp_path / "tasks", "words", ["a"])

    with pytest.raises(WorkerError) as caught:
        run_eval(tmp_path, base, "words", gen_kwargs={"temprature": 1})

    assert caught.value.message.startswith(
        "eval dataset 'words': the model could not answer: The following `model_kwargs`"
    )
    assert caught.value.hint is not None
    assert "eval_args.gen_kwargs" in caught.value.hint


def test_arguments_that_do_nothing_are_named_or_refused(tmp_path: Path, base: Path) -> None:
    write_choices(tmp_path / "tasks", "choices", ["a", "b"])

    metrics = run_eval(tmp_path, base, "choices", gen_kwargs={"max_gen_toks": 8})
    assert metrics.notices == ("choices: gen_kwargs did nothing, since nothing is generated",)

    with pytest.raises(WorkerError, match="fewshot_as_multiturn writes examples as rounds of a chat"):
        run_eval(tmp_path, base, "choices", fewshot_as_multiturn=True, apply_chat_template=False)
