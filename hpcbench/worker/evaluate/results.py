"""From lm-eval's results to the record's: same keys, plain numbers.

In: what `simple_evaluate` returned, prompts that were cut. Out: a `TaskResult` per task and group, one line per
document. It never touches disk or model.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lm_eval.api.task import Task

from hpcbench.schemas.metrics import TaskResult
from hpcbench.worker.evaluate.headline import primary_metric
from hpcbench.worker.evaluate.model import CutPrompts

LmEvalResults = Mapping[str, Any]

MAX_DOCUMENTS_WITH_TEXT = 20_000
"""Documents of one eval whose prompts and answers are kept; the scores of all are, since `compare` pairs them."""
MAX_SAMPLE_CHARACTERS = 8_000
"""Longer prompts and answers are cut in the middle."""


def task_results(results: LmEvalResults, tasks: Mapping[str, Task], cut_prompts: CutPrompts) -> dict[str, TaskResult]:
    """Return the results of all tasks, given by name, and of the groups that have metrics."""
    rows = {name: task_result(results, name, tasks.get(name), cut_prompts) for name in results["results"]}
    return {name: row for name, row in rows.items() if row.metrics}


def task_result(results: LmEvalResults, name: str, task: Task | None, cut_prompts: CutPrompts) -> TaskResult:
    """Return the result of one task or group; a group's documents are those of its tasks."""
    row = results["results"][name]
    leaves = leaf_names(results, name)
    counts = [results["n-samples"][leaf] for leaf in leaves]
    version = results["versions"].get(name)
    directions = results["higher_is_better"].get(name) or {}
    metrics = {key: plain_value(value) for key, value in row.items() if "," in key}
    limits = [limit for leaf in leaves if (limit := cut_prompts.limit_tokens(leaf)) is not None]
    return TaskResult(
        metrics=metrics,
        num_samples=sum(int(count["effective"]) for count in counts),
        num_samples_available=sum(int(count["original"]) for count in counts),
        num_fewshot=results["n-shot"].get(name),
        version=None if version in (None, "N/A") else str(version),
        task_hash=hash_samples([sample for leaf in leaves for sample in results["samples"][leaf]]),
        higher_is_better={str(metric): higher for metric, higher in directions.items() if higher is not None},
        primary_metric=None if task is None else primary_metric(task, metrics),
        num_prompts_cut=sum(cut_prompts.count(leaf) for leaf in leaves),
        prompt_limit_tokens=min(limits, default=None),
    )


def leaf_names(results: LmEvalResults, name: str) -> list[str]:
    """Return the tasks below a group, or the task itself."""
    members = results["group_subtasks"].get(name)
    if members is None:
        return [name]
    return [leaf for member in members for leaf in leaf_names(results, member)]


def plain_value(value: object) -> float | str | None:
    """Return a metric as a plain finite float; lm-eval's "N/A" stays, other values that are not numbers become None."""
    if isinstance(value, str):
        return value
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def hash_samples(samples: Sequence[Mapping[str, Any]]) -> str:
    """Return lm-eval's task hash: SHA-256 over the hashes of documents, prompts and targets."""
    text = "".join(sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"] for sample in samples)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sample_lines(results: LmEvalResults) -> Iterator[str]:
    """Yield one JSON line per document: its hash and scores, and of the first ones prompt, target and answers."""
    num_lines = 0
    for task, samples in results["samples"].items():
        documents: dict[int, list[Mapping[str, Any]]] = {}
        for sample in samples:
            documents.setdefault(sample["doc_id"], []).append(sample)
        for by_filter in documents.values():
            line = _scores_of(task, by_filter)
            if num_lines < MAX_DOCUMENTS_WITH_TEXT:
                line |= _texts_of(by_filter)
            num_lines += 1
            yield json.dumps(line, ensure_ascii=False, allow_nan=False, sort_keys=True)


def _scores_of(task: str, by_filter: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "task": task,
        "doc_id": by_filter[0]["doc_id"],
        "doc_hash": by_filter[0]["doc_hash"],
        "metrics": {
            f"{metric},{sample['filter']}": plain_value(sample[metric])
            for sample in by_filter
            for metric in sample["metrics"]
        },
    }


def _texts_of(by_filter: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "prompt": shorten(str(by_filter[0]["arguments"][0][0])),
        "target": shorten(str(by_filter[0]["target"])),
        "responses": {sample["filter"]: _plain_response(sample["filtered_resps"]) for sample in by_filter},
    }


def shorten(text: str) -> str:
    """Cut the middle out of a long text."""
    if len(text) <= MAX_SAMPLE_CHARACTERS:
        return text
    half = MAX_SAMPLE_CHARACTERS // 2
    return f"{text[:half]} [... {len(text) - 2 * half} characters ...] {text[-half:]}"


def _plain_response(responses: Sequence[Any]) -> Any:
    """Return a generated text, or the log-probability of each choice with whether it is the greedy answer."""
    plain = [
        [plain_value(response[0]), bool(response[1])]
        if isinstance(response, tuple | list) and len(response) == 2
        else shorten(str(response))
        for response in responses
    ]
    return plain[0] if len(plain) == 1 else plain
