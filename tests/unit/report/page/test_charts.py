"""What the page is told of curves, failures and details of experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcbench.report.artifacts import ReportContext
from hpcbench.report.facts import facts_of
from hpcbench.report.page.answers import answers_of
from hpcbench.report.page.curves import curves_of, encode
from hpcbench.report.page.payload import build_payload
from hpcbench.report.rows import merge_repeats
from hpcbench.schemas.collection import Collection
from hpcbench.schemas.report_options import ReportOptions
from hpcbench.schemas.samples import Sample
from tests.support.report_parts import eval_metrics
from tests.support.report_sweeps import SyntheticArtifacts, hostile, sweep, tuners


def payload_of(collection: Collection, folder: Path | None = None) -> dict[str, Any]:
    context = ReportContext(artifacts=SyntheticArtifacts(), folder=folder)
    return build_payload(collection, ReportOptions(), context=context)


def decode(series: dict[str, Any]) -> list[tuple[int, float]]:
    steps, values, points = 0, 0, []
    for step, value in zip(series["s"], series["v"], strict=True):
        steps, values = steps + step, values + value
        points.append((steps, values * series["q"]))
    return points


@pytest.mark.parametrize("scale", [1e-8, 0.03, 1.0, 2500.0])
def test_encoded_curves_keep_four_digits(scale: float) -> None:
    points = [(10 * step, scale * (1 + 1 / step)) for step in range(1, 51)]
    decoded = decode(encode(points))
    assert [step for step, _ in decoded] == [step for step, _ in points]
    for (_, value), (_, expected) in zip(decoded, points, strict=True):
        assert value == pytest.approx(expected, abs=1e-3 * scale)


def test_curves_of_zeros_and_negative_values_can_be_told() -> None:
    assert [value for _, value in decode(encode([(1, 0.0), (2, 0.0)]))] == [0.0, 0.0]
    assert [value for _, value in decode(encode([(1, -1.5), (2, 1.5)]))] == pytest.approx([-1.5, 1.5])


def test_curves_stand_in_the_order_of_the_figure_that_ranks() -> None:
    curves = payload_of(tuners())["curves"]
    assert curves["ranks"] == [
        {"suite": "tuners", "by": "gsm8k_exact_match,strict-match", "with_curves": 23, "trained": 23}
    ]
    assert list(curves["series"])[:3] == ["tuners/lora+packing", "tuners/lora+no_mix", "tuners/dora"]
    assert set(curves["series"]["tuners/dora"]) == {"loss", "eval_loss"}


def test_rows_beyond_the_limit_have_no_curves_and_none_has_half_its_repeats() -> None:
    rows = merge_repeats(facts_of(view) for view in sweep().suites[0].experiments)
    found = curves_of(rows, SyntheticArtifacts(num_steps=12), most=10)
    assert [facts.view.name for facts, _ in found] == [facts.view.name for row in rows[:3] for facts in row.members]


def test_failures_of_one_cause_are_one_group_with_the_commands_of_why() -> None:
    groups = payload_of(tuners())["failures"]
    assert [(group["state"], len(group["jobs"]), group["blocks"]) for group in groups] == [
        ("failed", 2, 2),
        ("host_out_of_memory", 1, 1),
        ("timeout", 1, 1),
        ("out_of_memory", 1, 1),
    ]
    diverged = groups[0]
    assert diverged["jobs"] == [["tuners/llamapro", "train"], ["tuners/llamapro-lr2", "train"]]
    assert diverged["cause"] == "losses are not finite since step 1760 of 5471"
    command = "hpcbench submit CONFIG --only llamapro --only llamapro-lr2 --force"
    assert diverged["steps"] == [[command, "after changing its arguments"]]


def test_details_tell_attempts_environment_and_answers() -> None:
    details = payload_of(tuners(), Path("/shared/reports"))["details"]
    dora = details["tuners/dora"]
    train = dora["jobs"][0]
    assert [attempt[:2] for attempt in train["attempts"]] == [[1, "preempted"], [2, "completed"]]
    assert train["environment"] == [["gpus.driver", "580.65.06", "570.86.15"]]
    assert train["link"] == "../logs/tuners/dora/train/"
    assert train["log"] == [f"step {step}: loss {1 + 1 / step:.3f}" for step in (1720, 1730, 1740, 1750)]
    examples = dora["answers"]["gsm8k"]
    assert [(example["good"], example["doc"]) for example in examples] == [(True, 1), (True, 2), (False, 0), (False, 3)]
    assert ["gpu", 1] in dora["resources"]


def test_page_without_a_place_has_paths_and_no_links() -> None:
    jobs = [job for told in payload_of(tuners())["details"].values() for job in told["jobs"]]
    assert not any("link" in job for job in jobs)
    assert jobs[0]["folder"] == "/shared/logs/tuners/lora+packing/train" or jobs[0]["folder"].startswith(
        "/shared/logs/"
    )


def test_links_hold_names_that_an_address_cannot() -> None:
    jobs = [job for told in payload_of(hostile(), Path("/shared"))["details"].values() for job in told["jobs"]]
    assert all(set(job["link"]).isdisjoint("<>\"'`| #?") for job in jobs)


def test_answers_of_scores_that_are_not_0_or_1_are_the_best_and_the_worst() -> None:
    samples = [
        Sample(task="t", doc_id=number, prompt="p" * 600, target="t", responses={"none": [["-1.25", "True"], ["-2.5", "False"]]},
               metrics={"rouge,none": score})
        for number, score in enumerate((0.5, 0.9, 0.1, 0.7))
    ]  # fmt: skip
    examples = answers_of(samples, eval_metrics("t", "rouge,none", 0.55))
    assert [(example["good"], example["doc"], example["score"]) for example in examples] == [
        (True, 1, 0.9),
        (False, 2, 0.1),
    ]
    assert examples[0]["answer"] == "0: -1.25 (greedy); 1: -2.50"
    assert len(examples[0]["prompt"]) == 500
    assert examples[0]["prompt"].startswith("…")


def test_no_answers_of_samples_without_the_metric_or_the_prompt() -> None:
    metrics = eval_metrics("t", "acc,none", 0.5)
    assert answers_of([Sample(task="t", doc_id=0, prompt="p", metrics={"f1,none": 1.0})], metrics) == []
    assert answers_of([Sample(task="t", doc_id=0, metrics={"acc,none": 1.0})], metrics) == []
    assert answers_of([], metrics) == []


def test_hundreds_of_experiments_stay_small() -> None:
    details = payload_of(sweep())["details"]
    assert sum("answers" in told for told in details.values()) <= 30
    assert sum(any("log" in job for job in told["jobs"]) for told in details.values()) <= 100
