"""What an infer job is identified by: what decides its answers, and nothing that only a training reads."""

from __future__ import annotations

from typing import Any

import pytest

from hpcbench.plan.fingerprint import fingerprint
from hpcbench.schemas.arguments import InferArgs, SftArgs
from hpcbench.schemas.request import JobRequest, Resources


def sign(args: dict[str, Any] | None = None, **infer: Any) -> str:
    request = JobRequest(
        suite="s",
        experiment="e",
        job="infer",
        cmd="infer",
        fingerprint="",
        resources=Resources(),
        args=SftArgs(model_type="m", val_dataset=("/a/rows.jsonl",), **(args or {})),
        infer=InferArgs(**infer),
    )
    return fingerprint(request, {})


@pytest.mark.parametrize(
    ("args", "infer"),
    [
        ({"seed": 1}, {}),
        ({"temperature": 0.5}, {}),
        ({"max_length": 99}, {}),
        ({}, {"max_batch_size": 2}),
        ({}, {"ckpt_dir": "/a/lora"}),
    ],
)
def test_what_decides_answers_is_in_it(args: dict[str, Any], infer: dict[str, Any]) -> None:
    assert sign(args, **infer) != sign()


@pytest.mark.parametrize(
    ("args", "infer"),
    [({"learning_rate": 1.0}, {}), ({"lora_rank": 99}, {}), ({}, {"stream": False}), ({}, {"save_result": False})],
)
def test_what_only_a_training_or_a_reader_minds_is_not(args: dict[str, Any], infer: dict[str, Any]) -> None:
    assert sign(args, **infer) == sign()
