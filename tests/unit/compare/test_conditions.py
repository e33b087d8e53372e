"""The conditions of `--fail-if`: parsed, never run as code; what is missing cannot be judged, and does not pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcbench.compare.comparison import compare
from hpcbench.compare.conditions import judge_conditions, parse_condition
from hpcbench.compare.pairs import match_experiments
from hpcbench.compare.result import ComparisonReport, FoundCondition
from hpcbench.compare.runs import Side
from hpcbench.errors import PlanError
from hpcbench.schemas.states import JobState
from tests.support.compare_cases import experiment, quickstart_figures, side, zeros_and_ones


def report_of(before: Side, after: Side) -> ComparisonReport:
    return compare(before, after, match_experiments(before, after))


@pytest.fixture(name="report")
def worse_report(tmp_path: Path) -> ComparisonReport:
    """A score that falls by 0.1 from 0.5, not by chance; a speed that falls by 20 %; a loss that stays."""
    before, after = zeros_and_ones(both=80, only_before=20, only_after=0, neither=100)
    return report_of(
        side(experiment(tmp_path / "a", "lora", before, train=quickstart_figures(seconds=80))),
        side(experiment(tmp_path / "b", "lora", after, train=quickstart_figures(seconds=100))),
    )


def judged(report: ComparisonReport, text: str) -> FoundCondition:
    (found,) = judge_conditions(report, [parse_condition(text)]).conditions
    return found


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("words<-0.02", "failed"),
        ("words < -0.02", "failed"),
        ("words<-0.2", "passed"),
        ("words<-10%", "failed"),
        ("words < -30 %", "passed"),
        ("words_exact_match<0", "failed"),
        ("words_*<0", "failed"),
        ("words<0 significant", "failed"),
        ("words>=0", "passed"),
        ("words<=-0.1", "failed"),
        ("words<-1e-1", "passed"),
        ("train_samples_per_second<-5%", "failed"),
        ("train_samples_per_second<-25%", "passed"),
        ("eval_loss>0", "passed"),
        ("worse", "failed"),
    ],
)
def test_conditions_are_judged_by_the_difference(report: ComparisonReport, text: str, outcome: str) -> None:
    assert judged(report, text).outcome == outcome


def test_what_failed_is_named_with_its_difference(report: ComparisonReport) -> None:
    assert judged(report, "words<-0.02").cases == ("lora: words exact_match -0.1 (-20.00 %), p = 1.9e-06",)
    assert judged(report, "train_samples_per_second<-5%").cases == ("lora: train samples/s -4.8 (-20.00 %)",)


def test_chance_alone_fulfills_no_condition_that_asks_for_significance(tmp_path: Path) -> None:
    before, after = zeros_and_ones(both=80, only_before=6, only_after=2, neither=12)
    report = report_of(
        side(experiment(tmp_path / "a", "lora", before)), side(experiment(tmp_path / "b", "lora", after))
    )

    assert judged(report, "words<-0.02").outcome == "failed"
    assert judged(report, "words<-0.02 significant").outcome == "passed"
    assert judged(report, "worse").outcome == "passed"


class TestNotJudged:
    @pytest.mark.parametrize("text", ["words<-0.02", "words<-5%", "worse"])
    def test_a_missing_score_does_not_pass(self, tmp_path: Path, text: str) -> None:
        report = report_of(
            side(experiment(tmp_path / "a", "lora", [1.0, 0.0])),
            side(experiment(tmp_path / "b", "lora", [1.0], eval_state=JobState.TIMEOUT)),
        )

        found = judged(report, text)
        assert found.outcome == "not_judged"
        assert found.cases == ("lora: words exact_match is missing after (timeout)",)

    @pytest.mark.parametrize("text", ["words<-0.02", "words<-5%", "worse"])
    def test_incomplete_repeats_do_not_pass(self, tmp_path: Path, text: str) -> None:
        report = report_of(
            side(*(experiment(tmp_path / "a", f"lora-{run}", [1.0, 0.0], base="lora") for run in range(2))),
            side(
                experiment(tmp_path / "b", "lora-0", [1.0, 0.0], base="lora"),
                experiment(tmp_path / "b", "lora-1", [0.0], base="lora", eval_state=JobState.FAILED),
            ),
        )

        found = judged(report, text)
        assert found.outcome == "not_judged"
        assert found.cases == ("lora: words exact_match was not tested: not all runs of the experiment have it",)

    def test_an_experiment_of_the_first_side_alone_does_not_pass(self, tmp_path: Path) -> None:
        report = report_of(
            side(experiment(tmp_path / "a", "lora", [1.0]), experiment(tmp_path / "a", "full", [1.0])),
            side(experiment(tmp_path / "b", "lora", [1.0]), experiment(tmp_path / "b", "dora", [1.0])),
        )

        found = judged(report, "words<-0.02")
        assert (found.outcome, found.cases) == ("not_judged", ("full: not on the other side",))

    def test_a_figure_of_single_runs_cannot_be_significant(self, report: ComparisonReport) -> None:
        found = judged(report, "train_samples_per_second<-5% significant")

        assert found.outcome == "not_judged"
        (case,) = found.cases
        assert case == (
            "lora: train samples/s was not tested: one run on a side says nothing about the spread between runs; "
            "`repeats` in the suite makes several"
        )

    def test_zero_has_no_percentage(self, tmp_path: Path) -> None:
        report = report_of(
            side(experiment(tmp_path / "a", "lora", [0.0, 0.0])), side(experiment(tmp_path / "b", "lora", [1.0, 0.0]))
        )

        assert judged(report, "words<-5%").cases == (
            "lora: words exact_match was 0, so that its change has no percentage",
        )


class TestRefusals:
    @pytest.mark.parametrize(
        "text",
        ["", "words", "words<", "<-0.02", "words<much", "words=0", "words<1<2", "__import__('os')", "words<-5 %%"],
    )
    def test_what_is_no_condition(self, text: str) -> None:
        with pytest.raises(PlanError) as caught:
            parse_condition(text)
        assert str(caught.value) == (
            f"--fail-if {text}: not a condition\n"
            "  expected: METRIC<NUMBER, METRIC>NUMBER%, either with `significant` behind it, or worse\n"
            "  hint: --fail-if 'gsm8k<-0.02', --fail-if 'train_samples_per_second<-5%'"
        )

    @pytest.mark.parametrize("text", ["gsm8k<-0.02", "train_samples_per_second<-5%"])
    def test_the_conditions_of_the_hint_are_conditions(self, text: str) -> None:
        assert parse_condition(text).text == text

    def test_a_metric_that_nothing_has(self, report: ComparisonReport) -> None:
        with pytest.raises(PlanError) as caught:
            judged(report, "eval_los>0")
        assert str(caught.value) == (
            "--fail-if eval_los>0: no metric eval_los\n"
            "  expected: words, words_exact_match, memory_peak_gib, train_samples_per_second, "
            "train_tokens_per_second, train_loss, eval_loss\n"
            "  hint: did you mean 'eval_loss'?"
        )
