"""Collections that reports are tested with: what suites of real experiments look like, written out by hand.

The figures of the GPU suites are the seed table's (`qwen-7b-chat`, ms-agent), read with its two losses under the right names
and its speeds over both epochs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpcbench.arguments import EvalArgs, SftArgs
from hpcbench.collection import Collection, ExperimentView, JobView, SuiteView
from hpcbench.record import (
    Attempt,
    Cause,
    CommandMetrics,
    EvalMetrics,
    InferSpeed,
    Metrics,
    Parameters,
    RankMemory,
    Record,
    SampledMemory,
    TaskResult,
    TrainMetrics,
)
from hpcbench.request import Command, JobRequest, Resources
from hpcbench.states import JobState

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
        attempt = Attempt(
            number=1,
            state=state,
            started_at="2026-07-01T08:00:00+00:00",
            finished_at="2026-07-01T09:00:00+00:00",
            duration_s=3600.0,
            scheduler_id="4711_0",
            host="gpu-03",
            cause=cause,
            sampled=sampled,
        )
        record = Record(
            hpcbench_version=version,
            suite=suite,
            experiment=experiment,
            job=job,
            cmd=cmd,
            state=state,
            fingerprint="0" * 64,
            cause=cause,
            attempts=(attempt,),
            metrics=metrics,
            environment=environment or {},
            started_at="2026-07-01T08:00:00+00:00",
            finished_at="2026-07-01T09:00:00+00:00",
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


def quickstart() -> Collection:
    """Four rows on a laptop without a GPU: the untrained model, two adapters, full fine-tuning; all done."""
    suite = "quickstart"

    def trained(name: str, args: dict[str, Any], metrics: TrainMetrics, score: EvalMetrics) -> ExperimentView:
        merged = PIG_LATIN | args
        train = make_job(name, "train", suite=suite, args=merged, metrics=metrics, environment=LAPTOP)
        eval_job = make_job(
            name, "eval-pig_latin", suite=suite, cmd="eval", args=merged, metrics=score, environment=LAPTOP
        )
        return ExperimentView(suite=suite, name=name, cmd="sft", train=train, evals=(eval_job,))

    baseline = make_job(
        "baseline",
        "eval-pig_latin",
        suite=suite,
        cmd="eval",
        args=PIG_LATIN,
        environment=LAPTOP,
        metrics=eval_metrics(
            "pig_latin", "exact_match,none", 0.005, stderr=0.005, infer=(1834, 61.2), baseline=True, eval_loss=3.9127
        ),
    )
    experiments = (
        ExperimentView(suite=suite, name="baseline", cmd="eval", evals=(baseline,)),
        trained(
            "lora-r4",
            LORA | {"lora_rank": 4, "lora_alpha": 8},
            train_metrics(
                trainable=1_221_120, total=135_736_128, train_loss=0.6213, eval_loss=0.4127, num_samples=1920,
                train_time_s=151.33, host_rss_gib=1.84, tokens_per_sample=38,
            ),
            eval_metrics("pig_latin", "exact_match,none", 0.455, stderr=0.0353, infer=(1411, 52.37)),
        ),
        trained(
            "lora-r32",
            LORA | {"lora_rank": 32, "lora_alpha": 64},
            train_metrics(
                trainable=9_768_960, total=144_283_968, train_loss=0.4471, eval_loss=0.2893, num_samples=1920,
                train_time_s=158.9, host_rss_gib=1.96, tokens_per_sample=38,
            ),
            eval_metrics("pig_latin", "exact_match,none", 0.61, stderr=0.0346, infer=(1402, 53.08)),
        ),
        trained(
            "full",
            {"sft_type": "full", "learning_rate": 2e-4},
            train_metrics(
                trainable=134_515_008, total=134_515_008, train_loss=0.3902, eval_loss=0.2411, num_samples=1920,
                train_time_s=204.51, host_rss_gib=3.42, tokens_per_sample=38,
            ),
            eval_metrics("pig_latin", "exact_match,none", 0.685, stderr=0.0329, infer=(1398, 47.12)),
        ),
    )  # fmt: skip
    return Collection(suites=(SuiteView(name=suite, experiments=experiments),), collected_at=COLLECTED_AT)


def qwen_row(
    name: str,
    args: dict[str, Any],
    metrics: TrainMetrics,
    scores: tuple[float, float, float],
    infer: tuple[int, float],
) -> ExperimentView:
    """Return a finished row of the seed's table: scores of gsm8k, arc and ceval, all generation in gsm8k."""
    merged = QWEN | args
    num_gpus = len(metrics.memory)
    environment = A100 | {"gpus": A100["gpus"] | {"names": A100["gpus"]["names"] * num_gpus}}
    train = make_job(
        name, "train", suite="tuner", args=merged, metrics=metrics, environment=environment, num_gpus=num_gpus
    )
    gsm8k, arc, ceval = scores
    found = (
        eval_metrics(
            "gsm8k", "exact_match,strict-match", gsm8k, stderr=0.0137, num_samples=1319, num_fewshot=4, infer=infer
        ),
        eval_metrics("arc", "acc_norm,none", arc, stderr=0.0138, num_samples=1172),
        eval_metrics("ceval", "acc,none", ceval, stderr=0.0132, num_samples=1346),
    )
    evals = tuple(
        make_job(
            name, f"eval-{metric.dataset}", suite="tuner", cmd="eval", args=merged, metrics=metric, environment=A100
        )
        for metric in found
    )
    return ExperimentView(suite="tuner", name=name, cmd="sft", train=train, evals=evals)


