"""Collections that reports are tested with: what suites of real experiments look like, written out by hand.

The figures of the GPU suites are the seed table's (`qwen-7b-chat`, ms-agent), read with its two losses under the right
names and its speeds over both epochs.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

from hpcbench.schemas.collection import Collection, ExperimentView, JobView, SuiteView
from hpcbench.schemas.metrics import CommandMetrics, EvalMetrics, TrainMetrics
from hpcbench.schemas.record import Cause, SampledMemory
from hpcbench.schemas.states import JobState
from tests.support.report_parts import (
    A100,
    COLLECTED_AT,
    LAPTOP,
    LORA,
    PIG_LATIN,
    QWEN,
    eval_metrics,
    make_job,
    train_metrics,
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
        return ExperimentView(suite=suite, name=name, cmd="sft", main=train, evals=(eval_job,))

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
    """Return a finished row of SWIFT 2.x's table: scores of gsm8k, arc and ceval, all generation in gsm8k."""
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
    return ExperimentView(suite="tuner", name=name, cmd="sft", main=train, evals=evals)


def tuner() -> Collection:
    """SWIFT 2.x's tuners on an A100: done, out of memory, failed with blocked evals, running, pending, two ranks, a baseline."""
    lora = {"trainable": 17_891_328, "total": 7_739_215_872}

    def metrics(**figures: Any) -> TrainMetrics:
        return train_metrics(num_samples=175_086, attention="flash_attention_2", **figures)

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
        _baseline(),
        *_unfinished(),
    )  # fmt: skip
    return Collection(
        suites=(SuiteView(name="tuner", experiments=experiments),),
        collected_at=COLLECTED_AT,
        warnings=("/shared/logs/tuner/old-run/train/record.json: schema version 0 is not read",),
    )


def _baseline() -> ExperimentView:
    """SWIFT 2.x's row of the untrained model."""
    jobs = tuple(
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
    return ExperimentView(suite="tuner", name="qwen-7b-chat-eval", cmd="eval", evals=jobs)


def _unfinished() -> tuple[ExperimentView, ...]:
    """Out of memory, failed with a log, running and pending, each with the evals it holds back."""
    full_long = {"sft_type": "full", "max_length": 8192}
    neftune = LORA | {"neftune_noise_alpha": 15.0}
    log = "attempt-1/output.log"
    message = "CUDA out of memory. Tried to allocate 9.27 GiB. GPU 0 has a total capacity of 79.25 GiB"
    oom = Cause(type="OutOfMemoryError", message=message, exit_code=1, log=log)
    failed = Cause(
        type="exit_code",
        message="exit code 3",
        exit_code=3,
        log=log,
        hint="see the last lines of the log",
        lines=("Traceback (most recent call last):", '  File "train.py", line 3, in <module>', "KeyError: 'a|b`c'"),
    )
    running = {"step": 340, "max_steps": 1250, "loss": 1.21, "samples_per_second": 1.9, "phase": "training"}
    return (
        _held_back("full+long", full_long, JobState.OUT_OF_MEMORY, JobState.BLOCKED, cause=oom, environment=A100),
        _held_back("lora+neftune", neftune, JobState.FAILED, JobState.BLOCKED, cause=failed, environment=A100),
        _held_back("lora+", LORA | {"lora_lr_ratio": 16.0}, JobState.RUNNING, JobState.PENDING, progress=running),
        _held_back("rslora", LORA | {"use_rslora": True}, JobState.PENDING, JobState.PENDING, reason="Priority"),
    )


def _held_back(name: str, args: dict[str, Any], state: JobState, eval_state: JobState, **told: Any) -> ExperimentView:
    train = make_job(name, "train", suite="tuner", args=QWEN | args, state=state, **told)
    reason = "its train job failed" if eval_state is JobState.BLOCKED else "waits for its train job"
    evals = tuple(
        make_job(name, f"eval-{dataset}", suite="tuner", cmd="eval", args=QWEN | args, state=eval_state, reason=reason)
        for dataset in ("gsm8k", "arc", "ceval")
    )
    return ExperimentView(suite="tuner", name=name, cmd="sft", main=train, evals=evals)


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
            ExperimentView(suite=suite, name=name, base_experiment="lora-r4", cmd="sft", main=train, evals=(eval_job,))
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
        ExperimentView(suite=suite, name="full", cmd="sft", main=full, evals=(cut,)),
        ExperimentView(suite=suite, name="llama.cpp", cmd="command", main=program),
    )
    return Collection(suites=(SuiteView(name=suite, experiments=experiments),), collected_at=COLLECTED_AT)


