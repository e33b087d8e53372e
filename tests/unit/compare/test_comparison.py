"""Comparisons: which test is chosen and why, what stays untested or missing, what is said about it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hpcbench.compare.comparison import compare
from hpcbench.compare.pairs import match_experiments
from hpcbench.compare.result import Comparison, ComparisonReport, Pair
from hpcbench.compare.runs import Side
from hpcbench.compare.statistics import exact_mcnemar
from hpcbench.schemas.collection import ExperimentView
from hpcbench.schemas.states import JobState
from tests.support.compare_cases import experiment, quickstart_figures, side, zeros_and_ones
from tests.support.report_parts import A100, LAPTOP


def compared(before: Side, after: Side) -> ComparisonReport:
    return compare(before, after, match_experiments(before, after))


def both(before: ExperimentView, after: ExperimentView) -> Pair:
    (pair,) = compared(side(before), side(after, source="B")).pairs
    return pair


def score(pair: Pair) -> Comparison:
    return next(found for found in pair.comparisons if found.kind == "score")


def figure(pair: Pair, metric: str) -> Comparison:
    return next(found for found in pair.comparisons if found.metric == metric)


class TestScores:
    def test_zeros_and_ones_on_the_same_documents_are_tested_by_mcnemar(self, tmp_path: Path) -> None:
        before, after = zeros_and_ones(both=68, only_before=12, only_after=30, neither=110)
        found = score(both(experiment(tmp_path / "a", "lora", before), experiment(tmp_path / "b", "lora", after)))

        assert found.test is not None
        assert found.test.method == "mcnemar"
        assert found.test.why == "scores of 0 or 1 on the same 220 documents"
        assert found.test.p_value == exact_mcnemar(30, 12)
        assert (found.test.num_documents, found.test.num_gained, found.test.num_lost) == (220, 30, 12)
        assert found.difference == pytest.approx(18 / 220)
        assert found.verdict == "better"

    def test_other_scores_on_the_same_documents_are_tested_by_a_paired_bootstrap(self, tmp_path: Path) -> None:
        before = [number / 100 for number in range(100)]
        after = [value + (0.02 if number % 3 else -0.01) for number, value in enumerate(before)]
        found = score(both(experiment(tmp_path / "a", "lora", before), experiment(tmp_path / "b", "lora", after)))

        assert found.test is not None
        assert found.test.method == "paired_bootstrap"
        assert found.test.why == "scores on the same 100 documents"
        assert found.test.num_gained is None
        assert found.verdict == "better"

    def test_documents_are_paired_by_hash_whatever_their_order(self, tmp_path: Path) -> None:
        a = experiment(tmp_path / "a", "lora", [1.0, 0.0, 1.0])
        b = experiment(tmp_path / "b", "lora", [1.0, 0.0, 1.0])
        path = tmp_path / "b/suite/lora/eval-words/attempt-1/samples.jsonl"
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))

        test = score(both(a, b)).test
        assert test is not None
        assert (test.num_gained, test.num_lost) == (0, 0)

    def test_equal_documents_are_told_apart_by_their_number(self, tmp_path: Path) -> None:
        a, b = (experiment(tmp_path / name, "lora", [1.0, 0.0]) for name in "ab")
        for name in "ab":
            path = tmp_path / name / "suite/lora/eval-words/attempt-1/samples.jsonl"
            path.write_text(path.read_text().replace("words-1", "words-0"))

        test = score(both(a, b)).test
        assert test is not None
        assert (test.method, test.num_documents, test.p_value) == ("mcnemar", 2, 1.0)

    def test_tasks_of_a_group_are_paired_as_a_whole(self, tmp_path: Path) -> None:
        before, after = {"x": [1.0] * 8, "y": [0.0] * 4}, {"x": [1.0] * 8, "y": [1.0] * 4}
        found = score(both(experiment(tmp_path / "a", "lora", before), experiment(tmp_path / "b", "lora", after)))

        assert found.test is not None
        assert (found.test.method, found.test.num_gained) == ("mcnemar", 4)

    def test_a_mean_of_tasks_is_tested_by_a_bootstrap_that_weighs_them_alike(self, tmp_path: Path) -> None:
        before, after = {"x": [1.0] * 8, "y": [0.0] * 4}, {"x": [1.0] * 8, "y": [1.0] * 4}
        a = experiment(tmp_path / "a", "lora", before, value=0.5)
        b = experiment(tmp_path / "b", "lora", after, value=1.0)

        found = score(both(a, b))
        assert found.test is not None
        assert found.test.method == "paired_bootstrap"
        assert found.test.interval == (0.5, 0.5)

    def test_on_other_documents_scores_are_tested_by_their_errors_and_the_reason_is_said(self, tmp_path: Path) -> None:
        a = experiment(tmp_path / "a", "lora", [1.0, 0.0] * 50, stderr=0.05)
        b = experiment(tmp_path / "b", "lora", [1.0, 0.0] * 50, stderr=0.05, first_document=20)

        found = score(both(a, b))
        assert found.test is not None
        assert found.test.method == "unpaired_z"
        assert found.test.why == "the documents differ: 80 of 120 are on both sides"
        assert found.test.num_documents is None

    @pytest.mark.parametrize(
        ("left", "why"),
        [
            ({"samples": False}, "no scores of single documents were kept"),
            ({"hashes": False}, "samples of hpcbench before 0.3 do not name their documents"),
            ({"value": 0.7}, "the score is not the mean of its documents' scores"),
        ],
    )
    def test_what_cannot_be_paired_is_tested_by_its_errors(
        self, tmp_path: Path, left: dict[str, object], why: str
    ) -> None:
        a = experiment(tmp_path / "a", "lora", [1.0, 0.0], **left)  # type: ignore[arg-type]  # one keyword each
        b = experiment(tmp_path / "b", "lora", [1.0, 0.0])

        test = score(both(a, b)).test
        assert test is not None
        assert (test.method, test.why) == ("unpaired_z", why)

    def test_a_score_made_of_all_documents_at_once_without_an_error_is_not_tested(self, tmp_path: Path) -> None:
        a, b = (
            experiment(tmp_path / name, "lora", [None, None, 1.0], value=30.0 + place, stderr=None, metric="bleu,none")
            for place, name in enumerate("ab")
        )

        found = score(both(a, b))
        assert (found.verdict, found.difference) == ("not_tested", 1.0)
        assert found.not_tested == (
            "the score is not the mean of its documents' scores, and lm-eval gives no standard error"
        )

    def test_where_lower_is_better_a_fall_is_an_improvement(self, tmp_path: Path) -> None:
        before, after = zeros_and_ones(both=10, only_before=20, only_after=0, neither=20)
        a = experiment(tmp_path / "a", "lora", before, higher_is_better=False)
        b = experiment(tmp_path / "b", "lora", after, higher_is_better=False)

        assert score(both(a, b)).verdict == "better"

    def test_a_missing_score_stays_missing(self, tmp_path: Path) -> None:
        a = experiment(tmp_path / "a", "lora", [1.0, 0.0])
        b = experiment(tmp_path / "b", "lora", [1.0, 0.0], eval_state=JobState.OUT_OF_MEMORY)

        found = score(both(a, b))
        assert found.verdict == "missing"
        assert (found.after.value, found.after.missing) == (None, "out_of_memory")
        assert (found.difference, found.change_pct, found.test) == (None, None, None)

    def test_an_eval_without_a_score_on_either_side_has_a_line(self, tmp_path: Path) -> None:
        a = experiment(tmp_path / "a", "lora", [1.0], eval_state=JobState.FAILED)
        b = experiment(tmp_path / "b", "lora", [1.0], eval_state=JobState.RUNNING)

        found = score(both(a, b))
        assert (found.metric, found.verdict) == ("words", "missing")
        assert (found.before.missing, found.after.missing) == ("failed", "running")

    def test_scores_made_otherwise_are_remarked(self, tmp_path: Path) -> None:
        a = experiment(tmp_path / "a", "lora", [1.0, 0.0], num_fewshot=5)
        b = experiment(tmp_path / "b", "lora", [1.0, 0.0, 1.0])

        assert score(both(a, b)).remarks == ("5-shot against 0-shot", "2 documents against 3")


class TestRepeats:
    def repeats(self, folder: Path, *runs: list[float], seconds: tuple[float, ...] = (150, 152, 149)) -> Side:
        return side(
            *(
                experiment(
                    folder,
                    f"lora-{seed}",
                    scores,
                    base="lora",
                    args={"seed": seed},
                    train=quickstart_figures(seconds=seconds[seed]),
                )
                for seed, scores in enumerate(runs)
            )
        )

    def test_scores_of_several_runs_are_resampled_over_documents_and_runs(self, tmp_path: Path) -> None:
        low, high = zeros_and_ones(both=40, only_before=5, only_after=40, neither=15)
        before = self.repeats(tmp_path / "a", low, [*low[1:], low[0]])
        after = self.repeats(tmp_path / "b", high, [*high[1:], high[0]])

        (pair,) = compared(before, after).pairs
        found = score(pair)
        assert pair.name == "lora"
        assert (found.before.num_runs, found.before.std, found.before.stderr) == (2, 0.0, None)
        assert found.test is not None
        assert (found.test.method, found.test.why) == (
            "paired_bootstrap",
            "scores on the same 100 documents, 2 and 2 runs",
        )
        assert found.verdict == "better"

    def test_figures_of_several_runs_are_tested_by_welch(self, tmp_path: Path) -> None:
        before = self.repeats(tmp_path / "a", [1.0], [1.0], [1.0])
        after = self.repeats(tmp_path / "b", [1.0], [1.0], [1.0], seconds=(301.0, 299.0, 305.0))

        (pair,) = compared(before, after).pairs
        found = figure(pair, "train_samples_per_second")
        assert found.test is not None
        assert (found.test.method, found.test.why) == ("welch", "3 runs against 3")
        assert found.verdict == "worse"
        assert found.change_pct == pytest.approx(-50, abs=1)
        assert found.before.std is not None

    def test_incomplete_repeats_are_not_tested_and_never_win(self, tmp_path: Path) -> None:
        before = self.repeats(tmp_path / "a", [0.0] * 30, [0.0] * 30)
        after = side(
            experiment(tmp_path / "b", "lora-0", [1.0] * 30, base="lora"),
            experiment(tmp_path / "b", "lora-1", [1.0] * 30, base="lora", eval_state=JobState.RUNNING),
        )

        (pair,) = compared(before, after).pairs
        found = score(pair)
        assert (found.after.num_runs, found.after.num_expected, found.after.missing) == (1, 2, "running")
        assert (found.verdict, found.not_tested) == ("not_tested", "not all runs of the experiment have it")
        assert found.difference == 1.0

    def test_equal_repeats_are_not_tested(self, tmp_path: Path) -> None:
        before = self.repeats(tmp_path / "a", [1.0], [1.0], seconds=(100, 100))
        after = self.repeats(tmp_path / "b", [1.0], [1.0], seconds=(200, 200))

        (pair,) = compared(before, after).pairs
        found = figure(pair, "train_samples_per_second")
        assert (found.verdict, found.not_tested) == ("not_tested", "the runs of either side are equal")

    def test_without_scipy_figures_are_shown_and_the_reason_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "scipy", None)
        before = self.repeats(tmp_path / "a", [1.0], [0.0])
        after = self.repeats(tmp_path / "b", [1.0], [0.0], seconds=(300, 301))

        report = compared(before, after)
        found = figure(report.pairs[0], "train_samples_per_second")
        assert found.difference is not None
        assert found.not_tested == ("scipy is not installed; `pip install 'hpcbench-llm[analysis]'` installs it")
        assert report.num_tests == 1, "the score, by numpy"


class TestFigures:
    def test_of_single_runs_they_are_not_tested(self, tmp_path: Path) -> None:
        a = experiment(tmp_path, "lora", train=quickstart_figures(seconds=100))
        b = experiment(tmp_path, "lora", train=quickstart_figures(seconds=80))

        found = figure(both(a, b), "train_samples_per_second")
        assert found.change_pct == pytest.approx(25)
        assert (found.verdict, found.test) == ("not_tested", None)
        assert found.not_tested == (
            "one run on a side says nothing about the spread between runs; `repeats` in the suite makes several"
        )

    def test_missing_ones_say_why(self, tmp_path: Path) -> None:
        a = experiment(tmp_path, "lora")
        b = experiment(tmp_path, "lora", train_state=JobState.OUT_OF_MEMORY)

        found = figure(both(a, b), "memory_peak_gib")
        assert (found.verdict, found.after.value, found.after.missing) == ("missing", None, "out_of_memory")

    def test_losses_on_other_data_are_remarked(self, tmp_path: Path) -> None:
        a = experiment(tmp_path, "lora")
        b = experiment(tmp_path, "lora", args={"dataset": ["other.jsonl"]}, train=quickstart_figures(eval_loss=0.3))

        pair = both(a, b)
        assert figure(pair, "eval_loss").remarks == ("another model, other data or another loss",)
        assert figure(pair, "memory_peak_gib").remarks == ()

    def test_speeds_on_other_hardware_are_remarked_and_warned_of(self, tmp_path: Path) -> None:
        newer = A100 | {"gpus": {"names": ["NVIDIA H100"], "driver": "580.1"}}
        before = side(experiment(tmp_path, "lora", environment=A100), experiment(tmp_path, "full", environment=A100))
        after = side(experiment(tmp_path, "lora", environment=newer), experiment(tmp_path, "full", environment=newer))

        report = compared(before, after)
        assert figure(report.pairs[0], "train_samples_per_second").remarks == ("other hardware",)
        assert report.warnings == (
            "gpus differs: NVIDIA A100-SXM4-80GB → NVIDIA H100 (lora, full)",
            "driver differs: 570.86.15 → 580.1 (lora, full)",
        )

    def test_other_versions_are_warned_of(self, tmp_path: Path) -> None:
        newer = LAPTOP | {"packages": LAPTOP["packages"] | {"torch": "2.12.0+cpu"}}

        report = compared(side(experiment(tmp_path, "lora")), side(experiment(tmp_path, "lora", environment=newer)))
        assert report.warnings == ("torch differs: 2.11.0+cpu → 2.12.0+cpu (lora)",)


class TestManyTests:
    def test_p_values_are_corrected_for_all_of_them(self, tmp_path: Path) -> None:
        before, after = zeros_and_ones(both=20, only_before=3, only_after=14, neither=20)
        names = ("one", "two", "three")
        report = compared(
            side(*(experiment(tmp_path / "a", name, before) for name in names)),
            side(*(experiment(tmp_path / "b", name, after) for name in names)),
        )

        tests = [found.test for pair in report.pairs for found in pair.comparisons if found.test is not None]
        assert report.num_tests == 3
        assert {test.p_value for test in tests} == {exact_mcnemar(14, 3)}
        assert [test.p_adjusted for test in tests] == [pytest.approx(3 * exact_mcnemar(14, 3))] * 3

    def test_significance_goes_by_the_corrected_p_value(self, tmp_path: Path) -> None:
        before, after = zeros_and_ones(both=20, only_before=3, only_after=14, neither=20)
        assert exact_mcnemar(14, 3) < 0.05 < 4 * exact_mcnemar(14, 3)
        names = ("one", "two", "three", "four")
        report = compared(
            side(*(experiment(tmp_path / "a", name, before) for name in names)),
            side(*(experiment(tmp_path / "b", name, after) for name in names)),
        )

        assert {score(pair).verdict for pair in report.pairs} == {"not_significant"}

    def test_alpha_can_be_chosen(self, tmp_path: Path) -> None:
        before, after = zeros_and_ones(both=20, only_before=3, only_after=14, neither=20)
        sides = (
            side(experiment(tmp_path / "a", "lora", before)),
            side(experiment(tmp_path / "b", "lora", after)),
        )

        matched = match_experiments(*sides)
        assert score(compare(*sides, matched, alpha=0.05).pairs[0]).verdict == "better"
        assert score(compare(*sides, matched, alpha=0.01).pairs[0]).verdict == "not_significant"


class TestSettings:
    def test_arguments_that_differ_are_named(self, tmp_path: Path) -> None:
        a = experiment(tmp_path, "lora", args={"lora_rank": 8, "learning_rate": 1e-4})
        b = experiment(tmp_path, "lora", args={"lora_rank": 16, "learning_rate": 1e-4})

        assert [(found.name, found.before, found.after) for found in both(a, b).settings] == [("lora_rank", "8", "16")]

    def test_repeats_with_the_same_seeds_do_not_differ(self, tmp_path: Path) -> None:
        before, after = (
            side(*(experiment(tmp_path, f"lora-{seed}", base="lora", args={"seed": seed}) for seed in seeds))
            for seeds in ((1, 2), (2, 1))
        )

        assert compare(before, after, match_experiments(before, after, rules=["*:*"])).pairs[0].settings == ()

    def test_significant_differences_where_only_the_seed_differs_are_warned_of(self, tmp_path: Path) -> None:
        before, after = zeros_and_ones(both=20, only_before=0, only_after=20, neither=20)
        report = compared(
            side(experiment(tmp_path / "a", "lora", before, args={"seed": 1})),
            side(experiment(tmp_path / "b", "lora", after, args={"seed": 2})),
        )

        assert report.warnings == ("only the seed differs, so that significant differences are those of seeds: lora",)


def test_the_same_input_gives_the_same_report(tmp_path: Path) -> None:
    a = experiment(tmp_path / "a", "lora", [0.1, 0.5, 0.7])
    b = experiment(tmp_path / "b", "lora", [0.2, 0.4, 0.9])

    first, second = (compared(side(a), side(b, source="B")).model_dump_json() for _ in range(2))
    assert first == second
