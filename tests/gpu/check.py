"""Try everything that needs a GPU, and print what works, what fails and how fast it is.

    python -m tests.gpu.check [--device cpu] [--out FOLDER] [--only NAME,...] [--within SECONDS]

In: one machine with the worker's libraries; nothing is downloaded. Out: a line for each row as it ends, a Markdown table
at the end, and `FOLDER/DEVICE/results/*.json`: a second run keeps the rows that worked and tries the others. Rows go the way of
a suite: what plan refuses is not tried. Each is a process of its own, forked once torch is imported, since liger and
torch.compile change a process permanently. A check, not a test: it asserts nothing, and exits with 1 where a row failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tabulate import tabulate

from hpcbench.config.loading import load_suites
from hpcbench.errors import ConfigError
from hpcbench.plan.requests import plan_suite
from hpcbench.schemas.libraries import missing_libraries
from hpcbench.schemas.request import JobRequest
from hpcbench.storage.json_files import read_json, write_json
from hpcbench.storage.paths import AttemptPaths, JobPaths
from tests.gpu.rows import ROWS, GpuRow

State = Literal["works", "fails", "refused by plan", "lacks a library", "lacks GPUs", "not run"]
TOLERANCE: Final = {"cuda": 0.05, "cpu": 0.001}
"""Largest difference of a step's loss (about 11 nats) from the reference's: bf16 on GPUs, fp32 on CPUs."""
ON_CPU: Final = " on a CPU; not yet run on a GPU"
NUM_STEPS: Final = 12
ROW_LIMIT_S: Final = {"cuda": 100, "cpu": 400}
"""A row that takes longer is ended; inductor's C++ takes minutes on a busy CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a row came to."""

    name: str
    state: State
    step_s: float | None = None
    """Median of the optimizer steps."""
    tokens_per_second: float | None = None
    memory_gib: float | None = None
    """Peak that torch allocated on the GPU; on a CPU the process's."""
    losses: tuple[float, ...] = ()
    difference: float | None = None
    """Largest difference of a loss from the reference's."""
    ran: str = ""
    """What the record says that ran."""
    why: str = ""
    wall_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where rows run."""

    folder: Path
    device: str
    num_gpus: int

    def result_file(self, name: str) -> Path:
        """Return where a row's result is kept."""
        return self.folder / "results" / f"{name.replace(' ', '-')}.json"

    def read_result(self, name: str) -> Result | None:
        """Return what is kept of a row."""
        found = read_json(self.result_file(name))
        return None if found is None else Result(**{**found, "losses": tuple(found["losses"])})


