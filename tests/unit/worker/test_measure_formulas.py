"""The arithmetic of the record's figures, against values worked out by hand and published ones."""

from __future__ import annotations

import pytest

from hpcbench.worker.measure import formulas
from hpcbench.worker.measure.formulas import Step


def make_step(step: int, *, loss: float | None = 1.0, time_s: float = 1.0, attempt: int = 1, samples: int = 4) -> Step:
    return Step(step=step, loss=loss, step_time_s=time_s, num_tokens=10 * samples, num_samples=samples, attempt=attempt)


def test_percentile_interpolates_between_the_nearest_ranks() -> None:
    assert formulas.percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert formulas.percentile([1.0, 2.0, 3.0, 4.0, 5.0], 10) == pytest.approx(1.4)
    assert formulas.percentile([7.0], 90) == 7.0
    assert formulas.percentile([], 50) is None


def test_speed_counts_all_steps_and_steady_speed_leaves_each_attempts_warmup_out() -> None:
    steps = [make_step(1, time_s=9.0), *(make_step(number) for number in range(2, 5))]
    steps += [make_step(5, time_s=5.0, attempt=2), *(make_step(number, attempt=2) for number in range(6, 9))]
    speed = formulas.summarise_speed(steps)
    assert speed.train_time_s == 20.0
    assert speed.num_samples == 32
    assert speed.samples_per_second == 32 / 20
    assert speed.tokens_per_second == 320 / 20
    assert speed.num_warmup_steps_excluded == 2
    assert speed.steady_samples_per_second == 4.0
    assert speed.step_time_median_s == 1.0


@pytest.mark.parametrize(("num_steps", "expected"), [(0, 0), (3, 0), (4, 1), (19, 4), (20, 5), (1000, 5)])
def test_warmup_is_at_most_five_steps_and_a_quarter(num_steps: int, expected: int) -> None:
    assert formulas.count_warmup_steps(num_steps) == expected


def test_speed_of_no_steps_is_unknown_not_zero() -> None:
    speed = formulas.summarise_speed([])
    assert speed.samples_per_second is None
    assert speed.steady_tokens_per_second is None
    assert speed.step_time_median_s is None


def test_redone_steps_count_once_with_the_latest_attempt() -> None:
    steps = [make_step(1), make_step(2, loss=9.0), make_step(2, loss=2.0, attempt=2), make_step(3, loss=3.0, attempt=2)]
    kept = formulas.latest_by_step(steps)
    assert [(step.step, step.loss) for step in kept] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert formulas.mean_loss(kept) == 2.0


def test_mean_loss_is_unknown_when_one_step_diverged() -> None:
    assert formulas.mean_loss([make_step(1), make_step(2, loss=None)]) is None
    assert formulas.mean_loss([]) is None


def test_lengths_are_summarised_with_the_population_deviation() -> None:
    stats = formulas.summarise_lengths([2, 4, 4, 4, 5, 5, 7, 9], num_truncated=1, num_dropped=3)
    assert stats is not None
    assert (stats.mean, stats.std, stats.min, stats.max) == (5.0, 2.0, 2, 9)
    assert (stats.num_samples, stats.num_truncated, stats.num_dropped) == (8, 1, 3)
    assert formulas.summarise_lengths([]) is None
    # E[s^2] / E[s]: the 232 squares over the sum 40
    assert formulas.mean_context_length(stats) == pytest.approx(232 / 40)


def test_flops_per_token_of_palm_540b_are_those_of_its_paper() -> None:
    # arXiv:2204.02311 appendix B: 540.35 B parameters, 118 layers, 48 heads of 256, sequence 2048; with 238.3 k tokens/s
    # on 6144 TPU v4 of 275 TFLOP/s the paper states an MFU of 45.7 % without and 46.2 % with attention.
    flops = formulas.flops_per_token(
        num_trained=540_350_000_000,
        num_frozen=0,
        num_layers=118,
        attention_width=48 * 256,
        context_length=2048,
    )
    mfu = formulas.model_flops_utilisation(
        tokens_per_second_per_device=238_300 / 6144, flops_per_token=flops, peak_flops=275e12
    )
    assert mfu == pytest.approx(0.462, abs=0.0005)


def test_frozen_weights_cost_two_thirds_above_trained_ones_and_a_third_below() -> None:
    flops = formulas.flops_per_token(
        num_trained=10,
        num_frozen=100,
        num_layers=3,
        attention_width=8,
        context_length=16,
        num_forward_only=1000,
        num_layers_forward_only=1,
    )
    assert flops == 6 * 10 + 4 * 100 + 2 * 1000 + (12 * 2 + 4 * 1) * 8 * 16


def test_mfu_is_unknown_without_a_peak() -> None:
    assert (
        formulas.model_flops_utilisation(tokens_per_second_per_device=1.0, flops_per_token=1.0, peak_flops=None) is None
    )
