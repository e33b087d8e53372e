"""Names in a suite become lm-eval tasks; lm-eval's results become the record's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("lm_eval", reason="the eval worker needs the `eval` extra")

from lm_eval.api.group import Group
from lm_eval.api.metrics import pooled_sample_stderr
from lm_eval.tasks import TaskManager

from hpcbench.catalog.eval_names import EVAL_NAMES
from hpcbench.catalog.lm_eval_names import FILE
from hpcbench.errors import WorkerError
from hpcbench.schemas.arguments import EvalArgs
from hpcbench.worker.evaluate import results as eval_results
from hpcbench.worker.evaluate.headline import metric_names, primary_metric
from hpcbench.worker.evaluate.model import CutPrompts
from hpcbench.worker.evaluate.tasks import (
    BUILT_IN_FOLDER,
    LoadedTasks,
    load_eval_tasks,
)
from tests.support.lm_eval_names import describe

GSM8K_ROW = {"question": "What is 1+1?", "answer": "1+1=2\n#### 2"}


def write_task(folder: Path, name: str, **overrides: Any) -> None:
    """Write a local multiple-choice task of two rows, unless the overrides say otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"question": f"{name}?", "choices": ["yes", "no"], "answer": 0}] * 2
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "doc_to_choice": "{{choices}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**config, **overrides}), encoding="utf-8")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test may reach the hub or fill the user's cache."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets-cache")


def leaves(loaded: LoadedTasks) -> list[str]:
    return [str(task.task_name) for task in loaded.leaves]


def test_local_task_is_found_without_indexing_the_built_in_ones(tmp_path: Path) -> None:
    write_task(tmp_path, "toy")

    loaded = load_eval_tasks("toy", EvalArgs(include_path=(str(tmp_path),)))

    assert loaded.name == "toy"
    assert loaded.manager.all_tasks == ["toy"]
    assert len(loaded.leaves[0].eval_docs) == 2


def test_local_task_wins_over_the_built_in_one_of_the_same_name(tmp_path: Path) -> None:
    write_task(tmp_path, "gsm8k")

    loaded = load_eval_tasks("gsm8k", EvalArgs(include_path=(str(tmp_path),)))

    assert loaded.leaves[0].OUTPUT_TYPE == "multiple_choice"


def test_arc_is_the_size_weighted_group_of_easy_and_challenge(tmp_path: Path) -> None:
    write_task(tmp_path, "arc_easy")
    write_task(tmp_path, "arc_challenge")

    loaded = load_eval_tasks("arc", EvalArgs(include_path=(str(tmp_path),)))

    assert isinstance(loaded.headline, Group)
    assert loaded.name == "arc"
    assert leaves(loaded) == ["arc_easy", "arc_challenge"]
    assert [(entry.metric, entry.weight_by_size) for entry in loaded.headline.aggregate_metric_list] == [("acc", True)]


def test_group_with_local_members_needs_no_built_in_ones(tmp_path: Path) -> None:
    write_task(tmp_path, "first")
    write_task(tmp_path, "second")
    group = {"group": "both", "task": ["first", "second"]}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(group), encoding="utf-8")

    loaded = load_eval_tasks("both", EvalArgs(include_path=(str(tmp_path),)))

    assert set(loaded.manager.all_tasks) == {"both", "first", "second"}
    assert isinstance(loaded.headline, Group)
    assert loaded.headline.has_aggregation, "a group that lists no metrics still gets a headline number"
    assert metric_names(loaded.headline) == ("acc",)


def test_tag_becomes_a_group_of_its_tasks(tmp_path: Path) -> None:
    write_task(tmp_path, "first", tag=["mine"])
    write_task(tmp_path, "second", tag=["mine"])

    loaded = load_eval_tasks("mine", EvalArgs(include_path=(str(tmp_path),)))

    assert loaded.name == "mine"
    assert leaves(loaded) == ["first", "second"]


