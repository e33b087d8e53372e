"""How a comparison reads: cells, notes and summaries, not yet escaped for any format.

In: a `ComparisonReport`. Out: plain text that Markdown, HTML and the terminal share.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hpcbench.compare.result import Change, Comparison, ComparisonReport, Pair, Test, Value, Verdict
from hpcbench.compare.runs import FIGURES, NOT_MEASURED
from hpcbench.compare.statistics import Method
from hpcbench.errors import name_first, plural
from hpcbench.report.cells import number_text
from hpcbench.report.document import moment_text
from hpcbench.schemas.states import JobState

HEADERS = ("experiment", "metric", "before", "after", "difference")
TEST_HEADERS = ("95 % interval", "p", "p (all)", "")
OOM = "OOM"
"""Out of GPU memory, which is a result."""
SCORE_DECIMALS = 3
REPORTED_DECIMALS = 4
SAME = "~"
MARKS: dict[Verdict, str] = {
    "better": "better",
    "worse": "worse",
    "different": "different",
    "not_significant": SAME,
    "not_tested": "",
    "missing": "",
}
VERDICT_TEXTS: dict[Verdict, str] = {
    "better": "better",
    "worse": "worse",
    "different": "different",
    "not_significant": "not significant",
    "not_tested": "not tested",
    "missing": "missing",
}
METHODS: dict[Method, str] = {
    "mcnemar": "McNemar's exact test, with Bonett and Price's interval",
    "paired_bootstrap": "a paired bootstrap over documents, with the spread between runs where there are several",
    "unpaired_z": "a z-test by the standard errors, since scores could not be paired",
    "unpaired_t": "a t-test by the standard errors and the spread between runs, since scores could not be paired",
    "welch": "Welch's t-test over the runs of either side",
}
OUTCOMES = {"passed": "passed", "failed": "FAILED", "not_judged": "FAILED, cannot be judged"}
NUM_TEXT_COLUMNS = 2
"""Columns of names; the others hold figures."""


def value_text(value: Value, comparison: Comparison) -> str:
    """Return a value with what is known of its spread, or why there is none."""
    text = brief_text(value, comparison)
    if value.value is None:
        return text
    decimals, scale = digits(comparison)
    spread = value.stderr if value.std is None else value.std
    text += "" if spread is None else f" ± {number_text(spread * scale, decimals)}"
    if value.num_runs < value.num_expected:
        return f"{text} (n={value.num_runs} of {value.num_expected})"
    return text if value.num_runs == 1 else f"{text} (n={value.num_runs})"


def brief_text(value: Value, comparison: Comparison) -> str:
    """Return a value alone, or why there is none."""
    if value.value is None:
        return OOM if value.missing == JobState.OUT_OF_MEMORY.value else value.missing or "-"
    decimals, scale = digits(comparison)
    return number_text(value.value * scale, decimals)


def difference_text(comparison: Comparison) -> str:
    """Return the difference of scores as such, that of figures in percent where it has one."""
    return "-" if comparison.difference is None else _in_unit(comparison, comparison.difference)


def interval_text(comparison: Comparison) -> str:
    """Return the 95 % interval of the difference in the difference's own unit."""
    if comparison.test is None:
        return ""
    low, high = (_in_unit(comparison, end) for end in comparison.test.interval)
    return f"{low} to {high}"


def _in_unit(comparison: Comparison, difference: float) -> str:
    if not difference:
        return "0"
    decimals, scale, unit = _difference_unit(comparison)
    text = number_text(difference * scale, decimals)
    return f"{'' if text.startswith('-') else '+'}{text}{unit}"


def _difference_unit(comparison: Comparison) -> tuple[int, float, str]:
    """Return decimals, printed number per raw number, and unit of a difference."""
    if comparison.kind == "figure" and comparison.change_pct is not None and comparison.before.value:
        return 1, 100 / abs(comparison.before.value), " %"
    return *digits(comparison), ""