def sweep(*, repeats: int = 3, unfinished: int = 0) -> Collection:
    """Return 4 ranks x 5 rates x 5 dropouts of lora with `repeats` seeds each: 300 experiments by default.

    Args:
        repeats: seeds of each cell of the matrix.
        unfinished: cells, from the last one on, of which only the first repeat has completed.
    """
    cells = list(itertools.product((4, 8, 16, 32), (1e-5, 5e-5, 1e-4, 5e-4, 1e-3), (0.0, 0.05, 0.1, 0.2, 0.3)))
    views: list[ExperimentView] = []
    for number, (rank, rate, dropout) in enumerate(cells):
        base = f"q-r={rank}-lr={rate:g}-drop={dropout:g}"
        for repeat in range(repeats):
            is_done = repeat == 0 or number < len(cells) - unfinished
            args = PIG_LATIN | LORA | {
                "lora_rank": rank, "learning_rate": rate, "lora_dropout_p": dropout, "seed": 42 + repeat,
            }  # fmt: skip
            # Best at rank 16, 1e-4 and a dropout of 0.05; the last seed of each cell is a little better.
            score = 0.7 - abs(rank - 16) / 100 - abs(math.log10(rate) + 4) / 10 - abs(dropout - 0.05) / 2
            views.append(_sweep_member(base, repeat, args, score + repeat / 200, is_done=is_done, of=repeats))
    return Collection(suites=(SuiteView(name="sweep", experiments=tuple(views)),), collected_at=COLLECTED_AT)


def _sweep_member(
    base: str, repeat: int, args: dict[str, Any], score: float, *, is_done: bool, of: int
) -> ExperimentView:
    name = f"{base}-seed{repeat}" if of > 1 else base
    figures = train_metrics(
        trainable=152_640 * args["lora_rank"], total=134_515_008 + 152_640 * args["lora_rank"], train_loss=1.5 - score,
        eval_loss=1.4 - score, num_samples=1920, train_time_s=150.0 + args["lora_rank"], reserved_gib=(3.5,),
    )  # fmt: skip
    found = eval_metrics("gsm8k", "exact_match,strict-match", score, stderr=0.0137, num_samples=1319, num_fewshot=4)
    state = JobState.COMPLETED if is_done else JobState.PENDING
    common: dict[str, Any] = {"suite": "sweep", "args": args, "state": state, "environment": A100}
    train = make_job(name, "train", metrics=figures if is_done else None, **common)
    score_job = make_job(name, "eval-gsm8k", cmd="eval", metrics=found if is_done else None, **common)
    jobs = [_as_repeat(job, base, repeat) if of > 1 else job for job in (train, score_job)]
    return ExperimentView(
        suite="sweep", name=name, base_experiment=base if of > 1 else None, cmd="sft", main=jobs[0], evals=(jobs[1],)
    )


def _as_repeat(job: JobView, base: str, repeat: int) -> JobView:
    assert job.request is not None
    sources = {"lora_rank": "matrix", "learning_rate": "matrix", "lora_dropout_p": "matrix", "seed": "matrix"}
    update = {"repeat": repeat, "base_experiment": base, "source_of": sources}
    return replace(job, request=job.request.model_copy(update=update))