def test_unknown_task_names_the_close_ones(tmp_path: Path) -> None:
    write_task(tmp_path, "toy")

    with pytest.raises(WorkerError) as caught:
        load_eval_tasks("gsm8kk", EvalArgs(include_path=(str(tmp_path),)))

    assert caught.value.message.startswith("eval dataset 'gsm8kk': not a task of hpcbench or of lm-eval")
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("did you mean gsm8k")


def test_catalog_points_where_the_full_index_would_and_knows_its_names() -> None:
    everything = TaskManager()
    assert FILE.read_text(encoding="utf-8") == describe(everything.task_index)
    for name in EVAL_NAMES.names():
        known = EVAL_NAMES.lookup(name)
        assert known is not None
        folders = [str(BUILT_IN_FOLDER / folder) for folder in known.folders]
        small = TaskManager(include_path=folders, include_defaults=False)
        for task in known.tasks:
            assert small.task_index[task].yaml_path == everything.task_index[task].yaml_path, name


@pytest.mark.parametrize("name", ["gsm8k", "arc", "ceval"])
def test_missing_data_names_the_dataset_and_prefetch_in_one_line(name: str) -> None:
    with pytest.raises(WorkerError) as caught:
        load_eval_tasks(name)

    assert caught.value.message.startswith(f"eval dataset '{name}': its data cannot be loaded here: Couldn't ")
    assert "\n" not in caught.value.message
    assert caught.value.hint is not None
    assert "hpcbench prefetch" in caught.value.hint
    assert caught.value.__suppress_context__, "no stack of HTTP errors in the log"


def test_missing_include_path_is_named() -> None:
    with pytest.raises(WorkerError, match=r"eval_args.include_path: /no/such: no such folder"):
        load_eval_tasks("toy", EvalArgs(include_path=("/no/such",)))


def test_gsm8k_shows_strict_match_and_keeps_flexible_extract(tmp_path: Path) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps(GSM8K_ROW) + "\n", encoding="utf-8")
    task = {
        "include": str(BUILT_IN_FOLDER / "gsm8k" / "gsm8k.yaml"),
        "task": "gsm8k_local",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"train": str(data), "test": str(data)}},
    }
    (tmp_path / "gsm8k_local.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")

    loaded = load_eval_tasks("gsm8k_local", EvalArgs(include_path=(str(tmp_path),)))
    row = {
        "alias": "gsm8k",
        "exact_match,strict-match": 0.5,
        "exact_match_stderr,strict-match": 0.1,
        "exact_match,flexible-extract": 0.6,
    }

    assert primary_metric(loaded.headline, row) == "exact_match,strict-match"


def test_multiple_choice_shows_accuracy_before_normalised_accuracy(tmp_path: Path) -> None:
    write_task(tmp_path, "toy", metric_list=[{"metric": "acc"}, {"metric": "acc_norm"}])

    headline = load_eval_tasks("toy", EvalArgs(include_path=(str(tmp_path),))).headline

    assert primary_metric(headline, {"acc,none": 0.1, "acc_stderr,none": 0.0, "acc_norm,none": 0.2}) == "acc,none"
    assert primary_metric(headline, {"acc_norm,none": 0.2}) == "acc_norm,none"
    assert primary_metric(headline, {}) is None


