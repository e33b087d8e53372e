"""Broken files in a save directory stop neither status nor collect, whatever is in them.

`HPCBENCH_FUZZ=10000 pytest tests/unit/test_fuzz_save_dir.py` (or `make fuzz`) tries more of them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpcbench.collect import collect_suites, read_suites
from hpcbench.collection import Collection
from hpcbench.jsonfile import write_json
from hpcbench.paths import SuitePaths
from hpcbench.report import render
from hpcbench.states import JobState
from hpcbench.status import status_rows
from hpcbench.submission import write_submission
from tests.unit.job_cases import command, record, submission
from tests.unit.test_plan import plan

EXAMPLES = int(os.environ.get("HPCBENCH_FUZZ", "1000"))

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def save_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a save directory with one suite: two experiments, one done, one running, with every kind of file."""
    root = tmp_path_factory.mktemp("logs")
    paths = SuitePaths(root, "tuners")
    requests = plan(command("done", evals=("x",)), command("running"))
    experiments = [
        {"name": "done", "cmd": "command", "jobs": ["train", "eval-x"]},
        {"name": "running", "cmd": "command", "jobs": ["train"]},
    ]
    write_json(paths.plan, {"suite": "tuners", "cluster": "slurm", "experiments": experiments})
    for request in requests:
        write_json(paths.job(request.experiment, request.job).request, request.model_dump(mode="json"))
    done, running = paths.job("done", "train"), paths.job("running", "train")
    finished = record(
        experiment="done", fingerprint=requests[0].fingerprint, metrics={"kind": "command", "values": {"a": 1.0}}
    )
    write_json(done.record, finished.model_dump(mode="json"))
    write_json(running.progress, {"phase": "training", "step": 1, "max_steps": 9, "loss": 1.0})
    write_json(running.claim, {"token": "t", "scheduler_id": "1_0"})
    elements = {
        0: {"experiment": "done", "job": "train", "fingerprint": requests[0].fingerprint},
        1: {"experiment": "running", "job": "train", "fingerprint": requests[2].fingerprint},
    }
    write_submission(paths, submission(state="submitted", scheduler_id="1", elements=elements))
    return root


def look(save_dir: Path) -> Collection:
    """Do what status and collect do, without a scheduler."""
    collection = collect_suites(read_suites(save_dir), lambda _: None)
    status_rows(collection.jobs)
    render(collection, format="markdown")
    render(collection, format="json")
    return collection


def mutate(data: st.DataObject, text: str) -> bytes:
    """Return a file's content with something wrong: cut, overwritten, or valid JSON of another shape."""
    raw = text.encode()
    match data.draw(st.sampled_from(["cut", "bytes", "key", "value", "other"])):
        case "cut":
            return raw[: data.draw(st.integers(0, len(raw)))]
        case "bytes":
            place = data.draw(st.integers(0, len(raw) - 1))
            return raw[:place] + data.draw(st.binary(min_size=1, max_size=4)) + raw[place + 1 :]
        case "other":
            return json.dumps(data.draw(values)).encode()
        case "key":
            value: dict[str, Any] = json.loads(text)
            value.pop(data.draw(st.sampled_from(sorted(value))))
            return json.dumps(value).encode()
        case _:
            value = json.loads(text)
            value[data.draw(st.sampled_from(sorted(value)))] = data.draw(values)
            return json.dumps(value).encode()


@given(data=st.data())
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_broken_file_stops_nothing(save_dir: Path, data: st.DataObject) -> None:
    files = sorted(path for path in save_dir.rglob("*.json") if path.is_file())
    file = data.draw(st.sampled_from(files))
    good = file.read_bytes()
    try:
        file.write_bytes(mutate(data, good.decode()))
        look(save_dir)
    finally:
        file.write_bytes(good)


def test_the_intact_save_directory_is_understood(save_dir: Path) -> None:
    jobs = {(job.experiment, job.job): job.state for job in look(save_dir).jobs}
    assert jobs[("done", "train")] is JobState.COMPLETED
    assert jobs[("running", "train")] is JobState.UNKNOWN