def main() -> int:
    """Try the rows and print the table; return 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--out", type=Path, default=Path("gpu-check"), metavar="FOLDER")
    parser.add_argument("--only", default="", metavar="NAME,...")
    parser.add_argument("--within", type=float, default=450, metavar="SECONDS")
    options = parser.parse_args()
    started_s = time.monotonic()
    place = find_place(options.out, options.device)
    place.folder.mkdir(parents=True, exist_ok=True)
    # In a process of its own: threads of OpenMP that ran before a fork can hang the child.
    subprocess.run([sys.executable, "-m", "tests.gpu.inputs", str(place.folder), place.device], check=True)
    _import_worker(place.device)
    wanted = [name.strip() for name in options.only.split(",") if name.strip()]
    if unknown := sorted(set(wanted) - {row.name for row in ROWS}):
        parser.error(f"unknown row {unknown[0]!r}; expected: {', '.join(row.name for row in ROWS)}")
    rows = [row for row in ROWS if not wanted or row.name in wanted]
    results = []
    for row in rows:
        result = place.read_result(row.name)
        if result is None or result.state != "works":
            left_s = options.within - (time.monotonic() - started_s)
            result = try_row(row, place, limit_s=min(ROW_LIMIT_S[place.device], left_s))
            write_json(place.result_file(row.name), asdict(result))
        results.append(result)
        print(
            f"{result.wall_s:6.1f} s  {result.name}: {result.state}{': ' if result.why else ''}{result.why}", flush=True
        )
    print(f"\n{render(results, place)}")
    return int(any(result.state == "fails" for result in results))


def find_place(out: Path, device: str) -> Place:
    """Return where rows run; each device has its own inputs and results, so that a rehearsal counts for no GPU."""
    return Place(folder=out.absolute() / device, device=device, num_gpus=_count_gpus(device))


def try_row(row: GpuRow, place: Place, *, limit_s: float) -> Result:
    """Plan a row, run it, and compare its losses."""
    if limit_s <= 0:
        return Result(name=row.name, state="not run", why="no time was left; run it again")
    started_s = time.monotonic()
    try:
        request = plan_row(row, place)
    except ConfigError as error:
        why = _first_line(str(error)).split(": ", 1)[-1]
        return Result(name=row.name, state="refused by plan", why=why)
    if missing := missing_libraries([request]):
        return Result(name=row.name, state="lacks a library", why=", ".join(missing))
    if place.device == "cuda" and request.resources.gpu > place.num_gpus:
        return Result(name=row.name, state="lacks GPUs", why=f"{request.resources.gpu}, and {place.num_gpus} is here")
    job = JobPaths(place.folder / "jobs" / place.result_file(row.name).stem)
    write_json(job.request, request.model_dump(mode="json"))
    number = 1 + len(list(job.folder.glob("attempt-*")))
    attempt = job.attempt(number)
    attempt.folder.mkdir(parents=True, exist_ok=True)
    ended = _run_job(request, row, attempt, limit_s) if row.whole_job else _run_worker(request, job, attempt, limit_s)
    result = _judge(row, attempt, place, ended)
    return Result(**{**asdict(result), "wall_s": time.monotonic() - started_s})


def plan_row(row: GpuRow, place: Place) -> JobRequest:
    """Return a row's job, as plan makes it of a suite.

    Raises:
        ConfigError: plan refuses it.
    """
    is_gpu = place.device == "cuda"
    usual: dict[str, Any] = {"model_id_or_path": "model"}
    if row.cmd == "infer":
        usual |= {"val_dataset": "rows.jsonl", "val_dataset_sample": 16}
    else:
        usual |= {
            "dataset": "rows.jsonl",
            "dataset_test_ratio": 0.05,
            "dtype": "bf16" if is_gpu else "fp32",
            "max_steps": NUM_STEPS,
            "batch_size": 4,
            "gradient_accumulation_steps": 1,
            "eval_steps": NUM_STEPS,
            "max_length": 1024,
            "dataloader_num_workers": 0,
            "save_strategy": "no",
        }
        if row.args.get("sft_type", "lora") == "lora":
            usual |= {"lora_target_modules": "ALL", "lora_dropout_p": 0.0}
    document = {
        "cmd": row.cmd,
        "device": place.device,
        "requirements": dict(row.requirements) if is_gpu else {"gpu": 0, "ddp": row.requirements["ddp"]},
        "args": {**usual, **row.args},
        "experiment": [{"name": "row"}],
    }
    file = place.folder / "row.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return plan_suite(load_suites([file])[0], save_dir=place.folder, inputs={})[0]


def _count_gpus(device: str) -> int:
    """Return the GPUs that torch sees, asked for in another process: this one forks, and must not touch them."""
    if device == "cpu":
        return 0
    program = "import torch; print(torch.cuda.device_count())"
    return int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout)


def _import_worker(device: str) -> None:
    """Import what all rows need, without touching a GPU."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # the other check spoils GPUs for forks
    import datasets  # noqa: F401
    import transformers  # noqa: F401

    if device == "cpu":  # on a GPU peft imports bitsandbytes, which asks the GPU what it can do
        import hpcbench.worker.train.sft  # noqa: F401


def _has_touched_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_initialized())