def lm_eval_results() -> dict[str, Any]:
    """A group of two tasks, as `simple_evaluate` returns it."""

    def sample(doc_id: int, filter_name: str) -> dict[str, Any]:
        return {
            "doc_id": doc_id,
            "doc_hash": f"d{doc_id}",
            "prompt_hash": "p",
            "target_hash": "t",
            "target": 1,
            "arguments": [("prompt", " yes"), ("prompt", " no")],
            "filter": filter_name,
            "filtered_resps": [(-1.5, True), (-2.5, False)],
            "metrics": ["acc"],
            "acc": np.float64(1.0),
        }

    stderrs, sizes = [np.float64(0.1), np.float64(0.2)], [2, 1]
    return {
        "results": {
            "a": {
                "name": "a",
                "alias": "a",
                "sample_len": 2,
                "acc,none": np.float64(0.5),
                "acc_stderr,none": stderrs[0],
            },
            "b": {"name": "b", "alias": "b", "sample_len": 1, "acc,none": float("nan"), "acc_stderr,none": "N/A"},
            "both": {
                "alias": "both",
                "acc,none": np.float64(0.4),
                "acc_stderr,none": pooled_sample_stderr(stderrs, sizes),
                "sample_len": 3,
                "sample_count": {"acc,none": 3},
            },
            "outer": {"alias": "outer"},
        },
        "group_subtasks": {"both": ["a", "b"], "outer": ["both"]},
        "versions": {"a": 1.0, "b": "N/A", "both": "N/A"},
        "n-shot": {"a": 5, "b": 5, "both": 5},
        "higher_is_better": {"a": {"acc": True}, "b": {"acc": None}, "both": {"acc": True}},
        "n-samples": {"a": {"original": 20, "effective": 2}, "b": {"original": 10, "effective": 1}},
        "samples": {"a": [sample(0, "none"), sample(1, "none")], "b": [sample(0, "x"), sample(0, "y")]},
    }


def test_results_keep_the_keys_and_become_plain_numbers() -> None:
    rows = eval_results.task_results(lm_eval_results(), {}, CutPrompts())

    assert rows["a"].metrics == {"acc,none": 0.5, "acc_stderr,none": 0.1}
    assert type(rows["a"].metrics["acc,none"]) is float
    assert (rows["a"].version, rows["a"].num_fewshot, rows["a"].higher_is_better) == ("1.0", 5, {"acc": True})
    assert rows["b"].metrics == {"acc,none": None, "acc_stderr,none": "N/A"}
    assert (rows["b"].version, rows["b"].higher_is_better) == (None, {})


def test_group_counts_the_documents_of_its_tasks() -> None:
    rows = eval_results.task_results(lm_eval_results(), {}, CutPrompts())

    assert (rows["both"].num_samples, rows["both"].num_samples_available) == (3, 30)
    assert "outer" not in rows, "a group without metrics has nothing to say"


def test_task_hash_is_lm_evals() -> None:
    from lm_eval.utils import hash_string

    rows = eval_results.task_results(lm_eval_results(), {}, CutPrompts())

    assert rows["a"].task_hash == hash_string("d0ptd1pt")


def test_samples_are_one_line_per_document() -> None:
    lines = [json.loads(line) for line in eval_results.sample_lines(lm_eval_results())]

    assert [(line["task"], line["doc_id"]) for line in lines] == [("a", 0), ("a", 1), ("b", 0)]
    assert lines[0]["prompt"] == "prompt"
    assert lines[0]["target"] == "1"
    assert lines[0]["responses"] == {"none": [[-1.5, True], [-2.5, False]]}
    assert lines[2]["metrics"] == {"acc,x": 1.0, "acc,y": 1.0}


def test_long_prompts_are_cut_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval_results, "MAX_SAMPLE_CHARACTERS", 4)

    assert eval_results.shorten("abcdefgh") == "ab [... 4 characters ...] gh"
    assert eval_results.shorten("abcd") == "abcd"


def test_samples_name_their_documents_by_lm_evals_hash() -> None:
    lines = [json.loads(line) for line in eval_results.sample_lines(lm_eval_results())]

    assert [line["doc_hash"] for line in lines] == ["d0", "d1", "d0"]


def test_documents_beyond_the_cap_keep_their_scores_and_lose_their_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eval_results, "MAX_DOCUMENTS_WITH_TEXT", 1)

    lines = [json.loads(line) for line in eval_results.sample_lines(lm_eval_results())]

    assert lines[0]["prompt"] == "prompt"
    assert lines[1:] == [
        {"task": "a", "doc_id": 1, "doc_hash": "d1", "metrics": {"acc,none": 1.0}},
        {"task": "b", "doc_id": 0, "doc_hash": "d0", "metrics": {"acc,x": 1.0, "acc,y": 1.0}},
    ]
