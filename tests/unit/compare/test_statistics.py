"""The tests behind a comparison, against scipy, against published examples and against cases by hand."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Sequence

import pytest

from hpcbench.compare.statistics import (
    MAX_RESAMPLES,
    NUM_RESAMPLES,
    MissingAnalysisError,
    Stratum,
    UnpairedScores,
    exact_mcnemar,
    holm,
    mcnemar,
    num_resamples_for,
    paired_bootstrap,
    unpaired,
    welch,
)


def one_task(before: Sequence[float], after: Sequence[float]) -> list[Stratum]:
    return [Stratum(weight=1.0, before=(tuple(before),), after=(tuple(after),))]


def noise(seed: int, count: int, *, mean: float = 0.0) -> list[float]:
    generator = random.Random(seed)
    return [mean + generator.gauss(0, 1) for _ in range(count)]


class TestMcNemar:
    @pytest.mark.parametrize(
        ("num_gained", "num_lost", "by_hand"),
        [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (0, 6, 2 / 64), (3, 1, 2 * (1 + 4) / 16), (2, 2, 1.0)],
    )
    def test_small_cases_by_hand(self, num_gained: int, num_lost: int, by_hand: float) -> None:
        assert exact_mcnemar(num_gained, num_lost) == by_hand

    @pytest.mark.parametrize(("num_gained", "num_lost"), [(1, 7), (7, 1), (40, 61), (300, 200), (5000, 4800)])
    def test_it_is_the_binomial_test_of_scipy(self, num_gained: int, num_lost: int) -> None:
        from scipy.stats import binomtest

        expected = binomtest(num_gained, num_gained + num_lost, 0.5).pvalue
        assert exact_mcnemar(num_gained, num_lost) == pytest.approx(expected, rel=1e-9)

    def test_far_tails_are_exact_where_floats_end(self) -> None:
        assert exact_mcnemar(0, 1000) == 2 / 2**1000
        assert exact_mcnemar(0, 3000) == 0.0

    def test_published_example_of_airway_hyper_responsiveness(self) -> None:
        """Fagerland, Lydersen and Laake (2014): 21 children, 1 and 7 discordant; Bonett and Price's interval."""
        found = mcnemar(21, 1, 7)

        assert found.p_value == pytest.approx(0.0703, abs=5e-5)
        assert found.interval == pytest.approx((-0.508, -0.013), abs=5e-4)

    def test_interval_stays_within_possible_differences(self) -> None:
        assert mcnemar(1, 1, 0).interval[1] <= 1
        assert mcnemar(1, 0, 1).interval[0] >= -1

    def test_sides_exchanged_give_the_mirrored_result(self) -> None:
        forth, back = mcnemar(50, 9, 4), mcnemar(50, 4, 9)

        assert forth.p_value == back.p_value
        assert forth.interval == pytest.approx((-back.interval[1], -back.interval[0]))


