"""A sweep of any size with the files that its jobs leave: requests, records and histories as plain values.

Every fiftieth training fails, by one of three causes in turn, and its eval has never run. Names are short, since this
sweep tests how many experiments there are, not how they are called.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hpcbench.schemas.arguments import EvalArgs, SftArgs
from hpcbench.schemas.request import JobRequest, Resources
from hpcbench.schemas.submission import Element, Submission, write_submission
from hpcbench.storage.json_files import write_json
from hpcbench.storage.paths import JobPaths, SuitePaths
from tests.support.report_parts import A100, QWEN, eval_metrics, train_metrics

SUITE: Final = "sweep"
FAILS_EVERY: Final = 50
REPEATS: Final = 4
JOBS_PER_SUBMISSION: Final = 1000
"""As clusters limit arrays."""
HISTORY_STEPS: Final = 60
RANKS: Final = (4, 8, 16, 32, 64)
RATES: Final = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4)
CAUSES: Final = (
    ("out_of_memory", "OutOfMemoryError", "CUDA out of memory. Tried to allocate 9.27 GiB. GPU 0 has 79.25 GiB"),
    ("failed", "Diverged", "the loss is NaN at step 40"),
    ("failed", "KeyError", "'response'"),
)
PACKAGES: Final = {
    "accelerate": "1.15.0", "bitsandbytes": "0.50.2", "datasets": "5.2.0", "lm_eval": "0.4.13", "numpy": "2.4.6",
    "peft": "0.21.2", "submitit": "1.5.4", "tokenizers": "0.23.3", "torch": "2.13.0", "transformers": "5.23.0",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptJob:
    """One job as it lies on disk."""

    name: str
    request: dict[str, Any]
    record: dict[str, Any] | None
    """None of an eval whose training failed."""
    history: str
    """Empty of an eval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """One experiment: a training and its eval."""

    name: str
    base: str
    resources: Resources
    jobs: tuple[SweptJob, SweptJob]


