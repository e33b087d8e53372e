"""The comparison itself: every metric of every pair, before and after, each difference tested where that is possible.

In: pairs of experiments. Out: a `ComparisonReport`. Scores on the same documents are paired: McNemar's exact test for
scores of 0 or 1 of single runs, else a bootstrap. Scores on other documents are tested by their standard errors,
figures over the runs of either side. A metric that not all runs of an experiment have is not tested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from hpcbench.compare.differences import (
    environment_changes,
    environment_warnings,
    figure_remarks,
    score_remarks,
    seed_warnings,
    setting_changes,
)
from hpcbench.compare.documents import Paired, SampleFiles, pair_documents
from hpcbench.compare.pairs import Matched
from hpcbench.compare.result import Comparison, ComparisonReport, Pair, SideInfo, Test, Value, Verdict
from hpcbench.compare.runs import FIGURES, NOT_MEASURED, Experiment, Run, RunScore, Side, missing_text
from hpcbench.compare.statistics import (
    MissingAnalysisError,
    Significance,
    UnpairedScores,
    holm,
    mcnemar,
    num_resamples_for,
    paired_bootstrap,
    unpaired,
    welch,
)
from hpcbench.errors import plural
from hpcbench.report.column import Column

ALPHA = 0.05
ONE_RUN = "one run on a side says nothing about the spread between runs; `repeats` in the suite makes several"
NO_SPREAD = "the runs of either side are equal"
NO_STDERR = "both standard errors are 0"
MISSING = "missing on a side"
INCOMPLETE = "not all runs of the experiment have it"

RunTest = Callable[[int], Significance | None]
"""From a number of resamples to what the test found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Untested:
    """A comparison that waits for its test, since all tests are corrected together."""

    comparison: Comparison
    run_test: RunTest | None = None
    why: str = ""
    paired: Paired | None = None


def compare(before: Side, after: Side, matched: Matched, *, alpha: float = ALPHA) -> ComparisonReport:
    """Compare all pairs."""
    files = SampleFiles()
    waiting = [_compare_pair(*pair, files) for pair in matched.pairs]
    num_tests = sum(item.run_test is not None for items in waiting for item in items)
    num_resamples = num_resamples_for(num_tests, alpha)
    tested = [[_run_test(item, num_resamples) for item in items] for items in waiting]
    adjusted = iter(holm([item.test.p_value for items in tested for item in items if item.test is not None]))
    pairs = [
        Pair(
            name=pair_name(old, new),
            before=old.full_name,
            after=new.full_name,
            settings=setting_changes(old, new),
            environment=environment_changes(old, new),
            comparisons=tuple(_judge(item, adjusted, alpha) for item in items),
        )
        for (old, new), items in zip(matched.pairs, tested, strict=True)
    ]
    return ComparisonReport(
        alpha=alpha,
        num_tests=sum(comparison.test is not None for pair in pairs for comparison in pair.comparisons),
        before=_side_info(before, matched.only_before),
        after=_side_info(after, matched.only_after),
        warnings=(*environment_warnings(pairs), *seed_warnings(pairs)),
        pairs=tuple(pairs),
    )


def _side_info(side: Side, only_here: tuple[str, ...]) -> SideInfo:
    return SideInfo(
        source=side.source, finished_at=side.finished_at, collected_at=side.collected_at, only_here=only_here
    )


def pair_name(old: Experiment, new: Experiment) -> str:
    """Return the name of a pair, both where they differ."""
    return old.name if old.name == new.name else f"{old.name} → {new.name}"


def _compare_pair(old: Experiment, new: Experiment, files: SampleFiles) -> list[_Untested]:
    runs = (*old.runs, *new.runs)
    scores = {key: score for run in runs for key, score in run.scores.items()}
    scored = {score.dataset for score in scores.values()}
    # An eval that has ended on neither side has a line, too: what is missing is said.
    unscored = dict.fromkeys(
        dataset
        for run in runs
        for dataset in run.eval_states
        if dataset not in scored and missing_text(run, dataset=dataset) is not None
    )
    figures = {key for run in runs for key in run.figures}
    reported = dict.fromkeys(key for run in runs for key in run.reported)
    return [
        *(_compare_score(score, old, new, files) for score in scores.values()),
        *(_no_score(dataset, old, new) for dataset in unscored),
        *(
            _compare_figure(column.key, _header(column), column.better, old, new)
            for column in FIGURES.values()
            if column.key in figures
        ),
        *(_compare_figure(key, key, None, old, new) for key in reported),
    ]


