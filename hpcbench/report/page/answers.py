"""A few documents of an eval for the page: some that the model got right, some that it got wrong.

In: samples and the eval's metrics. Out: plain JSON values, texts cut to what a reader needs to judge them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hpcbench.report.escape import printable
from hpcbench.schemas.metrics import EvalMetrics
from hpcbench.schemas.samples import Sample
from hpcbench.storage.json_files import JsonObject

OF_EACH_KIND = 2
_MOST_READ = 2000
"""Documents among which the examples are looked for."""
_PROMPT, _TARGET, _ANSWER = 500, 200, 300
"""Longest texts in characters."""


def answers_of(samples: Iterable[Sample], metrics: EvalMetrics) -> list[JsonObject]:
    """Return the first documents with the best score, and the first with the worst, where these differ."""
    task = metrics.tasks.get(metrics.primary_task)
    key = metrics.primary_metric or (None if task is None else task.primary_metric)
    if key is None:
        return []
    scored = [
        (score, sample)
        for _, sample in zip(range(_MOST_READ), samples, strict=False)
        if isinstance(score := sample.metrics.get(key), float) and sample.prompt is not None
    ]
    if not scored:
        return []
    higher = (
        True if task is None else task.higher_is_better.get(key, task.higher_is_better.get(key.split(",")[0], True))
    )
    scores = [score for score, _ in scored]
    best, worst = (max(scores), min(scores)) if higher else (min(scores), max(scores))
    chosen = [_first(scored, best), _first(scored, worst) if worst != best else []]
    return [
        _example(score, sample, key, good=is_good)
        for is_good, found in zip((True, False), chosen, strict=True)
        for score, sample in found
    ]


def _first(scored: Iterable[tuple[float, Sample]], wanted: float) -> list[tuple[float, Sample]]:
    return [(score, sample) for score, sample in scored if score == wanted][:OF_EACH_KIND]


def _example(score: float, sample: Sample, key: str, *, good: bool) -> JsonObject:
    return {
        "good": good,
        "score": score,
        "task": sample.task,
        "doc": sample.doc_id,
        "prompt": _end(sample.prompt or "", _PROMPT),
        "target": _start(sample.target or "", _TARGET),
        "answer": _start(_answer(sample.responses, key.partition(",")[2]), _ANSWER),
    }


def _answer(responses: dict[str, Any], of_filter: str) -> str:
    """Return the text that was scored, or the log-probability of each choice."""
    found = responses.get(of_filter, next(iter(responses.values()), ""))
    while isinstance(found, list) and len(found) == 1:
        found = found[0]
    if isinstance(found, list):
        return "; ".join(f"{number}: {_choice(choice)}" for number, choice in enumerate(found))
    return str(found)


def _choice(choice: object) -> str:
    """Return the log-probability of a choice, with a mark where it is the greedy answer."""
    if isinstance(choice, (list, tuple)) and choice:
        greedy = len(choice) > 1 and str(choice[1]) == "True"
        try:
            return f"{float(choice[0]):.2f}{' (greedy)' if greedy else ''}"
        except (TypeError, ValueError):
            return str(choice[0])
    return str(choice)


def _lines(text: str) -> str:
    return "\n".join(printable(line, limit=None) for line in text.splitlines())


def _start(text: str, limit: int) -> str:
    flat = _lines(text)
    return flat if len(flat) <= limit else f"{flat[: limit - 1]}…"


def _end(text: str, limit: int) -> str:
    flat = _lines(text)
    return flat if len(flat) <= limit else f"…{flat[len(flat) - limit + 1 :]}"
