"""The tests behind a comparison: which difference is more than chance.

In: plain numbers. Out: p-values (two-sided) and 95 % intervals of a difference, after minus before. It reads no file
and draws the same random numbers at every call. numpy and scipy are imported only by the tests that need them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance
from typing import TYPE_CHECKING, Literal

from hpcbench.errors import ReportError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

Method = Literal["mcnemar", "paired_bootstrap", "unpaired_z", "unpaired_t", "welch"]

CONFIDENCE = 0.95
NUM_RESAMPLES = 9_999
"""Of a bootstrap, unless many comparisons need smaller p-values."""
MAX_RESAMPLES = 199_999
ANALYSIS = "pip install 'hpcbench-llm[analysis]'"
_SEED = 20_260_701
_ROUNDING = 1e-12
"""Differences of sums in another order."""
_MANY_TIMES = 1e6
_CHUNK_NUMBERS = 4_000_000
"""Random numbers that are drawn at a time: 32 MB."""


class MissingAnalysisError(ReportError):
    """A test needs numpy or scipy, and they are not installed."""

    def __init__(self, library: str) -> None:
        super().__init__(f"{library} is not installed", hint=f"`{ANALYSIS}` installs it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Significance:
    """What a test found."""

    method: Method
    p_value: float
    interval: tuple[float, float]
    """95 % interval of the difference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """The documents of one eval task, with their scores before and after."""

    weight: float
    """Part of the task's mean in the whole score; all weights sum to 1."""
    before: tuple[tuple[float, ...], ...]
    """Per run, a score per document: [run][document]."""
    after: tuple[tuple[float, ...], ...]
    """[run][document], the same documents in the same order."""


def exact_mcnemar(num_gained: int, num_lost: int) -> float:
    """Return the exact p-value of paired 0/1 scores, from the documents that only one side solved.

    Without a difference each of them falls to either side with probability 1/2, so that the p-value is twice the
    smaller tail of a binomial distribution, at most 1 (McNemar 1947 in its exact form; Fagerland, Lydersen and Laake
    2013, doi:10.1186/1471-2288-13-91). Integers throughout: exact for any number of documents.
    """
    total, smaller = num_gained + num_lost, min(num_gained, num_lost)
    term = tail = 1
    for k in range(smaller):
        term = term * (total - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << total))


def mcnemar(num_documents: int, num_gained: int, num_lost: int) -> Significance:
    """Test paired 0/1 scores.

    The interval is Bonett and Price's (2012, doi:10.3102/1076998611411915): Wald's with one document more on either
    side, which keeps its coverage for few documents.
    """
    gained, lost = (num_gained + 1) / (num_documents + 2), (num_lost + 1) / (num_documents + 2)
    error = math.sqrt((gained + lost - (gained - lost) ** 2) / (num_documents + 2))
    interval = _normal_interval(gained - lost, error)
    return Significance(
        method="mcnemar",
        p_value=exact_mcnemar(num_gained, num_lost),
        interval=(max(-1.0, interval[0]), min(1.0, interval[1])),
    )