def _header(column: Column) -> str:
    return (column.short or column.header or column.key).replace("\n", " ")


def _compare_score(score: RunScore, old: Experiment, new: Experiment, files: SampleFiles) -> _Untested:
    before, after = ([run.scores[score.key] for run in side.runs if score.key in run.scores] for side in (old, new))
    comparison = Comparison(
        metric=score.key,
        label=score.label,
        kind="score",
        dataset=score.dataset if score.task is None else score.task,
        better="higher" if score.higher_is_better else "lower",
        before=_score_value(old, before, score.dataset),
        after=_score_value(new, after, score.dataset),
        verdict="missing",
        remarks=score_remarks(before, after),
    )
    comparison, reason = _with_difference(comparison)
    if reason is not None:
        return _Untested(comparison=comparison.model_copy(update={"not_tested": reason}))
    paired = pair_documents(before, after, files)
    if isinstance(paired, Paired):
        return _paired_test(comparison, paired, len(before), len(after))
    return _unpaired_test(comparison, before, after, why=paired)


def _paired_test(comparison: Comparison, paired: Paired, *num_runs: int) -> _Untested:
    same = f"the same {plural(paired.num_documents, 'document')}"
    if paired.is_binary:
        gained, lost = paired.num_gained, paired.num_lost
        return _Untested(
            comparison=comparison,
            run_test=lambda _: mcnemar(paired.num_documents, gained, lost),
            why=f"scores of 0 or 1 on {same}",
            paired=paired,
        )
    runs = "" if max(num_runs) == 1 else f", {num_runs[0]} and {plural(num_runs[1], 'run')}"
    return _Untested(
        comparison=comparison,
        run_test=lambda num_resamples: paired_bootstrap(paired.strata, num_resamples=num_resamples),
        why=f"scores on {same}{runs}",
        paired=paired,
    )


def _unpaired_test(
    comparison: Comparison, before: Sequence[RunScore], after: Sequence[RunScore], *, why: str
) -> _Untested:
    old, new = _unpaired_scores(before), _unpaired_scores(after)
    if old is None or new is None:
        reason = f"{why}, and lm-eval gives no standard error"
        return _Untested(comparison=comparison.model_copy(update={"not_tested": reason}))
    return _Untested(comparison=comparison, run_test=lambda _: unpaired(old, new), why=why)


def _unpaired_scores(scores: Sequence[RunScore]) -> UnpairedScores | None:
    errors = [score.stderr for score in scores if score.stderr is not None]
    if len(errors) < len(scores):
        return None
    return UnpairedScores(scores=tuple(score.value for score in scores), stderr=fmean(errors))


def _compare_figure(
    key: str, label: str, better: Literal["higher", "lower"] | None, old: Experiment, new: Experiment
) -> _Untested:
    before, after = ([value for run in side.runs if (value := _figure(run, key)) is not None] for side in (old, new))
    comparison = Comparison(
        metric=key,
        label=label,
        kind="figure",
        better=better,
        before=_value(before, old, _missing(old, dataset=None)),
        after=_value(after, new, _missing(new, dataset=None)),
        verdict="missing",
        remarks=figure_remarks(key, setting_changes(old, new), environment_changes(old, new)),
    )
    comparison, reason = _with_difference(comparison)
    if reason is None and min(len(before), len(after)) == 1:
        reason = ONE_RUN
    if reason is None and len({*before}) == len({*after}) == 1:
        reason = NO_SPREAD
    if reason is not None:
        return _Untested(comparison=comparison.model_copy(update={"not_tested": reason}))
    return _Untested(
        comparison=comparison, run_test=lambda _: welch(before, after), why=f"{len(before)} runs against {len(after)}"
    )


