"""What report cases are built from: jobs with requests and records, metrics, settings of real experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcbench.schemas.arguments import EvalArgs, SftArgs
from hpcbench.schemas.collection import JobView
from hpcbench.schemas.metrics import EvalMetrics, InferSpeed, Metrics, Parameters, RankMemory, TaskResult, TrainMetrics
from hpcbench.schemas.record import Attempt, Cause, Record, SampledMemory
from hpcbench.schemas.request import Command, JobRequest, Resources
from hpcbench.schemas.states import JobState

COLLECTED_AT = "2026-07-01T12:34:56+00:00"
SAVE_DIR = Path("/shared/logs")
A100: dict[str, Any] = {
    "host": "gpu-03",
    "cpu": "AMD EPYC 7763 64-Core Processor",
    "num_cpus": 16,
    "gpus": {"names": ["NVIDIA A100-SXM4-80GB"], "memory_total_mib": [81920], "driver": "570.86.15"},
    "python": "3.12.9",
    "packages": {"torch": "2.11.0", "transformers": "5.16.1", "peft": "0.20.0", "lm_eval": "0.4.13"},
    "python_executable": "/opt/venv/bin/python",
    "git": {"commit": "4f1c2d0e", "dirty": False},
    "slurm": {"job_id": "4711", "job_partition": "gpu", "cluster_name": "uni"},
}
LAPTOP: dict[str, Any] = {
    "host": "laptop",
    "gpus": None,
    "cpu": "AMD Ryzen 7 7840U",
    "python": "3.12.9",
    "packages": {"torch": "2.11.0+cpu", "transformers": "5.16.1", "peft": "0.20.0", "lm_eval": "0.4.13"},
}
LORA: dict[str, Any] = {"sft_type": "lora", "lora_rank": 8, "lora_alpha": 32, "lora_target_modules": ["ALL"]}
QWEN: dict[str, Any] = {
    "model_type": "qwen-7b-chat",
    "dataset": ["ms-agent"],
    "train_dataset_mix_ratio": 2.0,
    "learning_rate": 5e-5,
    "num_train_epochs": 2,
    "use_flash_attn": True,
    "gradient_checkpointing": True,
}
PIG_LATIN: dict[str, Any] = {
    "model_type": "smollm2-135m",
    "dataset": ["/home/me/data/pig_latin.jsonl"],
    "learning_rate": 1e-3,
    "max_steps": 120,
}


def make_job(
    experiment: str,
    job: str,
    *,
    suite: str,
    cmd: Command = "sft",
    args: dict[str, Any] | None = None,
    state: JobState = JobState.COMPLETED,
    metrics: Metrics | None = None,
    environment: dict[str, Any] | None = None,
    cause: Cause | None = None,
    reason: str = "",
    progress: dict[str, Any] | None = None,
    limit: int | None = None,
    sampled: SampledMemory | None = None,
    version: str = "0.1.0",
    num_gpus: int = 1,
) -> JobView:
    """Return a job with its request and, where there is something to tell, its record."""
    request = JobRequest(
        suite=suite,
        experiment=experiment,
        job=job,
        cmd=cmd,
        fingerprint="0" * 64,
        resources=Resources(gpu=num_gpus, ddp=max(num_gpus, 1)),
        args=None if args is None else SftArgs.model_validate(args),
        eval_dataset=job.removeprefix("eval-") if cmd == "eval" else None,
        eval_args=EvalArgs(limit=limit) if cmd == "eval" else None,
    )
    record = None
    if metrics is not None or cause is not None:
        record = _record(request, state, metrics=metrics, cause=cause, sampled=sampled).model_copy(
            update={"environment": environment or {}, "hpcbench_version": version}
        )
    return JobView(
        suite=suite,
        experiment=experiment,
        job=job,
        state=state,
        reason=reason,
        folder=SAVE_DIR / suite / experiment / job,
        request=request,
        record=record,
        progress=progress or {},
        parent=(experiment, "train") if state is JobState.BLOCKED else None,
    )


def _record(
    request: JobRequest, state: JobState, *, metrics: Metrics | None, cause: Cause | None, sampled: SampledMemory | None
) -> Record:
    started_at, finished_at = "2026-07-01T08:00:00+00:00", "2026-07-01T09:00:00+00:00"
    attempt = Attempt(
        number=1,
        state=state,
        started_at=started_at,
        finished_at=finished_at,
        duration_s=3600.0,
        scheduler_id="4711_0",
        host="gpu-03",
        cause=cause,
        sampled=sampled,
    )
    return Record(
        hpcbench_version="0.1.0",
        suite=request.suite,
        experiment=request.experiment,
        job=request.job,
        cmd=request.cmd,
        state=state,
        fingerprint=request.fingerprint,
        cause=cause,
        attempts=(attempt,),
        metrics=metrics,
        started_at=started_at,
        finished_at=finished_at,
    )


def train_metrics(
    *,
    trainable: int,
    total: int,
    train_loss: float,
    eval_loss: float,
    num_samples: int,
    train_time_s: float,
    reserved_gib: tuple[float, ...] = (),
    host_rss_gib: float | None = None,
    tokens_per_sample: int = 400,
    mfu: float | None = None,
    attention: str = "sdpa",
) -> TrainMetrics:
    """Return the metrics of a training whose speeds follow from its samples and seconds."""
    memory = tuple(
        RankMemory(rank=rank, reserved_gib=peak, allocated_gib=peak - 1) for rank, peak in enumerate(reserved_gib)
    )
    if host_rss_gib is not None:
        memory = (RankMemory(rank=0, host_rss_gib=host_rss_gib),)
    return TrainMetrics(
        parameters=Parameters(trainable=trainable, total=total),
        memory=memory,
        train_loss=train_loss,
        eval_loss=eval_loss,
        num_steps=120,
        num_epochs=2.0,
        num_samples=num_samples,
        num_tokens=num_samples * tokens_per_sample,
        train_time_s=train_time_s,
        samples_per_second=num_samples / train_time_s,
        tokens_per_second=num_samples * tokens_per_sample / train_time_s,
        mfu=mfu,
        attention=attention,
        global_batch_size=16,
    )


def eval_metrics(
    dataset: str,
    metric: str,
    value: float,
    *,
    stderr: float | None = None,
    num_samples: int = 200,
    num_fewshot: int | None = 0,
    infer: tuple[int, float] | None = None,
    baseline: bool = False,
    eval_loss: float | None = None,
    debug: bool = False,
) -> EvalMetrics:
    """Return the metrics of one eval with one task."""
    name, _, kind = metric.partition(",")
    metrics: dict[str, float | str | None] = {
        metric: value,
        f"{name}_stderr,{kind}": "N/A" if stderr is None else stderr,
    }
    return EvalMetrics(
        dataset=dataset,
        primary_metric=metric,
        primary_task=dataset,
        tasks={
            dataset: TaskResult(
                metrics=metrics, num_samples=num_samples, num_fewshot=num_fewshot, higher_is_better={name: True}
            )
        },
        infer=None
        if infer is None
        else InferSpeed(num_tokens=infer[0], time_s=infer[1], tokens_per_second=infer[0] / infer[1]),
        eval_loss=eval_loss,
        checkpoint_choice="baseline" if baseline else "best",
        chat_template_applied=True,
        lm_eval_version="0.4.13",
        debug=debug,
    )