def tuner() -> Collection:
    """The seed's tuners on an A100: done, out of memory, failed with blocked evals, running, pending, two ranks, a baseline."""
    lora = {"trainable": 17_891_328, "total": 7_739_215_872}

    def metrics(**figures: Any) -> TrainMetrics:
        return train_metrics(num_samples=175_086, attention="flash_attention_2", **figures)

    baseline_jobs = tuple(
        make_job(
            "qwen-7b-chat-eval",
            f"eval-{found.dataset}",
            suite="tuner",
            cmd="eval",
            args=QWEN,
            metrics=found,
            environment=A100,
        )
        for found in (
            eval_metrics("gsm8k", "exact_match,strict-match", 0.517, stderr=0.0138, num_samples=1319, num_fewshot=4,
                         infer=(13765, 446.83), baseline=True),
            eval_metrics("arc", "acc_norm,none", 0.679, stderr=0.0136, num_samples=1172, baseline=True),
            eval_metrics("ceval", "acc,none", 0.568, stderr=0.0131, num_samples=1346, baseline=True),
        )
    )  # fmt: skip
    experiments = (
        qwen_row(
            "lora",
            LORA,
            metrics(**lora, train_loss=1.0134, eval_loss=0.5312, train_time_s=91974.29, reserved_gib=(32.35,), mfu=0.391),
            (0.462, 0.676, 0.304),
            (2415, 133.32),
        ),
        qwen_row(
            "dora",
            LORA | {"use_dora": True},
            metrics(
                trainable=19_251_200, total=7_740_575_744, train_loss=1.0091, eval_loss=0.5298, train_time_s=171110.54,
                reserved_gib=(32.46,), mfu=0.211,
            ),
            (0.466, 0.683, 0.577),
            (2413, 562.32),
        ),
        qwen_row(
            "full",
            {"sft_type": "full"},
            metrics(
                trainable=7_721_324_544, total=7_721_324_544, train_loss=0.9482, eval_loss=0.5391, train_time_s=61022.97,
                reserved_gib=(73.53,), mfu=0.437,
            ),
            (0.343, 0.536, 0.495),
            (3382, 114.62),
        ),
        qwen_row(
            "lora+ddp",
            LORA,
            metrics(
                **lora, train_loss=1.0136, eval_loss=0.5311, train_time_s=47290.1, reserved_gib=(35.65, 35.65), mfu=0.38
            ),
            (0.473, 0.664, 0.552),
            (4210, 160.73),
        ),
        ExperimentView(suite="tuner", name="qwen-7b-chat-eval", cmd="eval", evals=baseline_jobs),
        *_unfinished(),
    )  # fmt: skip
    return Collection(
        suites=(SuiteView(name="tuner", experiments=experiments),),
        collected_at=COLLECTED_AT,
        warnings=("/shared/logs/tuner/old-run/train/record.json: schema version 0 is not read",),
    )