def sweep(save_dir: Path, num_experiments: int) -> Iterator[Swept]:
    """Yield the experiments of a sweep over rank, learning rate, batch size and dropout, four repeats of each."""
    resources = Resources(gpu=1, mem_gb=64.0, time_min=240)
    request = _request("train", "sft", resources)
    eval_request = _request("eval-gsm8k", "eval", resources)
    for number in range(num_experiments):
        point, repeat = divmod(number, REPEATS)
        varied = {
            "lora_rank": RANKS[point % 5],
            "learning_rate": RATES[point // 5 % 5],
            "batch_size": 2 ** (point // 25 % 4),
            "lora_dropout_p": point // 100 * 0.01,
            "seed": 42 + repeat,
        }
        base = f"r{varied['lora_rank']}-p{point}"
        name = f"{base}-v{repeat}"
        yield Swept(
            name=name,
            base=base,
            resources=resources,
            jobs=_jobs(save_dir / SUITE / name, number, varied, request, eval_request),
        )


def write_save_dir(save_dir: Path, num_experiments: int) -> None:
    """Write what the finished jobs of a sweep leave, as far as anything that reports reads it."""
    paths = SuitePaths(save_dir, SUITE)
    experiments: list[Swept] = []
    for experiment in sweep(save_dir, num_experiments):
        experiments.append(experiment)
        for job in experiment.jobs:
            _write_job(paths.job(experiment.name, job.name), job.request, job.record, job.history)
    for first in range(0, num_experiments, JOBS_PER_SUBMISSION):
        part = experiments[first : first + JOBS_PER_SUBMISSION]
        _write_submissions(paths, part, number=first // JOBS_PER_SUBMISSION)
    planned = [
        {"name": found.name, "base_experiment": found.base, "cmd": "sft", "jobs": [job.name for job in found.jobs]}
        for found in experiments
    ]
    plan = {"schema_version": 1, "suite": SUITE, "suite_file": f"/home/me/{SUITE}.yaml", "cluster": "uni"}
    write_json(paths.plan, plan | {"experiments": planned})


def _write_job(paths: JobPaths, request: dict[str, Any], record: dict[str, Any] | None, history: str) -> None:
    """Write one job's folder."""
    attempt = paths.attempt(1)
    write_json(paths.request, request, sync=False)
    if record is None:
        return
    write_json(paths.record, record, sync=False)
    write_json(attempt.record, record, sync=False)
    write_json(paths.claim, {"node": "gpu-03", "key": "unused", "attempt": 1}, sync=False)
    attempt.log.write_text("loading the model\ntraining\n", encoding="utf-8")
    if history:
        attempt.history.write_text(history, encoding="utf-8")


def _write_submissions(paths: SuitePaths, experiments: list[Swept], *, number: int) -> None:
    """Write the two arrays of some experiments: trainings, and the evals that wait for them."""
    for order, job in enumerate(("train", "eval-gsm8k")):
        elements = {
            index: Element(experiment=found.name, job=job, fingerprint=found.jobs[order].request["fingerprint"])
            for index, found in enumerate(experiments)
        }
        key = f"{SUITE}-{job}-{number}"
        submission = Submission(
            key=key,
            suite=SUITE,
            cluster="uni",
            state="submitted",
            scheduler_id=str(1000 + 2 * number + order),
            created_at=f"2026-07-01T07:{number:02}:{order:02}Z",
            resources=experiments[0].resources,
            elements=elements,
        )
        write_submission(paths, submission)
        paths.start_marks(key).mkdir(parents=True, exist_ok=True)
        for index, found in enumerate(experiments):
            if found.jobs[order].record is not None:
                paths.start_mark(key, index).touch()


def _request(job: str, cmd: Any, resources: Resources) -> dict[str, Any]:
    args = SftArgs.model_validate(QWEN | {"sft_type": "lora", "max_length": 2048})
    evaluates = cmd == "eval"
    varied = {"lora_rank", "learning_rate", "batch_size", "lora_dropout_p"}
    source_of = {name: "matrix" if name in varied else "suite" if name in QWEN else "default" for name in dict(args)}
    request = JobRequest(
        suite=SUITE,
        experiment="",
        job=job,
        cmd=cmd,
        fingerprint="",
        resources=resources,
        args=args,
        eval_dataset="gsm8k" if evaluates else None,
        eval_args=EvalArgs() if evaluates else None,
        suite_file=f"/home/me/{SUITE}.yaml",
        source_of=source_of,
    )
    return request.model_dump(mode="json")


def _jobs(
    folder: Path, number: int, varied: dict[str, Any], request: dict[str, Any], eval_request: dict[str, Any]
) -> tuple[SweptJob, SweptJob]:
    name = folder.name
    fails = number % FAILS_EVERY == FAILS_EVERY - 1
    common = {"experiment": name, "repeat": number % REPEATS, "base_experiment": name.rsplit("-", 1)[0]}
    train = request | common | {"fingerprint": f"{number:064x}", "args": request["args"] | varied}
    parent = {"train_folder": str(folder / "train"), "train_fingerprint": train["fingerprint"]}
    evaluation = eval_request | common | parent | {"fingerprint": f"{number:063x}e", "args": train["args"]}
    loss = 0.4 + (number * 7919 % 1000) / 2000
    record = _record(train, number, _train_metrics(number, loss).model_dump(mode="json"), 3600.0 + number % 600)
    if fails:
        state, kind, message = CAUSES[number // FAILS_EVERY % len(CAUSES)]
        cause = {"type": kind, "message": message, "exit_code": 1, "log": "attempt-1/output.log"}
        record |= {"state": state, "cause": cause, "metrics": None}
        record["attempts"][0] |= {"state": state, "cause": cause}
    score = eval_metrics("gsm8k", "exact_match,strict-match", 0.7 - loss / 2, stderr=0.0137, num_samples=1319,
                         num_fewshot=4, infer=(2400 + number % 90, 130.5))  # fmt: skip
    eval_record = None if fails else _record(evaluation, number, score.model_dump(mode="json"), 700.0 + number % 60)
    return (
        SweptJob(name="train", request=train, record=record, history=_history(loss, number)),
        SweptJob(name="eval-gsm8k", request=evaluation, record=eval_record, history=""),
    )


def _train_metrics(number: int, loss: float) -> Any:
    return train_metrics(
        trainable=17_891_328, total=7_739_215_872, train_loss=loss, eval_loss=loss + 0.05, num_samples=175_086,
        train_time_s=3500.0 + number % 600, reserved_gib=(32.35 + number % 16,), mfu=0.39,
        attention="flash_attention_2",
    )  # fmt: skip


def _record(request: dict[str, Any], number: int, metrics: dict[str, Any], duration_s: float) -> dict[str, Any]:
    started_at, finished_at = "2026-07-01T08:00:00.000Z", "2026-07-01T09:00:00.000Z"
    scheduler_id = f"{1000 + number // 1000}_{number % 1000}"
    sampled = {
        "gpu_peak_gib": [33.1], "gpu_utilization_mean_pct": 93.5, "gpu_power_mean_w": 341.0,
        "gpu_energy_wh": duration_s / 3600 * 341.0, "host_rss_peak_gib": 11.25,
    }  # fmt: skip
    attempt = {
        "number": 1, "state": "completed", "started_at": started_at, "finished_at": finished_at,
        "duration_s": duration_s, "scheduler_id": scheduler_id, "restart_count": 0, "host": f"gpu-{number % 16:02}",
        "cause": None, "sampled": sampled,
    }  # fmt: skip
    slurm = {"array_job_id": str(1000 + number // 1000), "array_task_id": str(number % 1000), "job_id": str(number),
             "cluster_name": "uni", "job_account": "bench", "job_nodelist": f"gpu-{number % 16:02}", "job_partition": "gpu"}  # fmt: skip
    folder = f"/shared/logs/{SUITE}/{request['experiment']}/{request['job']}"
    return {
        "schema_version": 1, "hpcbench_version": "0.2.0", "suite": SUITE, "experiment": request["experiment"],
        "job": request["job"], "cmd": request["cmd"], "state": "completed", "fingerprint": request["fingerprint"],
        "cause": None, "attempts": [attempt], "metrics": metrics, "request": request,
        "argv": ["/opt/venv/bin/python", "-m", "hpcbench.worker", folder, f"{folder}/attempt-1"],
        "environment": A100 | {"host": f"gpu-{number % 16:02}", "slurm": slurm, "packages": PACKAGES},
        "started_at": started_at, "finished_at": finished_at,
    }  # fmt: skip


def _history(loss: float, number: int) -> str:
    rows = (
        {"step": step, "loss": loss + 8 / (step + 3 + number % 7), "learning_rate": 1e-4, "grad_norm": 1.25,
         "step_time_s": 0.71, "num_tokens": 9410, "num_samples": 16, "epoch": step / 60}
        for step in range(1, HISTORY_STEPS + 1)
    )  # fmt: skip
    return "".join(f"{json.dumps(row)}\n" for row in rows)