def _no_score(dataset: str, old: Experiment, new: Experiment) -> _Untested:
    """Return the line of an eval without a score on either side."""
    return _Untested(
        comparison=Comparison(
            metric=dataset,
            label=dataset,
            kind="score",
            dataset=dataset,
            better=None,
            before=_value([], old, _missing(old, dataset=dataset)),
            after=_value([], new, _missing(new, dataset=dataset)),
            verdict="missing",
        )
    )


def _figure(run: Run, key: str) -> float | None:
    return run.figures.get(key, run.reported.get(key))


def _score_value(experiment: Experiment, scores: Sequence[RunScore], dataset: str) -> Value:
    value = _value([score.value for score in scores], experiment, _missing(experiment, dataset=dataset))
    counts = {score.num_documents for score in scores}
    return value.model_copy(
        update={
            "stderr": scores[0].stderr if len(scores) == 1 else None,
            "num_documents": counts.pop() if len(counts) == 1 else None,
        }
    )


def _value(values: Sequence[float], experiment: Experiment, missing: str) -> Value:
    return Value(
        value=fmean(values) if values else None,
        std=stdev(values) if len(values) > 1 else None,
        num_runs=len(values),
        num_expected=len(experiment.runs),
        missing=None if len(values) == len(experiment.runs) else missing,
    )


def _missing(experiment: Experiment, *, dataset: str | None) -> str:
    """Return why an experiment has no figure or score, by the states of its runs."""
    states = dict.fromkeys(missing_text(run, dataset=dataset) for run in experiment.runs)
    return ", ".join(state for state in states if state is not None) or NOT_MEASURED


def _with_difference(comparison: Comparison) -> tuple[Comparison, str | None]:
    """Add difference and change in percent; return also why it cannot be tested, if that is known by now."""
    old, new = comparison.before, comparison.after
    if old.value is None or new.value is None:
        return comparison, MISSING
    difference = new.value - old.value
    known = comparison.model_copy(
        update={
            "difference": difference,
            "change_pct": 100 * difference / abs(old.value) if old.value else None,
            "verdict": "not_tested",
        }
    )
    return known, None if old.is_complete and new.is_complete else INCOMPLETE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tested:
    comparison: Comparison
    test: Significance | None = None
    why: str = ""
    paired: Paired | None = None


def _run_test(item: _Untested, num_resamples: int) -> _Tested:
    if item.run_test is None:
        return _Tested(comparison=item.comparison)
    try:
        found = item.run_test(num_resamples)
        reason = NO_STDERR
    except MissingAnalysisError as error:
        found, reason = None, f"{error.message}; {error.hint}"
    if found is None:
        return _Tested(comparison=item.comparison.model_copy(update={"not_tested": reason}))
    return _Tested(comparison=item.comparison, test=found, why=item.why, paired=item.paired)


def _judge(item: _Tested, adjusted: Iterator[float], alpha: float) -> Comparison:
    """Return the comparison with its test and what follows from it."""
    found, paired = item.test, item.paired
    if found is None:
        return item.comparison
    p_adjusted = next(adjusted)
    is_mcnemar = found.method == "mcnemar" and paired is not None
    test = Test(
        method=found.method,
        why=item.why,
        p_value=found.p_value,
        p_adjusted=p_adjusted,
        interval=found.interval,
        num_documents=None if paired is None else paired.num_documents,
        num_gained=paired.num_gained if is_mcnemar and paired is not None else None,
        num_lost=paired.num_lost if is_mcnemar and paired is not None else None,
    )
    verdict = _verdict(item.comparison) if p_adjusted < alpha else "not_significant"
    return item.comparison.model_copy(update={"test": test, "verdict": verdict})


def _verdict(comparison: Comparison) -> Verdict:
    if comparison.better is None or not comparison.difference:
        return "different"
    return "better" if (comparison.difference > 0) == (comparison.better == "higher") else "worse"