def _unfinished() -> tuple[ExperimentView, ...]:
    def held_back(name: str, args: dict[str, Any], state: JobState, reason: str) -> tuple[JobView, ...]:
        return tuple(
            make_job(name, f"eval-{dataset}", suite="tuner", cmd="eval", args=QWEN | args, state=state, reason=reason)
            for dataset in ("gsm8k", "arc", "ceval")
        )

    oom = make_job(
        "full+long",
        "train",
        suite="tuner",
        args=QWEN | {"sft_type": "full", "max_length": 8192},
        state=JobState.OUT_OF_MEMORY,
        environment=A100,
        cause=Cause(
            type="OutOfMemoryError",
            message="CUDA out of memory. Tried to allocate 9.27 GiB. GPU 0 has a total capacity of 79.25 GiB",
            exit_code=1,
            log="attempt-1/output.log",
        ),
    )
    failed = make_job(
        "lora+neftune",
        "train",
        suite="tuner",
        args=QWEN | LORA | {"neftune_noise_alpha": 15.0},
        state=JobState.FAILED,
        environment=A100,
        cause=Cause(
            type="exit_code",
            message="exit code 3",
            exit_code=3,
            log="attempt-1/output.log",
            hint="see the last lines of the log",
            lines=("Traceback (most recent call last):", '  File "train.py", line 3, in <module>', "KeyError: 'a|b`c'"),
        ),
    )
    running = make_job(
        "lora+",
        "train",
        suite="tuner",
        args=QWEN | LORA | {"lora_lr_ratio": 16.0},
        state=JobState.RUNNING,
        progress={"step": 340, "max_steps": 1250, "loss": 1.21, "samples_per_second": 1.9},
    )
    pending = make_job(
        "rslora",
        "train",
        suite="tuner",
        args=QWEN | LORA | {"use_rslora": True},
        state=JobState.PENDING,
        reason="Priority",
    )
    after, blocked = "waits for its train job", "its train job failed"
    return (
        ExperimentView(
            suite="tuner",
            name="full+long",
            cmd="sft",
            train=oom,
            evals=held_back("full+long", {"sft_type": "full"}, JobState.BLOCKED, blocked),
        ),
        ExperimentView(
            suite="tuner",
            name="lora+neftune",
            cmd="sft",
            train=failed,
            evals=held_back("lora+neftune", LORA, JobState.BLOCKED, blocked),
        ),
        ExperimentView(
            suite="tuner",
            name="lora+",
            cmd="sft",
            train=running,
            evals=held_back("lora+", LORA, JobState.PENDING, after),
        ),
        ExperimentView(
            suite="tuner",
            name="rslora",
            cmd="sft",
            train=pending,
            evals=held_back("rslora", LORA, JobState.PENDING, after),
        ),
    )


def repeats() -> Collection:
    """Three seeds of one experiment beside a single run, a debug eval, two hpcbench versions and a program of the user's."""
    suite = "seeds"
    figures = ((0.4127, 0.455, 151.3), (0.4203, 0.43, 149.9), (0.4089, 0.475, 152.8))
    views = []
    for number, (loss, score, seconds) in enumerate(figures):
        name = f"lora-r4-seed{number}"
        args = PIG_LATIN | LORA | {"lora_rank": 4, "seed": 42 + number}
        train = make_job(
            name, "train", suite=suite, args=args, environment=LAPTOP, version="0.1.0" if number else "0.0.9",
            metrics=train_metrics(
                trainable=1_221_120, total=135_736_128, train_loss=loss + 0.2, eval_loss=loss, num_samples=1920,
                train_time_s=seconds, host_rss_gib=1.84 + number / 100, tokens_per_sample=38,
            ),
        )  # fmt: skip
        eval_job = make_job(
            name, "eval-pig_latin", suite=suite, cmd="eval", args=args, environment=LAPTOP,
            metrics=eval_metrics("pig_latin", "exact_match,none", score, stderr=0.035, infer=(1411, 52.37)),
        )  # fmt: skip
        views.append(
            ExperimentView(suite=suite, name=name, base_experiment="lora-r4", cmd="sft", train=train, evals=(eval_job,))
        )
    args = PIG_LATIN | {"sft_type": "full"}
    full = make_job(
        "full", "train", suite=suite, args=args, environment=LAPTOP,
        metrics=train_metrics(
            trainable=134_515_008, total=134_515_008, train_loss=0.39, eval_loss=0.2411, num_samples=1920,
            train_time_s=204.5, host_rss_gib=3.42, tokens_per_sample=38,
        ),
    )  # fmt: skip
    cut = make_job(
        "full", "eval-pig_latin", suite=suite, cmd="eval", args=args, environment=LAPTOP, limit=20,
        metrics=eval_metrics("pig_latin", "exact_match,none", 0.7, stderr=0.1051, num_samples=20, debug=True),
    )  # fmt: skip
    program = make_job(
        "llama.cpp", "train", suite=suite, cmd="command", environment=LAPTOP,
        metrics=CommandMetrics(values={"images_per_second": 81.25, "converged": True}),
        sampled=SampledMemory(host_rss_peak_gib=6.4),
    )  # fmt: skip
    experiments = (
        *views,
        ExperimentView(suite=suite, name="full", cmd="sft", train=full, evals=(cut,)),
        ExperimentView(suite=suite, name="llama.cpp", cmd="command", train=program),
    )
    return Collection(suites=(SuiteView(name=suite, experiments=experiments),), collected_at=COLLECTED_AT)
