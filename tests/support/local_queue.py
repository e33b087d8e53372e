"""A save directory with a local queue whose jobs are shell commands, for tests that run them for real."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hpcbench.processes.process_tree import ProcessIdentity
from hpcbench.scheduler.local.choose_starts import Machine
from hpcbench.scheduler.local.queue_files import LocalQueue
from hpcbench.scheduler.local.runner import run_queue
from hpcbench.scheduler.local.scheduler import LocalScheduler
from hpcbench.scheduler.protocol import SchedulerJob
from hpcbench.schemas.request import Resources
from hpcbench.schemas.states import JobState
from hpcbench.schemas.submission import Element, Submission, write_submission
from hpcbench.storage.paths import SuitePaths

FOLDER = "it's logs"
"""A name that breaks careless quoting."""
GO = 'until [ -e "$WORLD/go" ]; do sleep 0.05; done'
"""Shell command that waits until the test lets it go."""
MACHINE = Machine(gpus=("0", "1"), cpus=2)
DRIVER = """
import json, sys
from pathlib import Path
from hpcbench.scheduler.local.runner import run_queue
from hpcbench.scheduler.local.choose_starts import Machine
save_dir, grace = Path(sys.argv[1]), float(sys.argv[2])
def job_command(submission, index):
    return ["sh", "-c", json.loads((save_dir / "commands.json").read_text())[submission.elements[index].experiment]]
machine = Machine(gpus=("0", "1"), cpus=2)
sys.exit(run_queue(save_dir, display=True, job_command=job_command, machine=machine, stop_grace_s=grace))
"""


class World:
    """The save directory; commands are named by experiment and find it as $WORLD."""

    def __init__(self, save_dir: Path) -> None:
        self.save_dir = save_dir
        self.commands: dict[str, str] = {}
        self.scheduler = LocalScheduler(save_dir)
        self.submissions: dict[str, Submission] = {}

    def submit(
        self, key: str, commands: dict[str, str], *, job: str = "train", after: str | None = None, **resources: int
    ) -> str:
        """Queue one job per command, all with the same resources; return the id."""
        names = {name: command for name, command in commands.items() if command}
        self.commands |= {f"{name}" if job == "train" else f"{name}-{job}": command for name, command in names.items()}
        (self.save_dir / "commands.json").write_text(json.dumps(self.commands), encoding="utf-8")
        elements = {
            index: Element(experiment=name if job == "train" else f"{name}-{job}", job=job, fingerprint="f" * 64)
            for index, name in enumerate(commands)
            if commands[name]
        }
        submission = Submission(
            key=key,
            suite="demo",
            cluster="local",
            created_at="2026-01-01T00:00:00Z",
            after_key=after,
            resources=Resources(**{"gpu": 0, **resources}),
            elements=elements,
        )
        write_submission(SuitePaths(self.save_dir, "demo"), submission)
        after_id = None if after is None else self.submissions[after].scheduler_id
        scheduler_id = self.scheduler.submit(submission, after_id)
        self.submissions[key] = submission.model_copy(update={"state": "submitted", "scheduler_id": scheduler_id})
        write_submission(SuitePaths(self.save_dir, "demo"), self.submissions[key])
        return scheduler_id

    def run(self, machine: Machine = MACHINE, *, display: bool = False) -> int:
        """Run the queue in this process."""
        return run_queue(self.save_dir, display=display, job_command=self.command, machine=machine, stop_grace_s=2.0)

    def command(self, submission: Submission, index: int) -> list[str]:
        return ["sh", "-c", self.commands[submission.elements[index].experiment]]

    def start_driver(self, grace_s: float = 5.0) -> subprocess.Popen[str]:
        """Run the queue in a process of its own."""
        argv = [sys.executable, "-c", DRIVER, str(self.save_dir), str(grace_s)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def jobs(self) -> dict[str, SchedulerJob]:
        """Return what a query says, by experiment."""
        answer = self.scheduler.query(list(self.submissions.values()))
        assert answer.history_known
        return {self.submissions[key].elements[index].experiment: job for (key, index), job in answer.jobs.items()}

    def states(self) -> dict[str, JobState]:
        return {name: job.state for name, job in self.jobs().items()}

    def process(self, name: str) -> ProcessIdentity | None:
        """Return the process that the state file of an experiment's job names."""
        queue = LocalQueue(self.save_dir)
        queue.reload()
        found = [e.element_id for e in queue.elements.values() if e.submission.elements[e.index].experiment == name]
        return queue.state(found[0]).process

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"still not so after {timeout_s:g} s"
            time.sleep(0.02)

    def lines(self, name: str) -> list[str]:
        """Return the lines of a file that jobs write."""
        path = self.save_dir / name
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def note(self, text: str = "$HPCBENCH_LOCAL_ID", file: str = "notes") -> str:
        """Return a shell command that appends a line to a file."""
        return f'echo {text} >> "$WORLD/{file}"'

    def processes(self) -> list[int]:
        """Return all living processes of this world's jobs, found by their environment."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                environ = (entry / "environ").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            ids = [s.scheduler_id or "" for s in self.submissions.values()]
            # Ids are alike in the worlds of other tests, which may run beside this one.
            is_here = f"WORLD={self.save_dir}\0".encode() in environ
            if state != "Z" and is_here and any(f"HPCBENCH_LOCAL_ID={i}_".encode() in environ for i in ids):
                found.append(int(entry.name))
        return found


@contextmanager
def make_world(save_dir: Path) -> Iterator[World]:
    """Give a world, and see to it that no process of it is left."""
    save_dir.mkdir()
    world = World(save_dir)
    yield world
    assert world.processes() == []
