"""The CSV report (RFC 4180, line feeds): one row per experiment, repeats not merged, raw values, never rounded.

Settings that differ between experiments have a column each, after those that every report has.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Container, Iterable, Sequence

from hpcbench.report import cost
from hpcbench.report.choose import KnownColumns, choose_columns
from hpcbench.report.column import Column, Raw
from hpcbench.report.columns import DATA_ONLY
from hpcbench.report.escape import one_line
from hpcbench.report.facts import Facts, facts_of
from hpcbench.report.score_columns import value_columns
from hpcbench.report.settings import varying_settings
from hpcbench.schemas.collection import Collection


def render_csv(collection: Collection, keys: Sequence[str] = ()) -> str:
    """Return one table over all suites, of the columns of `keys`, or of all."""
    experiments = [facts_of(view) for suite in collection.suites for view in suite.experiments]
    if keys:
        chosen = choose_columns(keys, KnownColumns(experiments))
        rows = [[csv_field(column.get(facts)) for column in chosen] for facts in experiments]
        return _csv([[one_line(column.key) for column in chosen], *rows])
    fixed = data_columns(experiments)
    # A program may report a figure under a name of ours; then it stands beside ours, not in its place.
    reported = {_free_name(column.key, fixed): column for column in value_columns(experiments)}
    scores = {key: value for facts in experiments for key, value in score_values(facts).items()}
    header = [*fixed, *reported, *(_free_name(key, fixed) for key in scores)]
    lines = [[one_line(name) for name in header]]
    for facts in experiments:
        own = score_values(facts)
        values = [column.get(facts) for column in (*fixed.values(), *reported.values())]
        lines.append([csv_field(value) for value in (*values, *(own.get(key) for key in scores))])
    return _csv(lines)


def _csv(lines: Iterable[Sequence[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(lines)
    return stream.getvalue()


def data_columns(experiments: Sequence[Facts]) -> dict[str, Column]:
    """Return the columns of raw values by key: those of every report, and the settings that vary."""
    fixed = {column.key: column for column in (*DATA_ONLY, *cost.DATA_ONLY)}
    return fixed | {column.key: column for column in varying_settings(experiments) if column.key not in fixed}


def score_values(facts: Facts) -> dict[str, Raw]:
    """Return state, score, standard error and size of each eval, and of tasks that stand for themselves, by column."""
    values: dict[str, Raw] = {}
    for dataset, found in facts.evals.items():
        values[f"{dataset}_state"] = found.job.state.value
        if found.score is not None:
            name = f"{dataset}_{found.score.metric}"
            values[name] = found.score.value
            values[f"{name}_stderr"] = found.score.stderr
            values[f"{dataset}_num_samples"] = found.score.num_samples
            values[f"{dataset}_debug"] = found.score.debug
            if found.score.num_prompts_cut:
                values[f"{dataset}_num_prompts_cut"] = found.score.num_prompts_cut
        for task, own in found.tasks.items():
            values[f"{dataset}/{task}_{own.metric}"] = own.value
            values[f"{dataset}/{task}_{own.metric}_stderr"] = own.stderr
            values[f"{dataset}/{task}_num_samples"] = own.num_samples
    return values


def csv_field(value: Raw) -> str:
    """Return a raw value as CSV holds it: on one line, empty for none."""
    if value is None:
        return ""
    return one_line(value) if isinstance(value, str) else str(value)


def _free_name(name: str, taken: Container[str]) -> str:
    return f"own_{name}" if name in taken else name
