"""The experiments of the page: raw values by column, and the texts that a number does not say.

In: rows of one suite and the page's columns. Out: plain JSON values, small ones: what a column prints by itself is not
repeated as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hpcbench.report.column import Raw
from hpcbench.report.csv_table import score_values
from hpcbench.report.escape import one_line
from hpcbench.report.facts import Facts, raw_args_of, state_text
from hpcbench.report.page.columns import PageColumn, told_text
from hpcbench.report.rows import Row
from hpcbench.schemas.states import JobState
from hpcbench.storage.json_files import JsonObject


def experiments_of(rows: Sequence[Row], columns: Sequence[PageColumn]) -> list[JsonObject]:
    """Return the experiments of one suite, those of a row after each other."""
    return [_experiment(facts, columns, row=row) for row in rows for facts in row.members]


def experiment_id(facts: Facts) -> str:
    """Return what the page's address names an experiment by: `suite/experiment`."""
    return one_line(f"{facts.view.suite}/{facts.view.name}")


def _experiment(facts: Facts, columns: Sequence[PageColumn], *, row: Row) -> JsonObject:
    view = facts.view
    values: dict[str, Raw] = {}
    texts: dict[str, str] = {}
    errors: dict[str, Raw] = {}
    scores = score_values(facts)
    for page_column in columns:
        column = page_column.column
        raw = column.value(facts)
        if raw is not None:
            values[column.key] = one_line(raw) if isinstance(raw, str) else raw
        if (text := told_text(page_column, facts, raw)) is not None:
            texts[column.key] = one_line(text)
        if (error := scores.get(f"{column.key}_stderr")) is not None:
            errors[column.key] = error
    told = one_line(state_text(facts))
    known: JsonObject = {
        "id": experiment_id(facts),
        "suite": one_line(view.suite),
        "name": one_line(view.name),
        "base": one_line(row.name) if len(row.members) > 1 else None,
        "repeat": _repeat(facts),
        "cmd": view.cmd,
        "state": facts.state.value,
        "state_text": told if told != facts.state.value else None,
        "complete": facts.state is JobState.COMPLETED,
        "values": values,
        "texts": texts,
        "errors": errors,
        "set": _arguments_set(facts),
    }
    return {key: value for key, value in known.items() if value is not None and value != {}}


def _repeat(facts: Facts) -> int | None:
    numbers = (job.request.repeat for job in facts.view.jobs if job.request is not None)
    return next((number for number in numbers if number is not None), None)


def _arguments_set(facts: Facts) -> dict[str, list[object]]:
    """Return the arguments that were written somewhere, each with its value and where."""
    job = next((job for job in facts.view.jobs if job.request is not None), None)
    if job is None or job.request is None:
        return {}
    sources: Mapping[str, str] = job.request.source_of
    args = raw_args_of(facts.view)
    return {
        name: [args[name], source] for name, source in sorted(sources.items()) if source != "default" and name in args
    }
