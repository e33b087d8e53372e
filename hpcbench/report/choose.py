"""Which columns were asked for: by `--columns`, `--by`, `--value` and `--best`, or in a suite's `report:` block.

In: the keys that were written, and the experiments that there are. Out: columns, and what is wrong with the other keys.
A key is that of a column in CSV, an eval dataset (all its scores), or a setting by its name in a matrix.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from hpcbench.errors import PlanError, did_you_mean
from hpcbench.report import columns as c
from hpcbench.report import cost
from hpcbench.report.column import Column
from hpcbench.report.facts import Facts, facts_of
from hpcbench.report.layouts import result_columns, told_settings
from hpcbench.report.score_columns import columns_by_dataset
from hpcbench.report.settings import ARGUMENTS_IN_ORDER, REQUIREMENTS, is_setting, setting_column
from hpcbench.schemas.collection import Collection
from hpcbench.schemas.report_options import ReportOptions

Kind = Literal["column", "setting", "figure"]
"""What an option names: anything, what was asked for, or what was measured."""


@dataclass(slots=True)
class KnownColumns:
    """The columns that some experiments have, by key."""

    experiments: Sequence[Facts]
    by_key: dict[str, Column] = field(init=False)
    by_dataset: dict[str, tuple[Column, ...]] = field(init=False)
    told: tuple[str, ...] = field(init=False)
    """Keys that have something to say, for messages."""

    def __post_init__(self) -> None:
        shown = (c.NAME, c.STATE, *result_columns(self.experiments), *told_settings(self.experiments))
        self.by_key = {column.key: column for column in (*c.DATA_ONLY, *cost.DATA_ONLY, *shown)}
        self.by_dataset = columns_by_dataset(self.experiments)
        with_value = (column for column in shown if any(column.value(facts) is not None for facts in self.experiments))
        self.told = tuple(dict.fromkeys((*self.by_dataset, *(column.key for column in with_value))))

    def find(self, key: str) -> tuple[Column, ...]:
        """Return the columns of a key, none for one that is unknown."""
        if key in self.by_key:
            return (self.by_key[key],)
        if self.by_dataset.get(key):
            return self.by_dataset[key]
        for name in (key, f"{REQUIREMENTS}{key}"):
            if is_setting(name, self.experiments):
                return (setting_column(name),)
        return ()

    def join(self, words: Iterable[str]) -> list[str]:
        """Return keys from words that were split at commas, which the names of lm-eval's metrics may hold."""
        keys: list[str] = []
        for word in words:
            if keys and not self.find(word) and self.find(f"{keys[-1]},{word}"):
                keys[-1] = f"{keys[-1]},{word}"
            else:
                keys.append(word)
        return keys

    def find_kind(self, key: str, kind: Kind) -> tuple[Column, ...]:
        """Return the columns of a key that are of a kind."""
        return tuple(column for column in self.find(key) if kind == "column" or column.measured is (kind == "figure"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """A key that means nothing."""

    option: str
    """Name of the field of the options."""
    message: str
    expected: str
    hint: str | None


def names_columns(options: ReportOptions) -> bool:
    """Return whether the options name any column."""
    return bool(options.columns or options.by or options.value or options.best)


def has_other_tables(options: ReportOptions) -> bool:
    """Return whether the options ask for another table than a row for each experiment."""
    return options.layout not in {None, "table"} or bool(options.by) or options.best is not None


def find_unknown(options: ReportOptions, known: KnownColumns) -> list[Unknown]:
    """Return the keys of the options that no column has; rows and figures of the layout `pivot` are its concern."""
    asked: list[tuple[str, str, Kind]] = [("columns", key, "column") for key in known.join(options.columns)]
    if options.layout != "pivot":
        asked += [("by", key, "setting") for key in known.join(options.by)]
        asked += [("value", key, "figure") for key in known.join(options.value)]
        asked += [("headers", key, "column") for key in options.headers]
    asked += [] if options.best is None else [("best", options.best, "figure")]
    found = [_unknown(option, key, kind, known) for option, key, kind in asked if not known.find_kind(key, kind)]
    ranked = () if options.best is None else known.find_kind(options.best, "figure")
    if ranked and ranked[0].better is None:
        message = f"nothing says whether a higher or a lower {options.best} is better"
        with_end = [key for key in known.told if any(column.better is not None for column in known.find(key))]
        found.append(Unknown(option="best", message=message, expected=", ".join(with_end), hint=None))
    return found


def refuse_unknown(collection: Collection, options: ReportOptions, *, format: str = "markdown") -> None:  # noqa: A002
    """Raise PlanError for options that mean nothing, contradict each other or have no place in the format."""
    _refuse_what_has_no_place(options, format)
    if not names_columns(options):
        return
    experiments = [facts_of(view) for suite in collection.suites for view in suite.experiments]
    if not experiments:
        return
    found = find_unknown(options, KnownColumns(experiments))
    if found:
        first = found[0]
        raise PlanError(
            "\n".join(f"--{one.option}: {one.message}" for one in found) + f"\n  expected: {first.expected}",
            hint=next((one.hint for one in found if one.hint is not None), None),
        )


def _refuse_what_has_no_place(options: ReportOptions, format: str) -> None:  # noqa: A002
    if options.top is not None and options.best is None:
        raise PlanError("--top: of what?", hint="name the figure that ranks experiments, for example --best eval_loss")
    if options.value and not options.by and options.layout != "pivot":
        raise PlanError(
            "--value: no table to put it into", hint="name the settings that make its rows and columns with --by"
        )
    given = [name for name in ("columns", "by", "value", "best") if getattr(options, name)]
    if options.layout in {"swift", "lm-eval"} and given:
        raise PlanError(
            f"--{given[0]}: the layout {options.layout} has its own columns and rows", hint="leave --layout out"
        )
    if options.layout == "pivot" and (of_tables := [name for name in given if name not in {"by", "value"}]):
        raise PlanError(
            f"--{of_tables[0]}: the layout pivot has its own columns and rows", hint="choose them with --by and --value"
        )
    if options.by and options.best is not None:
        raise PlanError("--by and --best: a table is either of the two", hint="leave one of them out")
    if format in {"json", "long"} and given:
        others = "csv, markdown or html" if given == ["columns"] else "markdown or html"
        raise PlanError(f"--{given[0]}: {format} holds everything", hint=f"take --format {others}")
    if format == "csv" and (rest := [name for name in given if name != "columns"]):
        raise PlanError(f"--{rest[0]}: csv holds every experiment as it is", hint="take --format markdown or html")


def choose_columns(keys: Iterable[str], known: KnownColumns, kind: Kind = "column") -> tuple[Column, ...]:
    """Return the columns of the keys, each once, in their order, without those that nothing has."""
    found = (column for key in known.join(keys) for column in known.find_kind(key, kind))
    return tuple({column.key: column for column in found}.values())


def _unknown(option: str, key: str, kind: Kind, known: KnownColumns) -> Unknown:
    candidates = [name for name in known.told if known.find_kind(name, kind)]
    others = [name for name in (*known.by_key, *ARGUMENTS_IN_ORDER) if known.find_kind(name, kind)]
    hint = did_you_mean(key, (*candidates, *others))
    return Unknown(option=option, message=f"no {kind} {key!r}", expected=", ".join(candidates), hint=hint)
