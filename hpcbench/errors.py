"""The errors that hpcbench raises on purpose, and how they are shown to a person.

    HpcbenchError
    +-- ConfigError      a suite, profile or argument is wrong; carries all problems found (exit code 2)
    +-- PlanError        the suite is valid, but what it asks for contradicts what is on disk (exit code 2)
    +-- SubmitError      the scheduler refused a job
    +-- SchedulerError   a scheduler command failed or did not answer
    +-- RecordError      a file that hpcbench wrote cannot be used
    +-- ReportError      a report cannot be made or compared
    +-- WorkerError      a job cannot do what was asked; the cause goes into its record
        +-- NotInCacheError  something of ModelScope was not downloaded
        +-- DataError    a dataset cannot be read, or a row of it cannot be used; plan and job find it alike
            +-- MissingLibraryError    the library that reads the file is not installed here

In: text. Out: text. Nothing here reads files or exits.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

EXIT_INTERRUPTED = 130
"""128 + SIGINT: what a shell shows for a program that Ctrl-C ended."""
PREFETCH = "hpcbench prefetch CONFIG"
"""The command in hints about what was not downloaded; a job puts its own suite's file in CONFIG's place."""


class HpcbenchError(Exception):
    """Any failure that a user can act on.

    Args:
        message: what is wrong and where, without a trailing full stop.
        hint: what to do about it, or None.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One mistake in a configuration: where it is, what it is, what was expected."""

    file: str
    line: int | None
    path: str
    message: str
    expected: str | None = None
    hint: str | None = None

    def render(self) -> str:
        """Return `file:line: path: message` with the expectation and the hint on lines of their own."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        head = f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"
        lines = [head]
        if self.expected is not None:
            lines.append(f"  expected: {self.expected}")
        if self.hint is not None:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


class ConfigError(HpcbenchError):
    """A configuration is wrong; all problems are reported together."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(problem.render() for problem in problems))


class PlanError(HpcbenchError):
    """A valid suite asks for something that cannot be planned."""


class SubmitError(HpcbenchError):
    """The scheduler refused a submission."""


class SchedulerError(HpcbenchError):
    """A scheduler command failed, so nothing may be concluded from its silence."""


class RecordError(HpcbenchError):
    """A file in the save directory cannot be used."""


class ReportError(HpcbenchError):
    """A report cannot be made from what was given."""


class WorkerError(HpcbenchError):
    """A job cannot do what its request says; the message becomes the record's cause."""


class NotInCacheError(WorkerError):
    """Something of ModelScope is not in its cache, from which alone jobs read."""


class DataError(WorkerError):
    """A dataset cannot be read, or a row of it cannot be used.

    Args:
        fault: what is wrong and where; in the message, `expected` follows it.
        expected: what would have been right, or None.
        hint: what to do about it, or None.
    """

    def __init__(self, fault: str, *, expected: str | None = None, hint: str | None = None) -> None:
        super().__init__(fault if expected is None else f"{fault}; expected: {expected}", hint=hint)
        self.fault = fault
        self.expected = expected


class MissingLibraryError(DataError):
    """A file cannot be read here, since an optional library is not installed; elsewhere it may be."""


def os_reason(error: OSError) -> str:
    """Return what the operating system refused, and of which file: `Permission denied: /logs/a.json`."""
    reason = error.strerror or str(error) or type(error).__name__
    return reason if error.filename is None else f"{reason}: {os.fsdecode(error.filename)}"


def first_line(error: Exception) -> str:
    """Return the first line of what an exception says, or its kind where it says nothing."""
    text = error.message if isinstance(error, HpcbenchError) else str(error)
    return next(iter(text.strip().splitlines()), type(error).__name__)


def plural(count: int, noun: str) -> str:
    """Return `1 job`, `2 jobs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def name_first(names: Sequence[str], limit: int = 4, *, separator: str = ", ") -> str:
    """Return the first names and how many there are besides: `a, b and 3 more`."""
    shown = separator.join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return a hint that names the most similar known word, or None when none is similar."""
    candidates = list(known)
    by_lower = {candidate.lower().replace("-", "_"): candidate for candidate in candidates}
    close = difflib.get_close_matches(word[:80].lower().replace("-", "_"), list(by_lower), n=1, cutoff=0.7)
    return f"did you mean {by_lower[close[0]]!r}?" if close else None
