"""Being asked to stop: signals are counted, so that whoever runs jobs ends them in order.

In: INT, TERM and HUP. Out: a number.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass(slots=True)
class StopSignals:
    """How often this process was asked to stop."""

    count: int = 0

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """Count one signal; nothing else is safe in a handler."""
        del number
        self.count += 1


@contextmanager
def catch_signals() -> Iterator[StopSignals]:
    """Count INT, TERM and HUP instead of dying of them; what was ignored (nohup) stays ignored."""
    signals = StopSignals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, signals.note)
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
