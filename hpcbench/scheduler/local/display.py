"""What a person sees while local jobs run: one line per running job on a terminal, plain lines everywhere else.

It changes nothing, and a terminal that goes away stops no job.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from hpcbench.errors import plural
from hpcbench.scheduler.local.queue_files import OPEN, ElementState, ElementStatus, LocalQueue, QueuedElement
from hpcbench.schemas.headline import headline
from hpcbench.schemas.progress import duration_text, parse_progress
from hpcbench.schemas.record import Record
from hpcbench.storage.clock import parse_moment
from hpcbench.storage.json_files import JsonObject, read_json

if TYPE_CHECKING:
    from rich.table import Table

logger = logging.getLogger(__name__)

REFRESH_S = 0.5
PLAIN_MARKS = str.maketrans({"✓": "+", "✗": "x"})


class LocalDisplay(Protocol):
    """Where a runner shows what happens."""

    def show(self, queue: LocalQueue) -> None:
        """Show the queue as it is now; called several times a second."""

    def say(self, text: str) -> None:
        """Show one line that stays."""


class QuietDisplay:
    """Shows nothing; what is said goes to the log."""

    def show(self, queue: LocalQueue) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Log the line."""
        logger.info("%s", text)


class LineDisplay:
    """One plain line when a job starts and one when it ends; no control characters."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._changes = ChangeLog()

    def show(self, queue: LocalQueue) -> None:
        """Write the lines of the jobs that have started or ended since the last look."""
        for element, state in self._changes.update(queue):
            if state.status is ElementStatus.RUNNING:
                self.say(f"> {element.name}  started{describe_slots(state)}")
            else:
                self.say(end_line(element, state))

    def say(self, text: str) -> None:
        """Write one line; a reader that has gone away does not stop the jobs."""
        try:
            self._stream.write(encodable(text, self._stream) + "\n")
            self._stream.flush()
        except (OSError, ValueError) as error:
            logger.debug("cannot write to standard output: %s", error)


class LiveDisplay:
    """A terminal: running jobs at the bottom, ended ones above them as lines that stay."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._stream = stream
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        # No refresh thread: jobs are forked from this process.
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._changes = ChangeLog()
        self._drawn_at = float("-inf")

    def start(self) -> None:
        """Begin to draw."""
        self._live.start()

    def close(self) -> None:
        """Take the running lines away and give the cursor back."""
        try:
            self._live.stop()
        except OSError as error:
            logger.debug("cannot write to the terminal: %s", error)

    def show(self, queue: LocalQueue) -> None:
        """Draw the running jobs, and leave a line for each that has ended."""
        for element, state in self._changes.update(queue):
            if state.status is not ElementStatus.RUNNING:
                self.say(end_line(element, state))
        now = time.monotonic()
        if now - self._drawn_at < REFRESH_S:
            return
        self._drawn_at = now
        try:
            self._live.update(_table(queue, self._changes, self._stream), refresh=True)
        except OSError as error:
            logger.debug("cannot write to the terminal: %s", error)

    def say(self, text: str) -> None:
        """Print one line above the running ones."""
        try:
            self._console.print(encodable(text, self._stream), soft_wrap=True)
        except OSError as error:
            logger.debug("cannot write to the terminal: %s", error)


class ChangeLog:
    """The changes that were shown, so that each is shown once."""

    def __init__(self) -> None:
        self._shown: dict[str, tuple[ElementStatus, int]] | None = None
        self.num_done: Counter[str] = Counter()  # jobs that ended while this looked on: `done`, `failed`

    def update(self, queue: LocalQueue) -> list[tuple[QueuedElement, ElementState]]:
        """Return the jobs that have started, ended or gone back to the queue since the last call."""
        states = {name: queue.state(name) for name in queue.elements}
        if self._shown is None:  # the first call: nothing is a change yet
            self._shown = {name: (state.status, state.num_starts) for name, state in states.items()}
        changes: list[tuple[QueuedElement, ElementState]] = []
        for name, state in states.items():
            before, now = self._shown.get(name, (ElementStatus.PENDING, 0)), (state.status, state.num_starts)
            self._shown[name] = now
            if before == now or (state.status is ElementStatus.PENDING and before[0] is ElementStatus.PENDING):
                continue
            changes.append((queue.elements[name], state))
            if state.status not in OPEN:
                self.num_done["failed" if queue.is_failure(name) else "done"] += 1
        return changes