def p_text(p_value: float) -> str:
    """Return a p-value with two digits that tell something."""
    return f"{p_value:.2g}" if p_value < 0.1 else f"{p_value:.2f}"  # noqa: PLR2004


def digits(comparison: Comparison) -> tuple[int, float]:
    """Return the decimals of a metric, and the printed number per raw number."""
    if comparison.kind == "score":
        return SCORE_DECIMALS, 1.0
    column = FIGURES.get(comparison.metric)
    return (REPORTED_DECIMALS, 1.0) if column is None else (column.decimals, column.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a table: plain texts, one per column."""

    cells: tuple[str, ...]
    brief: tuple[str, ...]
    """The same without spreads and remarks, for narrow terminals."""
    verdict: Verdict
    ends: tuple[float, float, float] | None = None
    """Lower end of the 95 % interval, difference, upper end, in the unit of the difference's cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """A table of comparisons."""

    title: str
    headers: tuple[str, ...]
    lines: tuple[Line, ...]


def tables(report: ComparisonReport) -> Iterator[Lines]:
    """Yield the tables: scores, then figures; the columns of tests only where something was tested."""
    for title, kind in (("Scores", "score"), ("Speed, memory, loss", "figure")):
        found = [(pair, comparison) for pair, comparison in _shown(report) if comparison.kind == kind]
        has_tests = any(comparison.test is not None for _, comparison in found)
        if found:
            yield Lines(
                title=title,
                headers=(*HEADERS, *(TEST_HEADERS if has_tests else ())),
                lines=tuple(_line(pair, comparison, has_tests=has_tests) for pair, comparison in found),
            )


def _line(pair: Pair, comparison: Comparison, *, has_tests: bool) -> Line:
    test = comparison.test
    remarks = f" ({'; '.join(comparison.remarks)})" if comparison.remarks else ""
    values = comparison.before, comparison.after
    tested = (
        interval_text(comparison),
        "" if test is None else p_text(test.p_value),
        "" if test is None else p_text(test.p_adjusted),
        MARKS[comparison.verdict],
    )
    last = (difference_text(comparison), *(tested if has_tests else ()))
    return Line(
        cells=(pair.name, f"{comparison.label}{remarks}", *(value_text(value, comparison) for value in values), *last),
        brief=(pair.name, comparison.label, *(brief_text(value, comparison) for value in values), *last),
        verdict=comparison.verdict,
        ends=None if test is None or comparison.difference is None else _ends(comparison, comparison.difference, test),
    )


def _ends(comparison: Comparison, difference: float, test: Test) -> tuple[float, float, float]:
    scale = _difference_unit(comparison)[1]
    low, high = test.interval
    return low * scale, difference * scale, high * scale


def counts_text(report: ComparisonReport) -> str:
    """Return how many comparisons there are, by verdict."""
    verdicts = Counter(comparison.verdict for pair in report.pairs for comparison in pair.comparisons)
    parts = [f"{verdicts[verdict]} {text}" for verdict, text in VERDICT_TEXTS.items() if verdicts[verdict]]
    total = plural(verdicts.total(), "comparison")
    return f"{plural(len(report.pairs), 'experiment')}, {total}: {', '.join(parts)}" if parts else "nothing to compare"


def is_shown(comparison: Comparison) -> bool:
    """Return whether tables show a metric: one with a better way, or a program's, that both sides could measure."""
    return not _is_neutral(comparison) and not _is_of_one_side(comparison)


def _is_neutral(comparison: Comparison) -> bool:
    return comparison.better is None and comparison.metric in FIGURES


def _is_of_one_side(comparison: Comparison) -> bool:
    """Return whether one side has nothing that could measure a figure, as a baseline has no training."""
    return comparison.kind == "figure" and NOT_MEASURED in {comparison.before.missing, comparison.after.missing}


def notes(report: ComparisonReport) -> Iterator[str]:
    """Yield what the tables mean: each test that was used and why, and what was not tested and why."""
    if report.num_tests:
        yield (
            f"`~`: not significant; p and the 95 % interval are of one comparison, p (all) is corrected for all "
            f"{plural(report.num_tests, 'test')} by Holm's procedure, significant below {report.alpha:g}"
        )
    yield "±: standard deviation over runs where n is given, else lm-eval's standard error"
    yield from _test_notes(report)
    if any(_is_of_single_runs(comparison) for pair in report.pairs for comparison in pair.comparisons):
        yield (
            "a test of single runs asks whether these two models differ on such documents, not whether other seeds "
            "would: that takes `repeats`"
        )
    yield from _untested_notes(report)
    all_found = [comparison for pair in report.pairs for comparison in pair.comparisons]
    for reason, is_hidden in (("one side does not measure it", _is_of_one_side), ("no way is better", _is_neutral)):
        hidden = dict.fromkeys(comparison.label for comparison in all_found if is_hidden(comparison))
        if hidden:
            yield f"not in the tables, but in JSON, where {reason}: {_names(list(hidden))}"


def _is_of_single_runs(comparison: Comparison) -> bool:
    is_single = comparison.before.num_runs == comparison.after.num_runs == 1
    return comparison.test is not None and comparison.kind == "score" and is_single


def _test_notes(report: ComparisonReport) -> Iterator[str]:
    found: defaultdict[tuple[Method, str], list[str]] = defaultdict(list)
    for _, comparison in _shown(report):
        if comparison.test is not None and comparison.label not in found[comparison.test.method, comparison.test.why]:
            found[comparison.test.method, comparison.test.why].append(comparison.label)
    for (method, why), labels in found.items():
        yield f"{_names(labels)}: {METHODS[method]}: {why}"


def _untested_notes(report: ComparisonReport) -> Iterator[str]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for _, comparison in _shown(report):
        if comparison.verdict == "not_tested" and comparison.label not in found[comparison.not_tested or ""]:
            found[comparison.not_tested or ""].append(comparison.label)
    for why, labels in found.items():
        yield f"{_names(labels)}: not tested: {why}"


def _names(labels: Sequence[str]) -> str:
    """Return labels for a note, whose backticks are ours alone."""
    return name_first([label.replace("`", "'") for label in labels], 8)


def _shown(report: ComparisonReport) -> Iterator[tuple[Pair, Comparison]]:
    for pair in report.pairs:
        for comparison in pair.comparisons:
            if is_shown(comparison):
                yield pair, comparison


def change_texts(pairs: Iterable[Pair]) -> Iterator[str]:
    """Yield the arguments that differ, each change once with the experiments that it happened to."""
    names: defaultdict[Change, list[str]] = defaultdict(list)
    for pair in pairs:
        for change in pair.settings:
            names[change].append(pair.name)
    for change, found in names.items():
        yield f"{change.name}: {change.before} → {change.after} ({name_first(found)})"


def side_texts(report: ComparisonReport) -> Iterator[str]:
    """Yield what is compared: A is before, B after."""
    for name, side in (("A, before", report.before), ("B, after", report.after)):
        moments = (("results until", side.finished_at), ("collected", side.collected_at))
        told = [f"{what} {moment_text(moment)}" for what, moment in moments if moment is not None]
        yield f"{name}: {', '.join((side.source, *told))}"


def condition_texts(report: ComparisonReport) -> Iterator[str]:
    """Yield what became of each `--fail-if`."""
    for found in report.conditions:
        cases = f": {name_first(found.cases)}" if found.cases else ""
        yield f"{found.condition}: {OUTCOMES[found.outcome]}{cases}"


def left_out_texts(report: ComparisonReport) -> Iterator[str]:
    """Yield the experiments that were compared with none."""
    for which, side in (("A", report.before), ("B", report.after)):
        if side.only_here:
            yield f"only in {which} ({side.source}): {name_first(side.only_here, 8)}"
