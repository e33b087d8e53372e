"""Pivot tables: a row per setting of a sweep, rows of the same first setting together, a column per figure.

In: the facts of a suite's experiments; which settings and figures, from the options or what the experiments differ in.
Out: a table whose cells may span rows. Experiments that agree in all row keys, as repeats do, share a row and are
averaged; nothing is marked as best, since rows of different models or GPUs are not rivals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpcbench.errors import name_first, plural
from hpcbench.report import columns as c
from hpcbench.report.column import Column
from hpcbench.report.facts import Facts
from hpcbench.report.notes_and_warnings import column_note
from hpcbench.report.pivot_figures import MISSING, figure_columns
from hpcbench.report.pivot_settings import (
    HARDWARE_KEYS,
    MODEL,
    QUANTIZATION,
    TARGETS,
    Hardware,
    base_model_texts,
    hardware_of,
    setting_header,
    setting_readers,
    target_text,
    tuner_header,
)
from hpcbench.report.rows import Cell, Row, column_cells
from hpcbench.report.score_columns import eval_columns
from hpcbench.report.settings import varying_settings
from hpcbench.report.table import Table
from hpcbench.schemas.report_options import ReportOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One row before it is filled: the texts of its keys, and its experiments."""

    texts: tuple[str | None, ...]
    members: tuple[Facts, ...]


def pivot_table(experiments: Sequence[Facts], options: ReportOptions) -> Table:
    """Return the table of a suite.

    Raises:
        ReportError: `by` or `value` has a key that is not a setting or not a figure.
    """
    by = row_keys(experiments, options)
    groups = _groups(_lines(experiments, by))
    labels, marks = _hardware_marks(groups, by)
    rows = tuple(Row(name=line.members[0].view.name, members=line.members) for group in groups for line in group)
    figures = figure_columns(
        options.value or default_figures(experiments), experiments, units=options.units, hardware=marks
    )
    columns = (*(_key_column(key, experiments, is_first=number == 0) for number, key in enumerate(by)), *figures)
    key_cells = [cells for group, label in zip(groups, labels, strict=True) for cells in _key_cells(group, by, label)]
    figure_cells = (
        zip(*(column_cells(column, rows) for column in figures), strict=True) if figures else [()] * len(rows)
    )
    return Table(
        title="",
        columns=tuple(replace(column, header=options.headers.get(column.key, column.header)) for column in columns),
        rows=rows,
        cells=tuple((*keys, *found) for keys, found in zip(key_cells, figure_cells, strict=True)),
        as_html=options.row_spans,
    )


def pivot_notes(table: Table) -> tuple[str, ...]:
    """Return what the cells of a pivot table mean, and which rows are means over different experiments."""
    notes = [note for column in table.columns if (note := column_note(column, table.rows))]
    if any(len(row.members) > 1 for row in table.rows):
        notes.append("(n=3): mean ± sample standard deviation over three experiments with the same settings of the row")
    mixed = [
        row for row in table.rows if len({facts.view.base_experiment or facts.view.name for facts in row.members}) > 1
    ]
    if mixed:
        names = name_first([facts.view.name for facts in mixed[0].members])
        notes.append(f"{plural(len(mixed), 'row')} put together experiments that differ in other settings too: {names}")
    return tuple(notes)


def row_keys(experiments: Sequence[Facts], options: ReportOptions) -> tuple[str, ...]:
    """Return the settings that make the rows: those of `by`, else the model and what experiments differ in.

    The name of an experiment is among them where these do not tell all apart.
    """
    if options.by:
        return options.by
    found = [MODEL, *(key for key in (QUANTIZATION, "dataset", "tuner") if _num_values(experiments, key) > 1)]
    found += [column.key for column in varying_settings(experiments) if column.key != "model_id_or_path"]
    names = {facts.view.base_experiment or facts.view.name for facts in experiments}
    return tuple(found) if len(_lines(experiments, found)) == len(names) else (*found, "experiment")


def _num_values(experiments: Sequence[Facts], key: str) -> int:
    read = setting_readers([key])[key]
    return len({read(facts) for facts in experiments} - {None})