@contextmanager
def open_display(*, enabled: bool, stream: TextIO | None = None) -> Iterator[LocalDisplay]:
    """Give the display that fits the output: live on a terminal, lines elsewhere, nothing when it is switched off."""
    stream = sys.stdout if stream is None else stream
    if not enabled:
        yield QuietDisplay()
    elif stream.isatty() and os.environ.get("TERM") != "dumb":
        live = LiveDisplay(stream)
        live.start()
        try:
            yield live
        finally:
            live.close()
    else:
        yield LineDisplay(stream)


def end_line(element: QueuedElement, state: ElementState) -> str:
    """Return what is said of a job that no longer runs: `✓ suite/experiment train  18.5 s  loss 0.21`."""
    record = element.read_record() if state.status is ElementStatus.ENDED else None
    duration = _duration_s(state)
    took = "" if duration is None else f"  {duration_text(duration)}"
    match state.status:
        case ElementStatus.ENDED if state.exit_code == 0:
            figures = headline(record)
            return _one_line(f"✓ {element.name}{took}" + (f"  {figures}" if figures else ""))
        case ElementStatus.ENDED:
            cause, log = _failure(element, state, record)
            return _one_line(f"✗ {element.name}{took}  {cause}; see {log}")
        case ElementStatus.LOST:
            return _one_line(f"✗ {element.name}  lost: {state.reason}; see {element.log}")
        case ElementStatus.REFUSED:
            return _one_line(f"✗ {element.name}  {state.reason}")
        case ElementStatus.PENDING | ElementStatus.RUNNING:
            return _one_line(f"- {element.name}  stopped, goes back to the queue")
        case ElementStatus.BLOCKED | ElementStatus.CANCELLED:
            return _one_line(f"- {element.name}  {state.status}" + (f": {state.reason}" if state.reason else ""))


def progress_cells(progress: JsonObject) -> tuple[str, str, str, str, str]:
    """Return phase, step, loss, speed and time left from a job's progress, empty where they are missing."""
    known = parse_progress(progress)
    total = "" if known.total is None else f"/{known.total:.0f}"
    return (known.phase or "starting", "" if known.done is None else f"{known.done:.0f}{total}", *known.figures)


def describe_slots(state: ElementState) -> str:
    """Return `  GPU 0,1` or `  2 cores`."""
    if state.gpus:
        return f"  GPU {','.join(state.gpus)}"
    return f"  {plural(state.cpus, 'core')}" if state.cpus else ""


def encodable(text: str, stream: TextIO) -> str:
    """Return the text, its marks replaced where the stream cannot show them."""
    encoding = getattr(stream, "encoding", None) or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(PLAIN_MARKS).encode(encoding, errors="replace").decode(encoding)
    return text


def _table(queue: LocalQueue, changes: ChangeLog, stream: TextIO) -> Table:
    from rich.table import Table

    rows = [
        (encodable(_one_line(element.name), stream), *progress_cells(_read_progress(element, state)), _elapsed(state))
        for element in queue.open_elements()
        if (state := queue.state(element.element_id)).status is ElementStatus.RUNNING
    ]
    table = Table.grid(padding=(0, 2))
    for _ in range(7):
        table.add_column(no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*row)
    num_waiting = len(queue.open_elements()) - len(rows)
    ended = f"{changes.num_done['done']} done, {changes.num_done['failed']} failed"
    whole = Table.grid()
    whole.add_row(table)
    whole.add_row(f"{len(rows)} running, {num_waiting} waiting, {ended}")
    return whole


def _failure(element: QueuedElement, state: ElementState, record: Record | None) -> tuple[str, Path]:
    if record is None:
        return state.reason, element.log
    cause = record.cause
    if cause is None:
        return str(record.state), element.log
    words = [str(record.state), cause.message, *cause.lines[-1:]]
    folder = element.suite_paths.job(record.experiment, record.job).folder
    return ": ".join(words), element.log if cause.log is None else folder / cause.log


def _read_progress(element: QueuedElement, state: ElementState) -> JsonObject:
    """Return the progress of this start of the job; the file of an earlier one does not count."""
    started = parse_moment(state.started_at)
    try:
        written = element.paths.progress.stat().st_mtime
    except OSError:
        return {}
    if started is None or written < started.timestamp():
        return {}
    return read_json(element.paths.progress) or {}


def _elapsed(state: ElementState) -> str:
    started = parse_moment(state.started_at)
    return "" if started is None else duration_text(max(0.0, (datetime.now(UTC) - started).total_seconds()))


def _duration_s(state: ElementState) -> float | None:
    started, ended = parse_moment(state.started_at), parse_moment(state.ended_at)
    return None if started is None or ended is None else max(0.0, (ended - started).total_seconds())


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
