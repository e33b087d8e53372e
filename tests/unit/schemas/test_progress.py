"""How far a job is, in words."""

from __future__ import annotations

import pytest

from hpcbench.schemas.progress import duration_text, progress_text

TRAINING = {
    "phase": "training",
    "step": 340,
    "max_steps": 1250,
    "loss": 1.23456,
    "samples_per_second": 12.34,
    "eta_s": 185,
}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (TRAINING, "step 340/1250 (27%), loss 1.235, 12.3 samples/s, 3 min 05 s left"),
        ({"phase": "evaluating", "done": 30, "total": 200, "eta_s": 8}, "30/200 (15%), 8.0 s left"),
        ({"phase": "loading the model"}, "loading the model"),
        ({"phase": "training", "step": 0, "max_steps": 0}, "step 0"),
        ({"phase": "training", "step": 12, "max_steps": 9}, "step 12"),
        ({}, ""),
    ],
)
def test_progress_in_words(values: dict[str, object], text: str) -> None:
    assert progress_text(values) == text


def test_brief_progress_is_how_far_it_is() -> None:
    assert progress_text(TRAINING, brief=True) == "step 340/1250 (27%)"


@pytest.mark.parametrize("strange", [float("nan"), float("inf"), 10**400, True, "7", None, [7]])
def test_what_is_no_number_is_not_told(strange: object) -> None:
    values = dict.fromkeys(("step", "max_steps", "loss", "samples_per_second", "eta_s"), strange)
    assert progress_text({"phase": "training", **values}) == "training"


def test_durations_are_for_people() -> None:
    assert [duration_text(s) for s in (0.04, 59.9, 60, 3599, 7620)] == [
        "0.0 s",
        "59.9 s",
        "1 min 00 s",
        "59 min 59 s",
        "2 h 07 min",
    ]
