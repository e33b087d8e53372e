"""The documents of an eval, each with prompt, answer and scores, as the attempt's `samples.jsonl` holds them.

In: a job's folder. Out: samples in file order. A line that cannot be read is left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpcbench.storage.paths import JobPaths


class Sample(BaseModel):
    """One document of one eval task."""

    # A later version may tell more; `doc_hash` is missing in what versions before 0.3 wrote.
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    task: str
    doc_id: int
    doc_hash: str | None = None
    """lm-eval's hash of the document: equal hashes mean the same document in any run."""
    prompt: str | None = None
    """Cut in the middle where it is long; null, as the next two, for documents after the first 20,000 of an eval."""
    target: str | None = None
    responses: dict[str, Any] = Field(default_factory=dict)
    """By filter: the generated text, or the log-probability of each choice with whether it is the greedy answer."""
    metrics: dict[str, float | str | None] = Field(default_factory=dict)
    """By `metric,filter`; null where lm-eval makes the score of all documents at once."""


def read_samples(job: JobPaths) -> Iterator[Sample]:
    """Yield the samples of the newest attempt that left some."""
    for attempt in reversed(job.attempts()):
        try:
            lines = attempt.samples.read_bytes().splitlines()
        except OSError:
            continue
        for line in lines:
            try:
                yield Sample.model_validate(json.loads(line))
            except (ValueError, ValidationError):
                continue
        return