def default_figures(experiments: Sequence[Facts]) -> tuple[str, ...]:
    """Return speed, memory, trainable parameters where these differ, and every score."""
    trained = {c.TRAINABLE.get(facts) for facts in experiments} - {None}
    found = ("train_samples_per_second", c.MEMORY.key, *((c.TRAINABLE.key,) if len(trained) > 1 else ()))
    return (*found, *(column.key for column in eval_columns(experiments)))


def _lines(experiments: Sequence[Facts], by: Sequence[str]) -> list[_Line]:
    """Return experiments in file order, those of the same texts together."""
    readers = setting_readers(by, experiments)
    columns = {key: [read(facts) for facts in experiments] for key, read in readers.items()}
    if MODEL in columns and QUANTIZATION in columns:
        columns[MODEL] = list(base_model_texts(columns[MODEL]))
    found: dict[tuple[str | None, ...], list[Facts]] = {}
    for facts, *texts in zip(experiments, *(columns[key] for key in by), strict=True):
        found.setdefault(tuple(texts), []).append(facts)
    return [_Line(texts=texts, members=tuple(members)) for texts, members in found.items()]


def _groups(lines: Sequence[_Line]) -> list[tuple[_Line, ...]]:
    """Return the lines of each first text together, in order of appearance."""
    found: dict[str | None, list[_Line]] = {}
    for line in lines:
        found.setdefault(line.texts[0] if line.texts else None, []).append(line)
    return [tuple(group) for group in found.values()]


def _hardware_marks(groups: Sequence[Sequence[_Line]], by: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return what each group's first cell says of its hardware, and what the speeds of single experiments say.

    One GPU of the one kind that a table has is not named.
    """
    if any(part.rpartition(".")[2] in HARDWARE_KEYS for key in by for part in key.split("/")):
        return [""] * len(groups), {}
    found = {line.texts: hardware_of(line.members[0]) for group in groups for line in group}
    kinds = {hardware.kind for hardware in found.values() if hardware.num_gpus and hardware.kind is not None}

    def is_named(hardware: Hardware) -> bool:
        return hardware.num_gpus > 1 or (hardware.num_gpus == 1 and len(kinds) > 1)

    labels: list[str] = []
    marks: dict[str, str] = {}
    for group in groups:
        own = [found[line.texts] for line in group]
        known = next((hardware for hardware in own if hardware.kind is not None), own[0])
        # A job that is still waiting for its GPUs is not of another kind.
        alike = all(other.num_gpus == known.num_gpus and other.kind in {known.kind, None} for other in own)
        if alike and len(group) > 1:
            labels.append(f" ({known.text})" if is_named(known) else "")
            continue
        labels.append("")
        marks |= {
            facts.view.name: hardware.text
            for line, hardware in zip(group, own, strict=True)
            for facts in line.members
            if is_named(hardware)
        }
    return labels, marks


def _key_column(key: str, experiments: Sequence[Facts], *, is_first: bool) -> Column:
    suffix = tuner_header(experiments) if is_first and key == MODEL else ""
    return Column(key=key, header=setting_header(key) + suffix, get=lambda _: None)


def _key_cells(group: Sequence[_Line], by: Sequence[str], label: str) -> list[tuple[Cell, ...]]:
    """Return the cells of the row keys; the first spans its group, and so do those that are the same in all of it."""
    explained: set[str] = set()
    columns = []
    for number, key in enumerate(by):
        texts = [line.texts[number] for line in group]
        spans = number == 0 or (len(group) > 1 and len(set(texts)) == 1)
        shown = [
            _explained(line, text, explained) if key == TARGETS else text
            for line, text in zip(group, texts, strict=True)
        ]
        cells = [
            Cell(text=MISSING, kind="missing") if text is None else Cell(text=text + (label if number == 0 else ""))
            for text in shown
        ]
        if spans:
            cells = [replace(cells[0], span=len(cells)), *(replace(cells[0], span=0) for _ in cells[1:])]
        columns.append(cells)
    return list(zip(*columns, strict=True))


def _explained(line: _Line, text: str | None, explained: set[str]) -> str | None:
    """Return `DEFAULT (c_attn)` where the group's first row has it, `DEFAULT` after that."""
    meaning = target_text(line.members[0])
    if text is None or meaning is None or f"{text} ({meaning})" in explained:
        return text
    explained.add(f"{text} ({meaning})")
    return f"{text} ({meaning})"