class TestPairedBootstrap:
    def test_interval_is_scipys(self) -> None:
        import numpy as np
        from scipy.stats import bootstrap

        before, after = noise(1, 80), noise(2, 80, mean=0.4)
        found = paired_bootstrap(one_task(before, after))

        by_scipy = bootstrap(
            (np.array(after) - np.array(before),), np.mean, method="percentile", random_state=np.random.default_rng(3)
        ).confidence_interval
        assert found.interval == pytest.approx((by_scipy.low, by_scipy.high), abs=0.02)

    def test_p_value_is_near_that_of_the_paired_t_test(self) -> None:
        from scipy.stats import ttest_rel

        before, after = noise(1, 200), noise(2, 200, mean=0.3)
        expected = ttest_rel(after, before).pvalue

        assert 0.01 < expected < 0.1
        assert paired_bootstrap(one_task(before, after)).p_value == pytest.approx(expected, rel=0.15)

    def test_of_scores_of_0_and_1_it_is_near_mcnemars_p_value(self) -> None:
        before = [0.0] * 60 + [1.0] * 40 + [0.0] * 400 + [1.0] * 500
        after = [1.0] * 60 + [0.0] * 40 + [0.0] * 400 + [1.0] * 500

        assert paired_bootstrap(one_task(before, after)).p_value == pytest.approx(exact_mcnemar(60, 40), abs=0.015)

    def test_equal_scores_are_not_different(self) -> None:
        found = paired_bootstrap(one_task([0.1, 0.2, 0.7], [0.1, 0.2, 0.7]))

        assert found.p_value == 1
        assert found.interval == (0, 0)

    def test_scores_equal_on_average_are_not_different(self) -> None:
        assert paired_bootstrap(one_task([0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1])).p_value == 1

    def test_clear_difference_reaches_the_smallest_p_value(self) -> None:
        assert paired_bootstrap(one_task([0.0, 0.1, 0.2] * 20, [1.0, 1.1, 1.2] * 20)).p_value == 1 / 10_000

    def test_same_input_gives_the_same_result(self) -> None:
        strata = one_task(noise(1, 30), noise(2, 30))

        assert paired_bootstrap(strata) == paired_bootstrap(strata)

    def test_order_of_documents_does_not_matter_beyond_the_draw(self) -> None:
        before, after = noise(1, 100), noise(2, 100, mean=0.2)
        turned = paired_bootstrap(one_task(before[::-1], after[::-1]))

        assert paired_bootstrap(one_task(before, after)).p_value == pytest.approx(turned.p_value, abs=0.02)

    def test_large_inputs_are_drawn_in_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        strata = one_task(noise(1, 50), noise(2, 50, mean=0.3))
        whole = paired_bootstrap(strata)
        monkeypatch.setattr("hpcbench.compare.statistics._CHUNK_NUMBERS", 5_000)

        assert paired_bootstrap(strata).p_value == pytest.approx(whole.p_value, abs=0.01)

    def test_a_task_counts_by_its_weight(self) -> None:
        large = Stratum(weight=0.5, before=((0.0,) * 100,), after=((0.0,) * 100,))
        small = Stratum(weight=0.5, before=((0.0,) * 2,), after=((1.0,) * 2,))

        assert paired_bootstrap([large, small]).interval == (0.5, 0.5), "the mean of tasks, each without spread"

    def test_spread_over_runs_widens_the_interval(self) -> None:
        documents = tuple(noise(1, 100))
        up = tuple(score + 1 for score in documents)
        same = Stratum(weight=1.0, before=(documents, documents), after=(up, up))
        apart = Stratum(weight=1.0, before=(documents, documents), after=(up, tuple(score + 0.8 for score in up)))

        assert paired_bootstrap([same]).interval == pytest.approx((1, 1))
        low, high = paired_bootstrap([apart]).interval
        # 1.4 -+ 0.4 * 12.7, Student's t of one degree of freedom.
        assert [low, high] == [pytest.approx(-3.7, abs=1), pytest.approx(6.5, abs=1)]

    def test_runs_that_differ_by_chance_are_not_found_more_often_than_one_case_in_twenty(self) -> None:
        def runs(seed: int) -> tuple[tuple[float, ...], ...]:
            return tuple(tuple(shift + score for score in noise(0, 60)) for shift in noise(1000 + seed, 3))

        cases = [Stratum(weight=1.0, before=runs(2 * seed), after=runs(2 * seed + 1)) for seed in range(200)]
        found = sum(paired_bootstrap([case], num_resamples=499).p_value < 0.05 for case in cases)

        assert found <= 18

    def test_without_an_effect_it_finds_one_in_about_one_case_of_twenty(self) -> None:
        cases = [one_task(noise(2 * seed, 60), noise(2 * seed + 1, 60)) for seed in range(200)]
        found = sum(paired_bootstrap(case, num_resamples=499).p_value < 0.05 for case in cases)

        assert 3 <= found <= 20


