"""The conditions of `--fail-if`: when a comparison is a failure.

In: what was typed. Out: parsed conditions, and what became of each in a report. Nothing typed is ever run as code. A
condition whose metric is missing on a side cannot be judged, which counts as failed: a gate does not open for a result
that is not there.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from hpcbench.compare.result import Comparison, ComparisonReport, FoundCondition
from hpcbench.compare.statistics import ANALYSIS
from hpcbench.errors import PlanError, did_you_mean, name_first

GRAMMAR = "METRIC<NUMBER, METRIC>NUMBER%, either with `significant` behind it, or worse"
WORSE = "worse"
DECIMALS = 12
"""Of a difference that a condition sees: 0.4 - 0.5 is -0.1, not a little more."""
_COMPARES: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION = re.compile(
    r"\s*(?P<metric>[^<>\s](?:[^<>]*[^<>\s])?)\s*(?P<sign><=|>=|<|>)\s*"
    r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(?P<percent>%)?(?P<significant>\s+significant)?\s*"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One `--fail-if`."""

    text: str
    """As it was typed."""
    metric: str
    """Name or glob of a metric, or of a score's eval dataset."""
    sign: str = ""
    """Empty for `worse`, which any metric fulfills that is significantly worse."""
    number: float = 0.0
    is_percent: bool = False
    must_be_significant: bool = False

    def means(self, comparison: Comparison) -> bool:
        """Return whether the condition is about this metric."""
        names = (comparison.metric, comparison.dataset)
        return any(name == self.metric or fnmatchcase(name, self.metric) for name in names if name is not None)

    def holds(self, comparison: Comparison) -> bool | None:
        """Return whether a comparison fulfills it, None where that cannot be known."""
        if not self.sign:
            is_open = comparison.before.value is not None and not comparison.after.is_complete
            return None if is_open or ANALYSIS in (comparison.not_tested or "") else comparison.verdict == "worse"
        difference = comparison.change_pct if self.is_percent else comparison.difference
        if difference is None or not (comparison.before.is_complete and comparison.after.is_complete):
            return None
        if self.must_be_significant and comparison.test is None:
            return None
        is_beyond = _COMPARES[self.sign](round(difference, DECIMALS), self.number)
        return is_beyond and (not self.must_be_significant or comparison.verdict != "not_significant")


def parse_condition(text: str) -> Condition:
    """Return the condition that was typed.

    Raises:
        PlanError: it is none.
    """
    if text.strip() == WORSE:
        return Condition(text=text, metric="*")
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise PlanError(
            f"--fail-if {text}: not a condition\n  expected: {GRAMMAR}",
            hint="--fail-if 'gsm8k<-0.02', --fail-if 'train_samples_per_second<-5%'",
        )
    return Condition(
        text=text,
        metric=found["metric"],
        sign=found["sign"],
        number=float(found["number"]),
        is_percent=found["percent"] is not None,
        must_be_significant=found["significant"] is not None,
    )


def judge_conditions(report: ComparisonReport, conditions: Iterable[Condition]) -> ComparisonReport:
    """Return the report with what became of each condition.

    Raises:
        PlanError: a condition is about a metric that no pair has.
    """
    return report.model_copy(update={"conditions": tuple(_judge(report, condition) for condition in conditions)})


def _judge(report: ComparisonReport, condition: Condition) -> FoundCondition:
    found = [
        (pair.name, comparison)
        for pair in report.pairs
        for comparison in pair.comparisons
        if condition.means(comparison)
    ]
    if not found:
        raise _unknown(condition, [comparison for pair in report.pairs for comparison in pair.comparisons])
    outcomes = [(name, comparison, condition.holds(comparison)) for name, comparison in found]
    failed = [_describe(name, comparison) for name, comparison, holds in outcomes if holds]
    if failed:
        return FoundCondition(condition=condition.text, outcome="failed", cases=tuple(failed))
    open_cases = [_why_not(name, comparison) for name, comparison, holds in outcomes if holds is None]
    open_cases += [f"{name}: not on the other side" for name in report.before.only_here]
    if open_cases:
        return FoundCondition(condition=condition.text, outcome="not_judged", cases=tuple(open_cases))
    return FoundCondition(condition=condition.text, outcome="passed")


def _describe(name: str, comparison: Comparison) -> str:
    change = "" if comparison.change_pct is None else f" ({comparison.change_pct:+.2f} %)"
    p_value = "" if comparison.test is None else f", p = {comparison.test.p_adjusted:.2g}"
    return f"{name}: {comparison.label} {comparison.difference or 0:+.4g}{change}{p_value}"


def _why_not(name: str, comparison: Comparison) -> str:
    for side, value in (("before", comparison.before), ("after", comparison.after)):
        if value.value is None:
            return f"{name}: {comparison.label} is missing {side} ({value.missing})"
    if comparison.difference is not None and comparison.change_pct is None:
        return f"{name}: {comparison.label} was 0, so that its change has no percentage"
    return f"{name}: {comparison.label} was not tested: {comparison.not_tested}"


def _unknown(condition: Condition, comparisons: Sequence[Comparison]) -> PlanError:
    datasets = [comparison.dataset for comparison in comparisons if comparison.dataset is not None]
    names = list(dict.fromkeys((*datasets, *(comparison.metric for comparison in comparisons))))
    hint = did_you_mean(condition.metric, names)
    return PlanError(
        f"--fail-if {condition.text}: no metric {condition.metric}\n  expected: {name_first(names, 12)}", hint=hint
    )