def _run_worker(request: JobRequest, job: JobPaths, attempt: AttemptPaths, limit_s: float) -> str:
    """Run a worker, in a fork of this process or under torchrun; return what ended it."""
    ranks = request.resources.ddp
    if ranks > 1 or _has_touched_gpu():
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
        return _run_program(
            [*launcher, "-m", "hpcbench.worker", str(job.folder), str(attempt.folder)], attempt, limit_s
        )
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        log = os.open(attempt.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        from hpcbench.worker.__main__ import main as run_worker

        code = 1
        with contextlib.suppress(BaseException):
            code = run_worker([str(job.folder), str(attempt.folder)])
        os._exit(code)
    ends_s = time.monotonic() + limit_s
    while time.monotonic() < ends_s:
        if os.waitpid(child, os.WNOHANG)[0]:
            return "end"
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return f"no end within {limit_s:.0f} s"


def _run_job(request: JobRequest, row: GpuRow, attempt: AttemptPaths, limit_s: float) -> str:
    """Run `hpcbench sft` with the row's arguments; return what ended it."""
    if request.args is None:
        return "no arguments"
    given = request.args.model_dump(mode="json")
    options = [
        word
        for name, value in given.items()
        if request.args.differs_from_default(name)
        for word in (f"--{name}", _as_word(value))
    ]
    where = ["--save_dir", str(attempt.folder / "save"), "--name", "row", "--device", request.device]
    return _run_program(["-m", "hpcbench", "sft", *where, *options], attempt, limit_s)


def _as_word(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _run_program(words: Sequence[str], attempt: AttemptPaths, limit_s: float) -> str:
    with attempt.log.open("ab") as log:
        try:
            process = subprocess.run([sys.executable, *words], stdout=log, stderr=log, timeout=limit_s, check=False)
        except subprocess.TimeoutExpired:
            return f"no end within {limit_s:.0f} s"
    return "end" if process.returncode == 0 else f"exit code {process.returncode}; see {attempt.log}"


def _judge(row: GpuRow, attempt: AttemptPaths, place: Place, ended: str) -> Result:
    """Return what a row came to, from the files that it left."""
    if row.whole_job:
        return _judge_record(row, attempt, place, ended)
    failure = read_json(attempt.failure(0)) if attempt.failure(0).exists() else None
    metrics = read_json(attempt.metrics) if attempt.metrics.exists() else None
    if row.fails_with is not None and failure is not None:
        is_it = str(failure["type"]) == row.fails_with
        return Result(name=row.name, state="works" if is_it else "fails", why=_first_line(str(failure["message"])))
    if metrics is None or row.fails_with is not None:
        why = ended if failure is None else f"{failure['type']}: {failure['message']}"
        return Result(name=row.name, state="fails", why=_first_line(why))
    losses = () if row.cmd == "infer" else _read_losses(attempt)
    difference, why = compare_losses(row, losses, place)
    ran = ", ".join(f"{name}: {value}" for name, value in sorted((metrics.get("took_effect") or {}).items()))
    memory: dict[str, Any] = next(iter(metrics.get("memory") or ()), {})
    return Result(
        name=row.name,
        state="fails" if why else "works",
        step_s=metrics.get("step_time_median_s"),
        tokens_per_second=metrics.get("steady_tokens_per_second") or metrics.get("decode_tokens_per_second"),
        memory_gib=memory.get("allocated_gib") or memory.get("host_rss_gib"),
        losses=losses,
        difference=difference,
        ran="; ".join(part for part in (str(metrics.get("attention") or ""), ran) if part),
        why=why,
    )


def _judge_record(row: GpuRow, attempt: AttemptPaths, place: Place, ended: str) -> Result:
    found = next((attempt.folder / "save").rglob("record.json"), None)
    record = None if found is None else read_json(found)
    if record is None:
        return Result(name=row.name, state="fails", why=f"no record: {ended}")
    energy_wh = (record.get("sampled") or {}).get("gpu_energy_wh")
    ran = f"{energy_wh:.3g} Wh on the GPU" if energy_wh else "its energy is not measured"
    if record.get("state") != "completed":
        return Result(name=row.name, state="fails", ran=ran, why=f"{record.get('state')}: {ended}")
    # A GPU whose energy nothing measured would leave a column of the reports empty.
    return Result(name=row.name, state="works" if energy_wh or place.device == "cpu" else "fails", ran=ran)


def _read_losses(attempt: AttemptPaths) -> tuple[float, ...]:
    lines = map(json.loads, attempt.history.read_text(encoding="utf-8").splitlines())
    return tuple(line["loss"] for line in lines if line.get("loss") is not None)


def compare_losses(row: GpuRow, losses: tuple[float, ...], place: Place) -> tuple[float | None, str]:
    """Return the largest difference from the reference's losses, and what is wrong with it."""
    if row.cmd != "infer" and len(losses) < NUM_STEPS:
        return None, f"{len(losses)} of {NUM_STEPS} losses are finite"
    reference = None if row.same_losses_as is None else place.read_result(row.same_losses_as)
    if reference is None or not reference.losses:
        return None, ""
    difference = max(abs(a - b) for a, b in zip(losses, reference.losses, strict=True))
    allowed = TOLERANCE[place.device]
    return difference, "" if difference <= allowed else f"losses differ by {difference:.3g}, more than {allowed}"


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def render(results: Sequence[Result], place: Place) -> str:
    """Return the Markdown table."""

    def number(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:,.{digits}f}"

    header = ("row", "", "ms/step", "tokens/s", "peak GiB", "last loss", "loss differs by", "what ran, or why not")
    lines = [
        (
            result.name,
            result.state + (ON_CPU if place.device == "cpu" else ""),
            number(None if result.step_s is None else result.step_s * 1000, 1),
            number(result.tokens_per_second, 0),
            number(result.memory_gib, 2),
            number(result.losses[-1] if result.losses else None, 4),
            "" if result.difference is None else f"{result.difference:.1e}",
            (result.why or result.ran).replace("|", "\\|"),
        )
        for result in results
    ]
    return tabulate(lines, header, tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    sys.exit(main())