class TestUnpaired:
    def test_of_single_runs_it_is_the_z_test(self) -> None:
        from scipy.stats import norm

        found = unpaired(side(0.50, stderr=0.02), side(0.55, stderr=0.03))

        assert found is not None
        assert found.method == "unpaired_z"
        assert found.p_value == pytest.approx(2 * norm.sf(0.05 / math.hypot(0.02, 0.03)))
        assert found.interval == pytest.approx((0.05 - 1.959964 * 0.0360555, 0.05 + 1.959964 * 0.0360555), abs=1e-6)

    def test_of_several_runs_without_an_error_of_the_documents_it_is_welchs(self) -> None:
        before, after = (0.31, 0.33, 0.29), (0.36, 0.35, 0.41, 0.39)
        found, by_welch = unpaired(side(*before), side(*after)), welch(before, after)

        assert found is not None
        assert by_welch is not None
        assert found.method == "unpaired_t"
        assert (found.p_value, *found.interval) == pytest.approx((by_welch.p_value, *by_welch.interval))

    def test_runs_of_no_spread_to_speak_of_change_nothing(self) -> None:
        by_documents = unpaired(side(0.5, stderr=0.02), side(0.55, stderr=0.03))
        found = unpaired(side(0.5, 0.5 + 1e-14, stderr=0.02), side(0.55, 0.55, stderr=0.03))

        assert found is not None
        assert by_documents is not None
        assert found.p_value == pytest.approx(by_documents.p_value, abs=1e-6)

    def test_without_an_effect_two_runs_a_side_find_at_most_one_in_about_ten_cases(self) -> None:
        """Runs that differ as much as a score's standard error: a z-test finds chance significant in 16 of 100."""
        draw = random.Random(4)
        cases = [[side(draw.gauss(0.5, 0.03), draw.gauss(0.5, 0.03), stderr=0.001) for _ in "ab"] for _ in range(400)]
        found = [result for before, after in cases if (result := unpaired(before, after)) is not None]

        assert 4 <= sum(result.p_value < 0.05 for result in found) <= 30

    def test_scores_without_errors_are_not_tested(self) -> None:
        assert unpaired(side(0.0), side(0.5)) is None
        assert unpaired(side(0.25, 0.25), side(0.5, 0.5)) is None


def side(*scores: float, stderr: float = 0.0) -> UnpairedScores:
    return UnpairedScores(scores=scores, stderr=stderr)


def test_paired_scores_show_what_unpaired_ones_hide() -> None:
    """220 documents, 30 gained and 12 lost, 68 solved by both: the case of lm-evaluation-harness pull request 3868."""
    before, after = (68 + 12) / 220, (68 + 30) / 220
    found = unpaired(*(side(score, stderr=math.sqrt(score * (1 - score) / 219)) for score in (before, after)))

    assert found is not None
    assert round(found.p_value, 3) == 0.080
    assert round(mcnemar(220, 30, 12).p_value, 3) == 0.008


class TestWelch:
    def test_it_is_scipys(self) -> None:
        from scipy.stats import ttest_ind

        before, after = [3.1, 3.3, 2.9], [3.6, 3.5, 4.1, 3.9]
        found = welch(before, after)

        assert found is not None
        by_scipy = ttest_ind(after, before, equal_var=False)
        assert found.p_value == pytest.approx(by_scipy.pvalue)
        assert found.interval == pytest.approx(tuple(by_scipy.confidence_interval(0.95)))

    def test_one_side_may_be_without_spread(self) -> None:
        found = welch([1.0, 1.0, 1.0], [2.0, 2.1])

        assert found is not None
        assert 0 < found.p_value < 0.05

    @pytest.mark.parametrize(("before", "after"), [([1.0], [2.0, 3.0]), ([1.0, 2.0], [3.0])])
    def test_a_single_run_is_not_tested(self, before: list[float], after: list[float]) -> None:
        assert welch(before, after) is None

    def test_runs_without_spread_are_not_tested(self) -> None:
        assert welch([27.0, 27.0], [28.0, 28.0]) is None


class TestHolm:
    def test_published_example(self) -> None:
        """Wright (1992), Adjusted p-values for simultaneous inference: steps of Holm's procedure by hand."""
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))

    def test_order_of_input_is_kept_and_none_exceeds_1(self) -> None:
        assert holm([0.6, 0.5, 0.001]) == pytest.approx((1.0, 1.0, 0.003))

    def test_a_single_test_is_left_as_it_is(self) -> None:
        assert holm([0.04]) == (0.04,)
        assert holm([]) == ()


def test_many_tests_get_more_resamples() -> None:
    assert num_resamples_for(1, 0.05) == NUM_RESAMPLES
    assert num_resamples_for(300, 0.05) == 59_999
    assert num_resamples_for(10**6, 0.05) == MAX_RESAMPLES


@pytest.mark.parametrize("library", ["numpy", "scipy"])
def test_a_missing_library_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    tests: dict[str, Callable[[], object]] = {
        "numpy": lambda: paired_bootstrap(one_task([1.0], [2.0])),
        "scipy": lambda: welch([1.0, 2.0], [3.0, 5.0]),
    }

    with pytest.raises(MissingAnalysisError) as caught:
        tests[library]()

    assert str(caught.value) == (
        f"{library} is not installed\n  hint: `pip install 'hpcbench-llm[analysis]'` installs it"
    )