def paired_bootstrap(strata: Sequence[Stratum], *, num_resamples: int = NUM_RESAMPLES) -> Significance:
    """Test paired scores of any kind by resampling documents, with the spread between runs where a side has several.

    Documents are drawn within their task, the same ones for both sides. Two or three runs are too few to be drawn
    again: that takes chance for a difference up to five times as often as it should. So each resampled difference has
    an error of the runs added, from the t-distribution of Welch's test. The p-value is the part of the resampled
    differences that lie as far from the observed one as that lies from 0, the observed one counted (Davison and
    Hinkley 1997, 4.4).

    Raises:
        MissingAnalysisError: numpy is not installed.
    """
    try:
        import numpy as np
    except ImportError as error:
        raise MissingAnalysisError("numpy") from error
    generator = np.random.Generator(np.random.PCG64(_SEED))
    observed, resampled = 0.0, np.zeros(num_resamples)
    old_runs, new_runs = np.zeros(len(strata[0].before)), np.zeros(len(strata[0].after))
    for stratum in strata:
        before, after = np.array(stratum.before), np.array(stratum.after)
        observed += stratum.weight * float(after.mean() - before.mean())
        resampled += stratum.weight * _resample(generator, after.mean(axis=0) - before.mean(axis=0), num_resamples)
        old_runs += stratum.weight * before.mean(axis=1)
        new_runs += stratum.weight * after.mean(axis=1)
    spread, freedom = _error_of_means(old_runs.tolist(), new_runs.tolist())
    if spread > 0:
        resampled += spread * generator.standard_t(freedom, num_resamples)
    is_far = np.abs(resampled - observed) >= abs(observed) * (1 - _ROUNDING) - _ROUNDING
    low, high = np.quantile(resampled, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Significance(
        method="paired_bootstrap",
        p_value=(1 + int(is_far.sum())) / (num_resamples + 1),
        interval=(float(low), float(high)),
    )


def _resample(generator: np.random.Generator, differences: Scores, num_resamples: int) -> Scores:
    """Return the resampled means of one task's differences, which are one per document."""
    import numpy as np

    # Documents of the same difference are drawn together, as many as fall to them.
    values, counts = np.unique(differences, return_counts=True)
    at_a_time = max(1, _CHUNK_NUMBERS // len(counts))
    found = np.empty(num_resamples)
    for start in range(0, num_resamples, at_a_time):
        part = slice(start, min(start + at_a_time, num_resamples))
        drawn = generator.multinomial(len(differences), counts / len(differences), part.stop - part.start)
        found[part] = drawn @ values / len(differences)
    return found


def _error_of_means(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Return the error between runs of a difference of means, and Satterthwaite's degrees of freedom of this error.

    A side of a single run, which says nothing about it, adds nothing.
    """
    squares = [(variance(runs) / len(runs), len(runs) - 1) for runs in (before, after) if len(runs) > 1]
    error = math.sqrt(sum(square for square, _ in squares))
    if error**4 == 0:
        return 0.0, math.inf
    return error, error**4 / sum(square**2 / freedom for square, freedom in squares)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpairedScores:
    """A side's scores on documents of which the other side may have others."""

    scores: tuple[float, ...]
    """One per run."""
    stderr: float
    """The standard error of a score that comes from its documents, which all runs of the side share."""


def unpaired(before: UnpairedScores, after: UnpairedScores) -> Significance | None:
    """Test two scores on different documents by their standard errors, and by the spread between runs where there is.

    The error of the documents is taken as known, which gives a z-test; that of a few runs is not, so that with several
    runs it is a t-test with Satterthwaite's degrees of freedom, to which known errors add none (Welch 1947).

    Returns:
        None where there is no error on either side.

    Raises:
        MissingAnalysisError: scipy is not installed, and a side has several runs.
    """
    difference = fmean(after.scores) - fmean(before.scores)
    between, freedom = _error_of_means(before.scores, after.scores)
    error = math.hypot(before.stderr, after.stderr, between)
    if error == 0:
        return None
    if between == 0:
        p_value = math.erfc(abs(difference) / error / math.sqrt(2))
        return Significance(method="unpaired_z", p_value=p_value, interval=_normal_interval(difference, error))
    if error / between > _MANY_TIMES:  # the difference between t and z is far below any printed digit
        between, freedom = error, _MANY_TIMES
    return _t_test("unpaired_t", difference, error, freedom * (error / between) ** 4)


def welch(before: Sequence[float], after: Sequence[float]) -> Significance | None:
    """Test the means of a figure over several runs of each side, whose variances may differ (Welch 1947).

    Returns:
        None where a side has a single run, or where no run of a side differs from the others.

    Raises:
        MissingAnalysisError: scipy is not installed.
    """
    if min(len(before), len(after)) < 2:  # noqa: PLR2004
        return None
    error, freedom = _error_of_means(before, after)
    if error == 0:
        return None
    return _t_test("welch", fmean(after) - fmean(before), error, freedom)


def _t_test(method: Method, difference: float, error: float, freedom: float) -> Significance:
    try:
        from scipy import special
    except ImportError as missing:
        raise MissingAnalysisError("scipy") from missing
    reach = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
    return Significance(
        method=method,
        p_value=2 * float(special.stdtr(freedom, -abs(difference) / error)),
        interval=(difference - reach, difference + reach),
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p-values for all comparisons together (Holm 1979): below 0.05, at most one false finding in 20 families.

    The smallest is multiplied by the number of tests, the next by one less, and so on, none below the one before.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return tuple(adjusted)


def num_resamples_for(num_tests: int, alpha: float) -> int:
    """Return how many resamples show a p-value that stays a tenth of `alpha` after Holm's correction."""
    return min(MAX_RESAMPLES, max(NUM_RESAMPLES, math.ceil(10 * num_tests / alpha) - 1))


def _normal_interval(difference: float, error: float) -> tuple[float, float]:
    reach = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * error
    return difference - reach, difference + reach
