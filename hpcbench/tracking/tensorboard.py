"""TensorBoard: an event file per experiment, `<folder>/<suite>/<experiment>/events.out.tfevents.0.hpcbench`.

In: runs. Out: files whose bytes follow from the runs alone, so that the same runs give the same files; a file that
only grew is appended to, which a TensorBoard that shows it follows. It needs `tensorboard`, not TensorFlow.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hpcbench.storage.json_files import write_bytes
from hpcbench.tracking.outcome import Action, Outcome
from hpcbench.tracking.runs import Run

EVENT_FILE = "events.out.tfevents.0.hpcbench"
FOLDER = "runs"
FILE_VERSION = "brain.Event:2"
"""First event of every file (TensorFlow's EventsWriter)."""


def send(runs: Iterable[Run], *, folder: str | None, project: str | None) -> Iterator[Outcome]:
    """Write the event files of runs; yield what was done with each.

    Args:
        runs: what to send.
        folder: TensorBoard's `--logdir`; None is `runs`, where torch's SummaryWriter writes.
        project: folder in it for the suites' folders; None is none.
    """
    root = Path(folder or FOLDER) / (project or "")
    for run in runs:
        yield Outcome(run=run, action=_write(run, root / run.suite / run.name / EVENT_FILE))


def _write(run: Run, file: Path) -> Action:
    new = _events(run)
    try:
        old = file.read_bytes()
    except FileNotFoundError:
        old = None
    if new == old:
        return "unchanged"
    if old and new.startswith(old):
        with file.open("ab") as stream:
            stream.write(new[len(old) :])
        return "added"
    write_bytes(file, new)
    return "created" if old is None else "replaced"


def _events(run: Run) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    stream = io.BytesIO()
    writer = RecordWriter(stream)

    def add(**event: Any) -> None:
        writer.write(Event(**event).SerializeToString(deterministic=True))

    add(wall_time=run.started_s, file_version=FILE_VERSION)
    add(wall_time=run.started_s, summary=_settings(run))
    for point in run.points:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in point.figures.items()]
        add(wall_time=point.time_s, step=point.step, summary=Summary(value=values))
    results = [Summary.Value(tag=name, simple_value=value) for name, value in sorted(run.results.items())]
    if results:
        add(wall_time=run.finished_s, step=run.last_step, summary=Summary(value=results))
    return stream.getvalue()


def _settings(run: Run) -> Any:
    """Return the summary of which TensorBoard's HParams table makes a row."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb

    summary = hparams_pb(dict(run.config), trial_id=run.id, start_time_secs=run.started_s)
    for value in summary.value:
        # It is a map, written in another order each time unless asked otherwise.
        data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
        value.metadata.plugin_data.content = data.SerializeToString(deterministic=True)
    return summary
